"""The preprocessing as one would write it in PyTorch for a GPU: what ours is measured against there."""

from __future__ import annotations

import torch


def area_weights(pixels: int, cells: int) -> torch.Tensor:
    """float32 [cells, pixels]: which share of a cell each pixel of a line covers; rows add up to 1."""
    at = torch.arange(cells, dtype=torch.float64)[:, None] * pixels / cells
    pixel = torch.arange(pixels, dtype=torch.float64)
    covered = torch.minimum(pixel + 1, at + pixels / cells) - torch.maximum(pixel, at)
    return (covered.clamp(min=0) * cells / pixels).float()


class TorchPreprocess(torch.nn.Module):
    """Area averages as two matrix products, then differences and background; float32, so that nothing rounds twice."""

    def __init__(self, batch: int, frame: tuple[int, int], width: int, height: int, background_shift: int, mask_floor: int):
        super().__init__()
        self.rate, self.floor = 2.0**-background_shift, mask_floor / 16
        self.register_buffer("down", area_weights(frame[1], height))
        self.register_buffer("across", area_weights(frame[0], width).T.contiguous())
        self.register_buffer("previous", torch.zeros(batch, height, width))
        self.register_buffer("background", torch.zeros(batch, height, width))

    def area(self, luma: torch.Tensor) -> torch.Tensor:
        """uint8 [batch, h, w] -> float32 [batch, height, width]."""
        return self.down @ (luma.float() @ self.across)

    def start(self, luma: torch.Tensor) -> None:
        """The first frames: what comes before them, and the background."""
        now = self.area(luma)
        self.previous.copy_(now)
        self.background.copy_(now)

    def forward(self, luma: torch.Tensor) -> torch.Tensor:
        """uint8 [batch, h, w] -> int8 [batch, 3, height, width], within rounding of `GpuPreprocessor`."""
        now = self.area(luma)
        far = now - self.background
        mask = (far.abs() - self.floor).clamp(0, 8)
        out = torch.stack([(now - 128) * mask / 8, 2 * (now - self.previous), 2 * far], 1)
        self.background.lerp_(now, self.rate)
        self.previous.copy_(now)
        return out.round().clamp(-127, 127).to(torch.int8)
