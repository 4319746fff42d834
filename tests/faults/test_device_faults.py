"""What happens to a device in the field. Nothing acknowledged or spooled is lost or stored twice, and it mends itself."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
from account import LIVE, Account, mount, recovered, stored
from bad_link import BadLink
from test_end_to_end import one_line, run_edge, spooled, start, wait_for
from test_isolation import children_of
from test_sources import camera, ended, newest  # noqa: F401

from ruyicam.cloud.errors import Exit

FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
pytestmark = [
    pytest.mark.timeout(1800),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: namespaces, mounts, other users' processes"),
]


def kill_at_random(edge: subprocess.Popen, rng: random.Random) -> None:
    """SIGKILL to any one of the device's processes; then, as a power cut would, to all."""
    pids = [edge.pid, *children_of(edge.pid)]
    pids += [c for pid in pids[1:] for c in children_of(pid)]
    for pid in (rng.choice(pids), edge.pid):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    edge.communicate()


def began(edge: subprocess.Popen, state: Path, known: set[str]) -> None:
    """Waits for the first packet of a boot that is not known, or for the end of a device that was quicker."""
    until = time.monotonic() + 30
    while not any(p.boot_id.hex() not in known for p in spooled(state)):
        if edge.poll() is not None:
            assert edge.returncode == 0, edge.stderr.read()
            return
        assert time.monotonic() < until, "no packet in 30 s"
        time.sleep(0.02)


def test_two_hundred_kills(session, long_clip, tmp_path):
    rng, account, state = random.Random(1), Account(), tmp_path / "state"
    for i in range(200):
        edge = start(session, long_clip, state, realtime=bool(i % 2))
        if i % 4:
            # Some time after its first packet, however slow the machine is.
            began(edge, state, {boot for boot, _ in account.spooled})
            time.sleep(rng.uniform(0.0, 0.6))
        else:
            time.sleep(rng.uniform(0.0, 1.5))
        kill_at_random(edge, rng)
        account.note(spooled(state))
        if i % 50 == 25:
            session.stop_server(kill=True)
            session.start_server()
    assert len({boot for boot, _ in account.spooled}) > 100
    last = time.monotonic()
    session.play(str(long_clip), str(state))
    recovered("200 random SIGKILLs: start to everything delivered", time.monotonic() - last)
    account.settle(session)
    for boot, sequences in stored(session).items():
        # A packet was in the spool before its successor was: no hole, nothing twice.
        assert sequences == list(range(len(sequences))), boot


def test_the_server_goes_away_again_and_again(session, tmp_path):
    account, state = Account(), tmp_path / "state"
    edge = start(session, LIVE, state)
    wait_for(lambda: newest(state) > 3)
    for how in (True, False, True):
        session.stop_server(kill=how)
        time.sleep(3)
        account.note(spooled(state))
        session.start_server()
        recovered("server restarted: ready to backlog delivered", account.settle(session))
    stats = ended(edge, state)
    account.note(spooled(state))
    account.settle(session)
    boot = stored(session)[stats["boot_id"]]
    assert boot == list(range(stats["ticks"])) and stats["spool"]["dropped"] == 0


def test_a_link_with_loss_and_delay(session, tmp_path):
    account, state = Account(), tmp_path / "state"
    with BadLink(loss=0.3, delay_s=2.0) as link:
        port = session.grpc.rpartition(":")[2]
        command = session.edge_command(LIVE, state, state.with_suffix(".json"), server=f"{link.near}:{port}")
        began = time.monotonic()
        edge = subprocess.Popen([*link.inside, *command], stderr=subprocess.PIPE, text=True)
        wait_for(lambda: newest(state) > 100, 60)
        account.note(spooled(state))
        account.settle(session, 300)
        recovered("30 % loss, 2 s delay: first packet to ten seconds' delivered", time.monotonic() - began)
        edge.send_signal(signal.SIGTERM)
        edge.communicate(timeout=60)
        assert link.lost > 10
        account.note(spooled(state))
    # What the link still held comes over a good one.
    session.play("pipeline:videotestsrc num-buffers=5 ! video/x-raw,width=320,height=240,framerate=10/1", str(state))
    account.settle(session)
    for sequences in (stored(session)[boot] for boot in {boot for boot, _ in account.spooled}):
        assert sequences == list(range(len(sequences)))


def test_a_disk_that_is_full(session, tmp_path):
    """The device goes on, keeps what it can and says what was lost."""
    account, disk = Account(), tmp_path / "disk"
    mount(disk, "1m")
    try:
        state = disk / "state"
        with open(tmp_path / "log", "w") as log:
            edge = subprocess.Popen(session.edge_command(LIVE, state, tmp_path / "stats.json"), stderr=log)
        wait_for(lambda: newest(state) > 5)
        account.note(spooled(state))
        with open(disk / "filler", "wb", buffering=0) as filler, contextlib.suppress(OSError):
            while True:
                filler.write(bytes(4096))
        wait_for(lambda: "nothing leaves until it works" in (tmp_path / "log").read_text(), 60)
        time.sleep(3)
        assert edge.poll() is None
        began = time.monotonic()
        (disk / "filler").unlink()
        wait_for(lambda: "storage works again" in (tmp_path / "log").read_text())
        recovered("full disk: mended to the next packet kept", time.monotonic() - began)
        account.note(spooled(state))
        edge.send_signal(signal.SIGTERM)
        assert edge.wait(30) == 0
        account.note(spooled(state))
        account.settle(session)
        stats = json.loads((tmp_path / "stats.json").read_text())
        assert stats["spool"]["lost"] > 0
        boot = stored(session)[stats["boot_id"]]
        assert len(boot) == len(set(boot)) == stats["ticks"] - stats["spool"]["lost"]
    finally:
        subprocess.run(["umount", "-l", str(disk)])


