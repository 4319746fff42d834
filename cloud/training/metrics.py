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


def resampled(sums: np.ndarray, counts: np.ndarray, seed: int = 0, rounds: int = 2000) -> np.ndarray:
    """Shares sum(sums) / sum(counts) of units that are drawn anew, `rounds` times (bootstrap, Efron 1979).

    sums [..., units, k] and counts [units, k] -> float64 [..., rounds, k], nan where a draw counts nothing. The same seed draws
    the same units, so that two shares of them can be compared draw by draw.
    """
    units = len(counts)
    draws = np.random.default_rng(seed).multinomial(units, np.full(units, 1 / units), rounds).astype(np.float64)
    with np.errstate(invalid="ignore"):
        return (draws @ sums) / (draws @ counts)


def middle(values: np.ndarray, share: float = 0.95) -> tuple[float, float]:
    """Between which two the middle `share` of `values` lie; nan is left out."""
    tail = 50 * (1 - share)
    low, high = np.nanpercentile(values, (tail, 100 - tail))
    return float(low), float(high)
