"""Packets, windows and events in a database; every write is one transaction."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from sqlalchemy import create_engine, event, func, or_, select
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from ruyicam.cloud.errors import Exit, RuyicamError

from .tables import Base, Boot, EnrolmentToken, Event, Packet, SessionCertificate, Window


@dataclass(frozen=True)
class PendingWindow:
    """Ticks start..end (inclusive) of one boot that no tier has read yet; `final` closes the boot."""

    camera_id: str
    boot_id: str
    bundle_id: str
    start: int
    end: int
    final: bool
    seen_at: float
    packets: list[Packet]


@dataclass(frozen=True)
class Verdict:
    """What one tier said of a window."""

    tier: str
    behaviour: str
    confidence: float | None
    probabilities: list[float] | None


class Store:
    """Thread-safe; writes go one at a time."""

    def __init__(self, url: str):
        """Opens the database and makes missing tables. Raises RuyicamError(STORAGE)."""
        try:
            self.engine = create_engine(url)
            if self.engine.dialect.name == "sqlite":
                event.listen(self.engine, "connect", self._tune_sqlite)
            Base.metadata.create_all(self.engine)
        except OperationalError as error:
            raise RuyicamError(Exit.STORAGE, f"database {url}: {error.orig}") from error
        except Exception as error:
            raise RuyicamError(Exit.USAGE, f"database {url}: {error}") from error
        self._write = threading.Lock()
        self._opened = time.monotonic()

    @staticmethod
    def _tune_sqlite(connection, _record) -> None:
        connection.execute("PRAGMA journal_mode=WAL")
        # An acknowledgement promises that the packet survives a power cut.
        connection.execute("PRAGMA synchronous=FULL")

    def add_token(self, digest: str, camera_id: str, expires_at: float) -> None:
        """Lets whoever shows that token enrol a device as that camera until then (Unix time)."""
        with self._write, Session(self.engine) as session, session.begin():
            session.add(EnrolmentToken(hash=digest, camera_id=camera_id, expires_at=expires_at, used_for=None))

    def use_token(self, digest: str, camera_id: str, key_digest: str) -> bool:
        """Whether that token lets the device of that key enrol as that camera; from then on it lets no other."""
        with self._write, Session(self.engine) as session, session.begin():
            token = session.get(EnrolmentToken, digest, with_for_update=True)
            if token is None or token.camera_id != camera_id or token.expires_at < time.time():
                return False
            if token.used_for is None:
                token.used_for = key_digest
            return token.used_for == key_digest

    def add_packets(self, packets: Iterable) -> int:
        """Stores wire packets of one camera, in order, unless they are there already. Returns how many were new."""
        new = 0
        with self._write, Session(self.engine) as session, session.begin():
            boots: dict[str, Boot] = {}
            for p in packets:
                boot_id = p.boot_id.hex()
                boot = boots.get(boot_id) or session.get(Boot, (p.camera_id, boot_id))
                if boot is None:
                    boot = Boot(
                        camera_id=p.camera_id,
                        boot_id=boot_id,
                        bundle_id=p.bundle_id.hex(),
                        newest=-1,
                        next_start=0,
                        ended=False,
                        closed=False,
                        ledger_releases=0,
                        ledger_bits=0.0,
                        ledger_went_back=p.ledger_releases < self._reported_releases(session, p.camera_id),
                    )
                    session.add(boot)
                boots[boot_id] = boot
                boot.seen_at = time.time()
                if session.get(Packet, (p.camera_id, boot_id, p.sequence)) is not None:
                    continue
                new += 1
                session.add(
                    Packet(
                        camera_id=p.camera_id,
                        boot_id=boot_id,
                        sequence=p.sequence,
                        captured_at_us=p.captured_at_us,
                        kind=p.kind,
                        token=p.token,
                        features=p.features,
                    )
                )
                boot.newest = max(boot.newest, p.sequence)
                boot.ended = boot.ended or bool(p.last)
                boot.closed = False
                boot.ledger_releases = max(boot.ledger_releases, p.ledger_releases)
                boot.ledger_bits = max(boot.ledger_bits, p.ledger_bits)
        return new

    @staticmethod
    def _reported_releases(session: Session, camera_id: str) -> int:
        """Most feature releases that any boot of a camera has reported."""
        return session.scalar(select(func.max(Boot.ledger_releases)).where(Boot.camera_id == camera_id)) or 0

    def add_certificate(self, camera_id: str, boot_id: str, end_us: int, statement: str, signature: str, pem: str) -> None:
        """Stores a session certificate unless there is a later one of that boot."""
        with self._write, Session(self.engine) as session, session.begin():
            row = session.get(SessionCertificate, (camera_id, boot_id))
            if row is None:
                row = SessionCertificate(camera_id=camera_id, boot_id=boot_id, end_us=-1)
                session.add(row)
            if end_us >= row.end_us:
                row.end_us, row.statement, row.signature, row.certificate = end_us, statement, signature, pem

    def certificate(self, boot_id: str) -> SessionCertificate | None:
        """The latest certificate of one boot."""
        with Session(self.engine) as session:
            return session.scalars(select(SessionCertificate).where(SessionCertificate.boot_id == boot_id)).first()

    def pending_windows(
        self, bundles: Collection[str], window: int, stride: int, idle_s: float, limit: int = 256
    ) -> list[PendingWindow]:
        """The next unread window of each boot: a full one, or the last of a boot that ended or fell silent.

        bundles: ids of the bundles whose boots count; others wait until their bundle is known.
        """
        pending = []
        with Session(self.engine, expire_on_commit=False) as session:
            due = or_(Boot.newest >= Boot.next_start + window - 1, Boot.ended.is_(True))
            # While the server was away no camera could be heard.
            if time.monotonic() >= self._opened + idle_s:
                due = or_(due, Boot.seen_at <= time.time() - idle_s)
            query = (
                select(Boot).where(Boot.closed.is_(False), Boot.bundle_id.in_(bundles), due).order_by(Boot.seen_at).limit(limit)
            )
            for boot in session.scalars(query):
                start, end = boot.next_start, boot.next_start + window - 1
                final = False
                if boot.newest < end:
                    # The last window looks back from the newest tick; where all ticks were read it is empty.
                    final, end = True, boot.newest
                    start = max(0, end - window + 1)
                packets = session.scalars(
                    select(Packet)
                    .where(Packet.camera_id == boot.camera_id, Packet.boot_id == boot.boot_id)
                    .where(Packet.sequence.between(start, end))
                    .order_by(Packet.sequence)
                ).all()
                unread = end >= (boot.next_start - stride + window if boot.next_start else 0)
                pending.append(
                    PendingWindow(
                        boot.camera_id,
                        boot.boot_id,
                        boot.bundle_id,
                        start,
                        end,
                        final,
                        boot.seen_at,
                        list(packets) if unread or not final else [],
                    )
                )
        return pending

    def add_verdicts(self, w: PendingWindow, verdicts: list[Verdict], quiet: str, stride: int) -> bool:
        """Records what the tiers said, extends or opens an event, and moves the boot on. True: a new event."""
        opened = False
        with self._write, Session(self.engine) as session, session.begin():
            boot = session.get_one(Boot, (w.camera_id, w.boot_id))
            if w.final:
                # A packet that came meanwhile keeps the boot open.
                boot.closed = boot.newest == w.end
            else:
                boot.next_start = w.start + stride
            if not verdicts or session.get(Window, (w.camera_id, w.boot_id, w.start, verdicts[-1].tier)) is not None:
                return False
            for v in verdicts:
                session.add(
                    Window(
                        camera_id=w.camera_id,
                        boot_id=w.boot_id,
                        start=w.start,
                        end=w.end,
                        tier=v.tier,
                        behaviour=v.behaviour,
                        confidence=v.confidence,
                        probabilities=v.probabilities,
                    )
                )
            deepest = verdicts[-1]
            last = session.scalars(
                select(Event)
                .where(Event.camera_id == w.camera_id, Event.boot_id == w.boot_id)
                .order_by(Event.last_tick.desc())
                .limit(1)
            ).first()
            end_us = w.packets[-1].captured_at_us
            if last is not None and last.behaviour == deepest.behaviour and w.start <= last.last_tick + 1:
                last.last_tick, last.end_us, last.windows = w.end, end_us, last.windows + 1
                if deepest.confidence is not None:
                    last.confidence = max(last.confidence or 0.0, deepest.confidence)
            else:
                # A new behaviour begins where the one before it ends.
                first = w.start if last is None else max(w.start, last.last_tick + 1)
                begin = next((p.captured_at_us for p in w.packets if p.sequence >= first), end_us)
                session.add(
                    Event(
                        camera_id=w.camera_id,
                        boot_id=w.boot_id,
                        first_tick=first,
                        last_tick=w.end,
                        begin_us=begin,
                        end_us=end_us,
                        behaviour=deepest.behaviour,
                        alert=deepest.behaviour != quiet,
                        confidence=deepest.confidence,
                        tier=deepest.tier,
                        windows=1,
                    )
                )
                opened = True
        return opened

    def events(
        self,
        camera_id: str | None = None,
        boot_id: str | None = None,
        since_us: int = 0,
        alerts: bool = False,
        limit: int = 100,
    ) -> list[Event]:
        """Events that end at or after `since_us`, newest first."""
        query = select(Event).where(Event.end_us >= since_us).order_by(Event.begin_us.desc(), Event.id.desc()).limit(limit)
        if camera_id is not None:
            query = query.where(Event.camera_id == camera_id)
        if boot_id is not None:
            query = query.where(Event.boot_id == boot_id)
        if alerts:
            query = query.where(Event.alert.is_(True))
        with Session(self.engine) as session:
            return list(session.scalars(query))

    def windows(self, boot_id: str) -> list[Window]:
        """All windows of one boot, in time order."""
        with Session(self.engine) as session:
            return list(session.scalars(select(Window).where(Window.boot_id == boot_id).order_by(Window.start)))

    def boot(self, boot_id: str) -> Boot | None:
        """One boot by its id."""
        with Session(self.engine) as session:
            return session.scalars(select(Boot).where(Boot.boot_id == boot_id)).first()

    def packet_count(self, boot_id: str) -> int:
        """Packets stored of one boot."""
        with Session(self.engine) as session:
            return session.scalar(select(func.count()).select_from(Packet).where(Packet.boot_id == boot_id)) or 0
