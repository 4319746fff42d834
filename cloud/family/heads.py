"""What every exit says besides text; the heads are shared by all exits."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

from .config import FamilyConfig
from .labels import BEHAVIOURS, KEYPOINTS, SLOTS, STATES
from .places import Places

# Parts of a window that the language head is told apart.
SPANS = 10


class Answer(NamedTuple):
    """What one exit says; W ticks, K labels, B behaviours, Z states, S slots (people from left to right).

    steps [N, W, K] and window [N, K]: logits of the labels; doing [N, W, B]: logits, whether anyone does it;
    slots [N, W, S, Z]: logits, whether that person is in that state; people [N, W, S + 1]: logits of how many there are;
    contour [N, W, S, 17, 3]: x and y as shares of the picture, and the logit of whether the joint can be seen;
    hidden [N, W + (S + 1) * Z, text.hidden_size]: what the text head reads, a vector per tick, then one per state of each
    person, and of anyone; where [N, W, S, T]: logits of the place of each person, of T from left to right; places [N, W, T, Z]:
    logits, whether anyone at that place is in that state.
    """

    steps: torch.Tensor
    window: torch.Tensor
    doing: torch.Tensor
    slots: torch.Tensor
    people: torch.Tensor
    contour: torch.Tensor
    hidden: torch.Tensor
    where: torch.Tensor
    places: torch.Tensor


class Heads(nn.Module):
    """Hidden states of one exit [N, W, hidden_size] to an Answer."""

    def __init__(self, config: FamilyConfig):
        super().__init__()
        width = config.trunk.hidden_size
        self.label = nn.Linear(width, len(config.labels))
        self.doing = nn.Linear(width, len(BEHAVIOURS))
        self.places = Places(config)
        self.people = nn.Linear(width, SLOTS + 1)
        told = config.text.hidden_size
        self.tick = nn.Linear(width, told)
        self.when = nn.Linear(3 * SPANS, told)
        self.who = nn.Parameter(torch.randn(SLOTS + 1, 1, told))
        self.what = nn.Parameter(torch.randn(len(STATES), told))
        self.contour = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, SLOTS * len(KEYPOINTS) * 3))

    def forward(self, hidden: torch.Tensor, valid: torch.Tensor, seen: torch.Tensor) -> Answer:
        """hidden [N, W, hidden_size]; `seen` is `Places.look` of the features. The window's logits are the log of the mean
        evidence over the ticks that are there (valid bool [N, W]).
        """
        steps = self.label(hidden)
        # Where no tick is there, all of them speak: the answer to nothing must be finite.
        there = (valid | ~valid.any(1, keepdim=True)).unsqueeze(-1)
        window = torch.logsumexp(steps.masked_fill(~there, -1e4), 1) - torch.log(there.sum(1).to(steps.dtype))
        points = self.contour(hidden).unflatten(-1, (SLOTS, len(KEYPOINTS), 3))
        contour = torch.cat([torch.sigmoid(points[..., :2]), points[..., 2:]], -1)
        slots, where, places = self.places(seen, hidden)
        doing = self.doing(hidden)
        read = torch.cat([self.tick(hidden), self.told(torch.sigmoid(slots), torch.sigmoid(doing))], 1)
        return Answer(steps, window, doing, slots, self.people(hidden), contour, read, where, places)

    def told(self, slots: torch.Tensor, doing: torch.Tensor) -> torch.Tensor:
        """When each person is in which state, a vector for each, and for anyone: chances slots [N, W, S, Z] and doing
        [N, W, B] -> [N, (S + 1) * Z, text.hidden_size].

        A language head finds "person 3" and "fall" among them by attention; from one vector per tick it would have to
        unpick both. Whether something has begun, and will still be, tells what comes first by a difference.
        """
        anyone = torch.cat([doing, slots[..., len(BEHAVIOURS) :].amax(2)], -1)
        course = torch.cat([slots, anyone.unsqueeze(2)], 2).flatten(2).transpose(1, 2)
        begun, still = course.cummax(-1).values, course.flip(-1).cummax(-1).values.flip(-1)
        spans = torch.cat([functional.adaptive_avg_pool1d(x, SPANS) for x in (course, begun, still)], -1)
        return self.when(spans) + (self.who + self.what).flatten(0, 1)

    def truth(self, states: torch.Tensor) -> torch.Tensor:
        """What the language head would read of an exit that knew all states [N, W, S, Z] of 0 to 1, and no more:
        [N, W + (S + 1) * Z, text.hidden_size], whose ticks are noise.
        """
        told = self.told(states, states[..., : len(BEHAVIOURS)].amax(2))
        ticks = torch.randn(*states.shape[:2], told.shape[-1], device=told.device)
        return torch.cat([ticks.to(told.dtype), told], 1)
