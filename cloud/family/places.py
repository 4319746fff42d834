"""Released features as a row of places from left to right: who is where, and what is done there."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from .config import FamilyConfig
from .labels import SLOTS, STATES

# Ticks and neighbours that one convolution looks at.
_KERNEL = (5, 3)


class Places(nn.Module):
    """T tokens of a tick, each of a strip of the picture (see `Encoder`), read as a picture of W ticks and T places.

    Which person does something is a matter of two things: where it is done, and where that person is. From one vector per
    tick, which holds both of all people, a small trunk learns neither.
    """

    def __init__(self, config: FamilyConfig):
        super().__init__()
        self.tokens, width, hidden = config.encoder.tokens, config.text.places, config.trunk.hidden_size
        self.scale = 1.0 if config.mapping.bypass else 1 / (2 * config.mapping.sigma)
        padding = tuple(k // 2 for k in _KERNEL)
        # One channel more: whether the tick was released.
        self.first = nn.Conv2d(config.features // self.tokens + 1, width, _KERNEL, padding=padding)
        self.second = nn.Conv2d(width, width, _KERNEL, padding=padding)
        self.place = nn.Parameter(torch.zeros(width, 1, self.tokens))
        self.around = nn.Linear(hidden, width)
        self.states = nn.Linear(width, len(STATES))
        self.people = nn.Linear(hidden, SLOTS * width)
        self.keys = nn.Linear(width, width)
        self.where = nn.Linear(hidden, SLOTS * self.tokens)
        self.alone = nn.Linear(hidden, SLOTS * len(STATES))
        self.gain = nn.Parameter(torch.ones(len(STATES)))

    def look(self, features: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """What is at each place, whichever exit asks: features [N, W, n], valid bool [N, W] -> [N, W, T, width]."""
        there = valid[:, :, None, None]
        x = (features * self.scale).unflatten(-1, (self.tokens, -1)).to(self.place.dtype)
        x = torch.cat([x.masked_fill(~there, 0), there.to(x.dtype).expand(*x.shape[:3], 1)], -1).permute(0, 3, 1, 2)
        x = functional.silu(self.first(x) + self.place)
        x = x + functional.silu(self.second(x))
        return x.permute(0, 2, 3, 1)

    def forward(self, seen: torch.Tensor, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(slots [N, W, S, Z], where [N, W, S, T], states [N, W, T, Z]), logits: each person's states, the place of each
        person, the states of anyone at each place. `seen` is what `look` gave, hidden [N, W, hidden_size] one exit's.
        """
        states = self.states(functional.silu(seen + self.around(hidden).unsqueeze(2)))
        people = self.people(hidden).unflatten(-1, (SLOTS, -1))
        fit = people @ self.keys(seen).transpose(-1, -2) * seen.shape[-1] ** -0.5
        where = fit + self.where(hidden).unflatten(-1, (SLOTS, -1))
        slots = self.alone(hidden).unflatten(-1, (SLOTS, -1)) + self.gain * (where.softmax(-1) @ states)
        return slots, where, states
