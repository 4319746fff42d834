"""An event as JSON, as the API, the streams and the channels give it; times are UTC."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel

from .tables import Care, Event


def iso(seconds: float) -> str:
    """A Unix time, to the millisecond."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def iso_or_none(seconds: float | None) -> str | None:
    return None if seconds is None else iso(seconds)


class StoryEntry(BaseModel):
    """What the language head says of a stretch: what, by whom (1: leftmost), how sure, and why in one sentence."""

    begin: str
    end: str
    what: list[str]
    who: list[int]
    why: str
    sure: float | None

    @classmethod
    def of(cls, entry: dict[str, Any]) -> StoryEntry:
        """From its form in the database."""
        times = {k: iso(entry[f"{k}_us"] / 1e6) for k in ("begin", "end")}
        return cls(**times, **{k: entry[k] for k in cls.model_fields if k not in times})


class CareOut(BaseModel):
    """What people did about an event; label: what it really was, false_alarm: nothing that anyone should have looked at."""

    acknowledged_at: str | None = None
    acknowledged_by: str | None = None
    judged_at: str | None = None
    judged_by: str | None = None
    label: str | None = None
    false_alarm: bool | None = None

    @classmethod
    def of(cls, care: Care | None, quiet: str) -> CareOut:
        """From the table's row."""
        if care is None:
            return cls()
        return cls(
            acknowledged_at=iso_or_none(care.acknowledged_at),
            acknowledged_by=care.acknowledged_by,
            judged_at=iso_or_none(care.judged_at),
            judged_by=care.judged_by,
            label=care.label,
            false_alarm=None if care.label is None else care.label == quiet,
        )


class EventOut(BaseModel):
    """One event. people: the most at once; story: what happened, in order."""

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
    people: int | None
    story: list[StoryEntry]
    care: CareOut

    @classmethod
    def of(cls, e: Event, care: CareOut) -> EventOut:
        """From the table's row."""
        return cls.of_values({c.name: getattr(e, c.name) for c in e.__table__.columns}, care)

    @classmethod
    def of_values(cls, e: dict[str, Any], care: CareOut) -> EventOut:
        """From the row's values; of a change that an earlier release wrote some are missing."""
        made = {
            "begin": iso(e["begin_us"] / 1e6),
            "end": iso(e["end_us"] / 1e6),
            "seconds": (e["end_us"] - e["begin_us"]) / 1e6,
            "people": e.get("people"),
            "story": [StoryEntry.of(entry) for entry in e.get("story") or []],
            "care": care,
        }
        return cls(**made, **{k: e[k] for k in cls.model_fields if k not in made})
