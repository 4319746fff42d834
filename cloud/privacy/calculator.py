"""Profile, candidates, minutes on screen and cameras to cap, bits and epsilon."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from . import bounds
from .profiles import ReleasePlan


@dataclass(frozen=True)
class Exposure:
    """What a stay of that length can tell at most. `cap`: chance of a right guess; `by`: the bound that gives it."""

    minutes: float
    cameras: int
    releases: int
    mu: float
    token_bits: float
    bits: float
    epsilon: float
    cap: float
    by: str
    vacuous: bool


def exposure(
    plan: ReleasePlan,
    rate_hz: int,
    kappa: float,
    minutes: float,
    cameras: int = 1,
    memory_s: float = 0.0,
    delta: float = 1e-6,
    uniform: bool = True,
) -> Exposure:
    """The exposure of someone who is on screen for `minutes` of one day, before each of `cameras` cameras.

    kappa: the attacker's best chance beforehand; `uniform`: it is 1 / candidates, all alike. memory_s: how long the edge
    exit remembers what it saw, which counts as on screen. delta: for epsilon, of the features alone; tokens have none.
    ValueError unless 0 < kappa <= 1, minutes > 0 and cameras >= 1.
    """
    if not 0 < kappa <= 1:
        raise ValueError(f"the prior is {kappa}, expected above 0 and at most 1")
    if not minutes > 0 or cameras < 1:
        raise ValueError(f"{minutes} minutes before {cameras} cameras, expected more than 0 of both")
    seconds = 60 * minutes + memory_s
    # A stay that begins in one block and ends in another reaches into one block more than its length.
    blocks = math.ceil(seconds * rate_hz / plan.block_ticks) + (plan.visit is not None)
    release = plan.bits_per_release
    by_second = plan.bits_per_second * math.ceil(seconds)
    releases = min(blocks, math.floor(min(by_second, plan.bits_per_day) / release))
    mu = bounds.mu(releases, plan.clip, plan.sigma)
    token_bits = blocks * plan.worst_token
    bits = min(releases * release + token_bits, by_second, plan.bits_per_day)
    if plan.mu_per_day is not None:
        mu = min(mu, plan.mu_per_day)
        token_bits = min(token_bits, plan.token_bits_per_day)
    token_bits = min(token_bits, bits)
    mu, token_bits, bits = mu * math.sqrt(cameras), token_bits * cameras, bits * cameras
    caps = {"singling out": bounds.cap(kappa, mu, token_bits)}
    if uniform and kappa < 1:
        caps["bits"] = bounds.fano_cap(round(1 / kappa), bits)
    by = min(caps, key=caps.__getitem__)
    return Exposure(
        minutes=minutes,
        cameras=cameras,
        releases=releases * cameras,
        mu=mu,
        token_bits=token_bits,
        bits=bits,
        epsilon=bounds.epsilon(mu, delta),
        cap=caps[by],
        by=by,
        vacuous=bounds.vacuous(caps[by]),
    )


def plot(curves: dict[str, list[Exposure]], kappa: float, path: Path) -> None:
    """Draws the caps of several profiles against minutes on screen. OSError if `path` cannot be written."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for name, points in curves.items():
        axes.plot([p.minutes for p in points], [p.cap for p in points], label=name)
    axes.axhline(kappa, color="grey", linestyle=":", label="guessing beforehand")
    axes.axhline(bounds.VACUOUS, color="grey", linewidth=0.5)
    axes.set(xscale="log", yscale="log", xlabel="minutes on screen", ylabel="cap on a right guess", ylim=(kappa / 2, 1.2))
    axes.legend()
    axes.grid(alpha=0.3, which="both")
    figure.savefig(path)
    plt.close(figure)
