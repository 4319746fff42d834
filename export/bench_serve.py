"""`ruyicam bench serve`: simulated cameras speak the real wire over loopback to the real server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.stats import theilslopes

from ruyicam.cloud.errors import Exit, RuyicamError
from ruyicam.cloud.family import Family
from ruyicam.cloud.serve.config import ServerConfig

from .bench_device import memory_mb, processes_of
from .bench_kernels import machine
from .bench_session import BenchSession
from .evaluate import export_throwaway
from .sink import Sink

DRAIN_S = 120
# Memory of the first part of a run is caches that fill.
SETTLED = 0.25
Progress = Callable[[str, float, float], None]


class Listener(threading.Thread):
    """Server-sent events of `/v1/events/stream`, each with the time at which it came."""

    def __init__(self, http: str):
        super().__init__(daemon=True)
        self.heard: list[tuple[float, dict]] = []
        self._answer = urllib.request.urlopen(f"http://{http}/v1/events/stream", timeout=30)
        while self._answer.readline().strip():
            continue
        self.start()

    def run(self) -> None:
        """Until the server closes the stream."""
        try:
            for line in self._answer:
                if line.startswith(b"data: "):
                    self.heard.append((time.time(), json.loads(line[6:])))
        except (OSError, ValueError, AttributeError):
            return

    def close(self) -> None:
        """Hears no more."""
        self._answer.close()


def recorded_packets(folder: Path, model: Path, clip: Path, edge: Path | None) -> tuple[BenchSession, Path]:
    """A session that is not started yet, and a file of the packets that the device makes of the clip, one in hex a line."""
    report, public = export_throwaway(Family.from_pretrained(model), folder, clip)
    session = BenchSession(model, report.path, public, edge, folder / "session")
    with session, Sink(session.authority) as sink:
        session.play(str(clip), server=sink.address)
        packets = [packet.SerializeToString().hex() for _, packet in sink.arrivals]
    path = folder / "packets"
    path.write_text("\n".join(packets))
    serving = BenchSession(model, report.path, public, edge, folder / "serve")
    serving.server_keys = {name: ServerConfig.model_fields[name].default for name in ("latency_s", "hold_s")}
    return serving, path


def memory_of(pid: int) -> float:
    """Resident memory of the service's processes, MB."""
    return sum(map(memory_mb, processes_of(pid)))


def metrics_of(http: str) -> dict[str, float]:
    """What the service there tells Prometheus."""
    with urllib.request.urlopen(f"http://{http}/metrics", timeout=60) as answer:
        lines = answer.read().decode().splitlines()
    return {k: float(v) for k, v in (x.rsplit(" ", 1) for x in lines if x[0] != "#")}


def windows_read(http: str) -> float:
    """So far, by the service there."""
    return sum(v for k, v in metrics_of(http).items() if k.startswith("ruyicam_windows_total{"))


def processor_s(pid: int) -> dict[str, float]:
    """Processor time so far, in seconds, of the service and of the process that holds its model."""
    used = {"service": 0.0, "model": 0.0}
    for process in processes_of(pid):
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        used["service" if process == pid else "model"] += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return used


def quantiles_ms(values: list[float]) -> dict[str, float]:
    """p50, p95, p99 and the most of times in seconds, as milliseconds."""
    found = np.quantile(values, (0.5, 0.95, 0.99, 1)) * 1000 if values else [float("nan")] * 4
    return dict(zip(("p50", "p95", "p99", "max"), map(float, found), strict=True))


