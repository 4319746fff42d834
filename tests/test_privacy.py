"""The formulas of docs/privacy.md against integration, simulation and known values; profiles, calculator, certificates."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cryptography import x509
from hypothesis import given, settings
from hypothesis import strategies as st
from made import statement
from scipy import integrate
from scipy.stats import norm

from ruyicam.cloud.errors import Exit
from ruyicam.cloud.family import FamilyConfig
from ruyicam.cloud.privacy import bounds
from ruyicam.cloud.privacy.calculator import exposure
from ruyicam.cloud.privacy.certificate import (
    CertificateError,
    check_authority,
    check_bundle,
    load_certificate,
    read_certificate,
)
from ruyicam.cloud.privacy.profiles import CERTIFIED, PROFILES, release_plan
from ruyicam.export.pki import Authority

RUYICAM = Path(sys.executable).with_name("ruyicam")
CONFIG = FamilyConfig()


def test_known_values():
    assert bounds.cap(1e-3, 0.5, 2) == pytest.approx(0.01569, abs=1e-5)
    assert bounds.cap(1e-3, 1, 3) == pytest.approx(0.07943, abs=1e-5)
    assert bounds.bits_per_release(1, 1, 1) == pytest.approx(0.5)
    assert bounds.mu(4, 8, 8) == 2
    assert bounds.surprisal(0.25) == 2
    # Dong, Roth, Su, figure of mu = 1: delta of epsilon 1 is about 0.127.
    assert bounds.delta(1, 1) == pytest.approx(0.12693, abs=1e-4)
    assert bounds.fano_cap(1024, 4) == pytest.approx(0.5)
    assert bounds.cap(0.5, 0, 1) == 1 and bounds.cap(0, 9, 9) == 0


@given(st.floats(1e-9, 1), st.floats(0, 20), st.floats(0, 40))
def test_the_cap_rises_and_never_falls_below_the_prior(kappa, mu, bits):
    value = bounds.cap(kappa, mu, bits)
    assert kappa * (1 - 1e-9) <= value <= 1
    assert bounds.cap(kappa, mu + 0.1, bits) >= value and bounds.cap(kappa, mu, bits + 0.1) >= value


@given(st.floats(0.05, 8), st.floats(0, 8))
def test_delta_is_the_integral_of_its_definition(mu, eps):
    """sup over events of P(A) - e^eps Q(A) for N(mu, 1) and N(0, 1), by numbers."""
    edge = eps / mu + mu / 2
    value = integrate.quad(lambda x: max(0.0, norm.pdf(x - mu) - math.exp(eps) * norm.pdf(x)), edge, edge + 40, limit=200)[0]
    assert bounds.delta(eps, mu) == pytest.approx(value, abs=1e-7)


@given(st.floats(0.01, 300), st.floats(1e-12, 0.5))
def test_epsilon_is_the_inverse_of_delta(mu, wanted):
    eps = bounds.epsilon(mu, wanted)
    assert bounds.delta(eps, mu) <= wanted * (1 + 1e-6)
    assert eps == 0 or bounds.delta(eps * (1 - 1e-6), mu) >= wanted * (1 - 1e-3)


@pytest.mark.parametrize("mu", [0.5, 1.5])
def test_no_guess_is_better_than_the_cap_and_the_best_comes_near(mu):
    """One candidate's features are at the clip and all others' are none: the most that a release can say of one person."""
    rng = np.random.default_rng(0)
    people, trials = 20, 200_000
    who = rng.integers(people, size=trials)
    z = rng.standard_normal(trials) + mu * (who == 0)
    # Naming person 0 where z is high enough: right with kappa * Phi(mu - t); else any other.
    best = max(np.mean((z > t) & (who == 0)) + np.mean((z <= t) & (who == 1)) for t in np.linspace(-1, 4, 26))
    assert best < bounds.cap(1 / people, mu) + 0.003
    # All candidates apart, each with its own direction: the maximum-likelihood guess.
    x = rng.standard_normal((trials // 4, people))
    x[np.arange(len(x)), who[: len(x)]] += mu
    right = np.mean(x.argmax(1) == who[: len(x)])
    cap = bounds.cap(1 / people, mu)
    assert 0.4 * cap < right < cap


@settings(max_examples=30)
@given(st.integers(0, 2**32))
def test_token_sequences_within_a_budget_are_few(seed):
    """At most 2^L sequences have surprisals that add up to L or less, whatever the (changing) prior."""
    rng = np.random.default_rng(seed)
    budget, count = rng.uniform(0.5, 8), 0

    def walk(left: float, depth: int) -> None:
        nonlocal count
        prior = np.random.default_rng([seed, depth]).dirichlet(np.ones(3) * 0.7)
        costs = [bounds.surprisal(max(p, 1e-12)) for p in prior]
        # The ledger asks for room for the rarest token; without it the sequence ends.
        if depth == 9 or max(costs) > left:
            count += 1
            return
        for cost in costs:
            walk(left - cost, depth + 1)

    walk(budget, 0)
    assert count <= 2**budget


@pytest.mark.parametrize("call", [
    lambda: bounds.cap(2, 0), lambda: bounds.cap(0.5, -1), lambda: bounds.surprisal(0), lambda: bounds.mu(1, 1, 0),
    lambda: bounds.epsilon(1, 0), lambda: bounds.fano_cap(1, 1), lambda: bounds.bits_per_release(0, 1, 1),
    lambda: bounds.cap(0.5, math.nan),
])  # fmt: skip
def test_senseless_values_are_refused(call):
    with pytest.raises(ValueError):
        call()


@pytest.mark.parametrize("profile", list(CERTIFIED))
@pytest.mark.parametrize("visit_s", [1.0, 60.0])
def test_certified_plans_stay_within_their_name(profile, visit_s):
    plan = release_plan(CONFIG, profile, visit_s)
    mu, tokens = CERTIFIED[profile]
    assert bounds.mu(2, plan.clip, plan.sigma) <= mu and 2 * plan.worst_token <= tokens + 1e-9
    # And use most of it.
    assert bounds.mu(2, plan.clip, plan.sigma) > 0.95 * mu and 2 * plan.worst_token > 0.99 * tokens
    assert sum(plan.prior) == pytest.approx(1) and plan.block_ticks == visit_s * CONFIG.input.rate_hz


def test_a_visit_costs_what_its_profile_names_and_a_longer_one_more():
    for profile, (mu, tokens) in CERTIFIED.items():
        plan = release_plan(CONFIG, profile)
        stay = exposure(plan, 10, 1e-3, 0.9, memory_s=4)
        assert stay.mu <= mu and stay.token_bits == pytest.approx(tokens) and not stay.vacuous
        assert stay.cap <= bounds.cap(1e-3, mu, tokens)
        assert exposure(plan, 10, 1e-3, 5, memory_s=4).cap > stay.cap
        assert exposure(plan, 10, 1e-3, 0.9, cameras=3, memory_s=4).mu == pytest.approx(stay.mu * math.sqrt(3))
    assert exposure(release_plan(CONFIG), 10, 1e-3, 1).vacuous


def test_the_bits_bound_is_used_where_it_is_the_smaller():
    assert exposure(release_plan(CONFIG, "strict"), 10, 2.0**-64, 5).by == "singling out"
    # One release may name a person among 2^64 by its mu, but hardly one among 2^900 by its 192 bits.
    one = exposure(release_plan(CONFIG), 10, 2.0**-900, 0.001)
    assert one.releases == 1 and one.by == "bits" and one.cap == pytest.approx((one.bits + 1) / 900)
    assert exposure(release_plan(CONFIG), 10, 2.0**-900, 0.001, uniform=False).cap > 0.99


def command(*arguments) -> subprocess.CompletedProcess:
    return subprocess.run([RUYICAM, "privacy", *map(str, arguments)], capture_output=True, text=True)


def test_the_command_prints_and_draws(tmp_path):
    done = command("--json", "--minutes", 0.9, "--candidates", 1000, "--plot", tmp_path / "caps.svg")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert set(said) == set(PROFILES)
    assert said["strict"]["stays"][0]["cap"] < 0.016 and said["reasoning"]["stays"][0]["vacuous"]
    assert "<svg" in (tmp_path / "caps.svg").read_text()
    shown = command("--profile", "reasoning")
    assert "vacuous" in shown.stdout
    for bad in (("--profile", "lax"), ("--prior", 1.5), ("--minutes", -1)):
        done = command(*bad)
        assert done.returncode == Exit.USAGE and len(done.stderr.splitlines()) == 1, (bad, done)


@pytest.fixture
def finished(session, made_clip):
    """A session that has run, its certificate's path and the figures of the run."""
    stats = session.play(str(made_clip))
    session.wait_read(stats["boot_id"])
    return session, next((session.folder / "run" / "certificates").glob("*.json")), stats


