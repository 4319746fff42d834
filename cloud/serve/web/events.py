"""Events: lists, the stream of what happens to them, their contours, and what people do about them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Header, HTTPException, Query, Response
from fastapi.responses import StreamingResponse

from ..forms import CareOut, EventOut, iso
from ..live import joints
from ..subscribers import ALIVE_S
from ..tables import Event
from .access import Backend, BackendDep, Operator, RowId, Viewer
from .models import (
    ChangeOut,
    ContourOut,
    ContourTick,
    EventDetail,
    JudgementIn,
    LabelOut,
    NoteIn,
    NoteOut,
)

router = APIRouter(prefix="/v1", tags=["events"])
_STREAM = {200: {"content": {"text/event-stream": {}}}}


def _sse(kind: str, data: dict, number: int | None = None) -> str:
    """One message in the text/event-stream format."""
    return ("" if number is None else f"id: {number}\n") + f"event: {kind}\ndata: {json.dumps(data)}\n\n"


def _streaming(messages: AsyncIterator[str]) -> StreamingResponse:
    return StreamingResponse(messages, media_type="text/event-stream", headers={"Cache-Control": "no-store"})


def _out(backend: Backend, events: list[Event]) -> list[EventOut]:
    care, quiet = backend.care.of(e.id for e in events), backend.care.labels[0]
    return [EventOut.of(e, CareOut.of(care.get(e.id), quiet)) for e in events]


def _event(backend: Backend, event_id: int) -> Event:
    found = backend.store.event(event_id)
    if found is None:
        raise HTTPException(404, f"event {event_id} is not known here")
    return found


@router.get("/events")
def events(
    backend: BackendDep,
    who: Viewer,
    camera_id: str | None = None,
    boot_id: str | None = None,
    since_us: int = Query(0, ge=0, lt=1 << 62, description="only events that end at or after this Unix time in microseconds"),
    alerts: bool = Query(False, description="only behaviours that someone should look at"),
    limit: int = Query(100, ge=1, le=1000),
) -> list[EventOut]:
    """Newest first."""
    return _out(backend, backend.store.events(camera_id, boot_id, since_us, alerts, limit))


@router.get("/events/stream", response_class=StreamingResponse, responses=_STREAM)
async def stream(
    backend: BackendDep,
    who: Viewer,
    last_event_id: Annotated[int | None, Header(ge=0, lt=1 << 62, description="goes on behind that one; else from now")] = None,
) -> StreamingResponse:
    """Server-sent events: begin, update, end, acknowledge, judge and note of events that someone should look at."""
    after = await asyncio.to_thread(backend.store.newest_change) if last_event_id is None else last_event_id

    async def messages() -> AsyncIterator[str]:
        # Said at once, so that who listens knows that it is heard from here on.
        yield f"id: {after}\nretry: 1000\n: listening\n\n"
        async for changes in backend.subscribers.changes(after):
            if not changes:
                yield ": still here\n\n"
                continue
            care = await asyncio.to_thread(backend.care.of, [c.event_id for c in changes])
            for c in changes:
                out = ChangeOut.of(c, CareOut.of(care.get(c.event_id), backend.care.labels[0]))
                yield _sse(c.kind, out.model_dump(), c.id)

    return _streaming(messages())


@router.get("/live", response_class=StreamingResponse, responses=_STREAM)
async def live(backend: BackendDep, who: Viewer) -> StreamingResponse:
    """Server-sent events: what each camera shows at the moment, as moving contours (`contour`: ticks as in ContourTick)."""
    await asyncio.to_thread(backend.accounts.note, who.name, "watch", "live")

    async def messages() -> AsyncIterator[str]:
        yield "retry: 1000\n: watching\n\n"
        async for said in backend.live.watch(ALIVE_S):
            yield ": still here\n\n" if said is None else _sse("reading", said | {"rate_hz": backend.rate_hz})

    return _streaming(messages())


def _detail(backend: Backend, event_id: int) -> EventDetail:
    found = _event(backend, event_id)
    boot = backend.store.boot(found.boot_id)
    return EventDetail(
        **_out(backend, [found])[0].model_dump(),
        notes=[NoteOut.of(n) for n in backend.care.notes(event_id)],
        ledger_releases=boot.ledger_releases if boot else 0,
        ledger_bits=boot.ledger_bits if boot else 0.0,
        certificate=backend.store.certificate(found.boot_id) is not None,
    )


@router.get("/events/{event_id}")
def event(backend: BackendDep, who: Viewer, event_id: RowId) -> EventDetail:
    """One event, and what is behind it."""
    return _detail(backend, event_id)


@router.get("/events/{event_id}/contour")
def contour(backend: BackendDep, who: Viewer, event_id: RowId) -> ContourOut:
    """The contour of an event and of the two seconds before it, read anew from the features; empty once these are deleted."""
    e = _event(backend, event_id)
    backend.accounts.note(who.name, "replay", f"event {event_id} of {e.camera_id}")
    ticks = backend.replay.contour(e.boot_id, e.first_tick, e.last_tick)
    return ContourOut(
        rate_hz=backend.rate_hz,
        ticks=[ContourTick(tick=tick, at=iso(us / 1e6), people=joints(figures)) for tick, us, figures in ticks],
    )


def _done(backend: Backend, done: bool, event_id: int, who: str, action: str) -> EventDetail:
    if not done:
        raise HTTPException(404, f"event {event_id} is not known here")
    backend.accounts.note(who, action, f"event {event_id}")
    backend.subscribers.wake_soon()
    return _detail(backend, event_id)


@router.post("/events/{event_id}/acknowledge")
def acknowledge(backend: BackendDep, who: Operator, event_id: RowId) -> EventDetail:
    """Someone sees to it; who says so first counts."""
    return _done(backend, backend.care.acknowledge(event_id, who.name), event_id, who.name, "acknowledge")


@router.post("/events/{event_id}/judgement")
def judge(backend: BackendDep, who: Operator, event_id: RowId, said: JudgementIn) -> EventDetail:
    """What it really was: one of the labels of /v1/me, the first for a false alarm."""
    if said.label not in backend.care.labels:
        raise HTTPException(422, f"label is '{said.label}', expected one of {', '.join(backend.care.labels)}")
    return _done(backend, backend.care.judge(event_id, said.label, who.name), event_id, who.name, f"judge {said.label}"[:32])


@router.post("/events/{event_id}/notes")
def note(backend: BackendDep, who: Operator, event_id: RowId, said: NoteIn) -> EventDetail:
    """Something to remember about it."""
    return _done(backend, backend.care.write_note(event_id, said.text, who.name), event_id, who.name, "note")


@router.get("/labels", response_class=Response, responses={200: {"content": {"application/x-ndjson": {}}}})
def labels(backend: BackendDep, who: Operator) -> Response:
    """Every judged event as a line of JSON (LabelOut), oldest first. `ruyicam labels` writes their features, too."""
    rows = backend.care.labels_given()
    backend.accounts.note(who.name, "export labels", f"{len(rows)} events")
    text = "".join(LabelOut.of(row).model_dump_json() + "\n" for row in rows)
    headers = {"Content-Disposition": "attachment; filename=labels.jsonl"}
    return Response(text, media_type="application/x-ndjson", headers=headers)
