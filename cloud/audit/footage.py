"""Real clips as attackers need them: clean features and small pictures of every tick."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from ruyicam.cloud.data.clips import Clip, luma_frames, tick_of
from ruyicam.cloud.family import Family

from .inversion import LOOK_BACK, Views, joined, views_of
from .people import frames_to_features, small


@dataclass(frozen=True)
class Footage:
    """One clip: features float [T, n], pictures uint8 [T, 36, 48]."""

    clip: Clip
    features: torch.Tensor
    pictures: torch.Tensor


def footage(family: Family, clips: list[Clip], progress: Callable[[], None] = lambda: None) -> list[Footage]:
    """Reads clips as the device does; RuyicamError(SOURCE) for one that cannot be decoded."""
    rate, out = family.config.input.rate_hz, []
    for clip in clips:
        frames, last = [], -1
        for time, luma in luma_frames(clip.path):
            if (tick := tick_of(time, rate)) > last:
                last = tick
                frames.append(luma.copy())
        out.append(Footage(clip, frames_to_features(family, frames), small(frames)))
        progress()
    return out


def views(clips: list[Footage], every: int = 4) -> Views:
    """Views of every fourth tick, each clip a group."""
    parts = []
    for number, c in enumerate(clips):
        ticks = np.arange(min(LOOK_BACK, len(c.features)) - 1, len(c.features), every)
        parts.append(views_of(c.features, c.pictures[ticks], ticks, number))
    return joined(parts)
