"""Windows of released features to behaviours, many cameras in one pass."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from ruyicam.cloud.bundles import BundleInfo
from ruyicam.cloud.family.config import FamilyConfig
from ruyicam.cloud.wire import Kind
from ruyicam.kernels import unpack

from .load import Effort
from .passes import Passes, Reading
from .windows import PendingWindow, Seen, Verdict

# With fewer released ticks than this a window was quiet in the eyes of the edge tier: heartbeats only.
MIN_TICKS = 3
# A window that the smallest tier finds quiet with less than this is worth the deepest one's look.
CLEARLY = 0.8
# From one report of a boot to the next: decoding costs more than a pass.
REPORT_TICKS = 100


def window_inputs(
    windows: Sequence[PendingWindow], bundles: Mapping[str, BundleInfo], config: FamilyConfig
) -> tuple[np.ndarray, np.ndarray]:
    """Features int16 [windows, ticks, n] and which of them were released, bool [windows, ticks]."""
    size = config.window
    features = np.zeros((len(windows), size, config.features), np.int16)
    valid = np.zeros((len(windows), size), bool)
    by_bits: dict[int, list[tuple[int, int, bytes]]] = defaultdict(list)
    for i, w in enumerate(windows):
        bundle = bundles[w.bundle_id]
        if bundle.readable:
            some = by_bits[bundle.bits]
            some += ((i, size - 1 - (w.end - p.sequence), p.features) for p in w.packets if p.kind == Kind.FEATURES)
    for bits, ticks in by_bits.items():
        if not ticks:
            continue
        i, at, packed = zip(*ticks, strict=True)
        rows = np.frombuffer(b"".join(packed), np.uint8).reshape(len(ticks), -1)
        features[i, at] = unpack(rows, config.features, bits)
        valid[i, at] = True
    return features, valid


class _Found:
    """Of one window: each exit's probabilities, and the reading of the deepest tier that saw it, at a place in its pass."""

    def __init__(self) -> None:
        self.rows: dict[str, list[float]] = {}
        self.said: Reading | None = None
        self.at = 0


class WindowReasoner:
    """Reads windows with the family's cloud tiers; the deepest one's shallower exits are the others."""

    def __init__(self, config: FamilyConfig, passes: Passes, bundles: dict[str, BundleInfo]):
        self.config, self.bundles, self._passes = config, bundles, passes
        cloud = [name for name in self.tiers if name != "edge"]
        self._smallest, self._deepest = cloud[0], cloud[-1]
        # To which tick each open boot was last reported.
        self._reported: dict[tuple[str, str], int] = {}

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

    def _pass(
        self, tier: str, features: np.ndarray, valid: np.ndarray, report: np.ndarray, which: list[int], into: list[_Found]
    ) -> None:
        """What the tier says of the windows `which`, into their places."""
        if not which:
            return
        said = self._passes.run(tier, features[which], valid[which], report[which])
        for name, rows in said.rows.items():
            for i, row in zip(which, rows.tolist(), strict=True):
                into[i].rows[name] = row
        for at, i in enumerate(which):
            into[i].said, into[i].at = said, at

    def _matters(self, w: PendingWindow, row: list[float]) -> bool:
        return row[0] < CLEARLY or any(p.token for p in w.packets)

    def read(self, windows: Sequence[PendingWindow], effort: Effort = Effort.ALL, reports: bool = True) -> list[Seen]:
        """What is seen in each window; nothing in one without packets. Under a certified profile the edge tier alone speaks.
        reports: whether the language head is asked, which one caller at a time may have done."""
        features, valid = window_inputs(windows, self.bundles, self.config)
        found = [_Found() for _ in windows]
        deep = [i for i in range(len(windows)) if valid[i].sum() >= MIN_TICKS]
        none = np.zeros(len(windows), bool)
        report = self._to_report(windows, effort) if reports else none
        if effort != Effort.ALL:
            self._pass(self._smallest, features, valid, none, deep, found)
            deep = [i for i in deep if effort != Effort.SMALL and self._matters(windows[i], found[i].rows[self._smallest])]
        self._pass(self._deepest, features, valid, report, deep, found)
        seen = [self._seen(w, f, v, effort) for w, f, v in zip(windows, found, valid, strict=True)]
        for w, s in zip(windows, seen, strict=True) if reports else ():
            if w.final:
                self._reported.pop((w.camera_id, w.boot_id), None)
            elif s.report is not None:
                self._reported[w.camera_id, w.boot_id] = w.end
        return seen

    def _to_report(self, windows: Sequence[PendingWindow], effort: Effort) -> np.ndarray:
        """Those whose boot was not reported for a while; none while there is much to do."""
        last = self._reported
        some = [w.end - last.get((w.camera_id, w.boot_id), -REPORT_TICKS) >= REPORT_TICKS for w in windows]
        return np.array(some, bool) & (effort == Effort.ALL)

    def _seen(self, w: PendingWindow, found: _Found, valid: np.ndarray, effort: Effort) -> Seen:
        verdicts = self._verdicts(w, found.rows, effort)
        if found.said is None:
            return Seen(verdicts)
        people, figures = found.said.people[found.at], found.said.figures[found.at]
        first = w.end - self.config.window + 1
        fresh = [i for i in np.flatnonzero(valid).tolist() if first + i > w.read_to]
        return Seen(verdicts, [(first + i, figures[i, : people[i]]) for i in fresh], found.said.reports[found.at])

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
