"""The noise, ten million draws of it: against its table, against the Gaussian that it rounds, and draw against draw."""

from __future__ import annotations

import math
import shutil
import subprocess

import numpy as np
import pytest
from conftest import ROOT
from scipy import stats

from ruyicam.kernels import Mapping, MappingParams, rounded_gaussian_cdf, simd_targets, unpack

SIGMA, TOKENS, OUT = 8.0, 25, 40
DRAWS = 10_000_000


@pytest.fixture(scope="module")
def draws() -> np.ndarray:
    """int16 [10,000 releases, 1,000 features] of noise alone: the features are 0, and 16 bits never saturate."""
    kernel = Mapping(
        MappingParams(
            tokens=TOKENS,
            weight=np.zeros((OUT, 4), np.int8),
            bias=np.zeros(OUT, np.int32),
            lut=np.zeros(2, np.int16),
            noise_cdf=rounded_gaussian_cdf(SIGMA),
            input_scale=1.0,
            multiplier=1,
            round=0,
            shift=0,
            clip=1,
            bits=16,
        )
    )
    features = kernel.params.features
    clipped = np.zeros((DRAWS // features, features), np.int16)
    return unpack(kernel.release(clipped, bytes(range(32))), features, 16)


def _probabilities() -> tuple[np.ndarray, np.ndarray]:
    """(values -m to m, probability of each) as the table in the bundle gives them."""
    edges = np.concatenate([[0], rounded_gaussian_cdf(SIGMA).astype(object), [1 << 64]])
    return np.arange(len(edges) - 1) - (len(edges) - 2) // 2, np.array([float(x) for x in np.diff(edges)]) / 2.0**64


def test_noise_follows_its_table(draws):
    """Chi-square against the table; values expected fewer than 10 times are one class."""
    values, chances = _probabilities()
    counts = np.bincount(draws.ravel() - values[0], minlength=len(values))
    rare = chances * DRAWS < 10
    seen = np.append(counts[~rare], counts[rare].sum())
    wanted = np.append(chances[~rare], chances[rare].sum()) * DRAWS
    assert counts.sum() == DRAWS and wanted[-1] > 0
    assert stats.chisquare(seen, wanted * DRAWS / wanted.sum()).pvalue > 1e-6


def test_mean_variance_and_tails_are_those_of_the_rounded_gaussian(draws):
    """Rounding adds 1/12 to the variance (Sheppard's correction)."""
    x = draws.ravel().astype(np.float64)
    variance = SIGMA**2 + 1 / 12
    assert abs(x.mean()) < 5 * math.sqrt(variance / DRAWS)
    assert abs(x.var() - variance) < 5 * variance * math.sqrt(2 / DRAWS)
    for far in (3, 4, 5):
        edge = round(far * SIGMA)
        chance = 2 * stats.norm.sf((edge - 0.5) / SIGMA)
        assert stats.binomtest(int((np.abs(x) >= edge).sum()), DRAWS, chance).pvalue > 1e-6


def test_draws_do_not_depend_on_each_other(draws):
    """No correlation of neighbours within a release, between releases, or of their sizes; signs come in fair pairs."""
    x = draws.astype(np.float64)
    for pairs in ((x[:, :-1], x[:, 1:]), (x[:-1], x[1:]), (x[:, :-8], x[:, 8:])):
        for a, b in (pairs, tuple(np.abs(p) - np.abs(p).mean() for p in pairs)):
            r = (a * b).mean() / math.sqrt((a**2).mean() * (b**2).mean())
            assert abs(r) < 5 / math.sqrt(a.size)
    positive = (draws[:, :-1] > 0) * 2 + (draws[:, 1:] > 0)
    both = np.bincount(positive.ravel(), minlength=4)
    chance = (draws > 0).mean()
    wanted = np.array([(1 - chance) ** 2, (1 - chance) * chance, chance * (1 - chance), chance**2]) * both.sum()
    assert stats.chisquare(both, wanted, ddof=1).pvalue > 1e-6


@pytest.mark.parametrize("target", ["portable", "AVX2"])
def test_instructions_do_not_depend_on_the_values_drawn(target, tmp_path):
    """callgrind counts the instructions of a release under different keys: the same number each time."""
    program = ROOT / "build" / "default" / "kernels" / "kernels_release"
    if not shutil.which("valgrind") or not program.exists():
        pytest.skip("needs valgrind and the C++ build (make setup)")
    if target != "portable" and target not in simd_targets():
        pytest.skip(f"this processor has no {target}")

    def count(seed: int) -> int:
        out = tmp_path / "out"
        valgrind = ("valgrind", "--tool=callgrind", "--toggle-collect=released", f"--callgrind-out-file={out}")
        done = subprocess.run([*valgrind, program, target, str(seed)], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return next(int(line.split(":")[1]) for line in out.read_text().splitlines() if line.startswith("totals"))

    counts = [count(seed) for seed in range(4)]
    assert counts[0] > 1000 and len(set(counts)) == 1
