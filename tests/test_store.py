"""The service's database on its own."""

from __future__ import annotations

import importlib
import time

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.operations import Operations
from databases import DATABASES
from service import of
from sqlalchemy import create_engine, text

from ruyicam.cloud.serve.packets import PacketLog
from ruyicam.cloud.serve.store import Store, with_driver
from ruyicam.cloud.serve.tables import Base
from ruyicam.cloud.serve.windows import Seen, Verdict, WindowQueue


@pytest.mark.parametrize("kind", DATABASES)
def test_databases_of_any_release_are_brought_up_to_date(databases, kind):
    """Nothing is lost, and what the revisions make is what the tables say."""
    url = databases.new(kind)
    engine = create_engine(with_driver(url))
    # A database of the time before there were revisions.
    with engine.begin() as connection, Operations.context(MigrationContext.configure(connection)):
        importlib.import_module("ruyicam.cloud.serve.migrations.versions.0001_tables").upgrade()
        boot = "'c', 'b1', 'x', 41, 10, FALSE, FALSE, 1.0, 3, 4.5, FALSE"
        connection.execute(text(f"INSERT INTO boots VALUES ({boot})"))
        connection.execute(text("INSERT INTO windows VALUES ('c', 'b1', 0, 'edge', 39, 'fall', NULL, NULL)"))
        connection.execute(text("INSERT INTO events VALUES (1, 'c', 'b1', 0, 39, 5, 9, 'fall', TRUE, 0.5, 'cloud-s', 1)"))
    for _ in range(2):
        store = Store(url)
        old = store.boot("b1")
        assert (old.newest, old.ledger_bits, old.read_to) == (41, 4.5, 39)
        (event,) = store.events()
        assert (event.behaviour, event.ended) == ("fall", True)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []


def test_silence_counts_from_when_the_server_listens(tmp_path):
    """A server that was away has not heard a camera; that does not end the camera's boot."""
    url, bundle = f"sqlite:///{tmp_path / 'server.db'}", (b"b" * 16).hex()
    PacketLog(Store(url)).add([of("c", n) for n in range(41)])
    queue = WindowQueue(Store(url), 40, 10, 0.3, "normal")
    # As long as a server on a slow machine takes to load its model.
    time.sleep(0.4)
    (full,) = queue.pending([bundle])
    assert (full.start, full.end, full.final) == (0, 39, False)
    queue.conclude([full], [Seen()])
    assert queue.pending([bundle]) == []
    time.sleep(0.4)
    (rest,) = queue.pending([bundle])
    assert rest.final and rest.end == 40


def test_a_boot_that_fell_silent_at_once_may_go_on(tmp_path):
    """Its first full window takes the place of the tail that was read."""
    store, bundle = Store(f"sqlite:///{tmp_path / 'server.db'}"), (b"b" * 16).hex()
    log, queue = PacketLog(store), WindowQueue(store, 40, 10, 0.01, "normal")
    log.add([of("c", n) for n in range(24)])
    assert queue.pending([bundle]) == []
    time.sleep(0.05)
    for end, final in ((23, True), (39, False)):
        (window,) = queue.pending([bundle])
        assert (window.start, window.end, window.final) == (0, end, final)
        queue.conclude([window], [Seen([Verdict("edge", "fall", None, None), Verdict("cloud-l", "fall", 0.5, None)])])
        read = store.windows(store.boot(window.boot_id), 9)
        assert {(w.tier, w.start, w.end) for w in read} == {("edge", 0, end), ("cloud-l", 0, end)} and len(read) == 2
        log.add([of("c", n) for n in range(24, 40)])
    (event,) = store.events()
    assert (event.first_tick, event.last_tick) == (0, 39)
