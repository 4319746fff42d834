"""Clips held in memory for training."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset

from ruyicam.cloud.family.config import FamilyConfig

from .augment import augmented_input
from .clips import Clip, luma_frames, model_input

# Kept a little above the model's grid, so that crops stay sharp.
_CACHE_SCALE = 1.5


class AugmentedClips(Dataset):
    """Item (epoch, index) -> (int8 [W, 3, h, w], exists bool [W], label int); a pure function of seed and item."""

    def __init__(self, clips: list[Clip], config: FamilyConfig, seed: int):
        self.clips, self.config, self.seed = clips, config, seed
        with ThreadPoolExecutor() as pool:
            self.store = list(pool.map(self._shrink, [c.path for c in clips]))

    def _shrink(self, path: Path) -> tuple[np.ndarray, np.ndarray]:
        size = (int(self.config.input.width * _CACHE_SCALE), int(self.config.input.height * _CACHE_SCALE))
        times, frames = [], []
        for time, luma in luma_frames(path):
            times.append(time)
            frames.append(cv2.resize(luma, size, interpolation=cv2.INTER_AREA))
        return np.stack(frames), np.array(times, np.int64)

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, item: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor, int]:
        draw, index = item
        rng = np.random.default_rng([self.seed, draw, index])
        frames, times = self.store[index]
        label = self.clips[index].label
        # A fall played backwards is someone getting up.
        x, exists = augmented_input(frames, times, self.config.input, self.config.window, rng, label != "fall")
        return torch.from_numpy(x), torch.from_numpy(exists), self.config.labels.index(label)


def plain_window(clip: Clip, config: FamilyConfig) -> tuple[torch.Tensor, torch.Tensor]:
    """The most moving window of a clip, unaugmented, newest tick last: (int8 [W, 3, h, w], exists bool [W])."""
    x = model_input(clip.path, config.input)
    window = config.window
    if len(x) > window:
        energy = np.abs(x[:, 1].astype(np.int32)).sum((1, 2))
        sums = np.convolve(energy, np.ones(window, np.int64), "valid")
        start = int(np.argmax(sums))
        x = x[start : start + window]
    full = np.zeros((window, *x.shape[1:]), np.int8)
    full[window - len(x) :] = x
    return torch.from_numpy(full), torch.arange(window) >= window - len(x)
