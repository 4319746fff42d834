"""What every exit says besides text; the heads are shared by all exits."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

from .config import FamilyConfig
from .labels import BEHAVIOURS, KEYPOINTS, SLOTS


class Answer(NamedTuple):
    """What one exit says; W ticks, K labels, B behaviours, S slots (people from left to right).

    steps [N, W, K] and window [N, K]: logits of the labels; doing [N, W, B]: logits, whether anyone does it;
    slots [N, W, S, B]: logits, whether that person does it; people [N, W, S + 1]: logits of how many there are;
    contour [N, W, S, 17, 3]: x and y as shares of the picture, and the logit of whether the joint can be seen;
    hidden [N, W, hidden_size]: what the text head reads.
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
        return Answer(steps, window, self.doing(hidden), slots, self.people(hidden), contour, hidden)
