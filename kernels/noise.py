"""The table behind the rounded Gaussian noise."""

from __future__ import annotations

import functools

import numpy as np
from mpmath import mp, mpf, ncdf


@functools.lru_cache(maxsize=16)
def rounded_gaussian_cdf(sigma: float) -> np.ndarray:
    """Inverse-CDF table of round(N(0, sigma^2)) for 64-bit uniform words.

    Returns uint64 [2m], entry k + m = round(2^64 * Phi((k + 1/2) / sigma)) for k = -m .. m - 1. A uniform word
    w maps to g = -m + #{entries <= w}. m is where the tail weighs less than 2^-64, so the law differs from the
    rounded Gaussian by less than 2m * 2^-64 in total variation. Raises ValueError unless 0.25 <= sigma <= 512.
    """
    if not 0.25 <= sigma <= 512:
        raise ValueError(f"sigma is {sigma}, expected 0.25 to 512")
    with mp.workdps(60):
        scale = mpf(2) ** 64
        upper = []
        k = 0
        # Phi is taken in the lower half and mirrored: the upper half would round to 2^64 too early.
        while (tail := ncdf(-(mpf(k) + mpf("0.5")) / mpf(sigma)) * scale) >= mpf("0.5"):
            upper.append(int(mp.nint(tail)))
            k += 1
    low = upper[::-1]
    return np.array(low + [2**64 - x for x in upper], dtype=np.uint64)
