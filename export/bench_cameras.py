"""The cameras of `ruyicam bench edge --cameras N`: one device with all of them beside a device for each, on one core."""

from __future__ import annotations

import json
import resource
import subprocess
import time
from pathlib import Path
from statistics import median

from .bench_device import FPS, SECONDS, Bench, Progress, failed, memory_mb, processes_of, repeated
from .bench_session import toml_lines
from .sink import Sink

CLIPS = 1


def _configs(bench: Bench, names: list[str], sources: list[Path], sink: Sink, folder: Path, together: bool) -> list[Path]:
    """The files of one device with all cameras, or of a device for each."""
    folder.mkdir()
    common = {
        "bundle": bench.report.path,
        "public_key": bench.public_key,
        "server": sink.address,
        "ca": bench.authority.ca,
        "realtime": True,
    }
    own = []
    for name, source in zip(names, sources, strict=True):
        issued = bench.authority.camera(name)
        own.append({"camera_id": name, "source": source, "cert": issued.cert, "key": issued.key})
    groups = [own] if together else [[keys] for keys in own]
    paths = []
    for i, group in enumerate(groups):
        path = folder / f"{i}.toml"
        device = common | {"state_dir": folder / f"state-{i}", "stats": path.with_suffix(".json")}
        path.write_text(toml_lines(device) + "".join("[[cameras]]\n" + toml_lines(keys) for keys in group))
        paths.append(path)
    return paths


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _run(bench: Bench, configs: list[Path]) -> dict[str, float]:
    """{"private_mb" at most, "cpu_s", "p99_ms" of the slowest camera} of devices that run at once.

    Private: what no other process shares (RssAnon)."""
    before, peak = _cpu_s(), 0.0
    devices = [
        subprocess.Popen([bench.edge, "--config", path], stderr=subprocess.PIPE, text=True, preexec_fn=bench.on_core)
        for path in configs
    ]
    # Some kernels hang in wait() when somebody looks at /proc of what has just ended, so nobody looks towards the end.
    until = time.monotonic() + 0.75 * CLIPS * SECONDS
    while time.monotonic() < until:
        peak = max(peak, sum(memory_mb(p, "RssAnon") for d in devices if d.poll() is None for p in processes_of(d.pid)))
        time.sleep(0.5)
    for d in devices:
        d.wait()
        if d.returncode != 0:
            raise failed(d, "failed")
    found = [json.loads(path.with_suffix(".json").read_text()) for path in configs]
    cameras = [camera for figures in found for camera in figures.get("cameras", [figures])]
    p99 = max(c["stages"]["capture_to_packet"]["p99_us"] for c in cameras) / 1000
    return {"private_mb": peak, "cpu_s": _cpu_s() - before, "p99_ms": p99}


def bench_cameras(bench: Bench, sink: Sink, cameras: int, rounds: int, progress: Progress) -> dict:
    """{"n", "one_device": {"private_mb", "cpu_s", "p99_ms"}, "a_device_each": the same, "ratio"}, medians over rounds."""
    names = [f"bench-{i + 1}" for i in range(cameras)]
    runs: dict[str, list[dict]] = {"one_device": [], "a_device_each": []}
    for turn in range(rounds):
        for i, (kind, done) in enumerate(runs.items()):
            progress(f"{cameras} cameras, {kind.replace('_', ' ')}", 2 * turn + i, 2 * rounds)
            folder = bench.folder / f"cameras-{turn}-{i}"
            sources = [repeated(bench.clips[FPS], bench.folder / f"{folder.name}-{name}", CLIPS) for name in names]
            sink.clear()
            done.append(_run(bench, _configs(bench, names, sources, sink, folder, kind == "one_device")))
    figures = {kind: {key: median(run[key] for run in done) for key in done[0]} for kind, done in runs.items()}
    ours, apart = figures["one_device"], figures["a_device_each"]
    return {"n": cameras, **figures, "ratio": {key: apart[key] / ours[key] for key in ours}}
