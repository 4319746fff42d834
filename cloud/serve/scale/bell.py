"""What services on one database tell each other at once, by PostgreSQL's NOTIFY; it is kept nowhere. On SQLite there is one,
and nothing to tell."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from collections.abc import Callable, Iterable
from typing import Any

from sqlalchemy import func, select

from ruyicam.cloud.errors import first_line

from ..store import CHANNEL, Store

log = logging.getLogger("ruyicam.bell")
# A payload of NOTIFY has less than 8,000 bytes.
_MOST = 7900
# Someone who watches says so that often, and is believed so much longer.
_WATCHING_S, _BELIEVED_S = 2.0, 6.0
_AGAIN_S = 1.0


def in_pieces(reading: dict[str, Any]) -> list[str]:
    """A reading as `Live` shows it, as JSON in payloads that are small enough: its contour is split by ticks."""
    contour, pieces = reading["contour"], []
    while True:
        count = len(contour)
        while len(piece := json.dumps(reading | {"contour": contour[:count]}, separators=(",", ":"))) > _MOST and count > 1:
            count = count // 2
        pieces.append(piece)
        contour = contour[count:]
        if not contour:
            return pieces


class Bell:
    """Tells, and hears, on one database."""

    def __init__(
        self,
        store: Store,
        packets: Callable[[], None],
        changes: Callable[[], None],
        reading: Callable[[dict[str, Any]], None],
        watching: Callable[[], bool],
    ):
        """What to do, on the event loop, when a service has stored packets, has changed events, or another one has read a
        window; and whether someone watches here what others read."""
        self._store, self._packets, self._changes, self._reading, self._watching = store, packets, changes, reading, watching
        self._watched_until = 0.0
        self._me = os.urandom(8).hex()

    @property
    def watched(self) -> bool:
        """Whether someone watches at another service."""
        return time.monotonic() < self._watched_until

    def tell_readings(self, readings: Iterable[dict[str, Any]]) -> None:
        """To all services at which someone watches."""
        self._tell(piece for reading in readings for piece in in_pieces(reading | {"by": self._me}))

    def _tell(self, payloads: Iterable[str]) -> None:
        with self._store.engine.begin() as connection:
            for payload in payloads:
                connection.execute(select(func.pg_notify(CHANNEL, payload)))

    def _heard(self, payload: str) -> None:
        if payload == "packets":
            self._packets()
        elif payload == "changes":
            self._changes()
        elif payload.startswith("watching "):
            if payload != f"watching {self._me}":
                self._watched_until = time.monotonic() + _BELIEVED_S
        elif (reading := json.loads(payload)).pop("by") != self._me:
            self._reading(reading)

    async def run(self) -> None:
        """Listens, and says if someone watches, until it is cancelled."""
        if self._store.shared:
            await asyncio.gather(self._listen(), self._say_who_watches())

    async def _say_who_watches(self) -> None:
        while True:
            if self._watching():
                try:
                    await asyncio.to_thread(self._tell, [f"watching {self._me}"])
                except Exception as error:
                    log.warning("others do not know that someone watches: %s", first_line(error))
            await asyncio.sleep(_WATCHING_S)

    async def _listen(self) -> None:
        # Brought by ruyicam[postgres], as is the database's driver.
        import psycopg

        url = self._store.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
        while True:
            try:
                async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
                    await connection.execute(f"LISTEN {CHANNEL}")
                    # What was told meanwhile was not heard.
                    self._packets()
                    self._changes()
                    async for told in connection.notifies():
                        self._heard(told.payload)
            except (psycopg.Error, OSError) as error:
                log.warning("the database does not answer: %s", first_line(error))
            await asyncio.sleep(_AGAIN_S)
