"""What so many cameras need: the arithmetic, and the command."""

from __future__ import annotations

import json
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_end_to_end import RUYICAM, one_line

from ruyicam.cloud.errors import Exit, RuyicamError
from ruyicam.export.sizing import FRAMING_BYTES, LOAD, Figures, size_of

FIGURES = Figures("a machine", 300.0, 500.0, 400.0, 3.0, 2000.0)


def test_it_is_the_figures_times_the_cameras():
    size = size_of(1000, 0.1, 7.0, FIGURES)
    assert size.packets_per_s == 10_000 and size.service_cores == pytest.approx(4.0) and size.services == -(-4 // LOAD)
    assert size.model_cores == pytest.approx(0.3) and size.replicas == 1
    assert size.uplink_mbit_s == pytest.approx(10_000 * (300 + FRAMING_BYTES) * 8e-6)
    assert size.stored_gb == pytest.approx(10_000 * 86400 * 7 * 500e-9)
    assert size.reader_load == 0.5 and size.carried and not size_of(2001, 0.1, 7.0, FIGURES).carried


@given(st.integers(1, 10**6), st.floats(0, 1))
def test_more_cameras_never_need_less(cameras, active):
    a, b = size_of(cameras, active, 7.0, FIGURES), size_of(cameras + 1, active, 7.0, FIGURES)
    assert all(getattr(a, k) <= getattr(b, k) for k in ("services", "replicas", "reader_load", "stored_gb", "uplink_mbit_s"))


@pytest.mark.parametrize(("cameras", "active", "days"), [(0, 0.1, 1.0), (1, 1.1, 1.0), (1, -0.1, 1.0), (1, 0.1, 0.0)])
def test_what_makes_no_sense_is_refused(cameras, active, days):
    with pytest.raises(RuyicamError, match="expected cameras"):
        size_of(cameras, active, days, FIGURES)


def test_the_command_prints_it(tmp_path):
    done = subprocess.run([RUYICAM, "sizing", "--cameras", "10000", "--json"], capture_output=True, text=True, timeout=60)
    (size,) = json.loads(done.stdout)["sizes"]
    assert size["cameras"] == 10_000 and size["packets_per_s"] == 100_000
    (tmp_path / "figures.json").write_text("{}")
    done = subprocess.run(
        [RUYICAM, "sizing", "--figures", tmp_path / "figures.json"], capture_output=True, text=True, timeout=60
    )
    one_line((done.returncode, done.stderr.splitlines()), Exit.USAGE, "not figures of a service")
