"""The arithmetic of the hardware-in-the-loop suite: delays are found in features as noisy as the device's."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from ruyicam.cloud.wire import FeaturePacket
from ruyicam.kernels import reference

sys.path.insert(0, str(Path(__file__).with_name("hil")))
from pattern import find_onsets
from report import Results


def arrivals(delay_s: float, seconds: int = 240) -> tuple[list, list]:
    """Packets ten times a second whose features show a movement `delay_s` late under noise of scale 20, and its times."""
    rng = np.random.default_rng(1)
    changes, at, moving = [], 5.0, True
    while at < seconds - 4:
        changes.append((at, moving))
        at, moving = at + rng.uniform(1.5, 3.5), not moving
    starts, states = np.array([t for t, _ in changes]), [False] + [m for _, m in changes]
    mean, packets = rng.normal(0, 8, (2, 64)), []
    for tick in range(seconds * 10):
        now = tick / 10
        on = states[int(np.searchsorted(starts, now - delay_s, side="right"))]
        values = np.clip(np.rint(mean[int(on)] + rng.normal(0, 20, 64)), -127, 127).astype(np.int16)
        packets.append((now, FeaturePacket(kind=1, features=reference.pack(values, 8).tobytes())))
    return packets, changes


@pytest.mark.parametrize("delay_s", [0.0, 0.73, 1.7])
def test_delays_are_found_in_noisy_features(delay_s):
    onsets = find_onsets(*arrivals(delay_s), features=64, bits=8)
    assert len(onsets.latencies) > 15 and onsets.missed == 0 and onsets.separation > 2
    # Sampled ten times a second, so up to a tick late, rarely a tick early by noise.
    assert delay_s - 0.1 < np.median(onsets.latencies) < delay_s + 0.15


def test_too_little_is_said():
    packets, changes = arrivals(0.5, 20)
    with pytest.raises(ValueError, match="too few"):
        find_onsets(packets, changes, 64, 8)


def test_a_regression_beyond_the_margin_is_named(tmp_path):
    before, now = Results("local"), Results("local")
    before.latency("cold_start", np.array([0.2, 0.2]))
    now.latency("cold_start", np.array([0.2, 0.3]))
    assert now.worse_than(before.json(), 0.6) == []
    (p50, *_), others = now.worse_than(before.json(), 0.2), now.worse_than({"figures": {"unknown": 1}}, 0.2)
    assert p50.startswith("cold_start_p50_ms: 250") and others == []
    now.series["x"] = ("cameras", "ms", {"p50": ([1, 2], [3, 4])})
    now.write(tmp_path)
    assert (tmp_path / "hil.html").read_text().count("<img") == 2
