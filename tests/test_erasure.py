"""Deleting all that is kept of one camera."""

from __future__ import annotations

import pytest
from service import BUNDLE, boot_of, client_of, of
from sqlalchemy import func, select

from ruyicam.cloud.errors import RuyicamError
from ruyicam.cloud.serve.care import EventCare
from ruyicam.cloud.serve.erasure import Erasure, StillReadError
from ruyicam.cloud.serve.packets import PacketLog
from ruyicam.cloud.serve.tables import Base, Boot, Care, Change, Event, Note, Packet, SessionCertificate, Window
from ruyicam.cloud.serve.windows import Seen, Verdict, WindowQueue

KEPT = (Packet, Window, Event, Change, Care, Note, SessionCertificate, Boot)


def rows_of(store) -> dict[type[Base], int]:
    """How many each table has."""
    with store.engine.connect() as connection:
        return {t: connection.scalar(select(func.count()).select_from(t)) for t in KEPT}


def lives(store, log: PacketLog, queue: WindowQueue, camera: str) -> None:
    """A camera of 50 ticks whose run is over, with a fall that someone has seen to."""
    log.add([of(camera, n, last=int(n == 49)) for n in range(50)])
    while windows := queue.pending([BUNDLE]):
        queue.conclude(windows, [Seen([Verdict("cloud-l", "fall", 0.9, None)]) if w.packets else Seen() for w in windows])
    care = EventCare(store, ["quiet", "fall"])
    (event,) = store.events(camera_id=camera)
    care.acknowledge(event.id, "otto")
    care.write_note(event.id, "hello", "otto")
    boot = boot_of(store, camera)
    store.add_certificate(camera, boot.boot_id, 1, "statement", "00", "pem")


@pytest.mark.parametrize("at_once", [7, 1000])
def test_nothing_is_left_of_it_and_all_of_the_others(store, monkeypatch, at_once):
    monkeypatch.setattr("ruyicam.cloud.serve.erasure._PACKETS", at_once)
    log, queue = PacketLog(store), WindowQueue(store, 40, 10, 1000.0, "quiet")
    lives(store, log, queue, "a")
    one = rows_of(store)
    assert all(one.values())
    lives(store, log, queue, "b")
    gone = Erasure(store).erase("a")
    assert rows_of(store) == one and [e.camera_id for e in store.events()] == ["b"]
    assert {t: gone[t.__tablename__] for t in KEPT} == one
    with pytest.raises(RuyicamError, match="camera 'a' is not known here"):
        Erasure(store).erase("a")
    # The same run sends on, as after a link that was away for long: nothing of it goes missing.
    log.add([of("a", n, last=int(n == 99)) for n in range(50, 100)])
    boot = boot_of(store, "a")
    assert (boot.newest, boot.closed, store.packet_count(boot)) == (99, False, 50)
    with pytest.raises(StillReadError):
        Erasure(store).erase("a")


def test_only_administrators_erase(backend):
    for name, code in (("viewer", 403), ("operator", 403), ("admin", 409)):
        assert client_of(backend, name).delete("/v1/cameras/a").status_code == code
    with backend.store.write() as connection:
        connection.execute(Boot.__table__.update().values(closed=True))
    admin = client_of(backend, "admin")
    assert admin.delete("/v1/cameras/a").json()["packets"] == 50
    assert admin.get("/v1/cameras").json() == [] and admin.get("/v1/events").json() == []
    assert [a["action"] for a in admin.get("/v1/audit").json() if a["object"] == "a"] == ["erase"]
    assert admin.delete("/v1/cameras/a").status_code == 422
