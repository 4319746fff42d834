"""The audit: its statistics and tools against other ways to compute them, and the quick audit as a gate."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from ruyicam.cloud.audit import retrieval
from ruyicam.cloud.audit.inversion import psnr, ssim
from ruyicam.cloud.audit.people import edge_tokens
from ruyicam.cloud.audit.run import Findings, verdict
from ruyicam.cloud.audit.stats import Result, bootstrap, interval, proportion
from ruyicam.cloud.audit.system import Releaser, clipped_to
from ruyicam.cloud.privacy import bounds
from ruyicam.cloud.privacy.profiles import CERTIFIED, release_plan
from ruyicam.kernels.reference import clip_l2

RUYICAM = Path(sys.executable).with_name("ruyicam")


@given(st.integers(1, 3000), st.floats(0, 1))
def test_intervals_are_exact(trials, share):
    right = round(share * trials)
    want = binomtest(right, trials).proportion_ci(0.95, "exact")
    assert interval(right, trials) == pytest.approx((want.low, want.high), abs=1e-12)


def test_bootstrap_draws_groups_and_covers_their_mean():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 25)
    values = rng.normal(0, 1, 40)[groups] + rng.normal(0, 0.1, 1000)
    low, high = bootstrap(values, groups)
    # About 2 * 1.96 / sqrt(40), not / sqrt(1000).
    assert low < values.mean() < high and 0.4 < high - low < 0.9


@given(st.integers(0, 2**32), st.integers(1, 4000))
def test_clipping_is_the_kernels_own(seed, clip):
    rng = np.random.default_rng(seed)
    u = rng.integers(-400, 400, (3, 17))
    assert (clipped_to(u, clip) == np.stack([clip_l2(row, clip) for row in u])).all()


def test_similarity_of_pictures():
    rng = np.random.default_rng(1)
    a = rng.integers(0, 256, (36, 48)).astype(np.uint8)
    assert ssim(a, a) == pytest.approx(1) and ssim(a, 255 - a) < 0
    assert psnr(a, a) > 100 and psnr(np.zeros((4, 4)), np.full((4, 4), 255.0)) == pytest.approx(0)


@pytest.fixture(scope="module")
def releasers(family) -> dict[str, Releaser]:
    return {p: Releaser(family, release_plan(family.config, p)) for p in (*CERTIFIED, "reasoning")}


def test_every_call_has_a_key_of_its_own_and_an_audit_can_be_repeated(family):
    plan = release_plan(family.config)
    u = np.zeros((2, plan.features), np.int16)
    one, two = Releaser(family, plan, 3), Releaser(family, plan, 3)
    first = one.release(u)
    assert (first == two.release(u)).all() and (first != one.release(u)).any() and (first[0] != first[1]).any()


def test_the_smuggler_comes_near_its_cap_and_not_above_it(releasers):
    """The bound is tight: an attack that reaches a good part of it exists, so a larger mu would be seen."""
    for profile in CERTIFIED:
        r = retrieval.smuggled(releasers[profile], 1000, 2, 2, 1, 8000)
        assert r.holds and r.value > 0.5 * r.bound
        # With half of the noise the same code breaks the bound, and the audit says so.
        loud = Releaser.__new__(Releaser)
        loud.__dict__.update(releasers[profile].__dict__)
        loud.kernel = type(loud.kernel)(replace(loud.kernel.params, noise_cdf=releasers["reasoning"].kernel.params.noise_cdf))
        broken = retrieval.smuggled(loud, 1000, 2, 2, 1, 2000)
        assert not broken.holds and verdict(Findings([broken]))


def test_mu_as_built_is_the_one_that_is_claimed(releasers):
    for profile in CERTIFIED:
        result, claimed = retrieval.mechanism(releasers[profile], 2, 400_000)
        assert 0.9 * claimed < result.ci[0] <= claimed == result.bound


def test_caps_of_the_releaser_are_those_of_the_formulas(releasers):
    plan = releasers["standard"].plan
    assert releasers["standard"].cap(1e-3, 2, 2) == bounds.cap(1e-3, bounds.mu(2, plan.clip, 64), 3)


def test_tokens_are_those_that_the_device_sends(session, made_clip, family):
    """The audit's tokens of a clip against those in the device's packets."""
    from test_end_to_end import run_edge, spooled

    from ruyicam.cloud.data.clips import model_input

    session.stop_server()
    state = session.folder / "tokens"
    run_edge(session, str(made_clip), state, drain_timeout_s=0)
    inputs = torch.from_numpy(model_input(made_clip, family.config.input))
    with torch.inference_mode():
        features = family.features(inputs[None])[0]
    assert edge_tokens(family, features).tolist() == [p.token for p in spooled(state)]


def test_verdicts():
    good = proportion("a", "m", [(5, 100)], 0.05, bound=0.06)
    bad = proportion("b", "m", [(50, 100)], 0.05, bound=0.06)
    assert good.holds and not bad.holds
    assert verdict(Findings([good])) == [] and "b" in verdict(Findings([good, bad]))[0]
    broken, weak = proportion("p", "m", [(90, 100)], 0.05), proportion("q", "m", [(6, 100)], 0.05)
    assert verdict(Findings(positive=[broken])) == verdict(Findings(negative=[weak])) == []
    assert "'q' does not break" in verdict(Findings(positive=[broken, weak]))[0]
    assert "not at chance" in verdict(Findings(negative=[broken]))[0]


def test_findings_are_kept_whole(tmp_path):
    found = Findings([Result("a", "m", 0.5, (0.1, 0.9), 0.2, 0.7)], curve={"strict": [{"releases": 1}]}, skipped=["x"])
    found.save(tmp_path / "s" / "a")
    again = Findings.load(tmp_path / "s" / "a")
    assert again.attacks == found.attacks and again.curve == found.curve and again.skipped == ["x"]


@pytest.mark.timeout(900)
def test_the_quick_audit_passes(tmp_path):
    """The gate: no attack above its bound, positive controls break, negative ones sit at chance."""
    command = [RUYICAM, "audit", "--quick", "--json", "--out", tmp_path, "--cache", tmp_path / "cache"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["fails"] == [] and all(a["holds"] for a in said["attacks"])
    names = {a["name"] for a in said["attacks"]}
    for name in ("mechanism as built", "noise reuse", "malicious encoder: identity", "which frame", "which clip",
                 "ledger rollback", "identity of generated people", "gait and skeleton on the contour output",
                 "size and time of packets",
                 "learned decoder, in domain"):  # fmt: skip
        assert name in names
    assert len(said["controls"]["positive"]) >= 4 and len(said["controls"]["negative"]) >= 1
    page = (tmp_path / "report.html").read_text()
    assert "What remains" in page and page.count("<img") >= 2
    for word in ("anonymous", "irreversible"):
        assert word not in page.lower()
