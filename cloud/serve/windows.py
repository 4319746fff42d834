"""Windows of packets that no tier has read yet, and what becomes of them: verdicts, and events that begin, go on and end."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sqlalchemy import Connection, Row, and_, bindparam, case, delete, func, insert, or_, select, update

from .scale.turn import Turn
from .store import Store
from .tables import Boot, Change, Event, Packet, Window

# What changes of an event.
_CHANGING = ("last_tick", "end_us", "windows", "confidence", "ended", "people", "story")
# Entries of an event's story, at most.
_LONGEST_STORY = 32


@dataclass(frozen=True)
class PendingWindow:
    """Ticks start..end (inclusive) of one boot that no tier has read yet; `final` closes the boot."""

    camera_id: str
    boot_id: str
    bundle_id: str
    start: int
    end: int
    final: bool
    packets: Sequence[Row]  # of `packets`: sequence, captured_at_us, received_at, kind, token, features
    read_to: int = -1  # newest tick that an earlier window was read to


@dataclass(frozen=True)
class Verdict:
    """What one tier said of a window."""

    tier: str
    behaviour: str
    confidence: float | None
    probabilities: list[float] | None


@dataclass(frozen=True)
class Seen:
    """What was read in one window.

    verdicts: of each tier that read it, shallowest first; contour: (tick, uint8 [people, 17, 3] as in passes.Reading) of its
    unread ticks whose features were released; report: what the language head says, None where it was not asked.
    """

    verdicts: list[Verdict] = field(default_factory=list)
    contour: list[tuple[int, np.ndarray]] = field(default_factory=list)
    report: dict[str, Any] | None = None

    @property
    def people(self) -> int | None:
        """The most that one of those ticks shows; None: there are none."""
        return max((len(figures) for _, figures in self.contour), default=None)


class WindowQueue:
    """One reader at a time, of all services on the database: it reads what is pending, then concludes it."""

    def __init__(self, store: Store, window: int, stride: int, idle_s: float, quiet: str):
        """window: ticks; stride: from one to the next; idle_s: silence after which a boot's last window is closed; quiet:
        the behaviour that nobody needs to look at."""
        self.store, self.window, self.stride, self.idle_s, self.quiet = store, window, stride, idle_s, quiet
        self.turn = Turn(store)
        self._turns = 0
        self._since: float | None = None  # when cameras could be heard again, by the monotonic clock
        self._last: dict[tuple[str, str], dict[str, Any]] = {}

    def pending(self, bundles: Collection[str], limit: int = 128) -> list[PendingWindow]:
        """The next unread window of each boot: a full one, or the last of a boot that ended or fell silent. Nothing while
        another service reads. Silence counts from the first call, which a service makes once it listens, and from when it has
        its turn back, which it loses with the database.

        bundles: ids of the bundles whose boots count; others wait until their bundle is known.
        """
        if not self.turn.mine():
            return []
        if self._turns != self.turn.count:
            # Meanwhile others have written.
            self._turns, self._since = self.turn.count, None
            self._last.clear()
        last = self.window - 1
        due = or_(Boot.newest >= Boot.next_start + last, Boot.ended.is_(True))
        # While the server or its database was away no camera could be heard.
        now = time.monotonic()
        self._since = now if self._since is None else self._since
        if now >= self._since + self.idle_s:
            due = or_(due, Boot.seen_at <= time.time() - self.idle_s)
        # Who waits longest comes first; one that sends what it kept during an outage waits no longer than others can.
        most, waits = self.window + 2 * self.stride, Boot.newest - Boot.next_start
        first = case((waits > most, most), else_=waits).desc()
        boots = select(Boot).where(Boot.closed.is_(False), Boot.bundle_id.in_(bundles), due)
        boots = boots.order_by(first, Boot.seen_at).limit(limit)
        # The last window looks back from the newest tick; where all ticks were read it is empty.
        full = Boot.newest >= Boot.next_start + last
        end = case((full, Boot.next_start + last), else_=Boot.newest)
        chosen = boots.with_only_columns(
            Boot.camera_id, Boot.boot_id, Boot.bundle_id, Boot.read_to, Boot.seen_at,
            case((full, False), else_=True).label("final"), end.label("end"),
        ).subquery()  # fmt: skip
        both = and_(Packet.camera_id == chosen.c.camera_id, Packet.boot_id == chosen.c.boot_id)
        inside = Packet.sequence.between(chosen.c.end - last, chosen.c.end)
        columns = (Packet.sequence, Packet.captured_at_us, Packet.received_at, Packet.kind, Packet.token, Packet.features)
        query = (
            select(chosen, *columns)
            .join(Packet, and_(both, inside), isouter=True)
            .order_by(chosen.c.seen_at, chosen.c.camera_id, chosen.c.boot_id, Packet.sequence)
        )
        groups: dict[tuple[str, str], list[Row]] = defaultdict(list)
        with self.store.engine.connect() as connection:
            for row in connection.execute(query):
                groups[row.camera_id, row.boot_id].append(row)
        return [self._window(rows) for rows in groups.values()]

    def _window(self, rows: list[Row]) -> PendingWindow:
        boot = rows[0]
        there = [row for row in rows if row.sequence is not None]
        return PendingWindow(
            boot.camera_id,
            boot.boot_id,
            boot.bundle_id,
            max(0, boot.end - self.window + 1),
            boot.end,
            bool(boot.final),
            there if boot.end > boot.read_to else [],
            boot.read_to,
        )

    def conclude(self, windows: Sequence[PendingWindow], seen: Sequence[Seen], stride: int | None = None) -> int:
        """Records what the tiers said, lets events begin, go on or end, and moves the boots on, in one
        transaction. stride: ticks to each boot's next window, if another than usual. Returns how many events began."""
        stride = self.stride if stride is None else stride
        began = 0
        with self.turn.write() as connection:
            rows = [
                {"camera_id": w.camera_id, "boot_id": w.boot_id, "start": w.start, "end": w.end, **vars(v)}
                for w, what in zip(windows, seen, strict=True)
                for v in what.verdicts
            ]
            if rows:
                # Where a boot fell silent before its first window was full, and then went on, its tail began there, too.
                of = Window.camera_id == bindparam("c"), Window.boot_id == bindparam("b"), Window.end < bindparam("e")
                told = [w for w, what in zip(windows, seen, strict=True) if w.start == 0 and what.verdicts]
                firsts = [{"c": w.camera_id, "b": w.boot_id, "e": w.end} for w in told]
                if firsts:
                    connection.execute(delete(Window).where(Window.start == 0, *of), firsts)
                connection.execute(self.store.insert_new(Window), rows)
            # One reader at a time, so that what it knows of events holds.
            book = _EventBook(connection, self._last)
            for w, what in zip(windows, seen, strict=True):
                if what.verdicts:
                    began += self._event(book, w, what)
                if w.final:
                    self._close(connection, book, w)
            book.write()
            moved = [
                {"b_camera": w.camera_id, "b_boot": w.boot_id, "b_next": self._next(connection, w, stride), "b_end": w.end}
                for w in windows
                if not w.final
            ]
            if moved:
                here = and_(Boot.camera_id == bindparam("b_camera"), Boot.boot_id == bindparam("b_boot"))
                to = {"next_start": bindparam("b_next"), "read_to": bindparam("b_end")}
                connection.execute(update(Boot).where(here).values(to), moved)
        book.done()
        return began

    def _next(self, connection: Connection, w: PendingWindow, stride: int) -> int:
        """Where the boot's next window starts: behind an empty one as many strides on as it takes to find a packet."""
        if w.packets:
            return w.start + stride
        later = Packet.camera_id == w.camera_id, Packet.boot_id == w.boot_id, Packet.sequence > w.end
        first = connection.scalar(select(func.min(Packet.sequence)).where(*later))
        return w.start + stride * (1 if first is None else max(1, -(-(first - w.end) // stride)))

    def _close(self, connection: Connection, book: _EventBook, w: PendingWindow) -> None:
        # A packet that came meanwhile keeps the boot open.
        here = and_(Boot.camera_id == w.camera_id, Boot.boot_id == w.boot_id, Boot.newest == w.end)
        if connection.execute(update(Boot).where(here).values(closed=True, read_to=w.end)).rowcount:
            last = book.last(w)
            if last is not None and not last["ended"]:
                book.change("end", last | {"ended": True})
            book.forget(w)

    def _event(self, book: _EventBook, w: PendingWindow, seen: Seen) -> bool:
        """True: another one began."""
        deepest = seen.verdicts[-1]
        last, end_us = book.last(w), w.packets[-1].captured_at_us
        if last is not None and w.end <= last["last_tick"]:
            # Read already.
            return False
        if last is not None and last["behaviour"] == deepest.behaviour and w.start <= last["last_tick"] + 1:
            more = {"last_tick": w.end, "end_us": end_us, "windows": last["windows"] + 1, "ended": False}
            if deepest.confidence is not None:
                more["confidence"] = max(last["confidence"] or 0.0, deepest.confidence)
            if seen.people is not None:
                more["people"] = max(last["people"] or 0, seen.people)
            more["story"] = _told(last["story"] or [], w, seen)
            book.change("update", last | more)
            return False
        if last is not None and not last["ended"]:
            book.change("end", last | {"ended": True})
        # A new behaviour begins where the one before it ends.
        first = w.start if last is None else max(w.start, last["last_tick"] + 1)
        event = {
            "camera_id": w.camera_id,
            "boot_id": w.boot_id,
            "first_tick": first,
            "last_tick": w.end,
            "begin_us": next((p.captured_at_us for p in w.packets if p.sequence >= first), end_us),
            "end_us": end_us,
            "behaviour": deepest.behaviour,
            "alert": deepest.behaviour != self.quiet,
            "confidence": deepest.confidence,
            "tier": deepest.tier,
            "windows": 1,
            "ended": False,
            "people": seen.people,
            "story": _told([], w, seen),
        }
        book.change("begin", event)
        return True


def _told(story: list[dict[str, Any]], w: PendingWindow, seen: Seen) -> list[dict[str, Any]]:
    """The story, and what this window's report adds to it; times are Unix microseconds."""
    report = seen.report
    if report is None or len(story) >= _LONGEST_STORY:
        return story
    same = ("what", "who", "why")
    if story and all(story[-1][k] == report[k] for k in same):
        return story
    first = w.packets[0]
    begin_us, end_us = (first.captured_at_us + int(s * 1e6) for s in report["when"])
    return [*story, {**{k: report[k] for k in same}, "sure": report["sure"], "begin_us": begin_us, "end_us": end_us}]


class _EventBook:
    """The events of one transaction: what happens to them is written at once in the end, in order."""

    def __init__(self, connection: Connection, last: dict[tuple[str, str], dict[str, Any]]):
        """last: each open boot's newest event as far as it is known; good once the transaction is."""
        self._connection, self._known = connection, last
        self._now: dict[tuple[str, str], dict[str, Any] | None] = {}
        self._updates: dict[int, dict[str, Any]] = {}
        self._changes: list[dict[str, Any]] = []

    def last(self, w: PendingWindow) -> dict[str, Any] | None:
        """The boot's newest event."""
        boot = w.camera_id, w.boot_id
        if boot not in self._now:
            self._now[boot] = self._known.get(boot) or self._stored(w)
        return self._now[boot]

    def _stored(self, w: PendingWindow) -> dict[str, Any] | None:
        of_boot = and_(Event.camera_id == w.camera_id, Event.boot_id == w.boot_id)
        query = select(Event.__table__).where(of_boot).order_by(Event.last_tick.desc()).limit(1)
        row = self._connection.execute(query).mappings().first()
        return dict(row) if row else None

    def change(self, kind: str, event: dict[str, Any]) -> None:
        """It begins, goes on or ends."""
        if kind == "begin":
            event = event | {"id": self._connection.execute(insert(Event).returning(Event.id), event).scalar_one()}
        else:
            self._updates[event["id"]] = {"b_id": event["id"], **{f"b_{k}": event[k] for k in _CHANGING}}
        self._now[event["camera_id"], event["boot_id"]] = event
        if event["alert"]:
            self._changes.append({"event_id": event["id"], "kind": kind, "at": time.time(), "event": event})

    def forget(self, w: PendingWindow) -> None:
        """Its boot is over."""
        self._now[w.camera_id, w.boot_id] = None

    def write(self) -> None:
        """To the database; of events that someone should look at the changes, too."""
        if self._updates:
            new = {k: bindparam(f"b_{k}") for k in _CHANGING}
            self._connection.execute(
                update(Event).where(Event.id == bindparam("b_id")).values(new), list(self._updates.values())
            )
        if self._changes:
            self._connection.execute(insert(Change), self._changes)

    def done(self) -> None:
        """The transaction is good."""
        for boot, event in self._now.items():
            if event is None:
                self._known.pop(boot, None)
            else:
                self._known[boot] = event
