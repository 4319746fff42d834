"""Scores of answers against labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def tier_scores(truth: Sequence[int], said: Sequence[int], labels: Sequence[str]) -> dict:
    """{"accuracy", "balanced_accuracy", "recall": {label: share}} over the labels that occur in `truth`.

    Balanced accuracy is the mean of the recalls, so that guessing one label always scores 1 / labels.
    """
    if len(truth) != len(said) or not truth:
        raise ValueError(f"{len(truth)} labels for {len(said)} answers, expected as many and at least one")
    recall = {}
    for k, label in enumerate(labels):
        of_label = [s == k for t, s in zip(truth, said, strict=True) if t == k]
        if of_label:
            recall[label] = sum(of_label) / len(of_label)
    right = sum(t == s for t, s in zip(truth, said, strict=True))
    return {
        "accuracy": right / len(truth),
        "balanced_accuracy": sum(recall.values()) / len(recall),
        "recall": recall,
    }


def agreement(a: Sequence[int], b: Sequence[int]) -> float:
    """Share of clips on which two tiers give the same answer."""
    if len(a) != len(b) or not a:
        raise ValueError(f"{len(a)} answers against {len(b)}, expected as many and at least one")
    return sum(x == y for x, y in zip(a, b, strict=True)) / len(a)


def spread(values: Sequence[float]) -> dict:
    """{"mean", "spread" (standard deviation), "seeds": each value} of one figure over several runs."""
    return {"mean": float(np.mean(values)), "spread": float(np.std(values)), "seeds": [round(v, 4) for v in values]}
