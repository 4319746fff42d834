"""The feature mapping as a module: the exact integers of `ruyicam.kernels` forward, straight-through gradients back."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from ruyicam.kernels import MappingParams, rounded_gaussian_cdf
from ruyicam.kernels.torch_ops import project

from .config import FamilyConfig


def _straight_through(soft: torch.Tensor, exact: torch.Tensor) -> torch.Tensor:
    """The value of `exact` with the gradient of `soft` (Bengio et al., arXiv 1308.3432)."""
    return soft + (exact - soft).detach()


class FeatureMapping(nn.Module):
    """Tokens float [N, T, D] -> features u float [N, T * d], whole numbers with sum(u^2) <= clip^2."""

    def __init__(self, config: FamilyConfig):
        super().__init__()
        self.config = config.mapping
        self.tokens, dim = config.tokens, config.encoder.dim
        self.weight = nn.Parameter(torch.randn(self.config.out_dim, dim) * dim**-0.5)
        self.bias = nn.Parameter(torch.zeros(self.config.out_dim))
        half = torch.arange(-128, 128, dtype=torch.float64)
        lut = torch.round(self.config.lut_range * torch.tanh(half / self.config.lut_gain)).to(torch.int64)
        self.register_buffer("lut", lut, persistent=False)

    # int32 accumulator steps per unit of weight times token.
    @property
    def _unit(self) -> float:
        return self.config.weight_scale / self.config.input_scale

    def integer_weight(self) -> torch.Tensor:
        """W int64 [d, D] in -127..127."""
        return torch.round(self.weight.detach() * self.config.weight_scale).clamp(-127, 127).to(torch.int64)

    def integer_bias(self) -> torch.Tensor:
        """b int64 [d]."""
        return torch.round(self.bias.detach() * self._unit).clamp(-(2**24), 2**24).to(torch.int64)

    def exact(self, tokens: torch.Tensor) -> torch.Tensor:
        """Steps 1 to 4 bit for bit: float [N, T, D] -> int64 [N, T * d]. Traceable to ONNX."""
        c = self.config
        q = torch.round((tokens / c.input_scale).clamp(-127, 127))
        # Float sums of whole numbers are exact below 2^24 (D <= 1024), and a plain MatMul in ONNX.
        a = (q @ self.integer_weight().to(q.dtype).T).to(torch.int64) + self.integer_bias()
        index = torch.div(a * c.multiplier + (1 << (c.shift - 1)), 1 << c.shift, rounding_mode="floor")
        u = self.lut[index.clamp(-128, 127) + 128].flatten(1)
        total = (u * u).sum(1, keepdim=True)
        # Sums here stay below 2^53, where the double square root and its ceiling are exact.
        root = torch.ceil(torch.sqrt(total.to(torch.float64))).to(torch.int64).clamp(min=1)
        factor = torch.div(torch.full_like(root, c.clip << 16), root, rounding_mode="floor")
        shrunk = torch.sign(u) * torch.div(u.abs() * factor, 65536, rounding_mode="floor")
        return torch.where(total > c.clip * c.clip, shrunk, u)

    def compiled(self, tokens: torch.Tensor) -> torch.Tensor:
        """`exact` by the compiled kernels: float [N, T, D] -> int16 [N, T * d]. Traceable as one operator."""
        c = self.config
        w, b = self.integer_weight().to(torch.int8), self.integer_bias().to(torch.int32)
        return project(tokens, w, b, self.lut.to(torch.int16), c.input_scale, c.multiplier, 1 << (c.shift - 1), c.shift, c.clip)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        # In bfloat16 sums of whole numbers would not be whole.
        with torch.autocast(tokens.device.type, enabled=False):
            return self._train(tokens.float()) if self.training else self.exact(tokens.float()).to(tokens.dtype)

    def _train(self, tokens: torch.Tensor) -> torch.Tensor:
        c = self.config
        q = (tokens / c.input_scale).clamp(-127, 127)
        w = (self.weight * c.weight_scale).clamp(-127, 127)
        a = q @ w.T + self.bias * self._unit
        u = (c.lut_range * torch.tanh(a * (c.multiplier / 2**c.shift) / c.lut_gain)).flatten(1)
        u = u * (c.clip / u.norm(dim=1, keepdim=True).clamp(min=1e-6)).clamp(max=1)
        with torch.no_grad():
            # On CUDA the plain way is one graph of torch's own operators, which compiling fuses.
            exact = (self.compiled(tokens) if tokens.device.type == "cpu" else self.exact(tokens)).to(u.dtype)
        return _straight_through(u, exact)

    def add_noise(self, u: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
        """Steps 5 and 6 for training: u + rounded Gaussian, saturated to `bits` bits. Not the device's key stream."""
        g = torch.round(torch.randn(u.shape, generator=generator, device=u.device, dtype=u.dtype) * self.config.sigma)
        high = (1 << (self.config.bits - 1)) - 1
        return _straight_through(u, (u + g).clamp(-high - 1, high))

    def params(self) -> MappingParams:
        """The constants for `ruyicam.kernels.Mapping` and the bundle."""
        c = self.config
        return MappingParams(
            tokens=self.tokens,
            weight=self.integer_weight().numpy().astype(np.int8),
            bias=self.integer_bias().numpy().astype(np.int32),
            lut=self.lut.numpy().astype(np.int16),
            noise_cdf=rounded_gaussian_cdf(c.sigma),
            input_scale=c.input_scale,
            multiplier=c.multiplier,
            round=1 << (c.shift - 1),
            shift=c.shift,
            clip=c.clip,
            bits=c.bits,
        )
