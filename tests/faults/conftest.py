"""Shared by the fault suite: one server, and the table of times to recover that is printed at the end."""

from __future__ import annotations

import pytest
from account import RECOVERED
from bad_link import BadLink

from ruyicam.export.bench_session import BenchSession
from ruyicam.export.defaults import default_model


def pytest_terminal_summary(terminalreporter) -> None:
    """The table."""
    if RECOVERED:
        terminalreporter.section("time to recover")
        for what, seconds in RECOVERED:
            terminalreporter.write_line(f"{seconds:8.1f} s  {what}")


@pytest.fixture(scope="session")
def session(tmp_path_factory, signed):
    """The real server; restarted by tests, so only reached through this."""
    folder = tmp_path_factory.mktemp("faults") / "session"
    hosts = ("localhost", "127.0.0.1", BadLink.near)
    with BenchSession(default_model(), signed[0], signed[1], folder=folder, hosts=hosts, listen="0.0.0.0") as running:
        yield running
