"""Several services on one PostgreSQL: one reads, all take packets and show events, and whoever goes is not missed."""

from __future__ import annotations

import asyncio
import copy
import json
import threading
import time
import urllib.request

import numpy as np
import pytest
from balancer import Balancer
from hypothesis import given
from hypothesis import strategies as st
from service import BUNDLE, check_whole, of
from sqlalchemy import text

from ruyicam.cloud.errors import RuyicamError
from ruyicam.cloud.serve.live import drawn
from ruyicam.cloud.serve.packets import PacketLog
from ruyicam.cloud.serve.scale.bell import Bell, in_pieces
from ruyicam.cloud.serve.scale.turn import LOCK, Turn
from ruyicam.cloud.serve.store import Store
from ruyicam.cloud.serve.windows import Seen, Verdict, WindowQueue
from ruyicam.export.bench_session import BenchSession
from ruyicam.export.defaults import default_model


@pytest.fixture
def url(databases) -> str:
    """An empty database on PostgreSQL."""
    return databases.new("postgresql")


def takes(turn: Turn) -> bool:
    """Whether it gets the turn within five seconds: PostgreSQL frees a closed session's lock when it has noticed."""
    until = time.monotonic() + 5
    while not (got := turn.mine()) and time.monotonic() < until:
        time.sleep(0.02)
    return got


def test_it_is_one_service_s_turn_at_a_time(url):
    first, second = Turn(Store(url)), Turn(Store(url))
    assert first.mine() and not second.mine() and first.mine() and not second.held
    with pytest.raises(RuyicamError, match="another service reads"), second.write():
        pass
    first.give_back()
    assert takes(second) and not first.mine() and (first.count, second.count) == (1, 1)
    second.give_back()
    assert takes(first) and first.count == 2


def test_who_lost_the_turn_unknowingly_writes_nothing(url):
    """As a service whose machine stood still for a while does."""
    store, other = Store(url), Store(url)
    PacketLog(store).add([of("a", n) for n in range(40)])
    late, next_one = (WindowQueue(s, 40, 10, 1000.0, "quiet") for s in (store, other))
    fall = [Seen([Verdict("cloud-s", "fall", 0.5, None)])]
    windows = late.pending([BUNDLE])
    with other.engine.begin() as connection:
        here = "database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        assert connection.scalar(text(f"SELECT pg_terminate_backend(pid) FROM pg_locks WHERE objid = {LOCK} AND {here}"))
    until = time.monotonic() + 5
    while not (again := next_one.pending([BUNDLE])) and time.monotonic() < until:
        time.sleep(0.02)
    with pytest.raises(Exception, match="terminat"):
        late.conclude(windows, fall)
    assert store.events() == [] and late.pending([BUNDLE]) == []
    assert next_one.conclude(again, fall) == 1
    # What it knew of events does not count any more when its turn comes again.
    next_one.turn.give_back()
    PacketLog(store).add([of("a", 40 + n) for n in range(10)])
    late.conclude(late.pending([BUNDLE]), fall)
    (event,) = store.events()
    assert (event.windows, event.last_tick) == (2, 49)


def test_silence_counts_from_when_the_database_is_back(url):
    """Without it no camera could be heard, and every one looks as if it had fallen silent."""
    PacketLog(Store(url)).add([of("a", n) for n in range(24)])
    queue = WindowQueue(Store(url), 40, 10, 0.3, "quiet")
    for _ in range(2):
        assert queue.pending([BUNDLE]) == []
        time.sleep(0.4)
        # Its session ends with the database.
        queue.turn.give_back()
    assert queue.pending([BUNDLE]) == []
    time.sleep(0.4)
    (rest,) = queue.pending([BUNDLE])
    assert rest.final and rest.end == 23


def test_on_sqlite_there_is_nobody_else(tmp_path):
    turn = Turn(Store(f"sqlite:///{tmp_path / 'a.db'}"))
    assert turn.held and turn.mine()


