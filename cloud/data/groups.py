"""Which clips show the same scene or person, so that no part of an evaluation has seen another's."""

from __future__ import annotations

import csv
from collections import Counter
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
    """As near to `share` of the clips of every source and label as whole scenes come, in their order; none goes without."""
    rng = np.random.default_rng([19, seed])
    groups = [scene_of(c.path.resolve()) for c in clips]
    kinds = [f"{source_of(c.path)} {c.label}" for c in clips]
    held: dict[str, Counter[str]] = {}
    for group, kind in zip(groups, kinds, strict=True):
        held.setdefault(group, Counter())[kind] += 1
    missing = {kind: share * n for kind, n in Counter(kinds).items()}
    kept: set[str] = set()

    def keep(scene: str) -> None:
        kept.add(scene)
        for kind, n in held[scene].items():
            missing[kind] -= n

    for scene in rng.permutation(sorted(held)).tolist():
        # Most scenes have clips of several labels, so what one brings counts for all of them.
        if sum(abs(missing[kind]) - abs(missing[kind] - n) for kind, n in held[scene].items()) > 0:
            keep(scene)
    for kind in sorted(missing):
        having = [scene for scene in sorted(held) if kind in held[scene]]
        if not kept.intersection(having):
            keep(min(having, key=lambda scene: held[scene].total()))
    return [c for c, g in zip(clips, groups, strict=True) if g in kept]
