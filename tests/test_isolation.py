"""The running device as an intruder sees it: doors, descriptors, memory, spool and logs; and certified profiles."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from test_end_to_end import one_line, run_edge, spooled, start, wait_for

from ruyicam.cloud.data.clips import luma_frames, model_input
from ruyicam.cloud.errors import Exit
from ruyicam.cloud.family import FamilyConfig
from ruyicam.cloud.keys import load_private_key
from ruyicam.cloud.privacy.certificate import load_certificate
from ruyicam.cloud.privacy.profiles import CERTIFIED, release_plan
from ruyicam.export.bench_session import BenchSession
from ruyicam.export.bundle import export_bundle
from ruyicam.export.defaults import default_model

_IPC_LOCK, _SYS_PTRACE = 1 << 14, 1 << 19


def status(pid: int) -> dict[str, str]:
    """/proc/PID/status as a table."""
    return dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line)


def children_of(pid: int) -> list[int]:
    """The processes that `pid` has started and that still run."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def child_of(pid: int) -> int:
    """The one process that `pid` has started."""
    (child,) = children_of(pid)
    return child


def memory_of(pid: int) -> bytes:
    """All readable memory of a process."""
    parts = []
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", 0) as mem:
        for line in maps:
            span, rights, *_ = line.split()
            if rights[0] != "r" or line.rstrip().endswith(("[vvar]", "[vsyscall]", "[vvar_vclock]")):
                continue
            first, last = (int(x, 16) for x in span.split("-"))
            try:
                mem.seek(first)
                parts.append(mem.read(last - first))
            except (OSError, ValueError, OverflowError):
                continue
    return b"\0".join(parts)


@pytest.fixture(scope="module")
def session(tmp_path_factory, signed):
    """One server for all tests here: each has a state folder of its own."""
    folder = tmp_path_factory.mktemp("isolation") / "session"
    with BenchSession(default_model(), signed[0], signed[1], folder=folder) as running:
        yield running


@pytest.fixture
def running(session, long_clip, tmp_path):
    """(session, the keeper's process, pid of the process that sees frames, state folder), a few ticks into a clip.

    The keeper's child is the launcher, whose child sees frames."""
    state = tmp_path / "isolated"
    edge = start(session, long_clip, state, realtime=True)
    wait_for(lambda: len(spooled(state)) > 3)
    yield session, edge, child_of(child_of(edge.pid)), state
    if edge.poll() is None:
        edge.kill()
        edge.communicate()


def test_an_old_ledger_is_refused_and_a_new_one_is_noticed(session, made_clip):
    first = session.play(str(made_clip), "first")
    assert not session.wait_read(first["boot_id"])["ledger_went_back"]
    state = session.folder / "first"
    old = (state / "ledger.json").read_bytes()
    session.play(str(made_clip), "first")
    (state / "ledger.json").write_bytes(old)
    one_line(run_edge(session, str(made_clip), state), Exit.STORAGE, "an old copy")
    # Thrown away with its witness it begins anew, and the server sees that.
    (state / "ledger.json").unlink()
    (state / "witness.json").unlink()
    stats = session.play(str(made_clip), "first")
    assert session.wait_read(stats["boot_id"])["ledger_went_back"]


def test_the_process_that_sees_frames_has_no_way_out(running):
    if os.geteuid() != 0:
        pytest.skip("only root may look into a process that forbids it")
    _, edge, seer, _ = running
    s = status(seer)
    assert s["Seccomp"] == "2" and s["NoNewPrivs"] == "1"
    assert int(s["CapEff"], 16) & ~_IPC_LOCK == 0 and int(s["CapBnd"], 16) & ~_IPC_LOCK == 0
    assert Path(f"/proc/{seer}/limits").read_text().split("Max core file size")[1].split()[:2] == ["0", "0"]
    for space in ("net", "ipc"):
        assert os.readlink(f"/proc/{seer}/ns/{space}") != os.readlink(f"/proc/{edge.pid}/ns/{space}")
    interfaces = Path(f"/proc/{seer}/net/dev").read_text().splitlines()[2:]
    assert [line.split(":")[0].strip() for line in interfaces] == ["lo"]
    # One pipe out, one in for the answers, the clip, and descriptors that lead nowhere.
    writable = []
    # GStreamer wakes its own threads through pairs of sockets without a name, of this network namespace, which is empty.
    own = {line.split()[6]: line.split()[7:] for line in Path(f"/proc/{seer}/net/unix").read_text().splitlines()[1:]}
    for fd in Path(f"/proc/{seer}/fd").iterdir():
        target = os.readlink(fd)
        if target.startswith("socket:"):
            assert own[target[8:-1]] == [], target
            continue
        flags = int(Path(f"/proc/{seer}/fdinfo/{fd.name}").read_text().split("flags:\t")[1].split()[0], 8)
        if flags & os.O_ACCMODE and not target.startswith(("anon_inode:", "/dev/null")):
            writable.append(target)
    ours = [os.readlink(f"/proc/{edge.pid}/fd/{n}") for n in os.listdir(f"/proc/{edge.pid}/fd")]
    shared = [t for t in writable if t in ours]
    assert len(shared) == 1 and all(t.startswith("pipe:") for t in writable), writable
    keeper = status(edge.pid)
    assert keeper["Seccomp"] == "2" and not int(keeper["CapEff"], 16) & _SYS_PTRACE


