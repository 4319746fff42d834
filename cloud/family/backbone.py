"""The picture side of the encoder: the first stages of CSPDarknet in YOLOX-nano's widths (Ge et al., arXiv 2107.08430).

Batch normalisation is folded into the convolutions, so that weights of the published people detector fit as they are.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from .config import STAGES

# The published detector saw pixels of 0 to 255; the preprocessing's luma is centred on 0.
_GREY = 128.0


class _Conv(nn.Sequential):
    def __init__(self, before: int, width: int, kernel: int = 1, stride: int = 1, groups: int = 1):
        super().__init__(nn.Conv2d(before, width, kernel, stride, kernel // 2, groups=groups), nn.SiLU(inplace=True))


def _separable(before: int, width: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(_Conv(before, before, 3, stride, before), _Conv(before, width))


class _Bottleneck(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.layers = nn.Sequential(_Conv(width, width), _separable(width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.layers(x)


class _CrossStage(nn.Module):
    """Half of the channels go through bottlenecks, half pass by (CSPNet, arXiv 1911.11929)."""

    def __init__(self, width: int, bottlenecks: int):
        super().__init__()
        self.through, self.past = _Conv(width, width // 2), _Conv(width, width // 2)
        self.bottlenecks = nn.Sequential(*(_Bottleneck(width // 2) for _ in range(bottlenecks)))
        self.join = _Conv(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        past = self.past(x)
        return self.join(torch.cat([self.bottlenecks(self.through(x)), past], 1))


class Backbone(nn.Module):
    """luma float [N, 1, h, w], -128 to 127 -> float [N, 128, h / 16, w / 16]."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _Conv(4, 16, 3)
        layers, before = [], 16
        for width, bottlenecks in STAGES:
            layers.append(nn.Sequential(_separable(before, width, 2), _CrossStage(width, bottlenecks)))
            before = width
        self.stages = nn.Sequential(*layers)
        self.width = before

    def forward(self, luma: torch.Tensor) -> torch.Tensor:
        x = luma + _GREY
        # The detector's order: top left, bottom left, top right, bottom right of every 2 x 2 block.
        x = torch.cat([x[..., a::2, b::2] for b in (0, 1) for a in (0, 1)], 1)
        return self.stages(self.stem(x))

    @torch.no_grad()
    def load_detector(self, path: str | Path) -> None:
        """Takes the weights of `yolox_nano.onnx`. ValueError where they do not fit; OSError where there is no file."""
        import onnx
        from onnx import numpy_helper

        graph = onnx.load(path).graph
        weights = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
        convolutions = [n.input for n in graph.node if n.op_type == "Conv"]
        own = [m for m in self.modules() if isinstance(m, nn.Conv2d)]
        if len(convolutions) < len(own):
            raise ValueError(f"{path} has {len(convolutions)} convolutions, expected YOLOX-nano with at least {len(own)}")
        for module, names in zip(own, convolutions, strict=False):
            weight, bias = (torch.from_numpy(weights[n].copy()) for n in names[1:3])
            if module is own[0]:
                # Grey light is the same in all three colours.
                weight = weight.unflatten(1, (4, 3)).sum(2)
            if weight.shape != module.weight.shape:
                raise ValueError(f"{path}: a convolution is {tuple(weight.shape)}, expected {tuple(module.weight.shape)}")
            module.weight.copy_(weight)
            module.bias.copy_(bias)
