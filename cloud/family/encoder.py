"""Frames to tokens."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

from .backbone import Backbone
from .config import STRIDE, FamilyConfig

# Motion energies are kept at half of the backbone's stride, so each of its places has 2 x 2 of either difference.
_MOTION = 2 * 4
_PLACE = 4
# And how much of the picture a query found, which the weights, adding up to 1, do not tell.
_MASS = 1


class Encoder(nn.Module):
    """int8 or float [N, 3, height, width] -> tokens float [N, T, D], each token layer-normalised.

    `maps` is the fixed part (what things look like and how much they move, place by place); `tokens` is the part that
    is trained: T learned queries look over the places, and each turns what it finds into a token of its own.
    """

    def __init__(self, config: FamilyConfig):
        super().__init__()
        e = config.encoder
        self.backbone = Backbone().requires_grad_(False)
        rows, columns = config.grid
        channels = self.channels
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("spread", torch.ones(channels))
        y, x = torch.meshgrid(torch.linspace(-1, 1, rows), torch.linspace(-1, 1, columns), indexing="ij")
        self.register_buffer("place", torch.stack([x, y, x * x, y * y]).flatten(1), persistent=False)
        self.query = nn.Linear(channels, e.tokens)
        self.bias = nn.Parameter(_regions(e.tokens, x.flatten(), y.flatten()))
        inputs = channels + _PLACE + _MASS
        self.value = nn.Parameter(torch.randn(e.tokens, inputs, e.dim) * inputs**-0.5)
        self.norm = nn.LayerNorm(e.dim)

    @property
    def channels(self) -> int:
        """Channels of `maps`."""
        return 2 * self.backbone.width + _MOTION

    @torch.no_grad()
    def maps(self, frames: torch.Tensor) -> torch.Tensor:
        """[N, 3, height, width] -> float [N, channels, rows, columns]: backbone of the luma, of the short motion, energies.

        A network that was trained on pictures also reads differences of pictures (Wang et al., arXiv 1608.00859).
        """
        x = frames.to(self.mean.dtype)
        energy = functional.avg_pool2d(x[:, 1:].abs(), STRIDE // 2)
        motion = torch.log1p(functional.pixel_unshuffle(energy, 2)) - 1
        return torch.cat([self.backbone(x[:, :1]), self.backbone(x[:, 1:2]), motion], 1)

    @torch.no_grad()
    def fit_scale(self, maps: torch.Tensor) -> None:
        """Sets the fixed standardisation of the channels from example maps [N, channels, rows, columns]."""
        x = maps.float().transpose(0, 1).flatten(1)
        self.mean.copy_(x.mean(1))
        self.spread.copy_(x.std(1).clamp(min=1e-3))

    def tokens(self, maps: torch.Tensor) -> torch.Tensor:
        """[N, channels, rows, columns] -> tokens [N, T, D]: attention pooling by T learned queries."""
        x = maps.flatten(2).to(self.mean.dtype)
        # Channels are standardised where they are few: in the queries, and after pooling, whose weights add up to 1.
        query = self.query.weight / self.spread
        bias = self.bias + (self.query.bias - query @ self.mean)[:, None]
        # `query @ x` would copy all of x to make one product of it.
        fit = torch.bmm(query.expand(len(x), -1, -1), x) + bias
        mass = torch.logsumexp(fit, -1, keepdim=True)
        weights = torch.exp(fit - mass)
        pooled = (weights @ x.transpose(1, 2) - self.mean) / self.spread
        pooled = torch.cat([pooled, weights @ self.place.T, mass - math.log(x.shape[-1])], -1)
        return self.norm((pooled.transpose(0, 1) @ self.value).transpose(0, 1))

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        return self.tokens(self.maps(frames))


def _regions(tokens: int, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """First look of each query: half of them everywhere, half at an upright strip of the picture; [T, places]."""
    bias = torch.zeros(tokens, len(x))
    strips = tokens // 2
    for i in range(strips):
        bias[i] = -8 * (x - (2 * (i + 0.5) / strips - 1)) ** 2
    return bias
