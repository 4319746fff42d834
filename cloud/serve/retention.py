"""What is deleted when: little by little, so that nobody waits for it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from sqlalchemy import Connection, and_, delete, func, select

from .config import Keep
from .metrics import DELETED
from .store import Store
from .tables import (
    AuditEntry,
    Boot,
    Care,
    Change,
    Cursor,
    Delivery,
    EnrolmentToken,
    Event,
    Firing,
    Login,
    Note,
    Packet,
    SessionCertificate,
    Window,
)

log = logging.getLogger("ruyicam.retention")
_DAY_S = 86400.0
# Rows of one transaction, at most; while there are more, the next one comes soon.
_MOST = 2000
_SOON_S, _LATER_S = 0.5, 60.0


class Retention:
    """Deletes what is older than it may be. What was not read yet, and what is still going on, stays."""

    def __init__(self, store: Store, keep: Keep):
        self._store, self._keep = store, keep
        # Boots that are over and have nothing left.
        self._empty: set[tuple[str, str]] = set()

    def sweep(self) -> bool:
        """A bounded number of rows of each kind; True: there may be more."""
        full = [self._features(), self._events(), self._changes(), self._others()]
        return any(full)

    def _features(self) -> bool:
        before, left = time.time() - self._keep.features * _DAY_S, _MOST
        for boot in self._store.rows(select(Boot).order_by(Boot.seen_at)):
            if (boot.camera_id, boot.boot_id) not in self._empty:
                left -= self._features_of(boot, before, left)
            if left <= 0:
                return True
        return False

    def _features_of(self, boot: Boot, before: float, most: int) -> int:
        """How many went of one boot."""
        of_boot = Packet.camera_id == boot.camera_id, Packet.boot_id == boot.boot_id
        # What no window has been read to yet is not old, whenever it came.
        read = Packet.sequence <= (boot.newest if boot.closed else boot.next_start - 1)
        first = select(Packet.sequence, Packet.received_at).where(*of_boot, read).order_by(Packet.sequence).limit(most)
        # Nobody who writes waits for this look, which mostly finds nothing.
        with self._store.engine.connect() as connection:
            there = connection.execute(first).all()
        if not there and boot.closed:
            self._empty.add((boot.camera_id, boot.boot_id))
        gone = [p.sequence for p in there if p.received_at < before]
        if not gone:
            return 0
        with self._store.write() as connection:
            old = and_(*of_boot, Packet.sequence <= gone[-1], Packet.received_at < before)
            count = self._delete(connection, Packet, old)
            windows = Window.camera_id == boot.camera_id, Window.boot_id == boot.boot_id, Window.end <= gone[-1]
            self._delete(connection, Window, and_(*windows))
            return count

    def _events(self) -> bool:
        before_us = int((time.time() - self._keep.events * _DAY_S) * 1e6)
        with self._store.write() as connection:
            old = select(Event.id).where(Event.ended.is_(True), Event.end_us < before_us).order_by(Event.id).limit(_MOST)
            ids = list(connection.scalars(old))
            for table in (Care, Note, Firing):
                self._delete(connection, table, table.event_id.in_(ids))
            self._delete(connection, Delivery, and_(Delivery.event_id.in_(ids), Delivery.state != "waiting"))
            self._delete(connection, Event, Event.id.in_(ids))
            self._delete(connection, SessionCertificate, SessionCertificate.end_us < before_us)
        return len(ids) == _MOST

    def _changes(self) -> bool:
        before = time.time() - self._keep.changes * _DAY_S
        with self._store.write() as connection:
            first = select(Change.id, Change.at).order_by(Change.id).limit(_MOST).subquery()
            last = connection.scalar(select(func.max(first.c.id)).where(first.c.at < before))
            # What somebody has not read yet stays.
            read_to = connection.scalar(select(func.min(Cursor.position)))
            if last is None or read_to is None:
                return False
            return self._delete(connection, Change, Change.id <= min(last, read_to)) >= _MOST

    def _others(self) -> bool:
        now = time.time()
        with self._store.write() as connection:
            old = (
                select(AuditEntry.id)
                .where(AuditEntry.at < now - self._keep.audit * _DAY_S)
                .order_by(AuditEntry.id)
                .limit(_MOST)
            )
            count = self._delete(connection, AuditEntry, AuditEntry.id.in_(list(connection.scalars(old))))
            self._delete(connection, Login, Login.expires_at < now)
            self._delete(connection, EnrolmentToken, EnrolmentToken.expires_at < now - _DAY_S)
        return count == _MOST

    @staticmethod
    def _delete(connection: Connection, table, where) -> int:
        count = connection.execute(delete(table).where(where)).rowcount
        if count:
            DELETED.labels(table.__tablename__).inc(count)
        return count

    async def run(self, ours: Callable[[], bool]) -> None:
        """Until it is cancelled, while it is ours to do."""
        while True:
            more = False
            try:
                more = ours() and await asyncio.to_thread(self.sweep)
            except Exception:
                log.exception("deleting failed; trying again")
            await asyncio.sleep(_SOON_S if more else _LATER_S)
