"""Answers of a family on whole clips, in PyTorch alone, as the service would give them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import torch

from ruyicam.cloud.data.batches import collate
from ruyicam.cloud.data.clips import Clip
from ruyicam.cloud.data.store import Store, Windows, default_cache
from ruyicam.cloud.family import Family

from .metrics import agreement, tier_scores

# From one window to the next, as `ruyicam serve` does by default.
STRIDE = 10


@dataclass(frozen=True)
class Said:
    """What all tiers say of some clips: probabilities [clips, K] of each tier's surest window, true labels [clips]."""

    truth: np.ndarray
    tiers: dict[str, np.ndarray]

    def answers(self, tier: str) -> list[int]:
        """The tier's label of each clip."""
        return self.tiers[tier].argmax(1).tolist()

    def scores(self, labels: tuple[str, ...]) -> dict:
        """{"tiers": scores of each, "consistency": how often two of them agree}."""
        truth = self.truth.tolist()
        return {
            "tiers": {name: tier_scores(truth, self.answers(name), labels) for name in self.tiers},
            "consistency": {f"{a}/{b}": agreement(self.answers(a), self.answers(b)) for a, b in combinations(self.tiers, 2)},
        }


def split_windows(window: dict[str, torch.Tensor], size: int) -> list[dict[str, torch.Tensor]]:
    """A whole clip as overlapping windows of `size` ticks, the last one looking back from its end."""
    ticks = len(window["maps"])
    ends = [*range(size, ticks, STRIDE), ticks]
    per_tick = {k for k, v in window.items() if k not in ("verdict", "identity")}
    return [{k: v[max(0, e - size) : e] if k in per_tick else v for k, v in window.items()} for e in ends]


@torch.inference_mode()
def say(family: Family, clips: list[Clip], windows: list[Windows], seed: int = 0, keep: float = 1.0) -> Said:
    """Reads clips: the edge exit on clean features, the others on released ones; `keep` of the ticks are released.

    A clip's answer is that of the window whose behaviour is the surest one that is not the quiet label, if any is.
    """
    family.eval()
    config, device = family.config, family.encoder.mean.device
    generator = torch.Generator(device).manual_seed(seed)
    pieces, owner = [], []
    for i, clip in enumerate(windows):
        parts = split_windows(clip[0], config.window)
        pieces += parts
        owner += [i] * len(parts)
    rows: dict[str, list[np.ndarray]] = {name: [] for name in config.trunk.exits}
    for start in range(0, len(pieces), 32):
        batch = collate(pieces[start : start + 32], config)
        exists = batch["exists"].to(device)
        clean = family.features_of_maps(batch["maps"].to(device), exists)
        released = exists & (torch.rand(exists.shape, generator=generator, device=device) < keep)
        answers = family.reasoner(family.release(clean, generator), released)
        answers["edge"] = family.reasoner(clean, exists, ("edge",))["edge"]
        for name in rows:
            rows[name].append(torch.softmax(answers[name].window, -1).cpu().numpy())
    tiers = {}
    for name, values in rows.items():
        every = np.concatenate(values)
        tiers[name] = np.stack([_surest(every[np.array(owner) == i]) for i in range(len(clips))])
    return Said(np.array([config.labels.index(c.label) for c in clips]), tiers)


def _surest(windows: np.ndarray) -> np.ndarray:
    """[windows, K] -> [K] of the window that decides for its clip."""
    loud = windows[windows.argmax(1) > 0]
    return loud[loud.max(1).argmax()] if len(loud) else windows[windows[:, 0].argmin()]


def open_plain(family: Family, clips: list[Clip], cache: Path, threads: int = 0, views: int = 0) -> list[Windows]:
    """The clips as they are (window 0 of each), made where the cache lacks them."""
    store = Store(cache, family.config, family.encoder)
    return [Windows([p]) for p in store.build(store.clips(clips, views), threads)]


def validate(family: Family, clips: list[Clip], cache: Path | None = None, threads: int = 0) -> dict:
    """{"tiers": ..., "consistency": ..., "answers": {clip's name: {tier: label}}} of a family on clips."""
    windows = open_plain(family, clips, cache or default_cache(), threads)
    said, labels = say(family, clips, windows), family.config.labels
    return said.scores(labels) | {"answers": clip_answers(clips, {t: said.answers(t) for t in said.tiers}, labels)}


def clip_answers(clips: list[Clip], said: dict[str, list[int]], labels: tuple[str, ...]) -> dict[str, dict[str, str]]:
    """{clip's name: {tier: label}} of each tier's answers [clips]."""
    return {c.path.name: {tier: labels[answers[i]] for tier, answers in said.items()} for i, c in enumerate(clips)}
