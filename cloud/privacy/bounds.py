"""What a release can tell at most, whatever the encoder learned and whatever the attacker knows (docs/privacy.md proves it).

mu is the parameter of Gaussian differential privacy (Dong, Roth, Su, arXiv 1905.02383) of features against none at all;
L are token bits: the surprisals of the behaviour tokens under their public prior, added up.
"""

from __future__ import annotations

import math

from scipy.special import log_ndtr, ndtr, ndtri

# From here on a cap says nothing.
VACUOUS = 0.99


def bits_per_release(features: int, clip: float, sigma: float) -> float:
    """Bound on I(picture; released features) of one tick in bits: (n / 2) * log2(1 + C^2 / (n sigma^2)).

    The capacity of n Gaussian channels that share the power C^2 (Cover and Thomas, theorem 9.2.1 and the concavity of log).
    ValueError unless features > 0, clip >= 0 and sigma > 0.
    """
    _positive(features=features, sigma=sigma)
    _at_least_0(clip=clip)
    return features / 2 * math.log2(1 + clip**2 / (features * sigma**2))


def mu(releases: float, clip: float, sigma: float) -> float:
    """mu of that many releases together: sqrt(releases) * C / sigma (composition: arXiv 1905.02383, corollary 2)."""
    _positive(sigma=sigma)
    _at_least_0(releases=releases, clip=clip)
    return math.sqrt(releases) * clip / sigma


def surprisal(prior: float) -> float:
    """Token bits of a token of that probability under the public prior: -log2(prior). ValueError unless 0 < prior <= 1."""
    if not 0 < prior <= 1:
        raise ValueError(f"a token's prior is {prior}, expected above 0 and at most 1")
    return -math.log2(prior)


def cap(kappa: float, mu: float, token_bits: float = 0.0) -> float:
    """Largest chance of a right guess for an attacker whose best guess beforehand is right with probability kappa.

    Phi(Phi^-1(min(1, kappa * 2^L)) + mu): the best test between features and none (Neyman and Pearson) for each of the at
    most 2^L token sequences; reconstruction robustness, arXiv 2302.07225. ValueError unless 0 <= kappa <= 1, mu, L >= 0.
    """
    if not 0 <= kappa <= 1:
        raise ValueError(f"kappa is {kappa}, expected a probability")
    _at_least_0(mu=mu, token_bits=token_bits)
    if kappa == 0:
        return 0.0
    before = min(0.0, math.log2(kappa) + token_bits)
    if before == 0:
        return 1.0
    return float(ndtr(ndtri(2.0**before) + mu))


def fano_cap(candidates: int, bits: float) -> float:
    """Largest chance of naming which of that many equally likely ones it was, from that many bits: (bits + 1) / log2 M.

    Fano's inequality (Cover and Thomas, theorem 2.10.1), at most 1. ValueError unless candidates >= 2 and bits >= 0.
    """
    if candidates < 2:
        raise ValueError(f"candidates are {candidates}, expected at least 2")
    _at_least_0(bits=bits)
    return min(1.0, (bits + 1) / math.log2(candidates))


def delta(epsilon: float, mu: float) -> float:
    """The delta that goes with epsilon: Phi(-e/mu + mu/2) - exp(e) Phi(-e/mu - mu/2) (arXiv 1905.02383, corollary 1)."""
    _at_least_0(mu=mu)
    if mu == 0:
        return 0.0
    # exp(e) overflows long before its product with the tail does.
    tail = math.exp(min(0.0, epsilon + float(log_ndtr(-epsilon / mu - mu / 2))))
    return max(0.0, float(ndtr(-epsilon / mu + mu / 2)) - tail)


def epsilon(mu: float, delta_: float = 1e-6) -> float:
    """The smallest epsilon >= 0 such that features of that mu are (epsilon, delta)-private against none at all.

    By bisection to 1e-9. ValueError unless mu >= 0 and 0 < delta < 1.
    """
    _at_least_0(mu=mu)
    if not 0 < delta_ < 1:
        raise ValueError(f"delta is {delta_}, expected above 0 and below 1")
    if delta(0.0, mu) <= delta_:
        return 0.0
    low, high = 0.0, 1.0
    while delta(high, mu) > delta_:
        low, high = high, 2 * high
    while high - low > 1e-9 * max(1.0, high):
        middle = (low + high) / 2
        low, high = (middle, high) if delta(middle, mu) > delta_ else (low, middle)
    return high


def vacuous(cap: float) -> bool:
    """Whether a cap says nothing any more."""
    return cap >= VACUOUS


def _positive(**values: float) -> None:
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"{name} is {value}, expected above 0")


def _at_least_0(**values: float) -> None:
    for name, value in values.items():
        if not value >= 0:
            raise ValueError(f"{name} is {value}, expected at least 0")
