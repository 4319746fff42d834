"""What an integrator wants to know of a device on his bench. Figures are noted; only a baseline makes them fail."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from pattern import PatternServer, find_onsets
from prometheus_client.parser import text_string_to_metric_families
from scipy.stats import theilslopes
from target import Usage

from ruyicam.export.bench_device import make_clip, repeated
from ruyicam.export.defaults import default_clip

pytestmark = pytest.mark.timeout(0)


@pytest.fixture(scope="session")
def source(request, target, tmp_path_factory) -> dict:
    """What load is measured with: --source, or a 720p clip that is played again and again at its own pace."""
    if given := request.config.option.source:
        return {"source": given}
    folder = tmp_path_factory.mktemp("load")
    clip = make_clip(default_clip(), folder / "clip.mp4")
    if target.name == "local":
        return {"source": str(repeated(clip, folder / "clips", 500)), "realtime": True}
    there = target.put(clip)
    target.shell(f"mkdir {target.folder}/clips; for i in $(seq -w 500); do ln -s {there} {target.folder}/clips/$i.mp4; done")
    return {"source": f"{target.folder}/clips", "realtime": True}


def wait_for(condition, timeout_s: float, what: str) -> None:
    """Until it holds; fails with `what` if it does not in time."""
    until = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until, f"{what} did not happen within {timeout_s:.0f} s"
        time.sleep(0.01)


def test_cold_start(bench, source, results):
    """From the command to the first packet at the server."""
    seconds = []
    for _ in range(5):
        with bench.sink(keep=lambda packet: None) as sink:
            # Without the time that a live packet is held by design.
            keys = bench.keys(source["source"], sink.address)
            begun = time.monotonic()
            device = bench.target.start(keys)
            wait_for(lambda sink=sink: sink.arrivals, 60, "a first packet")
            seconds.append(sink.arrivals[0][0] - begun)
            device.stop()
    results.latency("cold_start", np.array(seconds))


def test_glass_to_feature(bench, request, results):
    """From the frame in which something begins to move to the first packet that shows it, through RTSP and H.264."""
    if subprocess.run(
        ["/usr/bin/python3", "-c", "import gi; gi.require_version('GstRtspServer', '1.0')"], capture_output=True
    ).returncode:
        pytest.skip("needs python3-gi and gir1.2-gst-rtsp-server-1.0 on this machine")
    wanted = request.config.option.changes
    host = "127.0.0.1" if bench.target.host == "localhost" else bench.target.host
    with PatternServer(host) as pattern, bench.sink() as sink:
        keys = bench.keys(pattern.url, sink.address)
        device = bench.target.start(keys)
        # Half of them to learn what a change looks like in features.
        wait_for(lambda: len(pattern.changes) > 4 * wanted, 10 * wanted + 60, "enough changes")
        code, said = device.stop()
    assert code == 0, said
    m = bench.manifest
    onsets = find_onsets(
        sink.arrivals, pattern.changes, m["features"]["tokens"] * m["features"]["out_dim"], m["mapping"]["bits"]
    )
    held = m["gate"]["around_ticks"] + 1
    results.latency("glass_to_feature", onsets.latencies)
    results.tables["glass_to_feature"] |= {
        "separation": onsets.separation,
        "missed": onsets.missed,
        "of_which_held_by_design_ms": held * 1000 / bench.rate_hz + 500,
    }
    assert onsets.separation > 3 and onsets.missed <= len(onsets.latencies) / 10
    # One packet per tick, at its time.
    ticks = np.array([(t, p.sequence) for t, p in sink.arrivals])
    late = ticks[:, 0] - ticks[:, 1] / bench.rate_hz
    results.latency("packet_clock", late - np.percentile(late, 1))
    assert bench.stats(keys)["spool"]["pending"] == 0


def test_feature_to_event(bench, source, results):
    """From the newest packet of a window at the server to its verdict, by the server's own histogram."""

    def buckets() -> dict[float, float]:
        with urllib.request.urlopen(f"http://{bench.session.http}/metrics", timeout=10) as answer:
            families = text_string_to_metric_families(answer.read().decode())
        samples = [s for f in families for s in f.samples if s.name == "ruyicam_packet_to_event_seconds_bucket"]
        return {float(s.labels["le"]): s.value for s in samples}

    before = buckets()
    device = bench.target.start(bench.keys(source["source"], bench.session.grpc, realtime=source.get("realtime", False)))
    wait_for(lambda: buckets()[float("inf")] - before[float("inf")] >= 25, 120, "25 windows")
    device.stop()
    after = buckets()
    edges, counts = zip(*sorted((le, after[le] - before[le]) for le in after if le < float("inf")), strict=True)
    total = after[float("inf")] - before[float("inf")]
    figures = {
        q: float(np.interp(share * total, [0, *counts], [0, *edges])) * 1000
        for q, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))
    }
    results.tables["feature_to_event"] = {**figures, "count": total, "resolution": "buckets of the server's histogram"}
    results.figures |= {f"feature_to_event_{q}_ms": v for q, v in figures.items()}


