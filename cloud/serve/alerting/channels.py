"""Channels: how somebody is told. Each sends one CloudEvent (cloudevents.io, 1.0) or raises what went wrong."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import json
import re
import smtplib
import ssl
import time
from email.message import EmailMessage
from typing import Annotated, Any, Literal

import aiomqtt
import httpx
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter

from .rules import Name

TIMEOUT_S = 10.0
# In place of a secret.
HIDDEN = "(not shown)"
_SECRET_PREFIX = "whsec_"


def _secret_bytes(secret: str) -> bytes:
    return base64.b64decode(secret.removeprefix(_SECRET_PREFIX), validate=True)


def _good_secret(secret: str) -> str:
    try:
        if secret == HIDDEN or len(_secret_bytes(secret)) >= 24:
            return secret
    except binascii.Error:
        pass
    raise ValueError(f"expected {_SECRET_PREFIX} and at least 24 bytes in base64")


class _Channel(BaseModel):
    """What all have."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: Name

    def shown(self) -> dict[str, Any]:
        """For those who may see it: without secrets."""
        hidden = {k for k in ("secret", "password") if getattr(self, k, None) is not None}
        return self.model_dump(exclude=hidden) | dict.fromkeys(hidden, HIDDEN)


class Webhook(_Channel):
    """HTTP POST of the CloudEvent as JSON, signed as standardwebhooks.com says (HMAC-SHA256 of "id.timestamp.body")."""

    kind: Literal["webhook"]
    url: str = Field(pattern=r"^https?://[^\s]+$", max_length=2000)
    secret: Annotated[str, AfterValidator(_good_secret)] | None = Field(None, description="whsec_ and base64; none: unsigned")

    def headers(self, message: dict[str, Any], body: bytes, now: int) -> dict[str, str]:
        """Of that body, sent at `now` (Unix seconds)."""
        found = {"Content-Type": "application/cloudevents+json", "webhook-id": message["id"], "webhook-timestamp": str(now)}
        if self.secret is not None:
            signed = f"{message['id']}.{now}.".encode() + body
            digest = hmac.new(_secret_bytes(self.secret), signed, hashlib.sha256).digest()
            found["webhook-signature"] = f"v1,{base64.b64encode(digest).decode()}"
        return found

    async def send(self, message: dict[str, Any]) -> None:
        """Raises httpx.HTTPError, also for any answer but 2xx."""
        body = json.dumps(message).encode()
        async with httpx.AsyncClient(timeout=TIMEOUT_S, follow_redirects=False) as client:
            answer = await client.post(self.url, content=body, headers=self.headers(message, body, int(time.time())))
        if not answer.is_success:
            raise httpx.HTTPError(f"the target answered {answer.status_code}")


class Mqtt(_Channel):
    """The CloudEvent on TOPIC/CAMERA/event, and the camera's behaviours as binary sensors that Home Assistant discovers."""

    kind: Literal["mqtt"]
    host: str = Field(min_length=1, max_length=253)
    port: int = Field(1883, ge=1, le=65535)
    tls: bool = False
    user: str | None = None
    password: str | None = None
    topic: str = Field("ruyicam", pattern=r"^[A-Za-z0-9._/-]{1,100}$")
    discovery: str | None = Field("homeassistant", pattern=r"^[A-Za-z0-9._/-]{1,100}$", description="none: no discovery")

    def messages(self, message: dict[str, Any]) -> list[tuple[str, str, bool]]:
        """(topic, payload, whether the broker keeps it) of a CloudEvent."""
        event = message["data"]
        camera = event["camera_id"]
        state = f"{self.topic}/{camera}/{event['behaviour']}"
        found = [(f"{self.topic}/{camera}/event", json.dumps(message), False)]
        if self.discovery is not None:
            own = re.sub(r"[^A-Za-z0-9_-]", "_", f"ruyicam_{camera}_{event['behaviour']}")
            sensor = {
                "name": event["behaviour"],
                "unique_id": own,
                "state_topic": state,
                "device_class": "safety",
                "device": {"identifiers": [f"ruyicam_{camera}"], "name": camera, "manufacturer": "ruyicam"},
            }
            found.append((f"{self.discovery}/binary_sensor/{own}/config", json.dumps(sensor), True))
        return [*found, (state, "OFF" if message["type"].endswith(".end") else "ON", True)]

    async def send(self, message: dict[str, Any]) -> None:
        """At least once (QoS 1). Raises aiomqtt.MqttError."""
        context = ssl.create_default_context() if self.tls else None
        async with aiomqtt.Client(
            self.host, self.port, username=self.user, password=self.password, tls_context=context, timeout=TIMEOUT_S
        ) as client:
            for topic, payload, kept in self.messages(message):
                await client.publish(topic, payload, qos=1, retain=kept)


class Email(_Channel):
    """A mail for people, in plain text; not for the end of an event."""

    kind: Literal["email"]
    host: str = Field(min_length=1, max_length=253)
    port: int = Field(587, ge=1, le=65535)
    security: Literal["starttls", "tls", "none"] = "starttls"
    user: str | None = None
    password: str | None = None
    sender: str = Field(pattern=r"^[^@\s]+@[^@\s]+$", max_length=254)
    to: list[Annotated[str, Field(pattern=r"^[^@\s]+@[^@\s]+$", max_length=254)]] = Field(min_length=1, max_length=50)

    def mail(self, message: dict[str, Any]) -> EmailMessage:
        """What is sent."""
        event, mail = message["data"], EmailMessage()
        again = "Nobody has acknowledged: " if message["type"].endswith(".escalation") else ""
        mail["Subject"] = f"{again}{event['behaviour']} at {event['camera_id']}"
        mail["From"], mail["To"], mail["Message-ID"] = self.sender, ", ".join(self.to), f"<{message['id']}@ruyicam>"
        sure = "unknown" if event["confidence"] is None else f"{event['confidence']:.0%}"
        lines = [f"{event['behaviour']} at {event['camera_id']} since {event['begin']}, sure: {sure}."]
        lines += [f"{s['begin']}: {', '.join(s['what'])}, because {s['why']}." for s in event["story"]]
        mail.set_content("\n".join([*lines, "", f"Event {event['id']}, rule {message['rule']}."]))
        return mail

    async def send(self, message: dict[str, Any]) -> None:
        """Raises OSError or smtplib.SMTPException."""
        if not message["type"].endswith(".end"):
            await asyncio.to_thread(self._send, self.mail(message))

    def _send(self, mail: EmailMessage) -> None:
        if self.security == "tls":
            server = smtplib.SMTP_SSL(self.host, self.port, timeout=TIMEOUT_S, context=ssl.create_default_context())
        else:
            server = smtplib.SMTP(self.host, self.port, timeout=TIMEOUT_S)
        with server:
            if self.security == "starttls":
                server.starttls(context=ssl.create_default_context())
            if self.user is not None:
                server.login(self.user, self.password or "")
            server.send_message(mail)


Channel = Annotated[Webhook | Mqtt | Email, Field(discriminator="kind")]
channel_of = TypeAdapter(Channel).validate_python
