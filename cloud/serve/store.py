"""The database: how it is opened and written to, and what the API reads from it."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Row, Select, and_, create_engine, event, func, select
from sqlalchemy.dialects.postgresql import Insert as PostgresInsert
from sqlalchemy.dialects.sqlite import Insert as SqliteInsert
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from ruyicam.cloud.errors import Exit, RuyicamError

from .migrations import migrate
from .tables import Base, Boot, Change, EnrolmentToken, Event, Packet, SessionCertificate, Window

# Of PostgreSQL's advisory locks, ours.
_LOCK = 0x72757969
# Where services on one PostgreSQL tell each other what is new.
CHANNEL = "ruyicam"


def with_driver(url: str) -> str:
    """postgresql:// means the driver that `ruyicam[postgres]` brings."""
    return url.replace("postgresql://", "postgresql+psycopg://", 1) if url.startswith("postgresql://") else url


class Store:
    """Thread-safe; writes go one at a time."""

    def __init__(self, url: str):
        """Opens the database and brings its tables up to date. Raises RuyicamError(STORAGE)."""
        try:
            self.engine = create_engine(with_driver(url), pool_pre_ping=True)
            self._sqlite = self.engine.dialect.name == "sqlite"
            self._writer = self.engine.execution_options(writes=True)
            if self._sqlite:
                event.listen(self.engine, "connect", self._tune_sqlite)
                event.listen(self.engine, "begin", self._begin_sqlite)
            with self._writer.begin() as connection:
                self._one_at_a_time(connection)
                migrate(connection)
        except OperationalError as error:
            raise RuyicamError(Exit.STORAGE, f"database {url}: {error.orig}") from error
        except Exception as error:
            raise RuyicamError(Exit.USAGE, f"database {url}: {error}") from error
        self._lock = threading.Lock()

    @staticmethod
    def _tune_sqlite(connection, _record) -> None:
        # Python's driver begins transactions by rules of its own, by which a savepoint is a commit.
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode=WAL")
        # An acknowledgement promises that the packet survives a power cut.
        connection.execute("PRAGMA synchronous=FULL")

    @staticmethod
    def _begin_sqlite(connection: Connection) -> None:
        # Who writes says so at once: a transaction that has read cannot wait for another's writing to end.
        connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("writes") else "BEGIN")

    def _one_at_a_time(self, connection: Connection) -> None:
        """Until the end of the transaction, also among processes; SQLite lets only one write anyway."""
        if self.shared:
            connection.execute(select(func.pg_advisory_xact_lock(_LOCK)))

    @property
    def shared(self) -> bool:
        """Whether there may be other services on it."""
        return not self._sqlite

    @contextmanager
    def write(self, changes: bool = False, packets: bool = False, session: Connection | None = None) -> Iterator[Connection]:
        """One transaction; those of this process go one at a time. changes: it adds to `event_changes`, whose numbers have to
        become visible in order, so that such transactions of all processes go one at a time. Other services hear of changes
        and of packets when it is good. session: over this connection."""
        with self._lock, self._transaction(session) as connection:
            if changes:
                self._one_at_a_time(connection)
            if self.shared and (changes or packets):
                connection.execute(select(func.pg_notify(CHANNEL, "changes" if changes else "packets")))
            yield connection

    @contextmanager
    def _transaction(self, session: Connection | None) -> Iterator[Connection]:
        if session is None:
            with self._writer.begin() as connection:
                yield connection
        else:
            with session.begin():
                yield session

    def rows(self, query: Select) -> list:
        """What the query finds, in full."""
        with Session(self.engine) as session:
            return list(session.scalars(query))

    def insert_new(self, table: type[Base]) -> SqliteInsert | PostgresInsert:
        """An INSERT that passes over rows that are there."""
        dialect = SqliteInsert if self._sqlite else PostgresInsert
        return dialect(table).on_conflict_do_nothing()

    def add_token(self, digest: str, camera_id: str, expires_at: float) -> None:
        """Lets whoever shows that token enrol a device as that camera until then (Unix time)."""
        with self.write() as connection, Session(connection) as session, session.begin():
            session.add(EnrolmentToken(hash=digest, camera_id=camera_id, expires_at=expires_at, used_for=None))

    def use_token(self, digest: str, camera_id: str, key_digest: str) -> bool:
        """Whether that token lets the device of that key enrol as that camera; from then on it lets no other."""
        with self.write() as connection, Session(connection) as session, session.begin():
            token = session.get(EnrolmentToken, digest, with_for_update=True)
            if token is None or token.camera_id != camera_id or token.expires_at < time.time():
                return False
            if token.used_for is None:
                token.used_for = key_digest
            return token.used_for == key_digest

    def add_certificate(self, camera_id: str, boot_id: str, end_us: int, statement: str, signature: str, pem: str) -> None:
        """Stores a session certificate unless there is a later one of that boot."""
        with self.write() as connection, Session(connection) as session, session.begin():
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

    def certified(self, boot_ids: Iterable[str]) -> set[str]:
        """Those of the boots that have a certificate."""
        return set(self.rows(select(SessionCertificate.boot_id).where(SessionCertificate.boot_id.in_(list(boot_ids)))))

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
        return self.rows(query)

    def event(self, event_id: int) -> Event | None:
        """One event."""
        with Session(self.engine) as session:
            return session.get(Event, event_id)

    def boots(self) -> list[Boot]:
        """The latest boot of each camera, by camera."""
        latest = select(Boot.camera_id, func.max(Boot.seen_at).label("seen_at")).group_by(Boot.camera_id).subquery()
        same = and_(Boot.camera_id == latest.c.camera_id, Boot.seen_at == latest.c.seen_at)
        return list({b.camera_id: b for b in self.rows(select(Boot).join(latest, same).order_by(Boot.camera_id))}.values())

    def packets(self, camera_id: str, boot_id: str, first: int, last: int) -> list[Row]:
        """Those of the ticks first to last that are there, in order."""
        of_boot = Packet.camera_id == camera_id, Packet.boot_id == boot_id, Packet.sequence.between(first, last)
        with self.engine.connect() as connection:
            return list(connection.execute(select(Packet.__table__).where(*of_boot).order_by(Packet.sequence)))

    def changes(self, after: int, limit: int = 256, kinds: Collection[str] | None = None) -> list[Change]:
        """What happened to events after the change of that number, in order."""
        query = select(Change).where(Change.id > after).order_by(Change.id).limit(limit)
        return self.rows(query if kinds is None else query.where(Change.kind.in_(kinds)))

    def newest_change(self) -> int:
        """Number of the last change; 0: none."""
        with self.engine.connect() as connection:
            return connection.scalar(select(func.max(Change.id))) or 0

    def windows(self, boot: Boot, most: int, before: int | None = None) -> list[Window]:
        """The newest windows of a boot, so many at most, in time order, as every tier saw them; before: of those that start
        before that tick."""
        mine = and_(Window.camera_id == boot.camera_id, Window.boot_id == boot.boot_id)
        if before is not None:
            mine = and_(mine, Window.start < before)
        starts = select(Window.start).where(mine).distinct().order_by(Window.start.desc()).limit(most).subquery()
        first = select(func.min(starts.c.start)).scalar_subquery()
        return self.rows(select(Window).where(mine, Window.start >= first).order_by(Window.start))

    def boot(self, boot_id: str) -> Boot | None:
        """One boot by its id."""
        with Session(self.engine) as session:
            return session.scalars(select(Boot).where(Boot.boot_id == boot_id)).first()

    def packet_count(self, boot: Boot) -> int:
        """Packets stored of one boot."""
        mine = and_(Packet.camera_id == boot.camera_id, Packet.boot_id == boot.boot_id)
        with self.engine.connect() as connection:
            return connection.scalar(select(func.count()).select_from(Packet).where(mine)) or 0