def test_the_uplinks_user_may_not_look_inside(running, tmp_path):
    """From a process with the keeper's user and capabilities."""
    _, edge, seer, _ = running
    keeper = status(edge.pid)
    attempt = tmp_path / "attempt.py"
    attempt.write_text(
        f"""
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
opened = []
for door in ("mem", "maps", "environ", "fd/0", "auxv", "stack"):
    try:
        with open("/proc/{seer}/" + door, "rb") as file:
            # The first byte of memory is nobody's; being let in is what counts.
            door == "mem" or file.read(1)
        opened.append(door)
    except OSError:
        pass
if libc.ptrace(16, {seer}, 0, 0) == 0:
    opened.append("ptrace")
local = ctypes.create_string_buffer(8)
class V(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]
here, far = V(ctypes.addressof(local), 8), V(0x10000, 8)
if libc.process_vm_readv({seer}, ctypes.byref(here), 1, ctypes.byref(far), 1, 0) >= 0:
    opened.append("process_vm_readv")
print(",".join(opened))
"""
    )
    command = ["python3", str(attempt)]
    if os.geteuid() == 0:
        # With all of root's capabilities the same attempts succeed, so that the test can fail.
        able = subprocess.run(command, capture_output=True, text=True, timeout=30)
        assert "mem" in able.stdout and "ptrace" in able.stdout, able
        held = int(keeper["CapEff"], 16)
        names = {1: "dac_override", 3: "fowner"}
        kept = ",".join(f"+{names[i]}" for i in names if held >> i & 1)
        command = ["setpriv", f"--bounding-set=-all,{kept}", "--inh-caps=-all", "--no-new-privs", *command]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""


