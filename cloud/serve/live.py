"""What cameras show at the moment: moving contours and behaviours, for those who watch; kept nowhere."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

import numpy as np

from .windows import PendingWindow, Seen

# A wall that is so many readings of each camera behind is told nothing more until it has caught up.
_BEHIND = 64
# What was read longer ago is not what a camera shows at the moment.
_STALE_S = 60.0


def joints(figures: np.ndarray) -> list[list[int]]:
    """Figures uint8 [people, 17, 3] as a flat list of each person's joints."""
    return figures.reshape(len(figures), figures[0].size if len(figures) else 0).tolist()


def drawn(contour: Sequence[tuple[int, np.ndarray]]) -> list[dict[str, Any]]:
    """A contour for JSON: {"tick": n, "people": [[x, y, seen, x, y, seen, ...], ...]}, values as in passes.Reading."""
    return [{"tick": tick, "people": joints(figures)} for tick, figures in contour]


def readings_of(windows: Sequence[PendingWindow], seen: Sequence[Seen], watched: bool) -> list[dict[str, Any]]:
    """What Live shows of these windows; of a camera that is over only who it is. watched: with contours."""
    found = []
    for w, what in zip(windows, seen, strict=True):
        if not what.verdicts:
            if w.final:
                found.append({"camera_id": w.camera_id, "contour": []})
            continue
        deepest = what.verdicts[-1]
        found.append(
            {
                "camera_id": w.camera_id,
                "boot_id": w.boot_id,
                "at": time.time(),
                "captured_at": w.packets[-1].captured_at_us / 1e6,
                "last_tick": w.end,
                "behaviour": deepest.behaviour,
                "confidence": deepest.confidence,
                "people": what.people,
                "contour": drawn(what.contour) if watched else [],
            }
        )
    return found


class Live:
    """The latest reading of each camera, to whoever watches."""

    def __init__(self) -> None:
        self._latest: dict[str, dict[str, Any]] = {}
        self._watching: set[asyncio.Queue] = set()
        self._closed = False

    def close(self) -> None:
        """Ends all streams."""
        self._closed = True
        for queue in self._watching:
            queue.put_nowait(None)

    @property
    def watched(self) -> bool:
        """Whether anyone watches here."""
        return bool(self._watching)

    def show(self, readings: Iterable[dict[str, Any]]) -> None:
        """What has just been read, as of readings_of(). To be called on the event loop."""
        for said in readings:
            if "behaviour" not in said:
                self._latest.pop(said["camera_id"], None)
                continue
            self._latest[said["camera_id"]] = said
            for queue in self._watching:
                if queue.qsize() < _BEHIND * max(1, len(self._latest)):
                    queue.put_nowait(said)

    async def watch(self, alive_s: float) -> AsyncIterator[dict[str, Any] | None]:
        """The latest reading of each camera, then every further one; None after so long without one. A watcher that is far
        behind misses some."""
        queue: asyncio.Queue = asyncio.Queue()
        self._watching.add(queue)
        try:
            for said in list(self._latest.values()):
                if time.time() - said["at"] < _STALE_S:
                    yield said
            while not self._closed:
                try:
                    said = await asyncio.wait_for(queue.get(), alive_s)
                except TimeoutError:
                    said = None
                yield said
        finally:
            self._watching.discard(queue)