@given(st.integers(0, 60), st.integers(0, 5))
def test_readings_are_told_in_pieces_that_are_small_enough(ticks, people):
    contour = drawn([(n, np.full((people, 17, 3), 255, np.uint8)) for n in range(ticks)])
    reading = {"camera_id": "c" * 64, "behaviour": "fall", "contour": contour}
    pieces = in_pieces(reading)
    assert all(len(p.encode()) < 8000 for p in pieces)
    assert [t for p in pieces for t in json.loads(p)["contour"]] == contour
    assert {json.loads(p)["behaviour"] for p in pieces} == {"fall"}


def test_services_hear_each_other(url):
    async def main() -> None:
        heard: list = []
        reader, other = (
            Bell(
                Store(url),
                packets=lambda who=who: heard.append((who, "packets")),
                changes=lambda who=who: heard.append((who, "changes")),
                reading=lambda reading, who=who: heard.append((who, reading)),
                watching=lambda who=who: who == "other",
            )
            for who in ("reader", "other")
        )
        running = [asyncio.create_task(bell.run()) for bell in (reader, other)]

        async def until(done) -> None:
            async with asyncio.timeout(10):
                while not done():
                    await asyncio.sleep(0.01)

        # On connecting, and as someone watches at the other one.
        await until(lambda: len(heard) == 4 and reader.watched)
        assert not other.watched
        heard.clear()
        store = Store(url)
        await asyncio.to_thread(PacketLog(store).add, [of("a", 0)])
        with store.write(changes=True):
            pass
        await until(lambda: len(heard) == 4)
        assert sorted(heard) == sorted((w, k) for w in ("reader", "other") for k in ("packets", "changes"))
        heard.clear()
        # Whoever tells does not hear it.
        await asyncio.to_thread(reader.tell_readings, [{"camera_id": "a", "contour": []}])
        await until(lambda: heard)
        assert heard == [("other", {"camera_id": "a", "contour": []})]
        for task in running:
            task.cancel()

    asyncio.run(main())


@pytest.fixture
def pair(url, signed, tmp_path):
    """Two services on one database, the first of which reads."""
    first = BenchSession(default_model(), signed[0], signed[1], folder=tmp_path / "session")
    first.server_keys["database"] = url
    with first:
        second = copy.copy(first)
        second.folder = tmp_path / "second"
        second.folder.mkdir()
        second.server, second.grpc, second.http = None, "", ""
        second.start_server()
        yield first, second
        second.stop_server()


def reads(service: BenchSession) -> bool:
    """Whether it has the turn, as its log says."""
    return "read here from now on" in (service.folder / "server.log").read_text()


def test_a_service_that_is_replaced_costs_nothing(pair, long_clip):
    """Behind a balancer: the one that reads is killed and comes back, then the other is told to stop."""
    first, second = pair
    assert reads(first) and not reads(second)

    def replace() -> None:
        time.sleep(6)
        first.stop_server(kill=True)
        time.sleep(2)
        first.start_server()
        time.sleep(3)
        second.stop_server()

    with Balancer(first.grpc, second.grpc) as balancer:
        replacing = threading.Thread(target=replace)
        replacing.start()
        stats = first.play(str(long_clip), realtime=True, server=balancer.address)
        replacing.join()
        boot = first.wait_read(stats["boot_id"], 60)
    assert reads(second)
    check_whole(first, boot, 200)


def test_who_watches_elsewhere_sees_it_live(pair, shared_clips):
    """The contour that one service reads, and the event that begins, on another's streams."""
    first, second = pair
    clip = sorted((shared_clips / "surveillance" / "val" / "fight").glob("*.mp4"))[0]
    streams = [urllib.request.urlopen(f"http://{second.http}/v1/{path}", timeout=30) for path in ("live", "events/stream")]
    time.sleep(3)
    playing = threading.Thread(target=lambda: first.play(str(clip), realtime=True))
    playing.start()
    reading = next(json.loads(line[6:]) for line in streams[0] if line.startswith(b"data: "))
    change = next(json.loads(line[6:]) for line in streams[1] if line.startswith(b"data: "))
    playing.join()
    assert reading["camera_id"] == "camera-1" and any(t["people"] for t in reading["contour"])
    assert change["kind"] == "begin"
    assert not reads(second)
