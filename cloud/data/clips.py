"""Clips on disk: folders `label/clip.mp4`, decoded to the very luma bytes that the device sees."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np

from ruyicam.cloud.errors import Exit, RuyicamError
from ruyicam.cloud.family.config import InputConfig
from ruyicam.kernels import Preprocessor

SUFFIXES = {".mp4", ".avi", ".mkv", ".mov", ".webm", ".mpg", ".ts"}


@dataclass(frozen=True)
class Clip:
    """One labelled clip."""

    path: Path
    label: str


def find_clips(folders: list[Path], labels: tuple[str, ...]) -> list[Clip]:
    """All clips under `folder/label/`, sorted. RuyicamError(USAGE) for a missing or empty folder or unknown label."""
    clips = []
    for folder in folders:
        if not folder.is_dir():
            raise RuyicamError(Exit.USAGE, f"data folder {folder} does not exist; expected folders label/clip.mp4")
        found = sorted(p for p in folder.glob("*/*") if p.suffix.lower() in SUFFIXES)
        if not found:
            raise RuyicamError(Exit.USAGE, f"data folder {folder} holds no clips; expected folders label/clip.mp4")
        clips += [Clip(p, p.parent.name) for p in found]
    unknown = sorted({c.label for c in clips} - set(labels))
    if unknown:
        raise RuyicamError(Exit.USAGE, f"label '{unknown[0]}' is not one of the configured labels {', '.join(labels)}")
    return clips


def luma_frames(path: str | Path) -> Iterator[tuple[int, np.ndarray]]:
    """Yields (time in ns from the first frame, luma uint8 [h, w]). RuyicamError(SOURCE) for what cannot be decoded."""
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            first = None
            for frame in container.decode(stream):
                if not frame.format.name.startswith(("yuv", "gray", "nv12")):
                    frame = frame.reformat(format="gray")
                plane = frame.planes[0]
                rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
                time = int(frame.pts * stream.time_base * 1_000_000_000)
                first = time if first is None else first
                yield time - first, rows[: frame.height, : frame.width]
    except (av.error.FFmpegError, IndexError) as error:
        raise RuyicamError(Exit.SOURCE, f"clip {path} cannot be decoded: {error}") from error


def tick_of(time_ns: int, rate_hz: int) -> int:
    """The tick that a frame belongs to; of the frames of one tick the first counts (the device does the same)."""
    return time_ns * rate_hz // 1_000_000_000


def model_input(path: str | Path, config: InputConfig, limit: int | None = None) -> np.ndarray:
    """The encoder's input for a clip (its first `limit` ticks), as on the device: int8 [ticks, 3, height, width]."""
    kernel = Preprocessor(**config.model_dump(exclude={"rate_hz"}))
    last, out = -1, []
    for time, luma in luma_frames(path):
        if (tick := tick_of(time, config.rate_hz)) > last:
            last = tick
            out.append(kernel.process(luma))
            if len(out) == limit:
                break
    if not out:
        raise RuyicamError(Exit.SOURCE, f"clip {path} holds no frames")
    return np.stack(out)
