"""Rules: which events somebody is told of."""

from __future__ import annotations

from datetime import UTC, datetime, time
from fnmatch import fnmatchcase
from typing import Annotated, Any
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

Share = Annotated[float, Field(ge=0, le=1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
Pattern = Annotated[str, Field(min_length=1, max_length=64)]
# HH:MM-HH:MM, the end not included; one that ends before it begins goes over midnight.
Span = Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d-(([01]\d|2[0-3]):[0-5]\d|24:00)$")]


def _known_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ValueError(f"'{name}' is not a time zone, expected a name like Europe/Berlin") from None
    return name


class Rule(BaseModel):
    """Fires once for an event, as soon as all of this holds. Times are those of the event, not of when it became known."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: Name
    enabled: bool = True
    cameras: list[Pattern] = Field(["*"], min_length=1, max_length=100, description="patterns of camera ids")
    behaviours: list[str] = Field([], max_length=32, description="none: every one that someone should look at")
    confidence: float = Field(0.0, ge=0, le=1, description="least; where the tier gives none, any is enough")
    dwell_s: float = Field(0.0, ge=0, description="how long it has to go on")
    people: int = Field(0, ge=0, le=5, description="how many there are at least")
    zone: list[tuple[Share, Share]] | None = Field(
        None, min_length=3, max_length=64, description="corners, as shares of the picture; someone's hips are inside it"
    )
    days: list[Annotated[int, Field(ge=0, le=6)]] = Field([0, 1, 2, 3, 4, 5, 6], description="0: Monday")
    hours: list[Span] = Field([], max_length=16, description="HH:MM-HH:MM; none: always")
    quiet_hours: list[Span] = Field([], max_length=16, description="HH:MM-HH:MM in which it does not fire")
    timezone: Annotated[str, AfterValidator(_known_zone)] = "UTC"
    cooldown_s: float = Field(0.0, ge=0, description="after it fired for a camera it does not for so long")
    to: list[Name] = Field(min_length=1, max_length=16, description="channels that are told")
    escalate_after_s: float | None = Field(None, gt=0, description="if nobody has acknowledged the event by then")
    escalate_to: list[Name] = Field([], max_length=16, description="channels that are told then")

    @model_validator(mode="after")
    def _both_or_none(self) -> Rule:
        if (self.escalate_after_s is None) != (not self.escalate_to):
            raise ValueError("escalate_after_s and escalate_to belong together")
        return self

    def fits(self, event: dict[str, Any]) -> bool:
        """Whether all but the zone holds for an event with the columns of `events`."""
        seconds = (event["end_us"] - event["begin_us"]) / 1e6
        return (
            self.enabled
            and any(fnmatchcase(event["camera_id"], p) for p in self.cameras)
            and (not self.behaviours or event["behaviour"] in self.behaviours)
            and (event["confidence"] is None or event["confidence"] >= self.confidence)
            and seconds >= self.dwell_s
            and (event.get("people") or 0) >= self.people
            and self._awake(datetime.fromtimestamp(event["begin_us"] / 1e6, UTC))
        )

    def _awake(self, at: datetime) -> bool:
        here = at.astimezone(ZoneInfo(self.timezone))
        if here.weekday() not in self.days:
            return False
        inside = [_within(here.time(), span) for span in self.hours]
        return (not inside or any(inside)) and not any(_within(here.time(), span) for span in self.quiet_hours)


def _within(at: time, span: str) -> bool:
    minute, (begin, end) = at.hour * 60 + at.minute, (int(t[:2]) * 60 + int(t[3:]) for t in span.split("-"))
    return begin <= minute < end if begin < end else minute >= begin or minute < end


def inside(zone: list[tuple[float, float]], x: float, y: float) -> bool:
    """Whether a point is inside a polygon, by the even-odd rule; both as shares of the picture."""
    found = False
    for (x1, y1), (x2, y2) in zip(zone, [*zone[1:], zone[0]], strict=True):
        if (y1 > y) != (y2 > y) and x < (x2 - x1) * (y - y1) / (y2 - y1) + x1:
            found = not found
    return found
