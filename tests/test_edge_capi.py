"""The C API of the device: the example, and its corners through ctypes."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from test_end_to_end import wait_for
from test_isolation import child_of, children_of

from ruyicam.export.bench_session import BenchSession, find_edge

BUILD = Path(__file__).resolve().parent.parent / "build" / "default" / "edge"
OK, INVALID, SYSTEM, BUSY, ENDED = range(5)
WIDTH, HEIGHT = 320, 240


class Options(ctypes.Structure):
    """ruyicam_edge_options."""

    _fields_ = (
        ("struct_size", ctypes.c_size_t),
        ("config", ctypes.c_char_p),
        ("program", ctypes.c_char_p),
        ("stats", ctypes.c_char_p),
        ("push_frames", ctypes.c_int32),
    )


@pytest.fixture(scope="module")
def session(module_session):
    """One server for all tests here."""
    return module_session


@pytest.fixture(scope="module")
def library():
    """libruyicam-edge.so."""
    path = BUILD / "libruyicam-edge.so"
    if not path.exists():
        pytest.skip("needs a build in build/default")
    lib = ctypes.CDLL(str(path))
    handle = ctypes.c_void_p
    lib.ruyicam_edge_push.argtypes = (
        handle,
        ctypes.c_char_p,
        ctypes.c_int32,
        ctypes.c_int32,
        ctypes.c_ssize_t,
        ctypes.c_uint64,
    )
    for name in ("check", "exit_code", "free"):
        getattr(lib, f"ruyicam_edge_{name}").argtypes = (handle,)
    lib.ruyicam_edge_stop.argtypes = (handle, ctypes.c_int32)
    return lib


def config(session: BenchSession, folder: Path, **keys) -> Path:
    """edge.toml, as the program itself writes it; its source is none."""
    folder.mkdir(exist_ok=True)
    command = session.edge_command("none", folder / "state", folder / "stats.json", **keys)
    done = subprocess.run([*command, "--print-config"], capture_output=True, text=True, check=True)
    (folder / "edge.toml").write_text(done.stdout)
    return folder / "edge.toml"


def start(library, path: Path, program: Path | None = None, push: int = 1) -> ctypes.c_void_p:
    """A device."""
    options = Options(ctypes.sizeof(Options), str(path).encode(), str(program or find_edge()).encode(), None, push)
    device, message = ctypes.c_void_p(), ctypes.create_string_buffer(200)
    assert library.ruyicam_edge_start(ctypes.byref(options), ctypes.byref(device), message, 200) == OK, message.value
    return device


def push(library, device, number: int, width: int = WIDTH, height: int = HEIGHT) -> int:
    """One grey frame of a row of 20 a second."""
    return library.ruyicam_edge_push(device, bytes([100]) * (width * height), width, height, width, number * 50_000_000)


def push_all(library, device, count: int) -> int:
    """So many frames at their pace; how many were taken."""
    taken = 0
    for i in range(count):
        taken += push(library, device, i) == OK
        time.sleep(0.05)
    return taken


def test_the_example_delivers(session, tmp_path):
    example = BUILD / "push_frames"
    done = subprocess.run([example, config(session, tmp_path), "60", find_edge()], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("exit code 0\n") and "60 frames" in done.stdout
    assert "done ticks=" in done.stderr
    assert '"ticks": 3' in (tmp_path / "stats.json").read_text()
    wrong = tmp_path / "wrong.toml"
    wrong.write_text("colour = 1\n")
    done = subprocess.run([example, wrong, "100", find_edge()], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "unknown key 'colour'" in done.stderr


def test_wrong_arguments_change_nothing(library, session, tmp_path):
    message, device = ctypes.create_string_buffer(200), ctypes.c_void_p()
    assert library.ruyicam_edge_abi() == 1
    assert library.ruyicam_edge_start(None, ctypes.byref(device), message, 200) == INVALID and b"missing" in message.value
    options = Options(ctypes.sizeof(Options), b"edge.toml", b"no-such-program", None, 2)
    assert library.ruyicam_edge_start(ctypes.byref(options), ctypes.byref(device), message, 200) == INVALID
    options.push_frames = 1
    assert library.ruyicam_edge_start(ctypes.byref(options), ctypes.byref(device), message, 200) == SYSTEM
    assert b"no-such-program: No such file" in message.value and not device
    device = start(library, config(session, tmp_path))
    for arguments in ((None, 320, 240, 320), (b"x", 15, 240, 320), (b"x", 320, 9000, 320), (b"x", 320, 240, 319)):
        assert library.ruyicam_edge_push(device, *arguments, 0) == INVALID
    assert library.ruyicam_edge_exit_code(device) == -1
    assert push_all(library, device, 20) > 10
    assert library.ruyicam_edge_stop(device, 30000) == library.ruyicam_edge_stop(device, 0) == 0
    assert push(library, device, 0) == ENDED
    library.ruyicam_edge_free(device)
    library.ruyicam_edge_free(None)


def test_sizes_may_change_and_a_device_that_is_behind_drops_frames(library, session, tmp_path):
    device = start(library, config(session, tmp_path))
    assert push_all(library, device, 10) > 5
    assert push(library, device, 11, 640, 480) == OK
    time.sleep(0.2)
    mine = [p for p in children_of(os.getpid()) if str(tmp_path) in Path(f"/proc/{p}/cmdline").read_text()]
    seer = child_of(child_of(mine[0]))
    os.kill(seer, signal.SIGSTOP)
    begun = time.monotonic()
    said = [push(library, device, 12 + i, 192, 144) for i in range(200)]
    # It never waits for a device that does not read.
    assert BUSY in said and time.monotonic() - begun < 1
    os.kill(seer, signal.SIGCONT)
    wait_for(lambda: push(library, device, 300, 192, 144) == OK)
    assert library.ruyicam_edge_stop(device, 30000) == 0
    library.ruyicam_edge_free(device)


def test_it_is_started_again_after_an_update(library, session, tmp_path):
    """Exit code 10 asks for it."""
    program = tmp_path / "program"
    program.write_text(f'#!/bin/sh\nmkdir {tmp_path}/once 2>/dev/null && exit 10\nexec {find_edge()} "$@"\n')
    program.chmod(0o755)
    device = start(library, config(session, tmp_path / "lab"), program)
    wait_for(lambda: (tmp_path / "once").exists())
    time.sleep(0.2)
    assert push_all(library, device, 30) > 15
    assert library.ruyicam_edge_stop(device, 30000) == 0
    assert '"released": 1' in (tmp_path / "lab" / "stats.json").read_text()
    library.ruyicam_edge_free(device)


def test_with_a_source_of_its_own(library, session, made_clip, tmp_path):
    path = config(session, tmp_path)
    path.write_text(path.read_text().replace("source = 'none'", f"source = '{made_clip}'"))
    device = start(library, path, push=0)
    assert push(library, device, 0) == INVALID
    wait_for(lambda: library.ruyicam_edge_check(device) == ENDED)
    assert library.ruyicam_edge_exit_code(device) == 0
    library.ruyicam_edge_free(device)