def test_no_frame_in_spool_log_or_the_uplinks_memory(running, long_clip, family, tmp_path):
    if os.geteuid() != 0:
        pytest.skip("only root may read the memory of a process that forbids it")
    _, edge, seer, state = running
    frames = [f.copy() for _, f in itertools.islice(luma_frames(long_clip), 120)]
    # Pieces of the textured ground, which is in every frame, and of what the encoder sees.
    pieces = [f[y, x : x + 12].tobytes() for f in frames[20::20] for y in range(3, 230, 60) for x in range(7, 300, 90)]
    rows = model_input(long_clip, family.config.input, 60)[10::10].reshape(-1, family.config.input.width)
    seen_rows = [row[i : i + 16].tobytes() for row in rows for i in (0, 64, 128) if len(set(row[i : i + 16])) > 8]
    pieces += seen_rows[:: max(1, len(seen_rows) // 60)]
    for pid in (edge.pid, seer):
        os.kill(pid, signal.SIGSTOP)
    seen, uplink = memory_of(seer), memory_of(edge.pid)
    for pid in (seer, edge.pid):
        os.kill(pid, signal.SIGCONT)
    found = sum(p in seen for p in pieces)
    assert found > 10, "the process that sees frames must hold some of them, or the search finds nothing"
    assert b"FeaturePacket" in uplink
    assert not any(p in uplink for p in pieces)
    edge.send_signal(signal.SIGTERM)
    _, log = edge.communicate(timeout=30)
    left = [p.read_bytes() for p in state.rglob("*") if p.is_file()] + [state.with_suffix(".json").read_bytes(), log.encode()]
    assert len(left) > 4
    assert not any(p in data for data in left for p in pieces)


def test_the_keeper_says_so_when_the_other_process_is_killed(running):
    _, edge, seer, _ = running
    os.kill(seer, signal.SIGKILL)
    _, log = edge.communicate(timeout=90)
    assert edge.returncode == Exit.INTERNAL and "ended unexpectedly" in log
    assert "Traceback" not in log


def test_nothing_is_left_when_the_keeper_is_killed(running):
    _, edge, seer, _ = running
    edge.kill()
    edge.communicate()
    wait_for(lambda: not Path(f"/proc/{seer}").exists() or status(seer)["State"].startswith("Z"))


def test_a_pipeline_that_writes_pictures_is_stopped(session, tmp_path):
    copy = tmp_path / "picture.raw"
    source = (
        "pipeline:videotestsrc num-buffers=30 ! video/x-raw,format=I420,width=320,height=240,framerate=10/1 ! tee name=t "
        f"t. ! queue ! filesink location={copy} t. ! queue"
    )
    code, lines = run_edge(session, source, tmp_path / "state")
    assert code == Exit.SOURCE and len(lines) == 1
    assert not copy.exists()


@pytest.fixture(scope="module", params=list(CERTIFIED))
def certified(request, tmp_path_factory, signed, family, made_clip):
    """A session with a bundle of a certified profile whose visits last two seconds."""
    folder = tmp_path_factory.mktemp(request.param)
    frames = model_input(made_clip, family.config.input)
    plan = release_plan(family.config, request.param, 2.0)
    report = export_bundle(family, folder / "c.ruyicam", load_private_key(signed[2]), frames, plan=plan)
    with BenchSession(default_model(), report.path, signed[1], folder=folder / "session") as running:
        yield running, plan


def test_a_certified_profile_releases_once_a_block_and_within_every_visit(certified, long_clip):
    session, plan = certified
    stats = session.play(str(long_clip))
    assert stats["ticks"] == 200 and stats["profile"] == plan.profile
    boot = session.wait_read(stats["boot_id"])
    # The first block ends where the second begins, and the last one is not over.
    blocks = 200 // plan.block_ticks - 1
    assert stats["released"] == blocks and boot["packets"] == 200
    assert {w["tier"] for w in boot["windows"]} == {"edge"}
    assert {w["behaviour"] for w in boot["windows"]} <= set(plan.alphabet)
    ledger = json.loads((session.folder / "run" / "ledger.json").read_text())["ledger"]
    assert ledger["releases"] == blocks and ledger["token_bits"] <= blocks * plan.worst_token + 1e-9
    times, mus, bits = np.array(ledger["visit"]).T
    for t in times:
        visit = (times >= t) & (times < t + 2e6 * plan.visit.seconds)
        assert mus[visit].sum() ** 0.5 <= plan.visit.mu and bits[visit].sum() <= plan.visit.token_bits + 1e-9
    said = load_certificate(next((session.folder / "run" / "certificates").glob("*.json"))).statement
    assert said.profile == plan.profile and said.budget.visit.mu == plan.visit.mu


def test_over_the_budget_of_a_day_only_dummies_leave(certified, long_clip):
    session, plan = certified
    session.stop_server()
    state = session.folder / "spent"
    limit = 2.5 * plan.worst_token
    run_edge(session, str(long_clip), state, drain_timeout_s=0, token_bits_per_day=limit)
    session.start_server()
    packets = spooled(state)
    assert len({p.ByteSize() for p in packets}) == 1 and len(packets) == 200
    due = [p for p in packets if p.sequence % plan.block_ticks == 0 and p.sequence > 0]
    assert {p.kind for p in due[:2]} == {1} and {p.kind for p in due[-3:]} == {2}
    assert all(p.token == 0 and p.features == bytes(len(p.features)) for p in packets if p.kind != 1)


def test_live_packets_leave_by_the_clock(session):
    """One packet per tick, though the camera gives a frame only now and then."""
    source = "pipeline:videotestsrc is-live=true num-buffers=8 ! video/x-raw,width=320,height=240,framerate=2/1"
    begin = time.monotonic()
    stats = session.play(source)
    assert time.monotonic() - begin > 3.5
    boot = session.wait_read(stats["boot_id"])
    ticks = 1 + 7 * FamilyConfig().input.rate_hz // 2
    assert boot["packets"] == stats["ticks"] and abs(stats["ticks"] - ticks) <= 1
    assert stats["stages"]["tick"]["count"] == 8
