"""What must not be lost, and how long it took to be well again."""

from __future__ import annotations

import sqlite3
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import pytest

from ruyicam.export.bench_session import BenchSession

LIVE = "pipeline:videotestsrc is-live=true pattern=ball ! video/x-raw,width=320,height=240,framerate=20/1"
RECOVERED: list[tuple[str, float]] = []


def recovered(what: str, seconds: float) -> None:
    """Notes a time for the table that is printed at the end."""
    RECOVERED.append((what, seconds))


def stored(session: BenchSession) -> dict[str, list[int]]:
    """{boot: sequences} of all packets that the server has, in order."""
    boots = defaultdict(list)
    with sqlite3.connect(f"file:{session.folder / 'server.db'}?mode=ro", uri=True, timeout=30) as db:
        for boot, sequence in db.execute("select boot_id, sequence from packets order by boot_id, sequence"):
            boots[boot].append(sequence)
    return boots


class Account:
    """What has been seen in spools: all of it must arrive, once."""

    def __init__(self):
        self.spooled: set[tuple[str, int]] = set()

    def note(self, packets: Iterable) -> None:
        """Packets that lie in a spool."""
        self.spooled |= {(p.boot_id.hex(), p.sequence) for p in packets}

    def missing(self, session: BenchSession) -> set[tuple[str, int]]:
        """Those that the server does not have."""
        have = stored(session)
        return {(boot, n) for boot, n in self.spooled if n not in set(have[boot])}

    def settle(self, session: BenchSession, timeout_s: float = 60) -> float:
        """Waits until nothing is missing; seconds that it took."""
        began = time.monotonic()
        while missing := self.missing(session):
            assert time.monotonic() - began < timeout_s, f"{len(missing)} packets never arrived: {sorted(missing)[:5]}"
            time.sleep(0.2)
        return time.monotonic() - began


def mount(folder: Path, size: str) -> None:
    """A file system of its own for a test; it goes with `umount`."""
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