class Load:
    """Runs of simulated cameras against one server."""

    def __init__(self, session: BenchSession, packets: Path, rate_hz: int, window: int):
        self.session, self.packets, self.rate_hz, self.window, self.runs = session, packets, rate_hz, window, 0
        self.size = 0

    def run(self, cameras: int, seconds: float, progress: Callable[[float], None]) -> dict:
        """Figures of that many cameras for so long; `lost`: packets made that the server does not have."""
        self.runs += 1
        folder = self.session.folder / f"load-{self.runs}"
        folder.mkdir()
        own = []
        for i in range(cameras):
            issued = self.session.authority.camera(f"sim-{self.runs}-{i}")
            own.append({"id": f"sim-{self.runs}-{i}", "cert": str(issued.cert), "key": str(issued.key)})
        options = {
            "server": self.session.grpc, "ca": str(self.session.authority.ca), "cameras": own, "packets": str(self.packets),
            "rate_hz": self.rate_hz, "seconds": seconds, "drain_s": DRAIN_S,
        }  # fmt: skip
        (folder / "options.json").write_text(json.dumps(options))
        listener = Listener(self.session.http)
        command = [sys.executable, "-P", "-m", "ruyicam.export.load_cameras", str(folder / "options.json")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            begun = json.loads(process.stdout.readline() or "{}")
            if not begun:
                raise RuyicamError(Exit.INTERNAL, "the simulated cameras did not connect")
            pid, times, sizes, lags, held = self.session.server.pid, [], [], [], False
            used, windows = processor_s(pid), windows_read(self.session.http)
            while process.poll() is None:
                now = time.time() - begun["begin"]
                progress(min(max(now, 0), seconds))
                figures = metrics_of(self.session.http)
                lags.append(figures["ruyicam_reasoner_lag_seconds"])
                held = held or figures["ruyicam_ingest_holding"] > 0
                if SETTLED * seconds < now < seconds:
                    times.append(now / 3600)
                    sizes.append(memory_of(pid))
                time.sleep(1)
            made = json.loads(process.stdout.read())
        used = {name: now - used[name] for name, now in processor_s(pid).items()}
        windows = windows_read(self.session.http) - windows
        stored = sum(self.session.wait_read(boot, DRAIN_S)["packets"] for boot in begun["boots"].values())
        listener.close()
        latency = self._latency(listener, begun, seconds)
        return {
            "cameras": cameras,
            "seconds": seconds,
            "packets_per_s": cameras * self.rate_hz,
            "latency_ms": quantiles_ms(latency),
            "changes": len(latency),
            "lost": made["made"] - stored,
            "connections": made["connections"],
            "most_waiting": made["most_waiting"],
            "drained_s": made["drained_s"],
            "processor": {
                "service_us_per_packet": used["service"] / made["made"] * 1e6,
                "model_ms_per_window": used["model"] / windows * 1e3,
            },
            "most_lag_s": max(lags, default=0.0),
            "held": held,
            "stored_bytes_per_packet": self._stored_bytes(stored),
            "rss_mb": max(sizes, default=memory_of(pid)),
            "rss_slope_mb_per_h": float(theilslopes(sizes, times).slope) if len(sizes) > 10 else None,
        }

    def _stored_bytes(self, packets: int) -> float:
        """What the database has grown by for each packet, with all that was read in them."""
        before, self.size = self.size, sum(path.stat().st_size for path in self.session.folder.glob("server.db*"))
        return (self.size - before) / packets

    def _latency(self, listener: Listener, begun: dict, seconds: float) -> list[float]:
        """From the time of a window's last packet to the change that it made; windows that a boot's end cut short not."""
        found = []
        for came, change in listener.heard:
            event = change["event"]
            made = begun["begin"] + begun["phase_s"].get(event["camera_id"], -1e9) + event["last_tick"] / self.rate_hz
            if change["kind"] != "end" and self.window <= event["last_tick"] < seconds * self.rate_hz - 1:
                found.append(came - made)
        return found


def bench_serve(
    folder: Path, model: Path, clip: Path, edge: Path | None, cameras: int, minutes: float, most: int, progress: Progress
) -> dict:
    """All of it, as `ruyicam bench serve --json` prints it. folder: empty. most: see the command."""
    family = Family.from_pretrained(model)
    progress("bundle and packets", 0, 1)
    session, packets = recorded_packets(folder, model, clip, edge)
    with session:
        load = Load(session, packets, family.config.input.rate_hz, family.config.window)

        def run(count: int, seconds: float, what: str) -> dict:
            return load.run(count, seconds, lambda done: progress(f"{count} cameras, {what}", done, seconds))

        steady = run(cameras, 60 * minutes, "steady")
        steps, count = [], cameras
        while most:
            count = int(count * 1.25)
            steps.append(run(count, 30, "more and more"))
            if steps[-1]["latency_ms"]["p99"] > 1000 or count >= most:
                break
        past = run(2 * count, 30, "past saturation") if most else None
        after = run(cameras, 30, "after it") if most else None
    return {"machine": machine(), **steady, "more": steps, "past": past, "after": after}
