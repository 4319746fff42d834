"""Packets into the database: of many cameras in one transaction, each acknowledged when it is there."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from sqlalchemy import Connection, bindparam, case, func, select, update

from .metrics import PACKETS
from .store import Store
from .tables import Boot, Packet

# Boots that are remembered, at most: which those are is found out anew.
_MOST_KNOWN = 100_000
# Packets of one transaction, at most.
_MOST = 2048
# How long one waits for others to go with it, as a commit costs as much for one as for hundreds; longer while many come.
_LINGER_S, _BUSY_LINGER_S, _BUSY = 0.01, 0.05, 32


def _greater(column, value):
    return case((column < value, value), else_=column)


class _UnknownBootError(Exception):
    """A boot that was known has no row any more."""


class PacketLog:
    """Writes packets and keeps their boots; thread-safe."""

    def __init__(self, store: Store):
        self.store = store
        self._compiled = store.insert_new(Packet).compile(store.engine, column_keys=[c.name for c in Packet.__table__.columns])
        # Boots that are known to have a row.
        self._known: set[tuple[str, str]] = set()

    def add(self, packets: Iterable) -> Counter[str]:
        """Stores wire packets, in order of their boots, unless they are there already; how many of each camera were new."""
        by_boot: dict[tuple[str, str], dict[int, object]] = defaultdict(dict)
        for p in packets:
            by_boot[p.camera_id, p.boot_id.hex()].setdefault(p.sequence, p)
        # Always in the same order: of two services that write the same boots none waits for the other in a circle.
        by_boot = dict(sorted(by_boot.items()))
        now = time.time()
        rows = [
            {
                "camera_id": camera,
                "boot_id": boot,
                "sequence": p.sequence,
                "captured_at_us": p.captured_at_us,
                "received_at": now,
                "kind": p.kind,
                "token": p.token,
                "features": p.features,
            }
            for (camera, boot), some in by_boot.items()
            for p in some.values()
        ]
        if not rows:
            return Counter()
        try:
            fresh = self._write(rows, by_boot)
        except _UnknownBootError:
            # Someone has deleted what there was of a camera that now sends again.
            self._known.clear()
            fresh = self._write(rows, by_boot)
        if len(self._known) > _MOST_KNOWN:
            self._known.clear()
        self._known.update(by_boot)
        count: Counter[str] = Counter()
        for (camera, _), sequences in fresh.items():
            count[camera] += len(sequences)
        return count

    def _write(self, rows: list[dict], by_boot: dict) -> dict[tuple[str, str], list[int]]:
        with self.store.write(packets=True) as connection:
            for boot in by_boot.keys() - self._known:
                self._begin(connection, boot, next(iter(by_boot[boot].values())))
            fresh = self._insert(connection, rows, by_boot)
            self._update_boots(connection, by_boot, fresh)
        return fresh

    def _insert(self, connection: Connection, rows: list[dict], by_boot: dict) -> dict[tuple[str, str], list[int]]:
        """Which of each boot were new: as a rule all, which is found out without being told each."""
        with connection.begin_nested() as attempt:
            if self._store_many(connection, rows) == len(rows):
                return {boot: list(packets) for boot, packets in by_boot.items()}
            attempt.rollback()
        fresh: dict[tuple[str, str], list[int]] = defaultdict(list)
        insert = self.store.insert_new(Packet).returning(Packet.camera_id, Packet.boot_id, Packet.sequence)
        for camera, boot_id, sequence in connection.execute(insert, rows):
            fresh[camera, boot_id].append(sequence)
        return fresh

    def _store_many(self, connection: Connection, rows: list[dict]) -> int:
        """Past what SQLAlchemy does for each row, which at thousands a second is most of the work; how many were new."""
        compiled = self._compiled
        names = compiled.positiontup
        some = rows if names is None else [tuple(row[name] for name in names) for row in rows]
        return connection.exec_driver_sql(compiled.string, some).rowcount

    def _begin(self, connection: Connection, boot: tuple[str, str], packet) -> None:
        camera_id, boot_id = boot
        reported = select(func.max(Boot.ledger_releases)).where(Boot.camera_id == camera_id, Boot.boot_id != boot_id)
        values = {
            "camera_id": camera_id,
            "boot_id": boot_id,
            "bundle_id": packet.bundle_id.hex(),
            "newest": -1,
            "next_start": 0,
            "read_to": -1,
            "ended": False,
            "closed": False,
            "seen_at": time.time(),
            "ledger_releases": 0,
            "ledger_bits": 0.0,
            "ledger_went_back": packet.ledger_releases < (connection.scalar(reported) or 0),
        }
        connection.execute(self.store.insert_new(Boot), values)

    @staticmethod
    def _update_boots(connection: Connection, by_boot: dict, fresh: dict[tuple[str, str], list[int]]) -> None:
        at = time.time()
        seen = update(Boot).where(Boot.camera_id == bindparam("b_camera"), Boot.boot_id == bindparam("b_boot"))
        grown = seen.values(
            seen_at=bindparam("b_at"),
            newest=_greater(Boot.newest, bindparam("b_newest")),
            ended=case((bindparam("b_last"), True), else_=Boot.ended),
            closed=False,
            ledger_releases=_greater(Boot.ledger_releases, bindparam("b_releases")),
            ledger_bits=_greater(Boot.ledger_bits, bindparam("b_bits")),
        )
        keys = {boot: {"b_camera": boot[0], "b_boot": boot[1], "b_at": at} for boot in by_boot}
        again = [keys[boot] for boot in by_boot.keys() - fresh.keys()]
        if again:
            connection.execute(seen.values(seen_at=bindparam("b_at")), again)
        new = []
        for boot, sequences in fresh.items():
            some = [by_boot[boot][n] for n in sequences]
            new.append(
                keys[boot]
                | {
                    "b_newest": max(sequences),
                    "b_last": any(p.last for p in some),
                    "b_releases": max(p.ledger_releases for p in some),
                    "b_bits": max(p.ledger_bits for p in some),
                }
            )
        if new and connection.execute(grown, new).rowcount < len(new):
            raise _UnknownBootError


class GroupWriter:
    """Gathers the packets of all connections into few transactions."""

    def __init__(self, log: PacketLog):
        self._log = log
        self._waiting: asyncio.Queue = asyncio.Queue(256)

    async def add(self, packets: Sequence) -> None:
        """Waits until these packets are stored. Raises what the database raises."""
        done = asyncio.get_running_loop().create_future()
        await self._waiting.put((packets, done))
        await done

    async def run(self) -> None:
        """Writes until it is cancelled."""
        count = 0
        while True:
            jobs = [await self._waiting.get()]
            await asyncio.sleep(_BUSY_LINGER_S if count >= _BUSY else _LINGER_S)
            count = len(jobs[0][0])
            while count < _MOST and not self._waiting.empty():
                jobs.append(self._waiting.get_nowait())
                count += len(jobs[-1][0])
            try:
                new = await asyncio.to_thread(self._log.add, [p for packets, _ in jobs for p in packets])
            except Exception as error:
                for _, done in jobs:
                    with contextlib.suppress(asyncio.InvalidStateError):
                        done.set_exception(error)
                continue
            for camera, number in new.items():
                PACKETS.labels(camera).inc(number)
            for _, done in jobs:
                with contextlib.suppress(asyncio.InvalidStateError):
                    done.set_result(None)
