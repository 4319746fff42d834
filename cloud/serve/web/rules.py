"""Alert rules, the channels that they tell, and what became of the messages."""

from __future__ import annotations

import time
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, HTTPException, Query
from pydantic import BaseModel

from ruyicam.cloud.errors import Exit, RuyicamError

from ..alerting.book import cloud_event
from ..alerting.channels import HIDDEN, Channel, channel_of
from ..alerting.rules import Rule
from ..forms import iso
from ..tables import Delivery
from .access import Admin, Backend, BackendDep, RowId, Viewer
from .models import Problem

router = APIRouter(prefix="/v1", tags=["alerts"])


class DeliveryOut(BaseModel):
    """A message to a channel; error: of the last try."""

    id: int
    channel: str
    event_id: int
    rule: str
    kind: str
    state: str
    tries: int
    made_at: str
    due_at: str
    error: str | None

    @classmethod
    def of(cls, d: Delivery) -> DeliveryOut:
        """From the table's row."""
        times = {"made_at": iso(d.made_at), "due_at": iso(d.due_at)}
        return cls(**times, **{k: getattr(d, k) for k in cls.model_fields if k not in times})


def _same_name(path: str, body: str) -> None:
    if path != body:
        raise RuyicamError(Exit.USAGE, f"name is '{body}', expected '{path}' as in the path")


@router.get("/rules")
def rules(backend: BackendDep, who: Viewer) -> list[Rule]:
    """By name."""
    return backend.alerts.rules()


@router.put("/rules/{name}")
def put_rule(backend: BackendDep, who: Admin, name: str, rule: Rule) -> Rule:
    """A new one, or another form of it."""
    _same_name(name, rule.name)
    for label in rule.behaviours:
        if label not in backend.care.labels[1:]:
            raise RuyicamError(Exit.USAGE, f"behaviour is '{label}', expected one of {', '.join(backend.care.labels[1:])}")
    backend.alerts.put_rule(rule, who.name)
    backend.accounts.note(who.name, "put rule", name)
    return rule


@router.delete("/rules/{name}", status_code=204)
def remove_rule(backend: BackendDep, who: Admin, name: str) -> None:
    """It fires no more."""
    backend.alerts.remove_rule(name)
    backend.accounts.note(who.name, "remove rule", name)


@router.get("/channels")
def channels(backend: BackendDep, who: Admin) -> list[dict[str, Any]]:
    """By name, without their secrets."""
    return [c.shown() for c in backend.alerts.channels()]


def _channel(backend: Backend, name: str) -> Channel:
    for channel in backend.alerts.channels():
        if channel.name == name:
            return channel
    raise HTTPException(404, f"channel '{name}' does not exist")


@router.put("/channels/{name}")
def put_channel(backend: BackendDep, who: Admin, name: str, channel: Annotated[Channel, Body()]) -> dict[str, Any]:
    """A new one, or another form of it; a secret that is given as "(not shown)" stays as it is."""
    _same_name(name, channel.name)
    kept = {k: v for k, v in channel.model_dump().items() if v == HIDDEN}
    if kept:
        # A secret that there is not is not kept, either.
        old = _channel(backend, name).model_dump()
        channel = channel_of(channel.model_dump() | {k: old.get(k) for k in kept})
    backend.alerts.put_channel(channel, who.name)
    backend.accounts.note(who.name, "put channel", name)
    return channel.shown()


@router.delete("/channels/{name}", status_code=204)
def remove_channel(backend: BackendDep, who: Admin, name: str) -> None:
    """If no rule tells it."""
    backend.alerts.remove_channel(name)
    backend.accounts.note(who.name, "remove channel", name)


@router.post("/channels/{name}/test", status_code=204, responses={502: {"model": Problem}})
async def test_channel(backend: BackendDep, who: Admin, name: str) -> None:
    """Sends a made-up event at once; 502 with the reason if that fails."""
    channel, now_us = _channel(backend, name), int(time.time() * 1e6)
    event = {
        "id": 0, "camera_id": "test", "boot_id": "0" * 32, "behaviour": backend.care.labels[1], "alert": True,
        "confidence": 1.0, "tier": "test", "begin_us": now_us, "end_us": now_us, "ended": False,
        "first_tick": 0, "last_tick": 0,
    }  # fmt: skip
    try:
        await channel.send(cloud_event("test", event, "test"))
    except Exception as error:
        # Whatever a library raises is the answer to the question that a test is.
        raise HTTPException(502, f"{type(error).__name__}: {error}"[:500]) from error


@router.get("/deliveries")
def deliveries(
    backend: BackendDep,
    who: Admin,
    state: Literal["waiting", "done", "dead"] | None = None,
    limit: int = Query(100, ge=1, le=1000),
) -> list[DeliveryOut]:
    """Messages, newest first."""
    return [DeliveryOut.of(d) for d in backend.alerts.deliveries(state, limit)]


@router.post("/deliveries/{delivery_id}/retry", status_code=204)
def retry(backend: BackendDep, who: Admin, delivery_id: RowId) -> None:
    """Has a message sent again, for as long as a new one would be."""
    now = time.time()
    if not backend.alerts.settle(delivery_id, state="waiting", due_at=now, made_at=now, tries=0):
        raise HTTPException(404, f"delivery {delivery_id} is not known here")
    backend.accounts.note(who.name, "retry delivery", str(delivery_id))