def test_a_disk_that_is_read_only(session, long_clip, tmp_path):
    """As after a bad start of an SD card: one line and exit code 6, nothing lost, and on it goes when it can be written."""
    account, disk = Account(), tmp_path / "disk"
    mount(disk, "1m")
    try:
        state = disk / "state"
        session.stop_server()
        run_edge(session, str(long_clip), state, drain_timeout_s=0)
        account.note(spooled(state))
        session.start_server()
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        one_line(run_edge(session, str(long_clip), state), Exit.STORAGE, "Read-only file system")
        assert account.missing(session)
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        began = time.monotonic()
        edge = start(session, LIVE, state)
        account.settle(session)
        recovered("read-only disk: mended and started to everything delivered", time.monotonic() - began)
        edge.send_signal(signal.SIGTERM)
        edge.communicate(timeout=30)
        assert edge.returncode == 0
    finally:
        subprocess.run(["umount", "-l", str(disk)])


def test_torn_and_damaged_records(session, long_clip, tmp_path):
    """The tail of a spool is cut, or filled with what a power cut leaves; what is whole arrives."""
    rng, account, state = random.Random(2), Account(), tmp_path / "state"
    session.stop_server()
    for i in range(12):
        edge = start(session, long_clip, state)
        wait_for(lambda: len(spooled(state)) > 5)
        kill_at_random(edge, rng)
        last = max(p for p in (state / "spool").glob("*.seg") if p.stat().st_size)
        data = last.read_bytes()
        whole = spooled(state)
        account.note(whole[:-1])
        if i % 3 == 0:
            last.write_bytes(data[: -rng.randrange(1, 40)])
        elif i % 3 == 1:
            last.write_bytes(data[:-20] + bytes(20) + bytes(rng.randrange(0, 4096)))
        else:
            last.write_bytes(data[:-30] + rng.randbytes(rng.randrange(1, 600)))
    session.start_server()
    session.play(str(long_clip), str(state))
    account.settle(session)


def test_a_clock_that_jumps_a_year_both_ways(session, tmp_path):
    if FAKETIME is None:
        pytest.skip("needs the package faketime")
    state, clock = tmp_path / "state", tmp_path / "clock"
    cert = session.authority.camera("camera-clock", days=3650)
    clock.write_text("+0")
    environment = os.environ | {
        "LD_PRELOAD": str(FAKETIME),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    command = session.edge_command(
        LIVE, state, state.with_suffix(".json"), camera_id="camera-clock", cert=cert.cert, key=cert.key
    )
    session.stop_server()
    edge = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    year, marks = 365 * 86400, []
    for offset in (0, year, -year, 0):
        clock.write_text(f"{offset:+d}")
        begin = newest(state)
        wait_for(lambda begin=begin: newest(state) > begin + 45, 30)
        marks.append((offset, newest(state)))
    began = time.time()
    account = Account()
    # Before the server takes them out of the spool.
    packets = {p.sequence: p for p in spooled(state)}
    account.note(packets.values())
    session.start_server()
    account.settle(session)
    recovered("clock a year ahead, a year behind, right again: server back to all delivered", time.time() - began)
    for offset, number in marks:
        assert abs(packets[number].captured_at_us / 1e6 - (began + offset)) < 60, (offset, number)
    # Budgets neither open anew nor stay shut: heartbeats still carry features.
    assert any(p.kind == 1 for p in packets.values() if p.sequence > marks[-2][1])
    stats = ended(edge, state)
    assert stats["withheld_by_ledger"] == 0
    assert list(packets) == list(range(len(packets)))


def test_a_camera_that_is_unplugged_and_one_that_hangs(session, camera, long_clip, tmp_path):  # noqa: F811
    state, account = tmp_path / "state", Account()
    edge = start(session, camera.plug("640x480"), state, source_timeout_s=2)

    def seen(after: int) -> bool:
        return any(p.kind == 1 for p in spooled(state) if p.sequence > after)

    wait_for(lambda: seen(0))
    camera.pull()
    time.sleep(3)
    away = newest(state)
    camera.plug("320x240")
    began = time.monotonic()
    wait_for(lambda: seen(away + 5), 60)
    recovered("camera unplugged 3 s: plugged in to features in the spool", time.monotonic() - began)
    camera.process.send_signal(signal.SIGSTOP)
    time.sleep(5)
    camera.process.send_signal(signal.SIGCONT)
    away, began = newest(state), time.monotonic()
    wait_for(lambda: seen(away + 5), 60)
    recovered("RTSP server hangs 5 s: answers again to features in the spool", time.monotonic() - began)
    account.note(spooled(state))
    stats = ended(edge, state)
    account.settle(session)
    boot = stored(session)[stats["boot_id"]]
    assert boot == list(range(stats["ticks"]))
