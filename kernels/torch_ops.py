"""The mapping as PyTorch operators (`torch.ops.ruyicam`): traceable, with fake tensors and gradients.

Importing this module registers them. On CPU they run the compiled kernels, on CUDA the CUDA kernels.
"""

from __future__ import annotations

import functools
import threading
from typing import Any

import numpy as np
import torch

from . import Mapping, gpu
from .reference import MappingParams

# Without noise nothing is drawn from the table, but the constants must be whole.
_NO_NOISE = np.array([0, 2**64 - 1], np.uint64)
# The slope of the table is taken over this share of it, or its whole steps would make it 0 or jump.
_SLOPE_SHARE = 32


@functools.lru_cache(maxsize=16)
def _mapping(
    owner: tuple[int, str], kind: type, tokens: int, in_dim: int, weight: bytes, bias: bytes, lut: bytes, cdf: bytes,
    input_scale: float, multiplier: int, round: int, shift: int, clip: int, bits: int,
) -> Any:  # fmt: skip
    w = np.frombuffer(weight, np.int8).reshape(-1, in_dim)
    arrays = (np.frombuffer(bias, np.int32), np.frombuffer(lut, np.int16), np.frombuffer(cdf, np.uint64))
    return kind(MappingParams(tokens, w, *arrays, input_scale, multiplier, round, shift, clip, bits))


def _bytes(x: torch.Tensor) -> bytes:
    return x.detach().cpu().contiguous().numpy().tobytes()


def _owner(x: torch.Tensor) -> tuple[int, str]:
    """Thread and device: a mapping serves one thread at a time, and its constants lie on one device."""
    return threading.get_ident(), str(x.device)


def _projecting(kind: type, tokens, weight, bias, lut, *constants):
    """The mapping of these constants as `kind`; those of the latest calls are kept."""
    sizes = tokens.shape[1], tokens.shape[2]
    arrays = _bytes(weight), _bytes(bias), _bytes(lut), _NO_NOISE.tobytes()
    return _mapping(_owner(tokens), kind, *sizes, *arrays, *constants, 16)


@torch.library.custom_op("ruyicam::project", mutates_args=(), device_types="cpu")
def project(
    tokens: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, lut: torch.Tensor, input_scale: float, multiplier: int,
    round: int, shift: int, clip: int,
) -> torch.Tensor:  # fmt: skip
    """Steps 1 to 4 of the mapping: float32 [N, T, D] -> clipped features int16 [N, T * d].

    weight int8 [d, D], bias int32 [d], lut int16 [L]. Raises ValueError with the constant that is wrong.
    """
    mapping = _projecting(Mapping, tokens, weight, bias, lut, input_scale, multiplier, round, shift, clip)
    return torch.from_numpy(mapping.project(tokens.contiguous()))


@project.register_kernel("cuda")
def _(tokens, weight, bias, lut, *constants):
    with torch.cuda.device(tokens.device):
        return _projecting(gpu.GpuMapping, tokens, weight, bias, lut, *constants).project(tokens.contiguous())


@project.register_fake
def _(tokens, weight, bias, lut, *constants):
    return tokens.new_empty(tokens.shape[0], tokens.shape[1] * weight.shape[0], dtype=torch.int16)


@torch.library.custom_op("ruyicam::project_straight_through", mutates_args=())
def project_straight_through(
    tokens: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, lut: torch.Tensor, input_scale: float, multiplier: int,
    round: int, shift: int, clip: int,
) -> torch.Tensor:  # fmt: skip
    """The same for training: -> whole numbers in float32 [N, T * d], with gradients.

    weight float32 [d, D] in steps of int8 and bias float32 [d] in steps of the sum are rounded inside. Gradients are
    straight-through (Bengio et al., arXiv 1308.3432): rounding is passed over, the table has its slope.
    """
    w = torch.round(weight).clamp(-127, 127).to(torch.int8)
    b = torch.round(bias).clamp(-(2**24), 2**24).to(torch.int32)
    return project(tokens, w, b, lut, input_scale, multiplier, round, shift, clip).to(torch.float32)


@project_straight_through.register_fake
def _(tokens, weight, bias, lut, *constants):
    return tokens.new_empty(tokens.shape[0], tokens.shape[1] * weight.shape[0], dtype=torch.float32)


def _save(ctx, inputs, output):
    tokens, weight, bias, lut, *constants = inputs
    ctx.save_for_backward(tokens, weight, bias, lut)
    ctx.constants = constants


def _backward(ctx, grad):
    tokens, weight, bias, lut = ctx.saved_tensors
    input_scale, multiplier, round_, shift, clip = ctx.constants
    half, reach = len(lut) // 2, max(1, len(lut) // _SLOPE_SHARE)
    q, w = (tokens / input_scale).clamp(-127, 127), weight.clamp(-127, 127)
    a = q @ w.T + bias
    index = torch.floor((a.double() * multiplier + round_) / 2.0**shift).clamp(-half, half - 1).long() + half
    table = lut.float()
    low, high = (index - reach).clamp(min=0), (index + reach).clamp(max=len(lut) - 1)
    slope = (table[high] - table[low]) / (high - low).clamp(min=1) * (multiplier / 2.0**shift)
    u = table[index].flatten(1)
    norm = u.norm(dim=1, keepdim=True).clamp(min=1e-6)
    grad = grad.float()
    inward = (grad - u * (grad * u).sum(1, keepdim=True) / norm**2) * (clip / norm)
    grad = torch.where(norm > clip, inward, grad).view_as(a) * slope
    to_tokens = grad @ w / input_scale * ((tokens / input_scale).abs() <= 127)
    to_weight = grad.flatten(0, 1).T @ q.flatten(0, 1) * (weight.abs() <= 127)
    return to_tokens, to_weight, grad.flatten(0, 1).sum(0), None, None, None, None, None, None


project_straight_through.register_autograd(_backward, setup_context=_save)


@torch.library.custom_op("ruyicam::release", mutates_args=(), device_types="cpu")
def release(clipped: torch.Tensor, noise_cdf: torch.Tensor, key: torch.Tensor, first: int, bits: int) -> torch.Tensor:
    """Steps 5 and 6: clipped int16 [N, n], noise_cdf uint64 [2m], key uint8 [32] -> packed uint8 [N, ceil(n * bits / 8)].

    Frame i is release number first + i; a number must never be used twice with one key. No gradient: what is released is
    bytes. Training adds its noise in floats (`FeatureMapping.add_noise`).
    """
    n = clipped.shape[1]
    # A projection of the right size that is not used.
    out = next(d for d in range(min(n, 1024), 0, -1) if n % d == 0)
    sizes = n // out, 1, bytes(out), bytes(4 * out), bytes(4)
    mapping = _mapping(_owner(clipped), Mapping, *sizes, _bytes(noise_cdf), 1.0, 1, 0, 0, 1, bits)
    return torch.from_numpy(mapping.release(clipped.contiguous(), _bytes(key), first))


@release.register_fake
def _(clipped, noise_cdf, key, first, bits):
    return clipped.new_empty(clipped.shape[0], (clipped.shape[1] * bits + 7) // 8, dtype=torch.uint8)
