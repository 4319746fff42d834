"""Rules and what they set off: webhooks, MQTT and mail to real servers on loopback, and targets that fail."""

from __future__ import annotations

import asyncio
import base64
import email
import hashlib
import hmac
import json
import shutil
import socket
import subprocess
import time
from datetime import UTC, datetime

import aiomqtt
import pytest
from aiosmtpd.controller import Controller
from hypothesis import given
from hypothesis import strategies as st
from service import BUNDLE, Target, client_of, of

from ruyicam.cloud.errors import RuyicamError
from ruyicam.cloud.serve.alerting.channels import Mqtt, channel_of
from ruyicam.cloud.serve.alerting.engine import Alerting
from ruyicam.cloud.serve.alerting.rules import Rule, inside
from ruyicam.cloud.serve.care import EventCare
from ruyicam.cloud.serve.packets import PacketLog
from ruyicam.cloud.serve.store import Store
from ruyicam.cloud.serve.subscribers import Subscribers
from ruyicam.cloud.serve.windows import Seen, Verdict, WindowQueue

SECRET = "whsec_" + base64.b64encode(bytes(range(24))).decode()
# A Thursday.
NIGHT = int(datetime(2026, 11, 26, 23, 30, tzinfo=UTC).timestamp() * 1e6)


def event(**fields) -> dict:
    """A fall of four seconds at a camera."""
    made = {
        "id": 1, "camera_id": "ward-3", "behaviour": "fall", "confidence": 0.9, "people": 2, "begin_us": NIGHT,
        "end_us": NIGHT + 4_000_000,
    }  # fmt: skip
    return made | fields


@pytest.mark.parametrize(
    ("rule", "fits"),
    [
        ({}, True),
        ({"enabled": False}, False),
        ({"cameras": ["stairs", "ward-*"]}, True),
        ({"cameras": ["stairs"]}, False),
        ({"behaviours": ["fight"]}, False),
        ({"confidence": 0.95}, False),
        ({"dwell_s": 4.0}, True),
        ({"dwell_s": 4.1}, False),
        ({"people": 2}, True),
        ({"people": 3}, False),
        ({"days": [3]}, True),
        ({"days": [4]}, False),
        ({"days": [4], "timezone": "Europe/Berlin"}, True),
        ({"hours": ["22:00-06:00"]}, True),
        ({"hours": ["08:00-12:00", "13:00-23:30"]}, False),
        ({"hours": ["23:30-24:00"]}, True),
        ({"quiet_hours": ["22:00-06:00"]}, False),
        ({"quiet_hours": ["22:00-06:00"], "timezone": "America/New_York"}, True),
    ],
)
def test_a_rule_says_which_events_it_is_for(rule, fits):
    assert Rule(name="r", to=["c"], **rule).fits(event()) is fits


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        ({"to": []}, "at least 1 item"),
        ({"hours": ["25:00-26:00"]}, "match pattern"),
        ({"timezone": "Mars/Olympus"}, "'Mars/Olympus' is not a time zone"),
        ({"zone": [[0, 0], [1, 1]]}, "at least 3 items"),
        ({"escalate_after_s": 60}, "escalate_after_s and escalate_to belong together"),
        ({"colour": "red"}, "Extra inputs are not permitted"),
    ],
)
def test_rules_that_cannot_be_are_refused(rule, why):
    with pytest.raises(ValueError, match=why):
        Rule(**{"name": "r", "to": ["c"]} | rule)


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_zones_are_polygons(x, y, left, top, right, bottom):
    left, right, top, bottom = *sorted((left, right)), *sorted((top, bottom))
    square = [(left, top), (right, top), (right, bottom), (left, bottom)]
    if x not in (left, right) and y not in (top, bottom):
        assert inside(square, x, y) == (left < x < right and top < y < bottom)


@pytest.fixture
def target():
    """One of them."""
    with Target() as server:
        yield server


@pytest.fixture
def another():
    """One more."""
    with Target() as server:
        yield server


