"""Which of the services on one database reads windows, fires rules and deletes: one at a time, while all take packets and show
events."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, func, select, text

from ruyicam.cloud.errors import Exit, RuyicamError

from ..store import Store

log = logging.getLogger("ruyicam.turn")
# Of PostgreSQL's advisory locks, ours; beside that of the store.
LOCK = 0x7275_7975
# A service that hangs, or whose machine is gone, loses its turn after so long.
_SILENT_S = 30


class Turn:
    """A session of PostgreSQL that holds a lock: whose it is reads, and what it reads is written over this very session, so
    that whoever has lost the turn unknowingly writes nothing. SQLite's file belongs to one service. One thread at a time."""

    def __init__(self, store: Store):
        self._store = store
        self._session: Connection | None = None
        # How often it was taken: what was known of the database before may be wrong since.
        self.count = 0

    @property
    def held(self) -> bool:
        """Whether it was this service's when it last looked."""
        return self._session is not None or not self._store.shared

    def mine(self) -> bool:
        """Whether it is this service's; takes it if it is nobody's. Raises what the database raises."""
        if not self._store.shared:
            return True
        if self._session is not None:
            try:
                with self._session.begin():
                    self._session.execute(select(1))
                return True
            except Exception:
                self.give_back()
                raise
        session = self._store.engine.connect()
        try:
            with session.begin():
                taken = session.scalar(select(func.pg_try_advisory_lock(LOCK)))
                if taken:
                    session.execute(text(f"SET idle_session_timeout = '{_SILENT_S}s'"))
        except Exception:
            session.invalidate()
            session.close()
            raise
        if not taken:
            session.close()
            return False
        self._session, self.count = session, self.count + 1
        log.info("windows are read here from now on")
        return True

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction as of Store.write(changes=True), which fails if the turn was lost. Raises RuyicamError(STORAGE) if it
        is not held."""
        if not self._store.shared:
            with self._store.write(changes=True) as connection:
                yield connection
            return
        if self._session is None:
            raise RuyicamError(Exit.STORAGE, "another service reads windows")
        try:
            with self._store.write(changes=True, session=self._session) as connection:
                yield connection
        except Exception:
            self.give_back()
            raise

    def give_back(self) -> None:
        """Another service may read."""
        session, self._session = self._session, None
        if session is not None:
            with contextlib.suppress(Exception):
                # Ends the session, and the lock with it: back in the pool it would keep it.
                session.invalidate()
            session.close()
            log.info("windows are not read here any more")
