"""`ruyicam bench edge`: the device beside a plain Python loop that does the same job, and its cameras beside devices."""

from __future__ import annotations

import os
from pathlib import Path
from statistics import median

from .bench_cameras import bench_cameras
from .bench_device import FPS, ROLES, Bench, Progress
from .bench_kernels import machine
from .sink import Sink

# Times that the clip is played: paced for latency, as fast as it goes for throughput.
PACED, FAST = 3, 6
ROUNDS = 3


def _median(runs: list[dict], *path: str) -> float:
    def value(run: dict) -> float:
        for key in path:
            run = run[key]
        return run

    return median(value(r) for r in runs)


def summary(paced: list[dict], fast: list[dict], every: list[dict]) -> dict:
    """Medians over rounds."""
    return {
        "latency_ms": {q: _median(paced, "latency", f"{q}_us") / 1000 for q in ("p50", "p99")},
        "frames_per_s": _median(fast, "frames_per_s"),
        "every_frame_per_s": _median(every, "frames_per_s"),
        "start_s": _median(fast, "start_s"),
        "rss_mb": max(max(r["rss_mb"].values()) for r in (*paced, *fast, *every)),
    }


def bench_edge(
    folder: Path,
    model: Path,
    clip: Path,
    edge: Path | None,
    soak_minutes: float,
    progress: Progress,
    rounds: int = ROUNDS,
    cameras: int = 0,
) -> dict:
    """All of it, as `ruyicam bench edge --json` prints it. folder: empty, for clips and state. cameras: 0 leaves them out."""
    core = max(os.sched_getaffinity(0))
    progress("bundle and clips", 0, 1)
    bench = Bench(folder, model, clip, edge, core)
    runs: dict[str, dict[str, list]] = {who: {"paced": [], "fast": [], "every": []} for who in ("device", "peer")}
    with Sink(bench.authority, keep=lambda packet: None) as sink:
        done, of = 0, 6 * rounds
        for _ in range(rounds):
            for kind, fps, times in (("paced", FPS, PACED), ("fast", FPS, FAST), ("every", bench.rate_hz, FAST)):
                for who, play in (("device", bench.device), ("peer", bench.peer)):
                    progress(f"{who}, {kind}", done, of)
                    runs[who][kind].append(play(fps, times, kind == "paced", sink))
                    done += 1
        several = bench_cameras(bench, sink, cameras, rounds, progress) if cameras else None
        soak = bench.soak(soak_minutes, sink, progress) if soak_minutes else None
    ours, peer = (summary(**runs[who]) for who in ("device", "peer"))
    if soak:
        ours["rss_slope_mb_per_h"] = max(soak["rss_slope_mb_per_h"].values())
    ratio = {
        "latency_p50": peer["latency_ms"]["p50"] / ours["latency_ms"]["p50"],
        "latency_p99": peer["latency_ms"]["p99"] / ours["latency_ms"]["p99"],
        "frames_per_s": ours["frames_per_s"] / peer["frames_per_s"],
        "every_frame_per_s": ours["every_frame_per_s"] / peer["every_frame_per_s"],
        "start": peer["start_s"] / ours["start_s"],
    }
    return {
        "machine": machine(),
        "rounds": rounds,
        **ours,
        "processes_mb": {n: max(r["rss_mb"].get(n, 0) for k in runs["device"].values() for r in k) for n in ROLES},
        "stages": runs["device"]["paced"][-1]["stages"],
        "peer": peer,
        "ratio": ratio,
        "cameras": several,
        "soak": soak,
    }