class Ward:
    """A service's database with one camera that sees what it is told, and the alerting beside it."""

    def __init__(self, folder, give_up_s: float = 3600.0):
        self.store = Store(f"sqlite:///{folder / 'server.db'}")
        self.alerting = self.again(give_up_s)
        self.queue = WindowQueue(self.store, 40, 10, 1000.0, "quiet")
        self.ticks = 0

    def again(self, give_up_s: float = 3600.0) -> Alerting:
        """As after a restart."""
        alerting = Alerting(self.store, Subscribers(self.store), None, 0.05, 0.2, give_up_s)
        alerting.look()
        return alerting

    def sees(self, *behaviours: str) -> None:
        """One window of each."""
        for behaviour in behaviours:
            more = 40 if self.ticks == 0 else 10
            PacketLog(self.store).add([of("ward-3", self.ticks + n) for n in range(more)])
            self.ticks += more
            windows = self.queue.pending([BUNDLE])
            self.queue.conclude(windows, [Seen([Verdict("cloud-l", behaviour, 0.9, None)])])

    def deliver(self, times: int = 1) -> None:
        """Looks, and sends what is due, so often."""
        self.alerting.look()
        for _ in range(times):
            asyncio.run(self.alerting.deliver())

    def states(self) -> list[tuple]:
        """Of all messages, oldest first."""
        return [(d.rule, d.channel, d.kind, d.state) for d in reversed(self.alerting.book.deliveries(None, 100))]


@pytest.fixture
def ward(tmp_path, target) -> Ward:
    """With a rule that tells a webhook of falls."""
    made = Ward(tmp_path)
    hook = {"kind": "webhook", "name": "hook", "url": target.url, "secret": SECRET}
    made.alerting.book.put_channel(channel_of(hook), "test")
    made.alerting.book.put_rule(Rule(name="falls", behaviours=["fall"], to=["hook"]), "test")
    return made


