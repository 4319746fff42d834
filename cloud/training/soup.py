"""Mean of the weights of several runs."""

from __future__ import annotations

import torch

from .ema import Ema


class Soup:
    """Runs of a phase that begin from the same weights, and the mean of what they come to (model soup, arXiv 2203.05482)."""

    def __init__(self, ema: Ema):
        self.ema = ema
        self.start = {n: p.detach().clone() for n, p in ema.live.items()}
        self.sum = {n: torch.zeros_like(p) for n, p in self.start.items()}

    @torch.no_grad()
    def begin(self) -> None:
        """All runs to come begin from the present weights."""
        for name, p in self.ema.live.items():
            self.start[name].copy_(p)
            self.sum[name].zero_()

    @torch.no_grad()
    def restart(self) -> None:
        """The next run begins where the first one did."""
        for name, p in self.ema.live.items():
            p.copy_(self.start[name])
            self.ema.mean[name].copy_(p)

    @torch.no_grad()
    def add(self) -> None:
        """A run has come to its end: the averaged weights are one of the soup's."""
        for name, mean in self.ema.mean.items():
            self.sum[name].add_(mean)

    @torch.no_grad()
    def serve(self, runs: int) -> None:
        """The mean of `runs` runs becomes the averaged weights."""
        for name, mean in self.ema.mean.items():
            mean.copy_(self.sum[name] / runs)

    def state_dict(self) -> dict[str, dict[str, torch.Tensor]]:
        """For checkpoints."""
        return {"start": self.start, "sum": self.sum}

    def load_state_dict(self, state: dict[str, dict[str, torch.Tensor]]) -> None:
        """Takes what `state_dict` gave."""
        for mine, theirs in ((self.start, state["start"]), (self.sum, state["sum"])):
            for name, value in theirs.items():
                mine[name].copy_(value)