def test_a_session_is_certified_and_anyone_can_check_it(finished, signed, tmp_path):
    session, path, stats = finished
    shown = session.get(f"/v1/boots/{stats['boot_id']}/certificate")
    # The device's file and what the server shows are the same thing.
    assert json.loads(path.read_text()) == shown and path.name == f"{stats['boot_id']}.sent.json"
    copy = tmp_path / "certificate.json"
    copy.write_text(json.dumps(shown))
    done = command("verify", copy, "--ca", session.authority.ca, "--bundle", signed[0], "--key", signed[1])
    assert done.returncode == 0 and "good" in done.stdout, done.stderr
    said = load_certificate(copy).statement
    assert said.spent.releases == stats["released"] and said.final and said.profile == "reasoning"
    assert said.spent.feature_bits + said.spent.token_bits == pytest.approx(stats["bits"])
    # Not with a byte changed, another authority, or another bundle.
    forged = dict(shown, statement=shown["statement"].replace('"profile":"reasoning"', '"profile":"strict"'))
    assert forged["statement"] != shown["statement"]
    copy.write_text(json.dumps(forged))
    done = command("verify", copy)
    assert done.returncode == Exit.CREDENTIALS and "signature" in done.stderr
    copy.write_text(json.dumps(shown))
    stranger = Authority(tmp_path / "other")
    done = command("verify", copy, "--ca", stranger.ca)
    assert done.returncode == Exit.CREDENTIALS and "authority" in done.stderr
    with pytest.raises(CertificateError, match="not"):
        check_bundle(load_certificate(copy), "00" * 16, json.loads((signed[0] / "manifest.json").read_text()))
    copy.write_text("{}")
    assert command("verify", copy).returncode == Exit.CREDENTIALS
    assert command("verify", tmp_path / "none").returncode == Exit.CREDENTIALS


