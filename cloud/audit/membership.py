"""Was this clip in the training data? Asked of the model's own answers to what was released of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from ruyicam.cloud.family import Family

from .footage import Footage
from .stats import Result, proportion
from .system import Releaser


@torch.inference_mode()
def _confidence(family: Family, releaser: Releaser, clip: Footage, draws: int) -> float:
    """Mean log-probability of the true label over several draws of the noise."""
    size = family.config.window
    u = clip.features[-size:].to(torch.int16)
    z = torch.zeros(draws, size, u.shape[1])
    z[:, size - len(u) :] = torch.stack([releaser.windows(u[None])[0] for _ in range(draws)])
    there = torch.zeros(draws, size, dtype=torch.bool)
    there[:, size - len(u) :] = True
    deepest = list(family.config.trunk.exits)[-1]
    answer = family.reasoner(z, there, (deepest,))[deepest].window
    return float(torch.log_softmax(answer, -1)[:, family.config.labels.index(clip.clip.label)].mean())


def membership(
    family: Family, releaser: Releaser, members: list[Footage], others: list[Footage], draws: int, seeds: int
) -> Result:
    """As many members as others, told apart by the threshold on the model's confidence that is best on half of them."""
    scores = [np.array([_confidence(family, releaser, c, draws) for c in group]) for group in (members, others)]
    right = []
    for seed in range(seeds):
        rng = np.random.default_rng([9, seed])
        count = min(len(s) for s in scores)
        a, b = (rng.permutation(s)[:count] for s in scores)
        half = count // 2
        edges = np.concatenate([a[:half], b[:half]])
        edge = max(edges, key=lambda e: (a[:half] >= e).mean() + (b[:half] < e).mean())
        hits = int((a[half:] >= edge).sum() + (b[half:] < edge).sum())
        right.append((hits, 2 * (count - half)))
    # The seeds share their clips, so only one of them gives the interval: the median one.
    middle = sorted(right)[len(right) // 2]
    result = proportion("membership in the training data", "balanced accuracy", [middle], 0.5, bound=1.0,
                        note=f"confidence of the deepest tier over {draws} draws")  # fmt: skip
    return replace(result, seeds=tuple(r / n for r, n in right))
