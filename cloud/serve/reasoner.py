"""Windows of released features to behaviours, many cameras in one pass."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from ruyicam.cloud.bundles import BundleInfo
from ruyicam.cloud.family.config import FamilyConfig
from ruyicam.cloud.wire import Kind
from ruyicam.kernels import unpack

from .load import Effort
from .passes import Passes
from .windows import PendingWindow, Verdict

# With fewer released ticks than this a window was quiet in the eyes of the edge tier: heartbeats only.
MIN_TICKS = 3
# A window that the smallest tier finds quiet with less than this is worth the deepest one's look.
CLEARLY = 0.8
# Windows of one pass: enough to be fast, little enough for the caches.
_PASS = 32


class WindowReasoner:
    """Reads windows with the family's cloud tiers; the deepest one's shallower exits are the others."""

    def __init__(self, config: FamilyConfig, passes: Passes, bundles: dict[str, BundleInfo]):
        self.config, self.bundles, self._passes = config, bundles, passes
        cloud = [name for name in self.tiers if name != "edge"]
        self._smallest, self._deepest = cloud[0], cloud[-1]

    @property
    def tiers(self) -> list[str]:
        """Names of all tiers, shallowest first."""
        exits = self.config.trunk.exits
        return sorted(exits, key=exits.__getitem__)

    def _edge(self, w: PendingWindow) -> Verdict:
        """The edge tier's answer is the behaviour token of the window's last tick; where tokens are all there is, any look."""
        bundle, quiet = self.bundles[w.bundle_id], self.config.labels[0]
        if not bundle.readable:
            return Verdict("edge", bundle.alphabet[max(p.token for p in w.packets)], None, None)
        token = bundle.alphabet[w.packets[-1].token]
        return Verdict("edge", token if token in self.config.labels else quiet, None, None)

    def _inputs(self, windows: Sequence[PendingWindow]) -> tuple[np.ndarray, np.ndarray]:
        """Features int16 [windows, ticks, n] and which of them were released, bool [windows, ticks]."""
        size = self.config.window
        features = np.zeros((len(windows), size, self.config.features), np.int16)
        valid = np.zeros((len(windows), size), bool)
        by_bits: dict[int, list[tuple[int, int, bytes]]] = defaultdict(list)
        for i, w in enumerate(windows):
            bundle = self.bundles[w.bundle_id]
            if bundle.readable:
                some = by_bits[bundle.bits]
                some += ((i, size - 1 - (w.end - p.sequence), p.features) for p in w.packets if p.kind == Kind.FEATURES)
        for bits, ticks in by_bits.items():
            if not ticks:
                continue
            i, at, packed = zip(*ticks, strict=True)
            rows = np.frombuffer(b"".join(packed), np.uint8).reshape(len(ticks), -1)
            features[i, at] = unpack(rows, self.config.features, bits)
            valid[i, at] = True
        return features, valid

    def _pass(self, tier: str, features: np.ndarray, valid: np.ndarray, which: Sequence[int], into: list[dict]) -> None:
        """Probabilities of the windows `which` by each exit of the tier, {exit: row} into their places."""
        for first in range(0, len(which), _PASS):
            some = list(which[first : first + _PASS])
            for name, rows in self._passes.run(tier, features[some], valid[some]).items():
                for i, row in zip(some, rows.tolist(), strict=True):
                    into[i][name] = row

    def _matters(self, w: PendingWindow, row: list[float]) -> bool:
        return row[0] < CLEARLY or any(p.token for p in w.packets)

    def read(self, windows: Sequence[PendingWindow], effort: Effort = Effort.ALL) -> list[list[Verdict]]:
        """Per window the verdict of each tier that read it, shallowest first; an empty list for a window without packets.

        Under a certified profile the edge tier alone speaks.
        """
        features, valid = self._inputs(windows)
        rows: list[dict[str, list[float]]] = [{} for _ in windows]
        deep = [i for i in range(len(windows)) if valid[i].sum() >= MIN_TICKS]
        if effort != Effort.ALL:
            self._pass(self._smallest, features, valid, deep, rows)
            deep = [i for i in deep if effort != Effort.SMALL and self._matters(windows[i], rows[i][self._smallest])]
        self._pass(self._deepest, features, valid, deep, rows)
        return [self._verdicts(w, found, effort) for w, found in zip(windows, rows, strict=True)]

    def _verdicts(self, w: PendingWindow, rows: dict[str, list[float]], effort: Effort) -> list[Verdict]:
        if not w.packets:
            return []
        verdicts = [self._edge(w)]
        for name in self.tiers if self.bundles[w.bundle_id].readable else ():
            if name == "edge":
                continue
            if row := rows.get(name):
                best = int(np.argmax(row))
                verdicts.append(Verdict(name, self.config.labels[best], row[best], row))
            elif not rows and (effort == Effort.ALL or name == self._smallest):
                # Next to nothing was released: quiet.
                verdicts.append(Verdict(name, self.config.labels[0], None, None))
        return verdicts
