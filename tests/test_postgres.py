"""The whole service on a real PostgreSQL server."""

from __future__ import annotations

import threading
import time

import pytest
from service import check_whole

from ruyicam.cloud.errors import Exit, RuyicamError
from ruyicam.cloud.serve.store import Store
from ruyicam.export.bench_session import BenchSession
from ruyicam.export.defaults import default_model


def test_a_database_that_restarts_costs_nothing(databases, signed, long_clip, tmp_path):
    """What could not be stored is not acknowledged, and comes again."""
    running = BenchSession(default_model(), signed[0], signed[1], folder=tmp_path / "session")
    running.server_keys["database"] = databases.new("postgresql")

    def restart() -> None:
        time.sleep(5)
        databases.postgres.stop()
        time.sleep(4)
        databases.postgres.start()

    with running:
        restarting = threading.Thread(target=restart)
        restarting.start()
        stats = running.play(str(long_clip), realtime=True)
        restarting.join()
        boot = running.wait_read(stats["boot_id"], 60)
        check_whole(running, boot, 200)


def test_two_services_may_open_a_new_database_at_once(databases):
    """Revisions are applied once."""
    url, opened = databases.new("postgresql"), []
    threads = [threading.Thread(target=lambda: opened.append(Store(url))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 4 and opened[0].events() == []


def test_a_database_that_is_not_there_is_said(databases):
    url = databases.postgres.url("nowhere")
    with pytest.raises(RuyicamError, match="nowhere") as refused:
        Store(url)
    assert refused.value.code == Exit.STORAGE
