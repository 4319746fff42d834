"""Equal bits on random input: reference, portable C++, every SIMD target of this machine, and the PyTorch module."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
import torch
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from made import random_params
from mpmath import mp, mpf, ncdf

from ruyicam.cloud.family import Family, FamilyConfig
from ruyicam.export import bench_kernels
from ruyicam.kernels import (
    Mapping,
    Preprocessor,
    force_simd_target,
    reference,
    rounded_gaussian_cdf,
    simd_targets,
    unpack,
)
from ruyicam.kernels import _native as native

TARGETS = simd_targets()


@pytest.fixture(params=["portable", *TARGETS])
def backend(request):
    """Every compiled implementation, forced in turn."""
    if request.param == "portable":
        yield "portable"
    else:
        force_simd_target(request.param)
        yield "simd"
        force_simd_target("")


shapes = dict(
    seed=st.integers(0, 2**32),
    tokens=st.integers(1, 20),
    dim=st.integers(1, 300),
    out=st.integers(1, 24),
    bits=st.integers(2, 16),
    batch=st.integers(0, 3),
    pad=st.integers(0, 9),
)


@settings(max_examples=60, deadline=None)
@given(**shapes)
def test_mapping_equal_bits_on_every_backend(seed, tokens, dim, out, bits, batch, pad):
    rng = np.random.default_rng(seed)
    mapping = Mapping(random_params(rng, tokens, dim, out, bits))
    # Rows lie apart, so strides are exercised; NaN, infinities and huge values are tokens too.
    wide = rng.normal(0, 10 ** rng.uniform(-3, 6), (batch, tokens, dim + pad)).astype(np.float32)
    wide.ravel()[rng.integers(0, max(wide.size, 1), wide.size // 50)] = rng.choice([np.nan, np.inf, -np.inf, 0.0, 3e38])
    if seed % 5 == 0:
        wide[:] = rng.choice([0, -1e30, 1e30, np.nan])
    # From any float on, so that no vector is aligned.
    room = np.empty(wide.size + 16, np.float32)
    h = room[seed % 16 : seed % 16 + wide.size].reshape(wide.shape)
    h[:] = wide
    h = h[:, :, :dim]
    key, first = rng.bytes(32), int(rng.integers(0, 2**63))
    keys, numbers = rng.integers(0, 256, (batch, 32), np.uint8), rng.integers(0, 2**64, batch, np.uint64)
    u = mapping.project(h, "reference")
    z = mapping.release(u, key, first, "reference")
    many = mapping.map(h, keys, numbers, "reference")
    assert (u.astype(np.int64) ** 2).sum(1).max(initial=0) <= mapping.params.clip**2
    for target in ("portable", *TARGETS):
        if target != "portable":
            force_simd_target(target)
        name = "portable" if target == "portable" else "simd"
        np.testing.assert_array_equal(mapping.project(h, name), u, err_msg=target)
        np.testing.assert_array_equal(mapping.release(u, key, first, name), z, err_msg=target)
        np.testing.assert_array_equal(mapping.map(h, keys, numbers, name), many, err_msg=target)
    force_simd_target("")


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    grid=st.tuples(st.integers(1, 70), st.integers(1, 50)),
    extra=st.tuples(st.integers(0, 700), st.integers(0, 120)),
    pad=st.integers(0, 33),
    offset=st.integers(0, 70),
    shift=st.integers(1, 16),
    whole=st.booleans(),
)
def test_preprocess_equal_bits_on_every_backend(seed, grid, extra, pad, offset, shift, whole):
    rng = np.random.default_rng(seed)
    sizes = dict(width=grid[0], height=grid[1], background_shift=shift, mask_floor=int(rng.integers(0, 300)))
    # Ratios as cameras have them too, and rows at any stride from any byte on.
    width, height = (grid[0] * (extra[0] % 9 + 1), grid[1] * 3 // 2) if whole else (grid[0] + extra[0], grid[1] + extra[1])
    room = rng.integers(0, 256, (4, offset + height * (width + pad)), dtype=np.uint8)
    frames = room[:, offset:].reshape(4, height, width + pad)[:, :, :width]
    frames[1] = frames[0]
    frames[3] = rng.choice([0, 255])
    out = np.empty((3, grid[1], grid[0]), np.int8)
    plain = Preprocessor(**sizes, backend="reference")
    want = [plain.process(f) for f in frames]
    for target in ("portable", *TARGETS):
        if target != "portable":
            force_simd_target(target)
        kernel = Preprocessor(**sizes, backend="portable" if target == "portable" else "simd")
        for f, w in zip(frames, want, strict=True):
            np.testing.assert_array_equal(kernel.process(f, out), w, err_msg=target)
    force_simd_target("")


def test_chacha20_matches_rfc_8439():
    # Section 2.3.2, and appendix A.1 vectors 1 and 2.
    key, nonce = bytes(range(32)), bytes.fromhex("000000090000004a00000000")
    block = bytes.fromhex(
        "10f1e7e4d13b5915500fdd1fa32071c4c7d1f4c733c068030422aa9ac3d46c4e"
        "d2826446079faa0914c2d705d98b02a2b5129cd1de164eb9cbd083e8a2503c4e"
    )
    zero = bytes.fromhex("76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7")
    one = bytes.fromhex("9f07e7be5551387a98ba977c732d080dcb0f29a048e3656912c6533e32ee7aed")
    for chacha in (reference.chacha20_block, native.chacha20_block):
        assert chacha(key, nonce, 1) == block
        assert chacha(bytes(32), bytes(12), 0)[:32] == zero
        assert chacha(bytes(32), bytes(12), 1)[:32] == one


def test_noise_words_are_the_key_stream():
    key = bytes(range(32))
    words = native.noise_words(key, 7, 21)
    np.testing.assert_array_equal(words, reference.noise_words(key, 7, 21))
    assert len(np.unique(np.concatenate([words, native.noise_words(key, 8, 21)]))) == 42


@pytest.mark.parametrize("sigma", [0.5, 8.0, 31.0])
def test_noise_table_is_the_rounded_gaussian(sigma):
    table = rounded_gaussian_cdf(sigma)
    m = len(table) // 2
    for k in (-m, -1, 0, m // 2, m - 1):
        with mp.workdps(50):
            want = ncdf((mpf(k) + 0.5) / mpf(sigma)) * mpf(2) ** 64
            assert abs(int(table[k + m]) - want) <= 1
    words = np.random.default_rng(1).integers(0, 2**64, 200_000, dtype=np.uint64)
    g = np.searchsorted(table, words, side="right") - m
    below = [0.5 * math.erfc(-(k + 0.5) / sigma / 2**0.5) for k in range(-m - 1, m + 1)]
    variance = sum(k * k * (b - a) for k, a, b in zip(range(-m, m + 1), below, below[1:], strict=False))
    assert abs(g.mean()) < 5 * (variance / 200_000) ** 0.5
    assert abs(g.var() / variance - 1) < 0.02


def test_a_release_is_noise_around_the_features_and_repeats_exactly(backend):
    rng = np.random.default_rng(4)
    family = Family(FamilyConfig())
    mapping = Mapping(family.mapping.params())
    u = mapping.project(rng.normal(0, 1, (400, 12, 64)).astype(np.float32), backend)
    key = rng.bytes(32)
    packed = mapping.release(u, key, 100, backend)
    assert (packed == mapping.release(u, key, 100, backend)).all()
    z = unpack(packed, u.shape[1], mapping.params.bits)
    error = z.astype(np.int64) - u
    assert abs(error.std() / family.config.mapping.sigma - 1) < 0.02
    assert abs(np.corrcoef(error[:-1].ravel(), error[1:].ravel())[0, 1]) < 0.02


def test_torch_tensors_come_through_without_a_copy_and_the_module_gives_the_kernels_bits(backend):
    torch.manual_seed(0)
    family = Family(FamilyConfig())
    torch.nn.init.normal_(family.mapping.bias)
    mapping = Mapping(family.mapping.params())
    tokens = torch.randn(64, family.config.tokens, 64) * 3
    want = mapping.project(tokens, backend)
    np.testing.assert_array_equal(family.mapping.exact(tokens).numpy(), want)
    np.testing.assert_array_equal(family.mapping.train()(tokens).detach().round().numpy(), want)
    strided = torch.randn(4, family.config.tokens, 80)[:, :, :64]
    np.testing.assert_array_equal(mapping.project(strided, backend), mapping.project(strided.contiguous(), backend))


def test_gradients_reach_the_tokens_and_the_weight():
    family = Family(FamilyConfig()).train()
    tokens = torch.randn(8, family.config.tokens, 64, requires_grad=True)
    family.mapping.add_noise(family.mapping(tokens)).square().sum().backward()
    assert tokens.grad.abs().sum() > 0
    assert family.mapping.weight.grad.abs().sum() > 0


def test_bad_arguments_name_what_is_wrong():
    rng = np.random.default_rng(0)
    mapping = Mapping(random_params(rng, 2, 3, 4, 8))
    with pytest.raises(TypeError, match=r"float64.*expected a float32"):
        mapping.project(np.zeros((1, 2, 3)))
    with pytest.raises(ValueError, match=r"\[batch, 2, 3\]"):
        mapping.project(np.zeros((1, 3, 2), np.float32))
    with pytest.raises(ValueError, match="last axis"):
        mapping.project(np.zeros((1, 2, 6), np.float32)[:, :, ::2])
    with pytest.raises(ValueError, match="32 bytes"):
        mapping.release(np.zeros((1, 8), np.int16), b"short")
    with pytest.raises(ValueError, match="at least 128x96"):
        Preprocessor().process(np.zeros((90, 200), np.uint8))
    with pytest.raises(ValueError, match="not available"):
        force_simd_target("AVX9000")


def test_the_cuda_kernels_are_built_for_every_device():
    library = ROOT / "build" / "default" / "kernels" / "libruyicam_kernels_cuda.a"
    if not library.exists():
        pytest.skip("no CUDA compiler on this machine")
    code = library.read_bytes()
    for name in (b"sm_87", b"sm_90", b"sm_110", b"sm_120"):
        assert name in code


def test_the_benchmark_compares_kernels_that_do_the_same(monkeypatch):
    """Its peers give the reference's bits (bench_mapping raises otherwise); OpenCV's calls are within rounding."""
    monkeypatch.setattr(bench_kernels, "_ROUND_S", 1e-4)
    row = bench_kernels.bench_mapping(2, 1)
    assert set(row["ratio"]) == {"portable", "torch_eager", "torch_compile", "onnxruntime", "numpy"}
    assert row["ours"]["median_us"] > 0 and 0 < row["int8_peak_fraction"] < 1
    sizes = dict(width=96, height=72, background_shift=6, mask_floor=64)
    ours, peer = Preprocessor(**sizes), bench_kernels.OpenCv(**sizes)
    rng = np.random.default_rng(1)
    for _ in range(4):
        frame = cv2.GaussianBlur(rng.integers(0, 256, (480, 640), np.uint8), (0, 0), 9)
        a, b = ours.process(frame).astype(int), peer.process(frame).astype(int)
        assert np.abs(a - b).max() <= 8 and np.abs(a - b).mean() < 0.7