def test_a_webhook_gets_signed_cloud_events_once_each(ward, target):
    ward.sees("quiet", "fall", "fall", "fight", "fall")
    ward.deliver(3)
    messages = [json.loads(body) for _, body in target.got]
    assert [m["type"] for m in messages] == ["ruyicam.alert.begin", "ruyicam.alert.end", "ruyicam.alert.begin"]
    first = messages[0]
    assert (first["specversion"], first["source"], first["rule"]) == ("1.0", "/ruyicam/cameras/ward-3", "falls")
    assert (first["data"]["behaviour"], first["data"]["camera_id"]) == ("fall", "ward-3")
    assert len({m["id"] for m in messages}) == 3
    # As a receiver checks it: standardwebhooks.com.
    headers, body = target.got[0]
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    want = base64.b64encode(hmac.new(bytes(range(24)), signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{want}" and headers["webhook-id"] == first["id"]
    assert headers["Content-Type"] == "application/cloudevents+json"
    assert abs(int(headers["webhook-timestamp"]) - time.time()) < 60
    ward.alerting = ward.again()
    ward.deliver()
    assert len(target.got) == 3


def test_a_target_that_is_away_gets_everything_later(ward, target):
    target.status = 503
    ward.sees("fall", "quiet")
    for _ in range(4):
        ward.deliver()
        time.sleep(0.1)
    assert {s for *_, s in ward.states()} == {"waiting"} and len(target.got) >= 3
    (waiting, *_) = ward.alerting.book.deliveries("waiting", 10)
    assert waiting.error == "HTTPError: the target answered 503"
    target.status = 204
    # Another process takes over: what waits is in the database.
    ward.alerting, before = ward.again(), len(target.got)
    time.sleep(0.3)
    ward.deliver()
    assert ward.states() == [("falls", "hook", "begin", "done"), ("falls", "hook", "end", "done")]
    assert [json.loads(b)["type"].rsplit(".")[-1] for _, b in target.got[before:]] == ["begin", "end"]


def test_what_cannot_be_delivered_is_kept_for_somebody_to_look_at(tmp_path, target):
    ward = Ward(tmp_path, give_up_s=0.0)
    target.status = 500
    ward.alerting.book.put_channel(channel_of({"kind": "webhook", "name": "hook", "url": target.url}), "test")
    ward.alerting.book.put_rule(Rule(name="all", to=["hook"]), "test")
    ward.sees("fall")
    ward.deliver(2)
    (dead,) = ward.alerting.book.deliveries("dead", 10)
    assert dead.tries == 1 and len(target.got) == 1
    target.status = 200
    assert ward.alerting.book.settle(dead.id, state="waiting", due_at=time.time())
    ward.deliver()
    assert ward.states() == [("all", "hook", "begin", "done")]


def test_a_channel_that_fails_holds_up_no_other(ward, target, another):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        gone = f"http://127.0.0.1:{nobody.getsockname()[1]}/"
    for name, url in (("gone", gone), ("other", another.url)):
        ward.alerting.book.put_channel(channel_of({"kind": "webhook", "name": name, "url": url}), "test")
    ward.alerting.book.put_rule(Rule(name="falls", to=["gone", "hook", "other"]), "test")
    ward.sees("fall")
    ward.deliver()
    assert len(target.got) == len(another.got) == 1
    assert [s for _, c, _, s in ward.states() if c == "gone"] == ["waiting"]


def test_a_channel_that_hangs_holds_up_no_other(ward, target):
    with socket.socket() as silent:
        # It takes connections, and says nothing.
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        hanging = {"kind": "webhook", "name": "a-hangs", "url": f"http://127.0.0.1:{silent.getsockname()[1]}/"}
        ward.alerting.book.put_channel(channel_of(hanging), "test")
        ward.alerting.book.put_rule(Rule(name="falls", to=["a-hangs", "hook"]), "test")

        async def main() -> list[int]:
            counts = []
            for behaviours in (["fall"], ["quiet", "fall"]):
                await asyncio.to_thread(ward.sees, *behaviours)
                await asyncio.to_thread(ward.alerting.look)
                tasks = await ward.alerting.start_deliveries()
                await asyncio.wait(tasks, timeout=5, return_when=asyncio.FIRST_COMPLETED)
                counts.append(len(target.got))
            return counts

        assert asyncio.run(main()) == [1, 3]


def test_who_does_not_acknowledge_in_time_is_not_the_last_who_is_told(ward, target, another):
    ward.alerting.book.put_channel(channel_of({"kind": "webhook", "name": "nurse", "url": another.url}), "test")
    ward.alerting.book.put_rule(Rule(name="falls", to=["hook"], escalate_after_s=0.2, escalate_to=["nurse"]), "test")
    care = EventCare(ward.store, ["quiet", "fall"])
    ward.sees("fall")
    ward.deliver()
    assert another.got == []
    time.sleep(0.3)
    ward.deliver()
    ward.deliver()
    assert [json.loads(b)["type"] for _, b in another.got] == ["ruyicam.alert.escalation"]
    ward.sees("quiet", "fall")
    ward.deliver()
    newest = max(e.id for e in ward.store.events())
    care.acknowledge(newest, "otto")
    time.sleep(0.3)
    ward.deliver()
    assert len(another.got) == 1


def test_a_rule_waits_for_its_dwell_and_rests_for_its_cooldown(ward, target):
    ward.alerting.book.put_rule(Rule(name="falls", dwell_s=0.00005, cooldown_s=60, to=["hook"]), "test")
    ward.sees("fall")
    ward.deliver()
    assert target.got == []
    # Ticks of these packets are a microsecond each.
    ward.sees("fall", "fall", "quiet", *["fall"] * 7)
    ward.deliver()
    assert [json.loads(b)["type"].rsplit(".")[-1] for _, b in target.got] == ["begin", "end"]


def test_what_happened_before_there_were_rules_is_past(tmp_path, target):
    ward = Ward(tmp_path)
    ward.sees("fall")
    ward.deliver()
    ward.alerting.book.put_channel(channel_of({"kind": "webhook", "name": "hook", "url": target.url}), "test")
    ward.alerting.book.put_rule(Rule(name="all", to=["hook"]), "test")
    ward.deliver()
    assert ward.states() == []
    ward.sees("fight")
    ward.deliver()
    assert [json.loads(b)["data"]["behaviour"] for _, b in target.got] == ["fight"]


def test_a_zone_is_where_somebody_stands(backend):
    (event,) = backend.store.events()
    columns = {c.name: getattr(event, c.name) for c in event.__table__.columns}
    alerting = Alerting(backend.store, backend.subscribers, backend.replay, 1, 1, 1)
    everywhere = Rule(name="r", to=["c"], zone=[(0, 0), (1, 0), (1, 1), (0, 1)])
    nowhere = Rule(name="r", to=["c"], zone=[(0, 0), (0.001, 0), (0, 0.001)])
    assert event.people and alerting._in_zone(everywhere, columns) and not alerting._in_zone(nowhere, columns)


def test_home_assistant_finds_its_sensors(tmp_path):
    """Over a real broker."""
    broker = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
    if broker is None:
        pytest.skip("mosquitto is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = tmp_path / "mosquitto.conf"
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n")
    running = subprocess.Popen([broker, "-c", config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while running.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        ward = Ward(tmp_path)
        channel = {"kind": "mqtt", "name": "home", "host": "127.0.0.1", "port": port}
        ward.alerting.book.put_channel(channel_of(channel), "test")
        ward.alerting.book.put_rule(Rule(name="all", to=["home"]), "test")
        ward.sees("fall")
        ward.deliver()

        async def kept(topic: str) -> str:
            async with aiomqtt.Client("127.0.0.1", port) as client:
                await client.subscribe(topic)
                async for message in client.messages:
                    return message.payload.decode()

        def said(topic: str) -> str:
            return asyncio.run(asyncio.wait_for(kept(topic), 5))

        sensor = json.loads(said("homeassistant/binary_sensor/ruyicam_ward-3_fall/config"))
        assert (sensor["device_class"], sensor["device"]["name"]) == ("safety", "ward-3")
        assert said(sensor["state_topic"]) == "ON"
        ward.sees("quiet")
        ward.deliver()
        assert said(sensor["state_topic"]) == "OFF"
        assert [s for *_, s in ward.states()] == ["done", "done"]
    finally:
        running.kill()
        running.wait()


def test_mqtt_topics_are_made_of_what_topics_may_be():
    channel = Mqtt(kind="mqtt", name="m", host="h", topic="site/a", discovery=None)
    message = {"type": "ruyicam.alert.end", "data": {"camera_id": "ward-3", "behaviour": "fall"}}
    assert [(t, kept) for t, _, kept in channel.messages(message)] == [
        ("site/a/ward-3/event", False),
        ("site/a/ward-3/fall", True),
    ]


def test_mail_tells_people_what_happened_and_what_nobody_saw_to(tmp_path):
    got = []

    class Box:
        async def handle_DATA(self, server, session, envelope):
            got.append((envelope.rcpt_tos, email.message_from_bytes(envelope.content)))
            return "250 OK"

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = Controller(Box(), hostname="127.0.0.1", port=port)
    server.start()
    try:
        ward = Ward(tmp_path)
        channel = {
            "kind": "email", "name": "mail", "host": "127.0.0.1", "port": port, "security": "none",
            "sender": "ruyicam@ward.example", "to": ["a@ward.example", "b@ward.example"],
        }  # fmt: skip
        ward.alerting.book.put_channel(channel_of(channel), "test")
        ward.alerting.book.put_rule(Rule(name="falls", to=["mail"], escalate_after_s=0.01, escalate_to=["mail"]), "test")
        ward.sees("fall", "quiet")
        ward.deliver()
        time.sleep(0.05)
        ward.deliver()
    finally:
        server.stop()
    assert [mail["Subject"] for _, mail in got] == ["fall at ward-3", "Nobody has acknowledged: fall at ward-3"]
    assert got[0][0] == ["a@ward.example", "b@ward.example"] and "sure: 90%" in got[0][1].get_payload()
    assert {s for *_, s in ward.states()} == {"done"}


def test_the_api_keeps_secrets_and_tries_channels(backend, target):
    admin, viewer = client_of(backend, "admin"), client_of(backend, "viewer")
    hook = {"kind": "webhook", "name": "hook", "url": target.url, "secret": SECRET}
    assert admin.put("/v1/channels/hook", json=hook).json()["secret"] == "(not shown)"
    assert SECRET not in admin.get("/v1/channels").text and viewer.get("/v1/channels").status_code == 403
    shown = admin.get("/v1/channels").json()[0]
    assert admin.put("/v1/channels/hook", json=shown | {"url": target.url + "2"}).status_code == 200
    assert backend.alerts.channels()[0].secret == SECRET
    assert (
        admin.post("/v1/channels/hook/test").status_code == 204 and json.loads(target.got[0][1])["type"] == "ruyicam.alert.test"
    )
    target.status = 500
    assert admin.post("/v1/channels/hook/test").json() == {"detail": "HTTPError: the target answered 500"}
    rule = {"name": "falls", "to": ["nobody"]}
    assert admin.put("/v1/rules/falls", json=rule).json() == {"detail": "channel 'nobody' does not exist"}
    assert admin.put("/v1/rules/falls", json=rule | {"to": ["hook"], "behaviours": ["tango"]}).status_code == 422
    assert admin.put("/v1/rules/falls", json=rule | {"to": ["hook"]}).status_code == 200
    assert [r["name"] for r in viewer.get("/v1/rules").json()] == ["falls"]
    assert admin.delete("/v1/channels/hook").json() == {"detail": "rule 'falls' tells channel 'hook'"}
    assert admin.delete("/v1/rules/falls").status_code == admin.delete("/v1/channels/hook").status_code == 204
    assert admin.put("/v1/channels/x", json={"kind": "webhook", "name": "x", "url": "ftp://x"}).status_code == 422
    assert admin.post("/v1/deliveries/5/retry").status_code == 404
    with pytest.raises(RuyicamError, match="rule 'falls' does not exist"):
        backend.alerts.remove_rule("falls")
