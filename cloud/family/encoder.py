"""Frames to tokens."""

from __future__ import annotations

import torch
from torch import nn

from .config import FamilyConfig

# The preprocessing gives int8; ordinary motion is a few dozen steps.
INPUT_SCALE = 1 / 32


class Encoder(nn.Module):
    """int8 or float [N, 3, height, width] -> tokens float [N, T, D], each token layer-normalised."""

    def __init__(self, config: FamilyConfig):
        super().__init__()
        stages: list[nn.Module] = []
        before = 3
        for i, width in enumerate(config.encoder.channels):
            kernel = 5 if i == 0 else 3
            stages += [
                nn.Conv2d(before, width, kernel, stride=2, padding=kernel // 2, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(inplace=True),
            ]
            before = width
        self.stages = nn.Sequential(*stages)
        self.dropout = nn.Dropout2d(config.encoder.dropout)
        self.norm = nn.LayerNorm(before)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        x = self.dropout(self.stages(frames.to(self.norm.weight.dtype) * INPUT_SCALE))
        return self.norm(x.flatten(2).transpose(1, 2))
