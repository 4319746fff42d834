"""What people do about events: they acknowledge them, say what it really was, and write notes."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, insert, select, update

from .store import Store
from .tables import Care, Change, Event, Note


class EventCare:
    """Thread-safe. Each change is told to subscribers like those of the event itself."""

    def __init__(self, store: Store, labels: Sequence[str]):
        """labels: what an event can be; the first is the quiet one."""
        self._store, self.labels = store, tuple(labels)

    def acknowledge(self, event_id: int, by: str) -> bool:
        """Someone sees to it; the first who says so counts. False: there is no such event."""
        with self._store.write(changes=True) as connection:
            if not self._tell(connection, event_id, "acknowledge"):
                return False
            first = Care.event_id == event_id, Care.acknowledged_at.is_(None)
            connection.execute(update(Care).where(*first).values(acknowledged_at=time.time(), acknowledged_by=by))
            return True

    def judge(self, event_id: int, label: str, by: str) -> bool:
        """What it really was, one of `labels`. False: there is no such event."""
        assert label in self.labels
        with self._store.write(changes=True) as connection:
            if not self._tell(connection, event_id, "judge"):
                return False
            values = {"judged_at": time.time(), "judged_by": by, "label": label}
            connection.execute(update(Care).where(Care.event_id == event_id).values(values))
            return True

    def write_note(self, event_id: int, text: str, by: str) -> bool:
        """Something to remember. False: there is no such event."""
        with self._store.write(changes=True) as connection:
            if not self._tell(connection, event_id, "note"):
                return False
            connection.execute(insert(Note), {"event_id": event_id, "at": time.time(), "by": by, "text": text})
            return True

    def _tell(self, connection: Connection, event_id: int, kind: str) -> bool:
        event = connection.execute(select(Event.__table__).where(Event.id == event_id)).mappings().first()
        if event is None:
            return False
        connection.execute(self._store.insert_new(Care), {"event_id": event_id})
        connection.execute(insert(Change), {"event_id": event_id, "kind": kind, "at": time.time(), "event": dict(event)})
        return True

    def of(self, event_ids: Iterable[int]) -> dict[int, Care]:
        """What was done about each of them, where something was."""
        return {c.event_id: c for c in self._store.rows(select(Care).where(Care.event_id.in_(set(event_ids))))}

    def notes(self, event_id: int) -> list[Note]:
        """Oldest first."""
        return self._store.rows(select(Note).where(Note.event_id == event_id).order_by(Note.id))

    def labels_given(self) -> list[dict[str, Any]]:
        """Every event that somebody judged, oldest first: camera, boot, ticks, times, what it was taken for and what it was."""
        query = select(Event.__table__, Care.label, Care.judged_by, Care.judged_at).join(Care, Care.event_id == Event.id)
        with self._store.engine.connect() as connection:
            rows = connection.execute(query.where(Care.label.is_not(None)).order_by(Event.begin_us)).mappings()
            keep = ("camera_id", "boot_id", "first_tick", "last_tick", "begin_us", "end_us", "label", "judged_by", "judged_at")
            return [
                {"event_id": r["id"], "predicted": r["behaviour"], "confidence": r["confidence"], **{k: r[k] for k in keep}}
                for r in rows
            ]
