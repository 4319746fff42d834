"""Which clips an epoch shows, as a pure function of seed and epoch."""

from __future__ import annotations

import numpy as np
from torch.utils.data import Sampler

from ruyicam.cloud.data.clips import Clip


class BalancedSampler(Sampler):
    """Draws labels by weight and clips evenly within a label (least shown first). Items are (draw, clip index)."""

    def __init__(self, clips: list[Clip], weights: dict[str, float], seed: int):
        self.by_label: dict[str, list[int]] = {}
        for i, clip in enumerate(clips):
            self.by_label.setdefault(clip.label, []).append(i)
        self.size, self.seed, self.epoch = len(clips), seed, 0
        raw = np.array([weights.get(label, 1.0) for label in self.by_label])
        self.weights = raw / raw.sum()

    def __len__(self) -> int:
        return self.size

    def __iter__(self):
        rng = np.random.default_rng([self.seed, 1, self.epoch])
        decks: dict[str, list[int]] = {label: [] for label in self.by_label}
        names = list(self.by_label)
        for k, choice in enumerate(rng.choice(len(names), self.size, p=self.weights)):
            deck = decks[names[choice]]
            if not deck:
                deck.extend(rng.permutation(self.by_label[names[choice]]).tolist())
            yield self.epoch * self.size + k, deck.pop()
