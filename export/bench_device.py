"""What `ruyicam bench edge` runs on one core: the device binary, and a plain Python loop that does the same job."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import numpy as np
from scipy.stats import theilslopes

from ruyicam.cloud.errors import Exit, RuyicamError
from ruyicam.cloud.family import Family

from .bench_session import CAMERA, command_line, find_edge
from .evaluate import export_throwaway
from .pki import Authority
from .sink import Sink

FPS, SECONDS = 30, 20
# Memory of the first minutes is caches that fill.
SETTLE_S = 300
ROLES = ("keeper", "launcher", "vision")
Progress = Callable[[str, int, int], None]


def make_clip(source: Path, out: Path, fps: int = FPS, seconds: int = SECONDS) -> Path:
    """A 1280x720 H.264 clip of the frames of `source`, forwards and backwards so that nothing jumps."""
    with av.open(str(source)) as container:
        some = islice(container.decode(video=0), fps * seconds)
        pictures = [f.reformat(1280, 720, "yuv420p").to_ndarray() for f in some]
    if not pictures:
        raise RuyicamError(Exit.SOURCE, f"{source} holds no frame")
    turn = pictures + pictures[-2:0:-1]
    with av.open(str(out), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = 1280, 720, "yuv420p"
        stream.codec_context.time_base = Fraction(1, fps)
        for i in range(fps * seconds):
            frame = av.VideoFrame.from_ndarray(turn[i % len(turn)], format="yuv420p")
            frame.pts, frame.time_base = i, Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return out


def repeated(clip: Path, folder: Path, times: int) -> Path:
    """A folder in which the clip lies so many times."""
    folder.mkdir()
    for i in range(times):
        (folder / f"{i:06}.mp4").symlink_to(clip)
    return folder


def processes_of(pid: int) -> list[int]:
    """A process and all that it has started."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*"):
        # Threads come and go while one looks.
        with suppress(OSError):
            for child in (task / "children").read_text().split():
                found += processes_of(int(child))
    return found


