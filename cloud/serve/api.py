"""The HTTP side: events, windows, health, metrics."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Annotated

from fastapi import FastAPI, Header, HTTPException, Query, Response
from fastapi.responses import StreamingResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel

from .store import Store
from .stream import Subscribers, sse
from .tables import Change, Event, Window


def _iso(us: int) -> str:
    return datetime.fromtimestamp(us / 1e6, UTC).isoformat(timespec="milliseconds")


class EventOut(BaseModel):
    """One event; times in UTC."""

    id: int
    camera_id: str
    boot_id: str
    behaviour: str
    alert: bool
    confidence: float | None
    tier: str
    begin: str
    end: str
    seconds: float
    ended: bool
    first_tick: int
    last_tick: int

    @classmethod
    def of(cls, e: Event) -> EventOut:
        """From the table's row."""
        return cls.of_values({c.name: getattr(e, c.name) for c in e.__table__.columns})

    @classmethod
    def of_values(cls, e: dict) -> EventOut:
        """From the row's values."""
        times = {"begin": _iso(e["begin_us"]), "end": _iso(e["end_us"]), "seconds": (e["end_us"] - e["begin_us"]) / 1e6}
        return cls(**times, **{k: e[k] for k in cls.model_fields if k not in times})


class ChangeOut(BaseModel):
    """What happened to an event, and the event as it was then."""

    id: int
    kind: str
    at: str
    event: EventOut

    @classmethod
    def of(cls, c: Change) -> ChangeOut:
        """From the table's row."""
        return cls(id=c.id, kind=c.kind, at=_iso(int(c.at * 1e6)), event=EventOut.of_values(c.event))


class WindowOut(BaseModel):
    """What one tier said of one window."""

    start: int
    end: int
    tier: str
    behaviour: str
    confidence: float | None
    probabilities: list[float] | None

    @classmethod
    def of(cls, w: Window) -> WindowOut:
        """From the table's row."""
        return cls(**{k: getattr(w, k) for k in cls.model_fields})


class BootOut(BaseModel):
    """How far one run of a device has been read."""

    camera_id: str
    boot_id: str
    packets: int
    newest: int
    ended: bool
    closed: bool
    ledger_releases: int
    ledger_bits: float
    ledger_went_back: bool
    windows: list[WindowOut]


class CertificateOut(BaseModel):
    """A session certificate as `ruyicam privacy verify` reads it: signed JSON, signature in hex, the device's PEM."""

    statement: str
    signature: str
    certificate: str


def make_api(store: Store, subscribers: Subscribers, version: str) -> FastAPI:
    """The application; every answer is JSON but /metrics."""
    app = FastAPI(title="ruyicam", version=version)

    @app.get("/healthz")
    def healthz() -> dict:
        store.events(limit=1)
        return {"status": "ok", "version": version}

    @app.get("/metrics")
    def metrics() -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    @app.get("/v1/events")
    def events(
        camera_id: str | None = None,
        boot_id: str | None = None,
        since_us: int = Query(0, ge=0, description="only events that end at or after this Unix time in microseconds"),
        alerts: bool = Query(False, description="only behaviours that someone should look at"),
        limit: int = Query(100, ge=1, le=1000),
    ) -> list[EventOut]:
        return [EventOut.of(e) for e in store.events(camera_id, boot_id, since_us, alerts, limit)]

    @app.get(
        "/v1/events/stream",
        response_class=StreamingResponse,
        responses={
            200: {"content": {"text/event-stream": {}}, "description": "begin, update and end of events, as they happen"}
        },
    )
    async def stream(
        last_event_id: Annotated[int | None, Header(ge=0, description="goes on behind that one; default: the newest")] = None,
    ) -> StreamingResponse:
        after = store.newest_change() if last_event_id is None else last_event_id

        async def messages() -> AsyncIterator[str]:
            # Said at once, so that who listens knows that it is heard from here on.
            yield f"id: {after}\nretry: 1000\n: listening\n\n"
            async for change in subscribers.changes(after):
                yield ": still here\n\n" if change is None else sse(change.id, change.kind, ChangeOut.of(change).model_dump())

        return StreamingResponse(messages(), media_type="text/event-stream", headers={"Cache-Control": "no-store"})

    @app.get("/v1/boots/{boot_id}")
    def boot(boot_id: str) -> BootOut:
        found = store.boot(boot_id)
        if found is None:
            raise HTTPException(404, f"boot {boot_id} is not known here")
        fields = ("camera_id", "boot_id", "newest", "ended", "closed", "ledger_releases", "ledger_bits", "ledger_went_back")
        return BootOut(
            packets=store.packet_count(boot_id),
            windows=[WindowOut.of(w) for w in store.windows(boot_id)],
            **{k: getattr(found, k) for k in fields},
        )

    @app.get("/v1/boots/{boot_id}/certificate")
    def certificate(boot_id: str) -> CertificateOut:
        found = store.certificate(boot_id)
        if found is None:
            raise HTTPException(404, f"boot {boot_id} has no certificate here yet")
        return CertificateOut(statement=found.statement, signature=found.signature, certificate=found.certificate)

    return app
