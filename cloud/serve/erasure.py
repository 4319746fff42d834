"""Deleting at once, and for good, all that is kept of one camera."""

from __future__ import annotations

from collections import Counter

from sqlalchemy import Delete, and_, delete, func, select

from ruyicam.cloud.errors import Exit, RuyicamError

from .metrics import DELETED
from .store import Store
from .tables import Boot, Care, Change, Delivery, EnrolmentToken, Event, Firing, Note, Packet, SessionCertificate, Window

# Packets, and events, of one transaction, at most: others write meanwhile.
_PACKETS, _EVENTS = 20_000, 500


class StillReadError(RuyicamError):
    """The camera sends, or what it sent is still being read."""

    def __init__(self, camera_id: str):
        super().__init__(
            Exit.USAGE, f"camera '{camera_id}' sends, or is still being read: stop it, or revoke its certificate, and wait"
        )


class Erasure:
    """Thread-safe."""

    def __init__(self, store: Store):
        self._store = store

    def erase(self, camera_id: str) -> dict[str, int]:
        """Rows deleted of each table; nothing of the camera is left but what the log says of who saw it. Should it send
        again, it begins anew. Raises StillReadError, or RuyicamError(USAGE) for one that is not known."""
        boots = self._store.rows(select(Boot).where(Boot.camera_id == camera_id))
        if not boots:
            raise RuyicamError(Exit.USAGE, f"camera '{camera_id}' is not known here")
        if not all(boot.closed for boot in boots):
            raise StillReadError(camera_id)
        gone: Counter[str] = Counter()
        while self._some_packets(camera_id, gone) or self._some_events(camera_id, gone):
            pass
        # Boots last: until then a second try finds the camera.
        for table in (SessionCertificate, EnrolmentToken, Window, Boot):
            self._delete(gone, table.__tablename__, [delete(table).where(table.camera_id == camera_id)])
        return dict(gone)

    def _delete(self, gone: Counter[str], name: str, deletes: list[Delete]) -> int:
        with self._store.write() as connection:
            count = sum(connection.execute(d).rowcount for d in deletes)
        gone[name] += count
        DELETED.labels(name).inc(count)
        return count

    def _some_packets(self, camera_id: str, gone: Counter[str]) -> bool:
        mine = Packet.camera_id == camera_id
        some = select(Packet.boot_id, Packet.sequence).where(mine).order_by(Packet.boot_id, Packet.sequence).limit(_PACKETS)
        found = some.subquery()
        with self._store.engine.connect() as connection:
            stretches = connection.execute(
                select(found.c.boot_id, func.max(found.c.sequence).label("last")).group_by(found.c.boot_id)
            ).all()
        each = [delete(Packet).where(and_(mine, Packet.boot_id == s.boot_id, Packet.sequence <= s.last)) for s in stretches]
        return bool(each) and self._delete(gone, Packet.__tablename__, each) > 0

    def _some_events(self, camera_id: str, gone: Counter[str]) -> bool:
        ids = self._store.rows(select(Event.id).where(Event.camera_id == camera_id).limit(_EVENTS))
        for table in (Care, Note, Firing, Delivery, Change):
            self._delete(gone, table.__tablename__, [delete(table).where(table.event_id.in_(ids))])
        return self._delete(gone, Event.__tablename__, [delete(Event).where(Event.id.in_(ids))]) > 0