def memory_mb(pid: int, field: str = "VmRSS") -> float:
    """Resident memory of one process, or with VmHWM the most it had; 0 if it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:")), 0.0)


class Bench:
    """A device, a plain peer, a sink for both, and a clip, in one folder."""

    def __init__(self, folder: Path, model: Path, clip: Path, edge: Path | None, core: int):
        self.folder, self.core, self.edge = folder, core, find_edge(edge)
        self.report, self.public_key = export_throwaway(Family.from_pretrained(model), folder, clip)
        self.authority = Authority(folder / "tls", days=2)
        self.camera = self.authority.camera(CAMERA)
        self.runs = 0
        self.clips = {fps: make_clip(clip, folder / f"{fps}.mp4", fps) for fps in (FPS, self.rate_hz)}

    @property
    def rate_hz(self) -> int:
        """Ticks of a second."""
        return json.loads((self.report.path / "manifest.json").read_text())["input"]["rate_hz"]

    def on_core(self) -> None:
        """Binds this process to the bench's core."""
        os.sched_setaffinity(0, {self.core})

    def _state(self) -> Path:
        self.runs += 1
        return self.folder / f"state-{self.runs}"

    def start(self, source: Path, sink: Sink, state: Path, **flags: object) -> subprocess.Popen:
        """The device on its core."""
        keys = {
            "source": source,
            "camera_id": CAMERA,
            "bundle": self.report.path,
            "public_key": self.public_key,
            "server": sink.address,
            "ca": self.authority.ca,
            "cert": self.camera.cert,
            "key": self.camera.key,
            "state_dir": state,
            "stats": state.with_suffix(".json"),
        } | flags
        return subprocess.Popen(command_line(self.edge, keys), stderr=subprocess.PIPE, text=True, preexec_fn=self.on_core)

    def device(self, fps: int, times: int, realtime: bool, sink: Sink) -> dict:
        """One run: {"latency": stage, "frames_per_s", "start_s", "rss_mb": {process: peak}}."""
        state = self._state()
        source = repeated(self.clips[fps], self.folder / f"source-{self.runs}", times)
        sink.clear()
        began = time.monotonic()
        edge = self.start(source, sink, state, **({"realtime": True} if realtime else {}))
        peak: dict[str, float] = {}
        while edge.poll() is None:
            peak = watch(edge.pid, peak)
            time.sleep(0.1)
        if edge.returncode != 0:
            raise failed(edge, "failed")
        stats = json.loads(state.with_suffix(".json").read_text())
        first, last = sink.arrivals[0][0], sink.arrivals[-1][0]
        frames = fps * SECONDS * times
        return {
            "latency": stats["stages"]["capture_to_packet"],
            "frames_per_s": frames / (last - first),
            "start_s": first - began,
            "rss_mb": peak,
            "stages": stats["stages"],
        }

    def peer(self, fps: int, times: int, realtime: bool, sink: Sink) -> dict:
        """The same of the plain loop."""
        state = self._state()
        options = {
            "clips": [str(self.clips[fps])] * times,
            "fps": fps,
            "realtime": realtime,
            "bundle": str(self.report.path),
            "spool": str(state),
            "server": sink.address,
            "camera_id": CAMERA,
            "ca": str(self.authority.ca),
            "cert": str(self.camera.cert),
            "key": str(self.camera.key),
        }
        asked = state.with_suffix(".options.json")
        asked.write_text(json.dumps(options))
        sink.clear()
        began = time.monotonic()
        command = [sys.executable, "-P", "-m", "ruyicam.export.peer_edge", str(asked)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=self.on_core)
        peak = 0.0
        while process.poll() is None:
            peak = max(peak, memory_mb(process.pid))
            time.sleep(0.1)
        if process.returncode != 0:
            raise RuyicamError(Exit.INTERNAL, "the plain loop failed")
        took = np.array(json.loads(process.stdout.read())["latency_us"])
        first, last = sink.arrivals[0][0], sink.arrivals[-1][0]
        return {
            "latency": {"p50_us": float(np.quantile(took, 0.5)), "p99_us": float(np.quantile(took, 0.99))},
            "frames_per_s": fps * SECONDS * times / (last - first),
            "start_s": first - began,
            "rss_mb": {"python": peak},
        }

    def soak(self, minutes: float, sink: Sink, progress: Progress) -> dict:
        """Plays at its own pace for so long; the slope of every process's memory after SETTLE_S, MB an hour (Theil-Sen)."""
        seconds = int(60 * minutes)
        state = self._state()
        source = repeated(self.clips[FPS], self.folder / f"source-{self.runs}", seconds // SECONDS + 1)
        edge = self.start(source, sink, state, realtime=True)
        began, times, sizes = time.monotonic(), [], {}
        while (now := time.monotonic() - began) < seconds:
            if edge.poll() is not None:
                raise failed(edge, "ended in the soak")
            if now >= min(SETTLE_S, seconds / 4):
                times.append(now / 3600)
                for name, pid in named(edge.pid).items():
                    sizes.setdefault(name, []).append(memory_mb(pid))
            progress("soak", int(now), seconds)
            time.sleep(2)
        edge.terminate()
        edge.communicate(timeout=60)
        if edge.returncode != 0:
            raise failed(edge, "did not end well after the soak")
        return {
            "minutes": minutes,
            "rss_slope_mb_per_h": {n: float(theilslopes(y, times[: len(y)]).slope) for n, y in sizes.items()},
            "rss_mb": {n: max(y) for n, y in sizes.items()},
            "samples": {n: list(map(float, y)) for n, y in sizes.items()},
            "hours": times,
        }


def failed(edge: subprocess.Popen, how: str) -> RuyicamError:
    """With the last line that the device said."""
    return RuyicamError(Exit.INTERNAL, f"the device {how}: {(edge.stderr.read().strip().splitlines() or ['no word'])[-1]}")


def named(pid: int) -> dict[str, int]:
    """{role: pid} of the device's processes."""
    try:
        return dict(zip(ROLES, processes_of(pid), strict=False))
    except OSError:
        return {}


def watch(pid: int, peak: dict[str, float]) -> dict[str, float]:
    """`peak`, raised by the present memory of the device's processes."""
    return peak | {n: max(peak.get(n, 0.0), memory_mb(p, "VmHWM")) for n, p in named(pid).items()}
