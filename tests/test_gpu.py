"""The CUDA kernels from Python, on a GPU; `make test-gpu` runs them. The C++ suite compares more sizes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from made import random_params

from ruyicam.cloud.family import Family, FamilyConfig
from ruyicam.cloud.family.load import load_family
from ruyicam.cloud.serve.passes import local_passes
from ruyicam.export.bench_gpu import why_not
from ruyicam.export.defaults import default_model
from ruyicam.kernels import Mapping, Preprocessor, gpu, reference, torch_ops

pytestmark = pytest.mark.skipif(why_not() is not None, reason=f"not run: {why_not()}")


def test_mapping_gives_the_reference_bits_and_counts_its_releases():
    rng = np.random.default_rng(5)
    p = random_params(rng, 12, 70, 9, 7)
    h = rng.normal(0, 3, (6, 12, 70)).astype(np.float32)
    keys, numbers = rng.integers(0, 256, (6, 32), np.uint8), rng.integers(0, 2**62, 6, np.int64)
    mapping = gpu.GpuMapping(p)
    tokens, key, counters = (torch.from_numpy(x).cuda() for x in (h, keys, numbers))
    u = mapping.project(tokens)
    np.testing.assert_array_equal(u.cpu(), reference.project(p, h))
    for i in range(2):
        want = Mapping(p).map(h, keys, (numbers + i).astype(np.uint64))
        packed = mapping.map(tokens, key, counters, torch.empty_like(u))
        np.testing.assert_array_equal(packed.cpu(), want)
    np.testing.assert_array_equal(counters.cpu(), numbers + 2)
    again = mapping.release(u, key, torch.from_numpy(numbers).cuda())
    np.testing.assert_array_equal(again.cpu(), Mapping(p).map(h, keys, numbers.astype(np.uint64)))


def test_preprocessing_many_cameras_gives_the_bits_of_one_after_the_other():
    rng = np.random.default_rng(6)
    many, each = gpu.GpuPreprocessor(3, width=192, height=144), [Preprocessor(width=192, height=144) for _ in range(3)]
    for _ in range(3):
        frames = rng.integers(0, 256, (3, 480, 700), dtype=np.uint8)[:, :, :640]
        got = many.process(torch.from_numpy(frames.copy()).cuda()).cpu()
        for camera, frame, one in zip(each, frames, got, strict=True):
            np.testing.assert_array_equal(one, camera.process(frame))


def test_the_operator_runs_on_the_gpu_and_has_gradients():
    config = FamilyConfig()
    mapping = Family(config).mapping
    c = config.mapping
    tokens = torch.randn(4, config.tokens, 64)
    constants = (mapping.lut.to(torch.int16).cuda(), c.input_scale, c.multiplier, 1 << (c.shift - 1), c.shift, c.clip)
    weight = (mapping.weight.detach() * c.weight_scale).cuda().requires_grad_()
    bias = (mapping.bias.detach() * mapping._unit).cuda()
    u = torch_ops.project_straight_through(tokens.cuda(), weight, bias, *constants)
    np.testing.assert_array_equal(u.detach().cpu(), mapping.exact(tokens))
    u.square().sum().backward()
    assert weight.grad.abs().sum() > 0


def test_the_service_reads_on_the_gpu_as_on_the_cpu():
    rng = np.random.default_rng(7)
    config = load_family(default_model()).config
    features = rng.integers(-64, 64, (40, config.window, config.features)).astype(np.int16)
    released, report = rng.random((40, config.window)) < 0.9, np.ones(40, bool)
    cpu, cuda = (
        local_passes(default_model(), device).run("cloud-l", features, released, report) for device in ("cpu", "cuda")
    )
    for name, rows in cpu.rows.items():
        np.testing.assert_allclose(cuda.rows[name], rows, atol=1e-5)
    assert (cuda.people == cpu.people).mean() > 0.999
    assert cuda.reports == cpu.reports
