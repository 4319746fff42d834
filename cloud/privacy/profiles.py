"""Profiles: how much may leave, per visit and per camera-day, and with which constants (docs/privacy.md)."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Literal, get_args

from ruyicam.cloud.family.config import FamilyConfig

from .bounds import bits_per_release, mu, surprisal

Profile = Literal["strict", "standard", "reasoning"]
PROFILES: tuple[Profile, ...] = get_args(Profile)
DEFAULT: Profile = "reasoning"
# Per visit: mu of all features, and token bits. The device refuses a bundle of that name that asks for more.
CERTIFIED: dict[str, tuple[float, float]] = {"strict": (0.5, 2.0), "standard": (1.0, 3.0)}
VISIT_S = 60.0
# A visit as long as a block may begin in one and end in the next.
BLOCKS_PER_VISIT = 2
_CERTIFIED_SIGMA = 64.0
_DAY_S = 86400
# Ceilings of `reasoning`: every tick of a busy second, and a quarter of a day's ticks.
_SECOND_MARGIN = 1.25
_DAY_SHARE = 0.25


@dataclass(frozen=True)
class Visit:
    """Budget of one visit: `seconds` from the first to the last tick that someone can have an influence on."""

    seconds: float
    mu: float
    token_bits: float


@dataclass(frozen=True)
class ReleasePlan:
    """What a bundle of one profile releases, and its ceilings. `visit`, `mu_per_day` and `token_bits_per_day` are None
    where nothing but bits are bounded. One token and, at most, one feature release leave per `block_ticks` ticks.
    """

    profile: Profile
    clip: int
    sigma: float
    features: int
    block_ticks: int
    alphabet: tuple[str, ...]
    prior: tuple[float, ...]
    visit: Visit | None
    bits_per_second: float
    bits_per_day: float
    mu_per_day: float | None
    token_bits_per_day: float | None

    @property
    def bits_per_release(self) -> float:
        """Bound on the bits about the picture in one feature release."""
        return bits_per_release(self.features, self.clip, self.sigma)

    @property
    def mu_per_release(self) -> float:
        """C / sigma."""
        return mu(1, self.clip, self.sigma)

    @property
    def worst_token(self) -> float:
        """Token bits of the rarest token."""
        return max(surprisal(p) for p in self.prior)

    def manifest(self) -> dict:
        """The manifest's `privacy`."""
        figures = asdict(self)
        for name in ("alphabet", "prior"):
            del figures[name]
        return figures | {"bits_per_release": self.bits_per_release, "mu_per_release": self.mu_per_release}


def release_plan(config: FamilyConfig, profile: Profile = DEFAULT, visit_s: float = VISIT_S) -> ReleasePlan:
    """The plan of a profile for a family. ValueError for an unknown profile or a visit shorter than a tick.

    `reasoning` releases what the family was trained with. The certified profiles release once per block of `visit_s`: one
    token of two (quiet, look) that costs half of a visit's token bits, and features whose mu is that of a visit over sqrt(2).
    """
    rate = config.input.rate_hz
    if profile == "reasoning":
        return _reasoning(config)
    if profile not in CERTIFIED:
        raise ValueError(f"profile is '{profile}', expected {', '.join(PROFILES)}")
    block = round(visit_s * rate)
    if block < 1:
        raise ValueError(f"a visit is {visit_s} s, expected at least one tick of {1 / rate} s")
    visit = Visit(block / rate, *CERTIFIED[profile])
    look = 2.0 ** (-visit.token_bits / BLOCKS_PER_VISIT)
    clip = math.floor(visit.mu / math.sqrt(BLOCKS_PER_VISIT) * _CERTIFIED_SIGMA)
    release = bits_per_release(config.features, clip, _CERTIFIED_SIGMA)
    worst = max(surprisal(look), surprisal(1 - look))
    blocks = math.ceil(_DAY_S / visit.seconds)
    return ReleasePlan(
        profile=profile,
        clip=clip,
        sigma=_CERTIFIED_SIGMA,
        features=config.features,
        block_ticks=block,
        alphabet=config.alphabet[:2],
        prior=(1 - look, look),
        visit=visit,
        bits_per_second=(release + worst) * max(1, math.ceil(1 / visit.seconds)),
        bits_per_day=(release + worst) * blocks,
        mu_per_day=mu(blocks, clip, _CERTIFIED_SIGMA),
        token_bits_per_day=worst * blocks,
    )


def _reasoning(config: FamilyConfig) -> ReleasePlan:
    rate, release = config.input.rate_hz, config.bits_per_release
    worst = max(surprisal(p) for p in config.prior)
    second = max(release * rate * _SECOND_MARGIN, (release + worst) * rate)
    return ReleasePlan(
        profile="reasoning",
        clip=config.mapping.clip,
        sigma=config.mapping.sigma,
        features=config.features,
        block_ticks=1,
        alphabet=config.alphabet,
        prior=config.prior,
        visit=None,
        bits_per_second=second,
        bits_per_day=second * _DAY_S * _DAY_SHARE,
        mu_per_day=None,
        token_bits_per_day=None,
    )