def test_figures_that_do_not_fit_are_found(tmp_path):
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    authority = Authority(tmp_path / "tls")
    device = authority.camera("ward")
    key, pem = load_pem_private_key(device.key.read_bytes(), None), device.cert.read_bytes()

    def read(content: dict):
        raw = json.dumps(content).encode()
        return read_certificate(raw, key.sign(raw, ECDSA(hashes.SHA256())), pem)

    good = statement()
    read(good)
    for change, says in (
        ({"bits_per_release": 0.01}, "bits_per_release"),
        ({"sigma": 128.0}, "bits_per_release"),
        ({"noise_sha256": "0" * 64}, "noise_sha256"),
        ({"spent": good["spent"] | {"mu": 0.1}}, "spent mu"),
        ({"spent": good["spent"] | {"releases": 1}}, "feature_bits"),
        ({"budget": good["budget"] | {"visit": None}}, "above that of profile"),
        ({"budget": good["budget"] | {"visit": {"seconds": 60.0, "mu": 0.6, "token_bits": 2.0}}}, "above that of profile"),
        ({"camera_total": {"releases": 1, "bits": 7.0, "mu": 1.0}}, "total"),
        ({"camera_id": "other"}, "camera_id"),
        ({"schema": 7}, "schema"),
        ({"extra": 1}, "malformed"),
    ):
        with pytest.raises(CertificateError, match=says):
            read(good | change)
    # Its device's certificate was not valid in 1970.
    with pytest.raises(CertificateError, match="not valid when"):
        check_authority(read(good), x509.load_pem_x509_certificate(authority.ca.read_bytes()))