def test_numbers_of_cameras(bench, source, request, results):
    """How latency, processor, memory and sensors go with the number of cameras, each a process of its own."""
    rows = []
    for cameras in map(int, request.config.option.cameras.split(",")):
        with bench.sink(keep=lambda packet: packet.kind) as sink:
            keys = [bench.keys(camera=f"camera-{i}", server=sink.address, **source) for i in range(cameras)]
            devices = [bench.target.start(k) for k in keys]
            time.sleep(5)
            begin = [bench.target.usage(d.pid) for d in devices]
            time.sleep(request.config.option.load_s)
            end = [bench.target.usage(d.pid) for d in devices]
            for device in devices:
                device.target.signal(device.pid, 15)
            for device in devices:
                assert device.wait(60)[0] == 0
        stats = [bench.stats(k) for k in keys]
        rows.append({"cameras": cameras, **_load(begin, end), **_quality(stats)})
    results.tables["cameras"] = rows
    last = rows[-1]
    results.figures |= {
        "cpu_percent_per_camera": last["cpu_percent"] / last["cameras"],
        "rss_mb": max(r["rss_mb"] for r in rows),
    }
    x = [r["cameras"] for r in rows]
    results.series["latency_by_cameras"] = (
        "cameras",
        "ms",
        {"p50": (x, [r["p50_ms"] for r in rows]), "p99": (x, [r["p99_ms"] for r in rows])},
    )
    results.series["processor_by_cameras"] = ("cameras", "% of one core", {"all": (x, [r["cpu_percent"] for r in rows])})


def _load(begin: list[Usage], end: list[Usage]) -> dict:
    said = {
        "cpu_percent": 100 * sum((b.seconds - a.seconds) / (b.at - a.at) for a, b in zip(begin, end, strict=True)),
        "rss_mb": max(u.rss_mb for u in end),
    }
    for name, values in (
        ("hottest_c", [u.hottest_c for u in end]),
        ("gpu_percent", [u.gpu_percent for u in end]),
        ("power_w", [u.power_w for u in end]),
    ):
        told = [v for v in values if v is not None]
        said[name] = max(told) if told else None
    return said


def _quality(stats: list[dict]) -> dict:
    stages = [s["stages"]["capture_to_packet"] for s in stats]
    return {
        "ticks_per_s": sum(s["ticks"] / s["seconds"] for s in stats),
        "filled_percent": 100 * sum(s["clock"]["filled"] for s in stats) / sum(s["ticks"] for s in stats),
        "p50_ms": max(s["p50_us"] for s in stages) / 1000,
        "p95_ms": max(s["p95_us"] for s in stages) / 1000,
        "p99_ms": max(s["p99_us"] for s in stages) / 1000,
        "max_ms": max(s["max_us"] for s in stages) / 1000,
    }


def test_soak(bench, source, request, results):
    """Memory and sensors over a long run."""
    seconds = request.config.option.soak
    if not seconds:
        pytest.skip("asked for with --soak SECONDS")
    with bench.sink(keep=lambda packet: None) as sink:
        keys = bench.keys(server=sink.address, **source)
        device = bench.target.start(keys)
        begun, seen = time.monotonic(), []
        while time.monotonic() < begun + seconds:
            time.sleep(min(5, seconds / 20))
            seen.append((time.monotonic() - begun, bench.target.usage(device.pid)))
        assert device.stop()[0] == 0
    settled = [(t / 3600, u.rss_mb) for t, u in seen if t > seconds / 6]
    slope = float(theilslopes([m for _, m in settled], [t for t, _ in settled])[0])
    hot = [u.hottest_c for _, u in seen if u.hottest_c is not None]
    results.tables["soak"] = {
        "seconds": seconds,
        "rss_slope_mb_per_h": slope,
        "hottest_c": max(hot, default=None),
        **_quality([bench.stats(keys)]),
    }
    results.series["soak_memory"] = (
        "minutes",
        "MB",
        {"largest process": ([t / 60 for t, _ in seen], [u.rss_mb for _, u in seen])},
    )


def test_no_worse_than_the_baseline(request, results):
    """Last: everything that is in the baseline and was measured now."""
    path: Path | None = request.config.option.baseline
    if path is None:
        pytest.skip("compares with --baseline FILE")
    worse = results.worse_than(json.loads(path.read_text()), request.config.option.margin)
    assert not worse, "\n".join(worse)
