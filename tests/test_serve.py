"""The service from packets to events: storing, reading by load, and what subscribers are told."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import urllib.request
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from service import BUNDLE, boot_of, of

from ruyicam.cloud.bundles import read_bundle_info
from ruyicam.cloud.errors import RuyicamError
from ruyicam.cloud.serve.load import Effort, LoadPolicy, Plan
from ruyicam.cloud.serve.packets import GroupWriter, PacketLog
from ruyicam.cloud.serve.passes import TierPasses, WorkerPasses, local_passes
from ruyicam.cloud.serve.reasoner import WindowReasoner
from ruyicam.cloud.serve.store import Store
from ruyicam.cloud.serve.subscribers import Subscribers
from ruyicam.cloud.serve.windows import PendingWindow, Seen, Verdict, WindowQueue
from ruyicam.cloud.wire import Kind
from ruyicam.export.bench_device import processes_of
from ruyicam.export.bench_serve import bench_serve
from ruyicam.export.defaults import default_model


def test_packets_of_many_cameras_are_stored_once(store):
    log = PacketLog(store)
    some = [of(camera, n, ledger_releases=n) for n in range(5) for camera in ("a", "b")]
    assert log.add(some) == {"a": 5, "b": 5}
    # Again, with one that is new, twice in one batch; by another replica of the service, too.
    again = [*some, of("a", 5, last=1, ledger_releases=5), of("a", 5, last=1, ledger_releases=5)]
    assert PacketLog(store).add(again) == {"a": 1}
    assert log.add([]) == {}
    a = boot_of(store, "a")
    assert (store.packet_count(a), store.packet_count(boot_of(store, "b"))) == (6, 5)
    assert (a.newest, a.ended, a.ledger_releases, a.ledger_went_back) == (5, True, 5, False)


def test_a_ledger_that_begins_below_what_was_reported_is_marked(store):
    log = PacketLog(store)
    log.add([of("a", 0, ledger_releases=9)])
    log.add([of("a", 0, boot_id=b"2" * 16, ledger_releases=3), of("b", 0, boot_id=b"3" * 16, ledger_releases=3)])
    log.add([of("a", 0, boot_id=b"4" * 16, ledger_releases=9)])
    assert [store.boot((c * 16).hex()).ledger_went_back for c in (b"2", b"3", b"4")] == [True, False, False]


def test_the_writer_gathers_and_tells_each_what_became_of_its_packets(store, monkeypatch):
    log = PacketLog(store)
    sizes = []
    real = log.add

    def add(packets):
        sizes.append(len(packets))
        if any(p.camera_id == "bad" for p in packets):
            raise OSError("disk full")
        return real(packets)

    monkeypatch.setattr(log, "add", add)

    async def main():
        writer = GroupWriter(log)
        running = asyncio.create_task(writer.run())
        await asyncio.gather(*(writer.add([of(f"c{i}", n) for n in range(3)]) for i in range(20)))
        with pytest.raises(OSError, match="disk full"):
            await writer.add([of("bad", 0)])
        await writer.add([of("c0", 3)])
        running.cancel()

    asyncio.run(main())
    assert sizes == [60, 1, 1]
    assert [store.packet_count(boot_of(store, f"c{i}")) for i in range(20)] == [4, *[3] * 19]


def test_load_is_met_by_less_effort_then_wider_steps_then_patience():
    load = LoadPolicy(1.0, 10.0, 40, 10)
    assert load.plan([]) == load.plan([0.14]) == Plan(Effort.ALL, 10)
    assert load.plan([0.2]) == Plan(Effort.WHERE_IT_MATTERS, 10)
    assert load.plan([0.4]) == Plan(Effort.SMALL, 10)
    assert load.plan([0.5]) == Plan(Effort.SMALL, 40)
    # One camera that comes back after an hour is no load.
    assert load.plan([0.1, 3600.0, 0.12]).effort == Effort.ALL
    # What reading takes is part of it.
    load.took(0.4)
    assert load.plan([0.2]) == Plan(Effort.SMALL, 10) and load.lag_s == pytest.approx(0.4)
    load.took(0.0)
    assert load.plan([0.15]) == Plan(Effort.WHERE_IT_MATTERS, 10) and load.plan([]) == Plan(Effort.ALL, 10)
    for _ in range(20):
        load.took(0.0)

    async def admitted(lag_s: float) -> bool:
        load.plan([lag_s])
        load.settle()
        try:
            await asyncio.wait_for(load.admit(), 0.01)
        except TimeoutError:
            return False
        return True

    async def in_turn() -> list[bool]:
        return [await admitted(lag_s) for lag_s in (1.5, 10.5, 6.0, 4.0, 6.0)]

    # Packets are taken again when the lag has halved, not sooner.
    assert asyncio.run(in_turn()) == [True, False, False, True, True]
    assert not load.holding


def test_no_tick_is_left_unread_in_wider_steps(store):
    PacketLog(store).add([of("a", n, last=int(n == 104)) for n in range(105)])
    queue = WindowQueue(store, 40, 10, 1000.0, "quiet")
    read = []
    for stride in (None, 40, 40, None, None, None):
        for w in queue.pending([BUNDLE]):
            read.append((w.start, w.end, len(w.packets)))
            queue.conclude([w], [Seen()], stride)
    assert read == [(0, 39, 40), (10, 49, 40), (50, 89, 40), (65, 104, 40)]
    assert boot_of(store, "a").closed


def test_a_gap_is_passed_over_at_once(store):
    """As one that a spool leaves that was full for days, or a device that counts as it likes."""
    far = 1 << 61
    PacketLog(store).add([of("a", n) for n in (*range(50), *range(far, far + 45))])
    queue = WindowQueue(store, 40, 10, 1000.0, "quiet")
    read = []
    while (windows := queue.pending([BUNDLE])) and len(read) < 50:
        read.append((windows[0].end, len(windows[0].packets)))
        queue.conclude(windows, [Seen()])
    assert read[:2] == [(39, 40), (49, 40)] and len(read) < 20
    # Every tick behind it is read, as are those that a window shares with the gap.
    assert [n for _, n in read[2:6]] == [30, 20, 10, 0]
    assert read[6][0] - far in range(10) and [n for _, n in read[7:]] == sorted(n for _, n in read[7:])
    assert read[-1][0] + 10 > far + 44


def changes(store: Store) -> list[tuple]:
    """(kind, behaviour, first and last tick) of all of them."""
    return [(c.kind, c.event["behaviour"], c.event["first_tick"], c.event["last_tick"]) for c in store.changes(0)]


def test_events_begin_go_on_and_end(store):
    PacketLog(store).add([of("a", n, last=int(n == 79)) for n in range(80)])
    queue = WindowQueue(store, 40, 10, 1000.0, "quiet")
    for behaviour in ("quiet", "fall", "fall", "fight", "fight"):
        (w,) = queue.pending([BUNDLE])
        queue.conclude([w], [Seen([Verdict("edge", "quiet", None, None), Verdict("cloud-s", behaviour, 0.5, [0.5, 0.5])])])
    assert changes(store) == [
        ("begin", "fall", 40, 49),
        ("update", "fall", 40, 59),
        ("end", "fall", 40, 59),
        ("begin", "fight", 60, 69),
        ("update", "fight", 60, 79),
    ]
    # The boot is over: nothing is unread, and what has begun ends.
    (w,) = queue.pending([BUNDLE])
    assert w.final and not w.packets
    queue.conclude([w], [Seen()])
    assert changes(store)[-1] == ("end", "fight", 60, 79)
    events = sorted(store.events(), key=lambda e: e.first_tick)
    assert [(e.behaviour, e.alert, e.ended) for e in events] == [
        ("quiet", False, True),
        ("fall", True, True),
        ("fight", True, True),
    ]
    assert queue.pending([BUNDLE]) == []


@pytest.fixture(scope="module")
def reasoner(signed, family) -> WindowReasoner:
    """With the bundle of the tests."""
    info = read_bundle_info(signed[0], signed[1])
    return WindowReasoner(family.config, TierPasses(family), {info.id.hex(): info})


def window_of(reasoner: WindowReasoner, kind: int, token: int = 0, seed: int = 0) -> PendingWindow:
    """A full window of random features."""
    (bundle_id,) = reasoner.bundles
    noise, size = np.random.default_rng(seed), reasoner.bundles[bundle_id].packed_bytes
    ticks = range(reasoner.config.window)
    rows = [
        SimpleNamespace(sequence=n, captured_at_us=n, received_at=0.0, kind=kind, token=token, features=noise.bytes(size))
        for n in ticks
    ]
    return PendingWindow("a", "0" * 32, bundle_id, 0, len(rows) - 1, False, rows)


def test_effort_decides_which_tiers_read(reasoner):
    looked = window_of(reasoner, Kind.FEATURES, token=1)
    tiers = {effort: [v.tier for v in reasoner.read([looked], effort)[0].verdicts] for effort in Effort}
    assert tiers[Effort.ALL] == tiers[Effort.WHERE_IT_MATTERS] == ["edge", "cloud-s", "cloud-l"]
    assert tiers[Effort.SMALL] == ["edge", "cloud-s"]
    withheld = window_of(reasoner, Kind.WITHHELD_BY_GATE)
    (seen,) = reasoner.read([withheld], Effort.SMALL)
    assert [(v.tier, v.behaviour) for v in seen.verdicts] == [("edge", "normal"), ("cloud-s", "normal")]


def test_a_window_reads_the_same_in_any_company(reasoner):
    """Whatever the effort, and however many cameras are in the pass."""
    windows = [window_of(reasoner, Kind.FEATURES, seed=n) for n in range(70)]
    together = reasoner.read(windows)
    for n in (0, 31, 32, 69):
        alone, small = reasoner.read([windows[n]]), reasoner.read([windows[n]], Effort.SMALL)
        by_tier = {v.tier: v for v in together[n].verdicts}
        for v in (*alone[0].verdicts, *small[0].verdicts):
            assert v.behaviour == by_tier[v.tier].behaviour
            if v.probabilities:
                np.testing.assert_allclose(v.probabilities, by_tier[v.tier].probabilities, atol=1e-4)


def test_the_model_s_process_answers_alike_and_is_started_again(reasoner, family):
    worker = WorkerPasses(partial(local_passes, default_model(), "cpu"))
    try:
        worker.wait_ready()
        alone = WindowReasoner(family.config, worker, reasoner.bundles)
        windows = [window_of(reasoner, Kind.FEATURES, seed=n) for n in range(3)]
        want = [[v.behaviour for v in seen.verdicts] for seen in reasoner.read(windows)]
        assert [[v.behaviour for v in seen.verdicts] for seen in alone.read(windows)] == want
        first = worker.pid
        os.kill(first, signal.SIGKILL)
        with pytest.raises(RuyicamError, match="ended"):
            alone.read(windows)
        assert [[v.behaviour for v in seen.verdicts] for seen in alone.read(windows)] == want and worker.pid != first
    finally:
        worker.close()


def test_a_model_that_cannot_be_loaded_is_said(tmp_path):
    worker = WorkerPasses(partial(local_passes, tmp_path, "cpu"))
    with pytest.raises(RuyicamError):
        worker.wait_ready()
    worker.close()


def test_subscribers_go_on_from_where_they_were(store):
    async def main() -> list[int]:
        subscribers = Subscribers(store)
        heard = []

        async def listen(after: int, wanted: int):
            async for changes in subscribers.changes(after):
                heard.extend(change.id for change in changes)
                if len(heard) >= wanted:
                    return

        first = asyncio.create_task(listen(0, 2))
        await asyncio.sleep(0.1)
        PacketLog(store).add([of("a", n) for n in range(60)])
        queue = WindowQueue(store, 40, 10, 1000.0, "quiet")

        def read() -> None:
            queue.conclude(queue.pending([BUNDLE]), [Seen([Verdict("cloud-s", "fall", 0.5, None)])])
            subscribers.wake()

        read()
        read()
        await asyncio.wait_for(first, 5)
        read()
        await asyncio.wait_for(listen(heard[-1], 3), 5)
        return heard

    heard = asyncio.run(main())
    assert heard == sorted(set(heard)) and len(heard) == 3


def test_events_are_streamed_as_they_happen(module_session, shared_clips):
    """A real fight, over the real wire, heard by two who listen: one from before, one who comes back later."""
    fights = sorted((shared_clips / "surveillance" / "val" / "fight").glob("*.mp4"))[:3]
    url = f"http://{module_session.http}/v1/events/stream"
    with urllib.request.urlopen(url, timeout=30) as live:
        for clip in fights:
            module_session.wait_read(module_session.play(str(clip), f"stream-{clip.stem}")["boot_id"])
        alerts = [e for e in module_session.get("/v1/events?alerts=true") if e["camera_id"] == "camera-1"]
        assert alerts, "no fight of three is seen"
        heard = messages(live, 2)
    assert heard[0]["kind"] == "begin" and heard[0]["event"]["alert"]
    request = urllib.request.Request(url, headers={"Last-Event-ID": str(heard[0]["id"])})
    with urllib.request.urlopen(request, timeout=30) as later:
        assert messages(later, 1)[0] == heard[1]


def test_the_service_outlives_the_model_s_process(module_session, made_clip):
    server = module_session.server.pid
    (model,) = [p for p in processes_of(server)[1:] if "spawn_main" in Path(f"/proc/{p}/cmdline").read_text()]
    os.kill(model, signal.SIGKILL)
    stats = module_session.play(str(made_clip), "outlived")
    boot = module_session.wait_read(stats["boot_id"])
    assert boot["packets"] == 20 and {w["tier"] for w in boot["windows"]} == {"edge", "cloud-s", "cloud-l"}


def test_simulated_cameras_lose_nothing(made_clip, tmp_path):
    """What `ruyicam bench serve` measures, in small."""
    result = bench_serve(tmp_path, default_model(), made_clip, None, 5, 0.1, 0, lambda what, done, of: None)
    assert result["lost"] == 0 and result["connections"] == 5 and result["packets_per_s"] == 50
    assert not result["held"] and result["more"] == [] and result["past"] is None


def messages(stream, count: int) -> list[dict]:
    """The next messages of a stream of server-sent events."""
    found = []
    while len(found) < count:
        line = stream.readline()
        assert line, "the stream ended"
        if line.startswith(b"data: "):
            found.append(json.loads(line[6:]))
    return found
