"""The contour of a stretch of the past: read anew from the stored features, so that it is nowhere kept."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from .reasoner import WindowReasoner
from .store import Store
from .tables import Boot
from .windows import PendingWindow

# Ticks of one replay, at most: five minutes at ten a second.
LONGEST = 3000
# Before an event, to see how it came about.
_LEAD = 20


def windows_between(store: Store, boot: Boot, first: int, last: int, size: int) -> list[PendingWindow]:
    """Windows of `size` ticks over the ticks first to last, as far as their packets are still there."""
    packets = store.packets(boot.camera_id, boot.boot_id, first, last)
    windows: list[PendingWindow] = []
    # The last one looks back, so that it is as full as the others.
    for end in [*range(first + size - 1, last, size), last]:
        inside = [p for p in packets if end - size < p.sequence <= end]
        read_to = windows[-1].end if windows else first - 1
        if inside:
            place = boot.camera_id, boot.boot_id, boot.bundle_id
            windows.append(PendingWindow(*place, end - size + 1, end, False, inside, read_to))
    return windows


class Replay:
    """Thread-safe."""

    def __init__(self, store: Store, reasoner: WindowReasoner, bundles: Collection[str]):
        self._store, self._reasoner, self._bundles = store, reasoner, bundles

    def contour(self, boot_id: str, first: int, last: int) -> list[tuple[int, int, np.ndarray]]:
        """(tick, its time in Unix microseconds, uint8 [people, 17, 3] as in passes.Reading) of the ticks first to last, and
        some before, whose features were released and are still there; the last `LONGEST` of them."""
        boot = self._store.boot(boot_id)
        if boot is None or boot.bundle_id not in self._bundles:
            return []
        first = max(0, first - _LEAD, last - LONGEST + 1)
        windows = windows_between(self._store, boot, first, last, self._reasoner.config.window)
        when = {p.sequence: p.captured_at_us for w in windows for p in w.packets}
        return [
            (tick, when[tick], figures)
            for seen in self._reasoner.read(windows, reports=False)
            for tick, figures in seen.contour
        ]
