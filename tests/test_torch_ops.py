"""The mapping as PyTorch operators: registered whole, exact, and with gradients that point where the mapping goes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ruyicam.cloud.family import Family, FamilyConfig
from ruyicam.kernels import Mapping, gpu, torch_ops

CONFIG = FamilyConfig()


@pytest.fixture
def mapping():
    torch.manual_seed(0)
    module = Family(CONFIG).mapping
    torch.nn.init.normal_(module.bias)
    return module


def _constants(clip: int = CONFIG.mapping.clip):
    c = CONFIG.mapping
    return c.input_scale, c.multiplier, 1 << (c.shift - 1), c.shift, clip


def _integers(mapping):
    return mapping.integer_weight().to(torch.int8), mapping.integer_bias().to(torch.int32), mapping.lut.to(torch.int16)


def _floats(mapping):
    weight = (mapping.weight.detach() * CONFIG.mapping.weight_scale).requires_grad_()
    return weight, (mapping.bias.detach() * mapping._unit).requires_grad_(), mapping.lut.to(torch.int16)


def test_operators_are_registered_whole(mapping):
    """PyTorch's own check: schema, fake tensors, autograd, and tracing with dynamic shapes."""
    tokens = torch.randn(3, CONFIG.tokens, 64, requires_grad=True)
    torch.library.opcheck(torch_ops.project, (tokens.detach(), *_integers(mapping), *_constants()))
    torch.library.opcheck(torch_ops.project_straight_through, (tokens, *_floats(mapping), *_constants()))
    clipped, cdf = torch.zeros(2, CONFIG.features, dtype=torch.int16), torch.from_numpy(mapping.params().noise_cdf)
    torch.library.opcheck(torch_ops.release, (clipped, cdf, torch.zeros(32, dtype=torch.uint8), 4, 8))


def test_operators_give_the_kernels_bits(mapping):
    tokens = torch.randn(5, CONFIG.tokens, 64) * 3
    want = Mapping(mapping.params()).project(tokens)
    np.testing.assert_array_equal(torch_ops.project(tokens, *_integers(mapping), *_constants()), want)
    np.testing.assert_array_equal(mapping.compiled(tokens), want)
    with torch.no_grad():
        np.testing.assert_array_equal(torch_ops.project_straight_through(tokens, *_floats(mapping), *_constants()), want)
    key = torch.arange(32, dtype=torch.uint8)
    cdf = torch.from_numpy(mapping.params().noise_cdf)
    packed = torch_ops.release(torch.from_numpy(want), cdf, key, 9, 8)
    np.testing.assert_array_equal(packed, Mapping(mapping.params()).release(want, bytes(range(32)), 9))
    wide = torch_ops.release(torch.zeros(1, 3 * 4096, dtype=torch.int16), cdf, key, 0, 8)
    assert wide.shape == (1, 3 * 4096)


@pytest.mark.parametrize("clip", [304, 40])
def test_gradients_are_those_of_the_smooth_mapping(mapping, clip):
    """Within the table's steps they agree with the gradients of tanh, which the table was made of."""
    module = mapping.train()
    module.config = module.config.model_copy(update={"clip": clip})
    tokens = torch.randn(64, CONFIG.tokens, 64)
    weight, bias, lut = _floats(module)
    ours, theirs = tokens.clone().requires_grad_(), tokens.clone().requires_grad_()
    goal = torch.randn(64, CONFIG.features)
    (torch_ops.project_straight_through(ours, weight, bias, lut, *_constants(clip)) * goal).sum().backward()
    (module(theirs) * goal).sum().backward()

    def cosine(a, b):
        return torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), 0).item()

    assert cosine(ours.grad, theirs.grad) > 0.98
    assert cosine(weight.grad, module.weight.grad) > 0.98
    assert cosine(bias.grad, module.bias.grad) > 0.98
    scale = ours.grad.norm() / theirs.grad.norm()
    assert 0.9 < scale < 1.1


def test_a_compiled_graph_keeps_the_operator_and_its_bits(mapping):
    tokens = torch.randn(2, CONFIG.tokens, 64)
    graph = torch.export.export(_Compiled(mapping), (tokens,))
    assert any(node.target is torch.ops.ruyicam.project.default for node in graph.graph.nodes)
    np.testing.assert_array_equal(graph.module()(tokens), mapping.exact(tokens))


class _Compiled(torch.nn.Module):
    def __init__(self, mapping):
        super().__init__()
        self.mapping = mapping

    def forward(self, tokens):
        return self.mapping.compiled(tokens)


def test_gpu_classes_say_why_they_cannot_be_used(mapping):
    reason = gpu.why_not()
    if reason is None:
        pytest.skip("there is a GPU here; kernels_test compares bits on it")
    with pytest.raises(RuntimeError, match="CUDA"):
        gpu.GpuMapping(mapping.params())
    with pytest.raises(RuntimeError, match="CUDA"):
        gpu.GpuPreprocessor(1)


class _CudaArray:
    """What a CUDA array says of itself, without one."""

    def __init__(self, typestr, shape, strides=None):
        what = {"typestr": typestr, "shape": shape, "strides": strides}
        self.__cuda_array_interface__ = what | {"data": (4096, False), "version": 3}


def test_cuda_arrays_are_checked_before_anything_is_launched():
    good = gpu._array(_CudaArray("<f4", (2, 3, 4)), "float32", "tokens", (None, 3, 4))
    assert (good.pointer, good.strides) == (4096, (48, 16, 4))
    with pytest.raises(TypeError, match=r"tokens is float64, expected float32"):
        gpu._array(_CudaArray("<f8", (2, 3, 4)), "float32", "tokens", (None, 3, 4))
    with pytest.raises(ValueError, match=r"tokens is \[2, 3, 5\], expected \['any', 3, 4\]"):
        gpu._array(_CudaArray("<f4", (2, 3, 5)), "float32", "tokens", (None, 3, 4))
    with pytest.raises(ValueError, match="not contiguous"):
        gpu._array(_CudaArray("<f4", (2, 3, 4), (96, 32, 4)), "float32", "tokens", (None, 3, 4))
    with pytest.raises(TypeError, match="expected a CUDA array"):
        gpu._array(np.zeros(3), "float32", "tokens", (3,))
