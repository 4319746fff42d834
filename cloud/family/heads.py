"""What every exit says besides text; the heads are shared by all exits."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

from .config import FamilyConfig
from .labels import BEHAVIOURS, KEYPOINTS, SLOTS

# Parts of a window that the language head is told apart.
SPANS = 10


class Answer(NamedTuple):
    """What one exit says; W ticks, K labels, B behaviours, S slots (people from left to right).

    steps [N, W, K] and window [N, K]: logits of the labels; doing [N, W, B]: logits, whether anyone does it;
    slots [N, W, S, B]: logits, whether that person does it; people [N, W, S + 1]: logits of how many there are;
    contour [N, W, S, 17, 3]: x and y as shares of the picture, and the logit of whether the joint can be seen;
    hidden [N, W + S * B, hidden_size]: what the text head reads, a vector per tick, then one per person and behaviour.
    """

    steps: torch.Tensor
    window: torch.Tensor
    doing: torch.Tensor
    slots: torch.Tensor
    people: torch.Tensor
    contour: torch.Tensor
    hidden: torch.Tensor


class Heads(nn.Module):
    """Hidden states of one exit [N, W, hidden_size] to an Answer."""

    def __init__(self, config: FamilyConfig):
        super().__init__()
        width = config.trunk.hidden_size
        self.label = nn.Linear(width, len(config.labels))
        self.doing = nn.Linear(width, len(BEHAVIOURS))
        self.slots = nn.Linear(width, SLOTS * len(BEHAVIOURS))
        self.people = nn.Linear(width, SLOTS + 1)
        self.when = nn.Linear(SPANS + 1, width)
        self.who = nn.Parameter(torch.randn(SLOTS, 1, width))
        self.what = nn.Parameter(torch.randn(len(BEHAVIOURS), width))
        self.contour = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, SLOTS * len(KEYPOINTS) * 3))

    def forward(self, hidden: torch.Tensor, valid: torch.Tensor) -> Answer:
        """The window's logits are the log of the mean evidence over the ticks that are there (valid bool [N, W])."""
        steps = self.label(hidden)
        # Where no tick is there, all of them speak: the answer to nothing must be finite.
        there = (valid | ~valid.any(1, keepdim=True)).unsqueeze(-1)
        window = torch.logsumexp(steps.masked_fill(~there, -1e4), 1) - torch.log(there.sum(1).to(steps.dtype))
        points = self.contour(hidden).unflatten(-1, (SLOTS, len(KEYPOINTS), 3))
        contour = torch.cat([torch.sigmoid(points[..., :2]), points[..., 2:]], -1)
        slots = self.slots(hidden).unflatten(-1, (SLOTS, len(BEHAVIOURS)))
        read = torch.cat([hidden, self.told(torch.sigmoid(slots))], 1)
        return Answer(steps, window, self.doing(hidden), slots, self.people(hidden), contour, read)

    def told(self, chance: torch.Tensor) -> torch.Tensor:
        """When each person does what, a vector per slot and behaviour: chance [N, W, S, B] -> [N, S * B, hidden_size].

        A language head finds "person 3" and "fall" among them by attention; from one vector per tick it would have to
        unpick both.
        """
        course = chance.flatten(2).transpose(1, 2)
        spans = torch.cat([functional.adaptive_avg_pool1d(course, SPANS), course.amax(-1, keepdim=True)], -1)
        return self.when(spans) + (self.who + self.what).flatten(0, 1)

    def truth(self, doing: torch.Tensor) -> torch.Tensor:
        """What the language head would read of an exit that knew who does what, doing [N, W, S, B] of 0 to 1, and no more:
        [N, W + S * B, hidden_size], whose ticks are noise.
        """
        told = self.told(doing)
        ticks = torch.randn(*doing.shape[:2], told.shape[-1], device=told.device)
        return torch.cat([ticks.to(told.dtype), told], 1)
