"""What is deleted when, in databases of each kind."""

from __future__ import annotations

import time

import pytest
from service import BUNDLE, boot_of, of
from sqlalchemy import func, select, update

from ruyicam.cloud.serve.accounts import Accounts
from ruyicam.cloud.serve.alerting.book import AlertBook
from ruyicam.cloud.serve.care import EventCare
from ruyicam.cloud.serve.config import Keep
from ruyicam.cloud.serve.packets import PacketLog
from ruyicam.cloud.serve.retention import Retention
from ruyicam.cloud.serve.store import Store
from ruyicam.cloud.serve.tables import AuditEntry, Base, Care, Change, Event, Note, Packet, Window
from ruyicam.cloud.serve.windows import Seen, Verdict, WindowQueue

DAY_S = 86400.0


def count(store: Store, table: type[Base]) -> int:
    """Rows of it."""
    with store.engine.connect() as connection:
        return connection.scalar(select(func.count()).select_from(table))


def aged(store: Store, table: type[Base], **values) -> None:
    """Sets columns of all its rows."""
    with store.write() as connection:
        connection.execute(update(table).values(values))


@pytest.fixture
def lived(store) -> Store:
    """A camera of 60 ticks of which windows up to tick 49 are read: a fall that is over, and a fight that goes on."""
    PacketLog(store).add([of("a", n) for n in range(60)])
    queue = WindowQueue(store, 40, 10, 1000.0, "quiet")
    for behaviour in ("fall", "fight"):
        queue.conclude(queue.pending([BUNDLE]), [Seen([Verdict("cloud-l", behaviour, 0.9, None)])])
    care = EventCare(store, ["quiet", "fall", "fight"])
    for event in store.events():
        care.acknowledge(event.id, "otto")
        care.write_note(event.id, "hello", "otto")
    queue.turn.give_back()
    Accounts(store).note("otto", "look", "x")
    return store


def test_nothing_goes_before_its_time(lived):
    before = {t: count(lived, t) for t in (Packet, Window, Event, Change, Care, Note, AuditEntry)}
    aged(lived, Event, begin_us=int(time.time() * 1e6), end_us=int(time.time() * 1e6))
    assert not Retention(lived, Keep()).sweep()
    assert {t: count(lived, t) for t in before} == before and all(before.values())


def test_features_go_when_they_are_old_and_read(lived):
    aged(lived, Packet, received_at=time.time() - 8 * DAY_S)
    retention = Retention(lived, Keep())
    retention.sweep()
    # The next window begins at tick 20: what it needs stays.
    assert [p.sequence for p in lived.packets("a", boot_of(lived, "a").boot_id, 0, 99)] == list(range(20, 60))
    assert count(lived, Window) == 2
    queue = WindowQueue(lived, 40, 10, 1000.0, "quiet")
    (window,) = queue.pending([BUNDLE])
    assert (window.start, len(window.packets)) == (20, 40)
    queue.conclude([window], [Seen()])
    PacketLog(lived).add([of("a", 60, last=1)])
    queue.conclude(queue.pending([BUNDLE]), [Seen()])
    assert boot_of(lived, "a").closed
    retention.sweep()
    # Tick 60 is of today.
    assert [p.sequence for p in lived.packets("a", boot_of(lived, "a").boot_id, 0, 99)] == [60]


def test_it_goes_little_by_little(lived, monkeypatch):
    aged(lived, Packet, received_at=time.time() - 8 * DAY_S)
    monkeypatch.setattr("ruyicam.cloud.serve.retention._MOST", 8)
    retention, left = Retention(lived, Keep()), []
    while retention.sweep():
        left.append(count(lived, Packet))
    assert left == [52, 44] and count(lived, Packet) == 40


def test_events_go_with_all_that_hangs_on_them_once_they_are_over(lived):
    aged(lived, Event, end_us=1)
    Retention(lived, Keep()).sweep()
    (left,) = lived.events()
    assert left.behaviour == "fight" and not left.ended
    assert count(lived, Care) == count(lived, Note) == 1


def test_changes_stay_until_rules_have_looked_at_them(lived):
    aged(lived, Change, at=1.0)
    retention, total = Retention(lived, Keep()), count(lived, Change)
    retention.sweep()
    assert count(lived, Change) == total
    AlertBook(lived).position()
    retention.sweep()
    assert count(lived, Change) == 0
    # Numbers go on: who comes back has missed nothing, and is told nothing twice.
    care = EventCare(lived, ["quiet", "fall", "fight"])
    care.acknowledge(lived.events()[0].id, "otto")
    assert lived.changes(total)[0].id > total


def test_the_log_is_kept_for_a_year(lived):
    aged(lived, AuditEntry, at=time.time() - 364 * DAY_S)
    retention = Retention(lived, Keep())
    retention.sweep()
    assert count(lived, AuditEntry) == 1
    aged(lived, AuditEntry, at=time.time() - 366 * DAY_S)
    retention.sweep()
    assert count(lived, AuditEntry) == 0
