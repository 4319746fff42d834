"""The dated test pattern, and when its changes show in features.

The device releases features under noise, never a picture: a change is read from them by a linear discriminant that is
fitted on one part of the changes and applied to the rest.
"""

from __future__ import annotations

import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ruyicam.kernels import unpack

_PYTHON = "/usr/bin/python3"


class PatternServer:
    """Context manager; `url`, and `changes`: (time.monotonic(), whether something moves from then on)."""

    def __init__(self, address: str, seed: int = 1):
        script = Path(__file__).with_name("pattern_server.py")
        command = [_PYTHON, str(script), address, str(seed)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.url = self.process.stdout.readline().strip()
        self.changes: list[tuple[float, bool]] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stdout:
            at, moving = line.split()
            self.changes.append((float(at), moving == "1"))

    def __enter__(self) -> PatternServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()


@dataclass
class Onsets:
    """latencies: seconds from the frame in which something begins to move to the arrival of the first packet that shows it.
    separation: distance of the classes in standard deviations, on changes that the discriminant was not fitted on. missed:
    changes that no packet showed."""

    latencies: np.ndarray
    separation: float
    missed: int


def _moving_at(changes: list[tuple[float, bool]], times: np.ndarray) -> np.ndarray:
    starts = np.array([t for t, _ in changes])
    states = np.array([False] + [moving for _, moving in changes])
    return states[np.searchsorted(starts, times, side="right")]


def _settled(changes: list[tuple[float, bool]], times: np.ndarray, margin: float) -> np.ndarray:
    starts = np.array([t for t, _ in changes])
    return (np.abs(times[:, None] - starts[None]) > margin).all(1)


def find_onsets(arrivals: list[tuple[float, object]], changes: list[tuple[float, bool]], features: int, bits: int) -> Onsets:
    """arrivals: of FeaturePackets, as Sink notes them. ValueError if there is too little to fit and to test on."""
    packets = [(t, p) for t, p in arrivals if p.kind == 1]
    starts = [t for t, moving in changes if moving]
    if len(packets) < 200 or len(starts) < 8:
        raise ValueError(f"{len(packets)} packets with features and {len(starts)} changes are too few")
    times = np.array([t for t, _ in packets])
    packed = np.stack([np.frombuffer(p.features, np.uint8) for _, p in packets])
    seen = unpack(packed, features, bits).astype(np.float64)
    # Fitted on the first half; the delay at which the classes differ most is where they are not blurred.
    half = changes[len(changes) // 2][0]
    fit, best = times < half, (0.0, 0.0)
    for lag in np.arange(0.0, 4.0, 0.1):
        moving = _moving_at(changes, times - lag)
        if moving[fit].any() and not moving[fit].all():
            apart = float(np.linalg.norm(seen[fit & moving].mean(0) - seen[fit & ~moving].mean(0)))
            best = max(best, (apart, lag))
    lag = best[1]
    moving, clear = _moving_at(changes, times - lag), _settled(changes, times - lag, 0.4)
    a, b = seen[fit & clear & moving], seen[fit & clear & ~moving]
    # The noise is the same in every feature and independent, so the difference of the means is the best direction.
    along = a.mean(0) - b.mean(0)
    score = seen @ along
    test = ~fit & clear
    middle = (a.mean(0) + b.mean(0)) @ along / 2
    hi, lo = score[test & moving], score[test & ~moving]
    separation = float((hi.mean() - lo.mean()) / np.sqrt((hi.var() + lo.var()) / 2))
    found, missed = [], 0
    for start in (s for s in starts if half <= s < times[-1] - lag - 0.5):
        end = next((t for t, m in changes if t > start and not m), start + 2)
        near = (times >= start) & (times <= end + lag) & (score > middle)
        if near.any():
            found.append(times[near][0] - start)
        else:
            missed += 1
    return Onsets(np.array(found), separation, missed)
