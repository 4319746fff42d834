"""Which clips show the same scene or person, so that no part of an evaluation has seen another's."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from .clips import Clip


def scene_of(clip: Path) -> str:
    """`root/part/label/name.mp4`: the scene that `root/part.csv` (clip,label,scene) gives; else root and the name up to
    its first "_" (the person of `s3_fall01.mp4`), or the whole name where it has none.
    """
    part = clip.parent.parent
    table = part.with_suffix(".csv")
    if table.exists():
        with table.open(newline="") as file:
            for row in csv.DictReader(file):
                if row["clip"] == f"{clip.parent.name}/{clip.name}":
                    return f"{part.parent.name}/{row['scene']}"
    return f"{part.parent.name}/{clip.stem.split('_')[0]}"


def source_of(clip: Path) -> str:
    """The data set that a clip belongs to: the name of `root` in `root/part/label/name.mp4`."""
    return clip.resolve().parent.parent.parent.name


def folds(clips: list[Clip], count: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """(train, test) indices of `count` folds: labels and sources spread evenly, no scene on both sides."""
    groups = [scene_of(c.path.resolve()) for c in clips]
    kinds = [f"{source_of(c.path)} {c.label}" for c in clips]
    splitter = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    return list(splitter.split(np.zeros(len(clips)), kinds, groups))


def part_of(clips: list[Clip], share: float, seed: int) -> list[Clip]:
    """About `share` of the clips of every source and label, whole scenes of them, in their order."""
    rng = np.random.default_rng([19, seed])
    groups = [scene_of(c.path.resolve()) for c in clips]
    kinds = [f"{source_of(c.path)} {c.label}" for c in clips]
    kept: set[str] = set()
    for kind in sorted(set(kinds)):
        scenes = sorted({g for g, k in zip(groups, kinds, strict=True) if k == kind})
        wanted, have = share * kinds.count(kind), 0
        for scene in rng.permutation(scenes):
            if have >= wanted:
                break
            kept.add(str(scene))
            have += sum(g == scene and k == kind for g, k in zip(groups, kinds, strict=True))
    return [c for c, g in zip(clips, groups, strict=True) if g in kept]
