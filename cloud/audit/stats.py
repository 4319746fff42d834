"""What an attack has shown: a figure, an exact interval around it, and what it is held against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
from scipy.stats import beta

from ruyicam.cloud.privacy.bounds import vacuous
from ruyicam.cloud.training.metrics import middle, resampled

CONFIDENCE = 0.95


def interval(right: int, trials: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Exact two-sided interval of a proportion (Clopper and Pearson 1934). ValueError for no trials."""
    if not 0 <= right <= trials or trials == 0:
        raise ValueError(f"{right} of {trials} is no proportion")
    tail = (1 - confidence) / 2
    low = 0.0 if right == 0 else float(beta.ppf(tail, right, trials - right + 1))
    high = 1.0 if right == trials else float(beta.ppf(1 - tail, right + 1, trials - right))
    return low, high


def bootstrap(values: np.ndarray, groups: np.ndarray, seed: int = 0, rounds: int = 2000) -> tuple[float, float]:
    """Percentile interval of the mean of `values` whose groups (people, clips) are drawn anew, `rounds` times."""
    index = np.unique(groups, return_inverse=True)[1]
    sums, counts = np.bincount(index, values), np.bincount(index)
    return middle(resampled(sums[:, None], counts[:, None], seed, rounds), CONFIDENCE)


@dataclass(frozen=True)
class Result:
    """One attack. `bound`: proven, None where nothing is (what is read then is only measured); `target`: what we ask of
    the default model, None where nothing; `share`: the figure is a probability. `holds`: the interval's lower end is not
    above the bound.
    """

    name: str
    metric: str
    value: float
    ci: tuple[float, float]
    chance: float
    bound: float | None = None
    target: float | None = None
    profile: str = "reasoning"
    trials: int = 0
    seeds: Sequence[float] = field(default=())
    note: str = ""
    share: bool = True

    @property
    def holds(self) -> bool:
        """Whether the measurement is compatible with the bound."""
        return self.bound is None or self.ci[0] <= self.bound

    @property
    def limit(self) -> str:
        """The bound in words."""
        if self.bound is None:
            return "none"
        return "vacuous" if self.share and vacuous(self.bound) else f"{self.bound:.4g}"

    @property
    def meets_target(self) -> bool | None:
        """Whether the figure is at or below the target; None without one."""
        return None if self.target is None else self.value <= self.target

    def json(self) -> dict:
        """All fields and verdicts."""
        return asdict(self) | {"seeds": list(self.seeds), "holds": self.holds, "meets_target": self.meets_target}


def proportion(name: str, metric: str, right: Sequence[tuple[int, int]], chance: float, **fields) -> Result:
    """Of (right, trials) per seed, whose trials share nothing: the pooled proportion with its exact interval."""
    hits, trials = sum(r for r, _ in right), sum(n for _, n in right)
    return Result(
        name,
        metric,
        hits / trials,
        interval(hits, trials),
        chance,
        trials=trials,
        seeds=tuple(r / n for r, n in right),
        **fields,
    )
