"""The service when what is around it fails: its disk, those who listen, those whom it tells."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import threading
import time
import urllib.request

import pytest
from account import mount, recovered
from service import Target, check_whole
from sqlalchemy import insert, select

from ruyicam.cloud.serve.store import Store
from ruyicam.cloud.serve.tables import Change
from ruyicam.export.bench_device import memory_mb, processes_of
from ruyicam.export.bench_session import BenchSession, free_port
from ruyicam.export.defaults import default_model

HOUR_S = 3600
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: mounts")


@pytest.fixture
def service(tmp_path, signed):
    """A server that tests break."""
    running = BenchSession(default_model(), signed[0], signed[1], folder=tmp_path / "session")
    yield running
    running.stop_server()


def put(session: BenchSession, path: str, body: dict) -> None:
    """A rule, or a channel."""
    request = urllib.request.Request(
        f"http://{session.http}/v1/{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}, method="PUT"
    )
    urllib.request.urlopen(request, timeout=30).close()


def test_a_disk_that_is_full(service, long_clip, tmp_path):
    """What cannot be stored is not acknowledged, and comes again; the service goes on by itself."""
    disk = tmp_path / "disk"
    mount(disk, "12m")
    service.server_keys["database"] = f"sqlite:///{disk / 'server.db'}"
    log, times = tmp_path / "session" / "server.log", []

    def fill_and_mend() -> None:
        time.sleep(4)
        with open(disk / "filler", "wb", buffering=0) as filler, contextlib.suppress(OSError):
            while True:
                filler.write(bytes(4096))
        while "packets are not stored" not in log.read_text():
            time.sleep(0.1)
        time.sleep(5)
        assert service.get("/v1/cameras")
        (disk / "filler").unlink()
        times.append(time.monotonic())

    try:
        with service:
            mending = threading.Thread(target=fill_and_mend)
            mending.start()
            stats = service.play(str(long_clip), realtime=True)
            mending.join()
            check_whole(service, service.wait_read(stats["boot_id"], 60), 200)
            recovered("the service's disk mended to all packets read", time.monotonic() - times[0])
    finally:
        subprocess.run(["umount", "-l", str(disk)])


def test_who_listens_but_does_not_read(service, shared_clips):
    """It costs the service next to nothing and others nothing, and finds everything when it reads at last."""
    fights = sorted((shared_clips / "surveillance" / "val" / "fight").glob("*.mp4"))[:8]
    with service:
        slow = [socket.socket() for _ in range(20)]
        for listener in slow:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            host, port = service.http.split(":")
            listener.connect((host, int(port)))
            listener.sendall(b"GET /v1/events/stream HTTP/1.1\r\nHost: ruyicam\r\nLast-Event-ID: 0\r\n\r\n")
        service.wait_read(service.play(str(fights[0]), "first")["boot_id"])
        before = sum(map(memory_mb, processes_of(service.server.pid)))
        with Store(f"sqlite:///{service.folder / 'server.db'}").write(changes=True) as connection:
            (event,) = connection.execute(select(Change.event).limit(1)).first()
            connection.execute(insert(Change), [{"event_id": 1, "kind": "update", "at": 0.0, "event": event}] * 40_000)
        for clip in fights[1:]:
            service.wait_read(service.play(str(clip), clip.stem)["boot_id"])
        grown = sum(map(memory_mb, processes_of(service.server.pid))) - before
        newest = Store(f"sqlite:///{service.folder / 'server.db'}").newest_change()
        began = time.monotonic()
        with slow[0].makefile("rb") as stream:
            numbers = []
            while not numbers or numbers[-1] < newest:
                line = stream.readline()
                if line.startswith(b"id: "):
                    numbers.append(int(line[4:]))
        recovered(f"a listener that reads at last to the last of {newest} changes", time.monotonic() - began)
        # The first one says where it began.
        assert numbers == list(range(newest + 1))
        print(f"memory for 20 who do not read: {grown:+.1f} MB")
        assert grown < 100
        for listener in slow:
            listener.close()


@pytest.mark.slow
@pytest.mark.timeout(2 * HOUR_S)
def test_a_webhook_s_target_that_is_away_for_an_hour(service, shared_clips):
    """Everything that it was to be told meanwhile comes, once, though the service is killed on the way."""
    fights = sorted((shared_clips / "surveillance" / "val" / "fight").glob("*.mp4"))
    port = free_port()
    # As it is by default: tried again after a second, twice as long each time, at most five minutes.
    with service:
        put(service, "channels/pager", {"name": "pager", "kind": "webhook", "url": f"http://127.0.0.1:{port}/hook"})
        put(service, "rules/fights", {"name": "fights", "behaviours": ["fight"], "to": ["pager"]})
        began, played = time.monotonic(), 0
        while time.monotonic() < began + HOUR_S:
            service.wait_read(service.play(str(fights[played % len(fights)]), f"play-{played}")["boot_id"], 60)
            played += 1
            if played == 1:
                service.stop_server(kill=True)
                service.start_server()
            time.sleep(300)
        waiting = {d["id"] for d in service.get("/v1/deliveries?state=waiting&limit=1000")}
        assert waiting and service.get("/v1/deliveries?state=dead") == []
        up = time.monotonic()
        with Target(port) as target:
            while service.get("/v1/deliveries?state=waiting") and time.monotonic() < up + 600:
                time.sleep(1)
            recovered("webhook's target back after an hour to the last message delivered", time.monotonic() - up)
            done = {d["id"] for d in service.get("/v1/deliveries?state=done&limit=1000")}
        told = [json.loads(body)["id"] for _, body in target.got]
        assert done == waiting and len(told) == len(set(told)) == len(done)
