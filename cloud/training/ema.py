"""Averaged weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn


class Ema:
    """Exponential moving average of the trained parameters (Polyak averaging); works on sharded ones too."""

    def __init__(self, model: nn.Module, decay: float):
        self.decay = decay
        self.live = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self.mean = {n: p.detach().clone() for n, p in self.live.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Moves the average a step towards the present weights."""
        for name, p in self.live.items():
            self.mean[name].lerp_(p, 1 - self.decay)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the model has the averaged weights."""
        kept = {n: p.detach().clone() for n, p in self.live.items()}
        self.commit()
        try:
            yield
        finally:
            with torch.no_grad():
                for name, p in self.live.items():
                    p.copy_(kept[name])

    @torch.no_grad()
    def commit(self) -> None:
        """Gives the model the averaged weights for good."""
        for name, p in self.live.items():
            p.copy_(self.mean[name])

    def state_dict(self) -> dict[str, torch.Tensor]:
        """For checkpoints."""
        return self.mean

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Takes what `state_dict` gave."""
        for name, value in state.items():
            self.mean[name].copy_(value)
