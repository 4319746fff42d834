"""Networks that try to read from released features what must not be there: who it is, what they look like, the picture."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from ruyicam.cloud.data.batches import Batch
from ruyicam.cloud.data.scenes.identity import identity
from ruyicam.cloud.data.store import LUMA
from ruyicam.cloud.family.labels import SLOTS

ATTRIBUTES = ("tall", "heavy", "dark_shirt", "long_hair")


class _Reverse(torch.autograd.Function):
    """The identity whose gradient is turned round (Ganin and Lempitsky, arXiv 1409.7495)."""

    @staticmethod
    def forward(ctx, x: torch.Tensor, strength: float) -> torch.Tensor:
        ctx.strength = strength
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient: torch.Tensor):
        return -ctx.strength * gradient, None


class Adversaries(nn.Module):
    """Reads z [N, W, n]: which of the scenes' people act, the attributes of each slot, and a 16 x 12 picture per tick."""

    def __init__(self, features: int, identities: int, width: int = 128):
        super().__init__()
        table = torch.tensor([[identity(i).attributes[a] for a in ATTRIBUTES] for i in range(identities)])
        self.register_buffer("attributes", table.float(), persistent=False)
        self.identities = identities
        self.body = nn.Sequential(nn.Linear(2 * features, width), nn.SiLU())
        self.who = nn.Linear(width, identities)
        self.looks = nn.Linear(width, SLOTS * len(ATTRIBUTES))
        self.picture = nn.Sequential(nn.Linear(features, width), nn.SiLU(), nn.Linear(width, LUMA[0] * LUMA[1]))

    def read(self, z: torch.Tensor, seen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(logits of who is there [N, identities], of each slot's attributes [N, S, 4], picture [N, W, 12, 16])."""
        mask = seen.unsqueeze(-1).to(z.dtype)
        count = mask.sum(1).clamp(min=1)
        mean = (z * mask).sum(1) / count
        spread = (((z - mean[:, None]) * mask).square().sum(1) / count + 1e-6).sqrt()
        body = self.body(torch.cat([mean, spread], -1))
        picture = self.picture(z).unflatten(-1, (LUMA[1], LUMA[0]))
        return self.who(body), self.looks(body).unflatten(-1, (SLOTS, len(ATTRIBUTES))), picture

    def loss(self, z: torch.Tensor, seen: torch.Tensor, batch: Batch, strength: float) -> torch.Tensor:
        """How badly they read; the gradient that reaches z is reversed and scaled by `strength`."""
        who, looks, picture = self.read(_Reverse.apply(z, strength), seen)
        total = (functional.mse_loss(picture, batch["luma"], reduction="none").mean((2, 3)) * seen).sum()
        total = total / seen.sum().clamp(min=1)
        there = batch["identity"] >= 0
        if there.any():
            wanted = torch.zeros_like(who)
            numbers = batch["identity"].clamp(min=0)
            wanted.scatter_reduce_(1, numbers, there.to(who.dtype), "amax")
            scene = batch["is_scene"]
            total = total + functional.binary_cross_entropy_with_logits(who[scene], wanted[scene])
            total = total + functional.binary_cross_entropy_with_logits(looks[there], self.attributes[numbers[there]])
        return total
