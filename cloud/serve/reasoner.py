"""Windows of released features to behaviours, all cloud tiers in one pass."""

from __future__ import annotations

import numpy as np
import torch

from ruyicam.cloud.bundles import BundleInfo
from ruyicam.cloud.family import Family
from ruyicam.cloud.wire import Kind
from ruyicam.kernels import unpack

from .store import PendingWindow, Verdict

# With fewer released ticks than this a window was quiet in the eyes of the edge tier: heartbeats only.
MIN_TICKS = 3


class WindowReasoner:
    """Reads windows with the family's deepest tier, whose shallower exits are the other tiers."""

    def __init__(self, family: Family, bundles: dict[str, BundleInfo]):
        self.config, self.bundles = family.config, bundles
        deepest = max(family.config.trunk.exits, key=family.config.trunk.exits.__getitem__)
        self.tier = family.tier(deepest)

    @property
    def tiers(self) -> list[str]:
        """Names of all tiers, shallowest first."""
        return list(self.config.trunk.exits)

    def _edge(self, w: PendingWindow) -> Verdict:
        """The edge tier's answer is the behaviour token of the window's last tick; where tokens are all there is, any look."""
        bundle, quiet = self.bundles[w.bundle_id], self.config.labels[0]
        if not bundle.readable:
            return Verdict("edge", bundle.alphabet[max(p.token for p in w.packets)], None, None)
        token = bundle.alphabet[w.packets[-1].token]
        return Verdict("edge", token if token in self.config.labels else quiet, None, None)

    @torch.inference_mode()
    def read(self, windows: list[PendingWindow]) -> list[list[Verdict]]:
        """Per window the verdict of each tier, shallowest first; an empty list for a window without packets.

        Under a certified profile the edge tier alone speaks.
        """
        size = self.config.window
        features = np.zeros((len(windows), size, self.config.features), np.float32)
        valid = np.zeros((len(windows), size), bool)
        for i, w in enumerate(windows):
            for p in w.packets:
                if p.kind != Kind.FEATURES or not self.bundles[w.bundle_id].readable:
                    continue
                at = size - 1 - (w.end - p.sequence)
                packed = np.frombuffer(p.features, np.uint8)[None]
                features[i, at] = unpack(packed, self.config.features, self.bundles[w.bundle_id].bits)[0]
                valid[i, at] = True
        readable = [i for i in range(len(windows)) if valid[i].sum() >= MIN_TICKS]
        probabilities: dict[int, dict[str, list[float]]] = {}
        if readable:
            answers = self.tier(torch.from_numpy(features[readable]), torch.from_numpy(valid[readable]))
            for name, answer in answers.items():
                for i, row in zip(readable, torch.softmax(answer.window, -1).tolist(), strict=True):
                    probabilities.setdefault(i, {})[name] = row
        out = []
        for i, w in enumerate(windows):
            if not w.packets:
                out.append([])
                continue
            verdicts = [self._edge(w)]
            for name in self.tiers if self.bundles[w.bundle_id].readable else ():
                if name == "edge":
                    continue
                row = probabilities.get(i, {}).get(name)
                if row is None:
                    verdicts.append(Verdict(name, self.config.labels[0], None, None))
                else:
                    best = int(np.argmax(row))
                    verdicts.append(Verdict(name, self.config.labels[best], row[best], row))
            out.append(verdicts)
        return out
