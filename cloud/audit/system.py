"""The frozen system that is attacked: real kernels, real noise, secret only in its random bits."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from ruyicam.cloud.family import Family
from ruyicam.cloud.privacy import bounds
from ruyicam.cloud.privacy.profiles import ReleasePlan
from ruyicam.kernels import Mapping, rounded_gaussian_cdf, unpack


def clipped_to(features: np.ndarray, clip: int) -> np.ndarray:
    """Step 4 of the mapping on whole features: int [N, n] -> int16 [N, n] with sum(u^2) <= clip^2 in every row."""
    u = features.astype(np.int64)
    total = (u * u).sum(1)
    root = np.maximum(np.ceil(np.sqrt(total.astype(np.float64))).astype(np.int64), 1)
    factor = (clip << 16) // root
    shrunk = np.sign(u) * ((np.abs(u) * factor[:, None]) >> 16)
    return np.where((total > clip * clip)[:, None], shrunk, u).astype(np.int16)


class Releaser:
    """What a device of that plan lets out, by the compiled kernel, with a new key at every call as at every boot.

    A device's keys come from its kernel's random source; these come from `seed`, so that an audit can be repeated. Attackers
    do not know them.
    """

    def __init__(self, family: Family, plan: ReleasePlan, seed: int = 0):
        self.plan = plan
        self._keys = np.random.default_rng([12, seed])
        params = dataclasses.replace(family.mapping.params(), clip=plan.clip, noise_cdf=rounded_gaussian_cdf(plan.sigma))
        self.kernel = Mapping(params)

    def new_key(self) -> bytes:
        """32 bytes that were not given before."""
        return self._keys.bytes(32)

    def release(self, features: np.ndarray, key: bytes | None = None, first: int = 0) -> np.ndarray:
        """Features int16 [N, n] within the clip -> what a server sees of them, int16 [N, n]."""
        packed = self.kernel.release(np.ascontiguousarray(features, np.int16), key or self.new_key(), first)
        return unpack(packed, self.plan.features, self.kernel.params.bits)

    def windows(self, features: torch.Tensor) -> torch.Tensor:
        """Windows [N, W, n] of clean features -> float [N, W, n] as released."""
        flat = features.reshape(-1, features.shape[-1]).numpy()
        return torch.from_numpy(self.release(clipped_to(flat, self.plan.clip)).reshape(features.shape)).float()

    def draw(self, features: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """The same law by torch's own generator: for attackers who train on as much noise as they like."""
        high = 1 << (self.kernel.params.bits - 1)
        noise = torch.round(torch.randn(features.shape, generator=generator) * self.plan.sigma)
        return (features + noise).clamp(-high, high - 1)

    def cap(self, kappa: float, releases: int, tokens: int = 0) -> float:
        """The proven cap after that many releases and tokens."""
        mu = bounds.mu(releases, self.plan.clip, self.plan.sigma)
        return bounds.cap(kappa, mu, tokens * self.plan.worst_token)
