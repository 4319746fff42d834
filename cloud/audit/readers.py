"""Networks of attackers and how they are trained."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional


class WindowReader(nn.Module):
    """[N, W, F] -> [N, outputs]: convolutions over time, then what is there on average and how much it varies."""

    def __init__(self, inputs: int, outputs: int, width: int = 128):
        super().__init__()
        self.norm = nn.BatchNorm1d(inputs)
        self.layers = nn.Sequential(
            nn.Conv1d(inputs, width, 5, padding=2),
            nn.SiLU(),
            nn.Dropout(0.2),
            nn.Conv1d(width, width, 5, stride=2, padding=2),
            nn.SiLU(),
            nn.Conv1d(width, width, 3, padding=1),
            nn.SiLU(),
        )
        self.out = nn.Sequential(nn.Dropout(0.3), nn.Linear(3 * width, 2 * width), nn.SiLU(), nn.Linear(2 * width, outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.layers(self.norm(x.transpose(1, 2)))
        return self.out(torch.cat([h.mean(-1), h.amax(-1), h.std(-1)], -1))


class Decoder(nn.Module):
    """[N, W, F] -> pictures [N, h, w] of 0 to 255 as they are at the window's last tick: how far from the mean picture."""

    def __init__(self, inputs: int, ticks: int, mean: torch.Tensor, width: int = 256):
        super().__init__()
        self.register_buffer("mean", mean)
        rows, columns = mean.shape
        self.grid = (rows // 4, columns // 4)
        self.norm = nn.BatchNorm1d(inputs)
        self.read = nn.Sequential(
            nn.Flatten(),
            nn.Linear(inputs * ticks, width),
            nn.SiLU(),
            nn.Dropout(0.2),
            nn.Linear(width, 32 * self.grid[0] * self.grid[1]),
        )
        self.draw = nn.Sequential(
            nn.SiLU(),
            nn.Upsample(scale_factor=2, mode="bilinear"),
            nn.Conv2d(32, 24, 3, padding=1),
            nn.SiLU(),
            nn.Upsample(scale_factor=2, mode="bilinear"),
            nn.Conv2d(24, 16, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(16, 1, 3, padding=1),
        )
        nn.init.zeros_(self.draw[-1].weight)
        nn.init.zeros_(self.draw[-1].bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.read(self.norm(x.transpose(1, 2))).unflatten(1, (32, *self.grid))
        return self.mean + 64 * self.draw(h)[:, 0]


def train(
    model: nn.Module,
    count: int,
    inputs: Callable[[torch.Tensor], torch.Tensor],
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    epochs: int,
    seed: int,
    batch: int = 64,
    rate: float = 2e-3,
) -> nn.Module:
    """Trains on `count` examples; `inputs(index)` gives them (with new noise each time), `loss(output, index)` judges.

    AdamW with one cycle of the learning rate. Returns the model, ready to run.
    """
    generator = torch.Generator().manual_seed(seed)
    steps = max(1, count // batch)
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=epochs * steps)
    model.train()
    for _ in range(epochs):
        order = torch.randperm(count, generator=generator)
        for step in range(steps):
            index = order[step * batch : (step + 1) * batch]
            optimiser.zero_grad()
            loss(model(inputs(index)), index).backward()
            optimiser.step()
            schedule.step()
    return model.eval()


@torch.inference_mode()
def run(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """The model's outputs for all of x."""
    return torch.cat([model(part) for part in x.split(256)])


def naming(labels: torch.Tensor) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """The loss of naming which of several it is."""
    return lambda output, index: functional.cross_entropy(output, labels[index], label_smoothing=0.05)
