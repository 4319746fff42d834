"""Who someone is: everything about a figure that has nothing to do with what it does."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

CLOTHING = ("plain", "stripes", "checks")


@dataclass(frozen=True)
class Identity:
    """Lengths in metres, lumas 0 to 255, gait as factors around 1."""

    number: int
    height: float
    build: float
    shoulders: float
    skin: float
    hair: float
    hair_length: float
    shirt: float
    trousers: float
    clothing: int
    face: np.ndarray
    stride_hz: float
    arm_swing: float
    bounce: float
    stoop: float

    @property
    def attributes(self) -> dict[str, int]:
        """Classes that an attacker would like to read: tall, heavy, dark shirt, long hair (0 or 1), clothing (0 to 2)."""
        return {
            "tall": int(self.height > 1.7),
            "heavy": int(self.build > 1.05),
            "dark_shirt": int(self.shirt < 110),
            "long_hair": int(self.hair_length > 0.5),
            "clothing": self.clothing,
        }


def identity(number: int) -> Identity:
    """The person of that number; the same one in every scene."""
    rng = np.random.default_rng([7, number])
    return Identity(
        number=number,
        height=float(np.clip(rng.normal(1.7, 0.1), 1.35, 2.0)),
        build=float(np.clip(rng.normal(1.05, 0.15), 0.75, 1.5)),
        shoulders=float(rng.uniform(0.19, 0.25)),
        skin=float(rng.uniform(70, 210)),
        hair=float(rng.uniform(15, 200)),
        hair_length=float(rng.uniform(0, 1)),
        shirt=float(rng.uniform(20, 235)),
        trousers=float(rng.uniform(20, 200)),
        clothing=int(rng.integers(len(CLOTHING))),
        face=rng.uniform(-1, 1, 6),
        stride_hz=float(rng.uniform(0.85, 1.15)),
        arm_swing=float(rng.uniform(0.5, 1.5)),
        bounce=float(rng.uniform(0.6, 1.4)),
        stoop=float(rng.uniform(-0.05, 0.2)),
    )
