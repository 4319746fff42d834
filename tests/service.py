"""What tests of the service are made of: packets, a backend with an event, users, and a webhook's target."""

from __future__ import annotations

import itertools
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
from fastapi.testclient import TestClient

from ruyicam.cloud.bundles import read_bundle_info
from ruyicam.cloud.serve.accounts import Accounts, Role
from ruyicam.cloud.serve.alerting.book import AlertBook
from ruyicam.cloud.serve.care import EventCare
from ruyicam.cloud.serve.live import Live
from ruyicam.cloud.serve.packets import PacketLog
from ruyicam.cloud.serve.passes import TierPasses
from ruyicam.cloud.serve.reasoner import WindowReasoner
from ruyicam.cloud.serve.replay import Replay
from ruyicam.cloud.serve.store import Store
from ruyicam.cloud.serve.subscribers import Subscribers
from ruyicam.cloud.serve.tables import Boot
from ruyicam.cloud.serve.web.access import Backend
from ruyicam.cloud.serve.web.api import make_api
from ruyicam.cloud.serve.windows import Seen, Verdict, WindowQueue
from ruyicam.cloud.wire import FeaturePacket, Kind
from ruyicam.export.bench_session import BenchSession

BUNDLE = (b"b" * 16).hex()
PASSWORD = "ten or more"


def packet(sequence: int, last: int = 0) -> FeaturePacket:
    """A tick of one boot."""
    return FeaturePacket(
        camera_id="c",
        boot_id=bytes(16),
        sequence=sequence,
        captured_at_us=sequence,
        bundle_id=b"b" * 16,
        kind=1,
        token=0,
        last=last,
    )


def of(camera: str, sequence: int, **fields) -> FeaturePacket:
    """A tick of a camera's one boot."""
    made = packet(sequence)
    made.camera_id, made.boot_id = camera, camera.encode().ljust(16, b"-")
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def boot_of(store: Store, camera: str) -> Boot:
    """That one boot."""
    return store.boot(camera.encode().ljust(16, b"-").hex())


def made_backend(store: Store, signed, family) -> Backend:
    """A service with a fall of two windows at one camera, of random features, and a user of each role."""
    info = read_bundle_info(signed[0], signed[1])
    bundles = {info.id.hex(): info}
    noise = np.random.default_rng(0)
    fields = {"bundle_id": info.id, "kind": Kind.FEATURES, "ledger_releases": 7}
    made = [of("a", n, captured_at_us=n * 100_000, features=noise.bytes(info.packed_bytes), **fields) for n in range(50)]
    PacketLog(store).add(made)
    reasoner = WindowReasoner(family.config, TierPasses(family), bundles)
    queue = WindowQueue(store, family.config.window, 10, 1000.0, "normal")
    report = {"what": ["fall"], "who": [1], "when": [1.0, 2.0], "why": "figure 1 falls", "sure": 0.5}
    for why in ("figure 1 falls", "figure 1 lies"):
        windows = queue.pending(list(bundles))
        (seen,) = reasoner.read(windows)
        queue.conclude(windows, [Seen([Verdict("cloud-l", "fall", 0.75, None)], seen.contour, report | {"why": why})])
    accounts = Accounts(store)
    for role in Role:
        accounts.add_user(role.value, role, PASSWORD)
    return Backend(
        store, accounts, EventCare(store, family.config.labels), Subscribers(store), Live(), Replay(store, reasoner, bundles),
        AlertBook(store), bundles, 10, 10.0, "0",
    )  # fmt: skip


def client_of(backend: Backend, name: str | None = None) -> TestClient:
    """A browser, logged in as the user of that name."""
    client = TestClient(make_api(backend))
    if name is not None:
        answer = client.post("/v1/login", json={"name": name, "password": PASSWORD})
        assert answer.json() == {"name": name, "role": name, "labels": list(backend.care.labels)}
    return client


def check_whole(session: BenchSession, boot: dict, ticks: int) -> None:
    """Of a boot that is over: every packet is there, every window was read once, and every tick is in one event."""
    assert boot["packets"] == ticks and boot["newest"] == ticks - 1
    ends = [w["end"] for w in boot["windows"] if w["tier"] == "cloud-l"]
    assert len(ends) == len(set(ends)) and set(ends) >= set(range(39, ticks, 10))
    events = session.get(f"/v1/events?boot_id={boot['boot_id']}&limit=1000")
    events.sort(key=lambda e: e["first_tick"])
    assert all(e["ended"] for e in events) and (events[0]["first_tick"], events[-1]["last_tick"]) == (0, ticks - 1)
    assert all(a["last_tick"] + 1 == b["first_tick"] for a, b in itertools.pairwise(events))


class Target(HTTPServer):
    """A webhook's target, which answers with `status` and remembers what it was sent."""

    def __init__(self, port: int = 0):
        super().__init__(("127.0.0.1", port), self._handler())
        self.status, self.got = 200, []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def _handler(self):
        target = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                target.got.append((dict(self.headers), body))
                self.send_response(target.status)
                self.end_headers()

            def log_message(self, *_):
                return

        return Handler

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hook"
