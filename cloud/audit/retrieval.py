"""Attacks on the mechanism itself: which of many was it, averaging, an encoder that smuggles, noise used twice, and mu."""

from __future__ import annotations

import hashlib

import numpy as np
from scipy.stats import norm

from ruyicam.cloud.privacy import bounds

from .stats import Result, interval, proportion
from .system import Releaser, clipped_to

_BATCH = 2000


def nearest(seen: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """The likeliest candidate of every observation: int [N]. seen [N, n] (means of releases), candidates [M, n]."""
    c = candidates.astype(np.float32)
    half = (c * c).sum(1) / 2
    return np.concatenate(
        [(part.astype(np.float32) @ c.T - half).argmax(1) for part in np.array_split(seen, max(1, len(seen) // _BATCH))]
    )


def _averaged(releaser: Releaser, features: np.ndarray, times: int) -> np.ndarray:
    """Mean of `times` releases of every row, float32 [N, n]."""
    total = np.zeros(features.shape, np.float32)
    for _ in range(times):
        total += releaser.release(features)
    return total / times


def which_frame(
    releaser: Releaser, frames: np.ndarray, averaged: tuple[int, ...], seeds: int, candidates: int, noise: bool = True
) -> list[Result]:
    """Which of `candidates` frames, all known to the attacker, was released `times` times: one result per entry of `averaged`.

    frames int16 [N, n]: clean features. A frame that does not change is the best that an average can hope for.
    """
    rng = np.random.default_rng(6)
    out = []
    for times in averaged:
        right = []
        for _ in range(seeds):
            some = clipped_to(frames[rng.choice(len(frames), candidates, replace=False)], releaser.plan.clip)
            # Frames that the mapping makes equal are no mistake to mix up, and no success to tell apart.
            some = np.unique(some, axis=0)
            seen = _averaged(releaser, some, times) if noise else some
            right.append((int((nearest(seen, some) == np.arange(len(some))).sum()), len(some)))
        chance = 1 / min(n for _, n in right)
        out.append(
            proportion(
                "which frame" if times == 1 else f"which frame, {times} releases averaged",
                f"top-1 of {candidates}", right, chance,
                bound=releaser.cap(chance, times) if noise else 1.0, profile=releaser.plan.profile,
                note="" if times == 1 else "the same frame over and over",
            )
        )  # fmt: skip
    return out


def which_clip(releaser: Releaser, windows: np.ndarray, seeds: int, releases: int) -> Result:
    """Which of the known clips was released, from `releases` ticks of it. windows int16 [N, W, n]."""
    ticks = np.linspace(0, windows.shape[1] - 1, releases).astype(int)
    some = windows[:, ticks]
    flat = clipped_to(some.reshape(-1, some.shape[-1]), releaser.plan.clip)
    known = flat.reshape(len(some), -1)
    right = []
    for _ in range(seeds):
        seen = releaser.release(flat).reshape(len(some), -1)
        right.append((int((nearest(seen, known) == np.arange(len(known))).sum()), len(known)))
    chance = 1 / len(known)
    return proportion("which clip", f"top-1 of {len(known)}", right, chance, bound=releaser.cap(chance, releases),
                      profile=releaser.plan.profile, note=f"{releases} releases of each")  # fmt: skip


def smuggled(
    releaser: Releaser, people: int, releases: int, tokens: int, seeds: int, trials: int, noise: bool = True
) -> Result:
    """An encoder made to betray who it is: the identity in features of full norm in all releases of a visit, and in its tokens.

    Every identity has a direction of its own and a token sequence of its own kind; the attacker takes the likeliest identity
    among those of the tokens seen, which is the best that anyone can do with this code.
    """
    n, clip = releaser.plan.features, releaser.plan.clip
    right = []
    for seed in range(seeds):
        rng = np.random.default_rng([7, seed])
        code = rng.standard_normal((people, releases, n))
        # As near to the clip as whole numbers come, from within.
        length = np.linalg.norm(code, axis=2, keepdims=True)
        scaled = np.rint(code * (clip / length)).astype(np.int64)
        code = clipped_to(scaled.reshape(-1, n), clip).reshape(people, -1)
        # Token sequences that a visit can pay for: at most 2^L of them.
        kinds = max(1, int(2 ** (tokens * releaser.plan.worst_token) + 1e-9))
        kind = rng.permutation(people) % min(kinds, people)
        who = rng.integers(people, size=trials)
        sent = code[who]
        seen = releaser.release(sent.reshape(-1, n).astype(np.int16)).reshape(trials, -1) if noise else sent
        score = seen.astype(np.float32) @ code.T.astype(np.float32) - (code.astype(np.float32) ** 2).sum(1) / 2
        score[kind[None] != kind[who][:, None]] = -np.inf
        right.append((int((score.argmax(1) == who).sum()), trials))
    cap = releaser.cap(1 / people, releases, tokens) if noise else 1.0
    name = "malicious encoder: identity" if noise else "malicious encoder without noise"
    return proportion(name, f"top-1 of {people}", right, 1 / people, bound=cap, profile=releaser.plan.profile,
                      note=f"{releases} releases, {tokens} tokens, all of them for the identity")  # fmt: skip


def noise_reuse(releaser: Releaser, frames: np.ndarray, releases: int, boots: int) -> tuple[Result, Result]:
    """(pairs of releases of one frame that share their noise, the same where one number is used twice as a control)."""
    frame = clipped_to(frames[:1], releaser.plan.clip)

    def digests(key: bytes, first: int) -> list[bytes]:
        many = releaser.release(np.repeat(frame, releases, 0), key, first)
        return [hashlib.sha256(z.tobytes()).digest() for z in many]

    seen: set[bytes] = set()
    repeated = 0
    for _ in range(boots):
        for digest in digests(releaser.new_key(), 0):
            repeated += digest in seen
            seen.add(digest)
    key = releaser.new_key()
    again = sum(a == b for a, b in zip(digests(key, 0), digests(key, 0), strict=True))
    return (
        proportion("noise reuse", "releases whose noise was used before", [(repeated, boots * releases)], 0.0, bound=0.0,
                   note=f"{boots} boots of {releases} releases of one frame"),
        proportion("noise reuse, same key and number", "releases whose noise was used before", [(again, releases)], 0.0),
    )  # fmt: skip


def mechanism(releaser: Releaser, releases: int, draws: int, seed: int = 0) -> tuple[Result, float]:
    """(an empirical lower bound on mu of so many releases together, mu as claimed).

    Features at the clip against none, told apart by the likelihood ratio at the best of many thresholds: those are chosen on
    one half of the draws; the error rates of the chosen one, with exact intervals (99 % each), are taken on the other, and
    give mu >= Phi^-1(TPR) - Phi^-1(FPR) (Dong, Roth, Su, arXiv 1905.02383, definition 2).
    """
    n, clip = releaser.plan.features, releaser.plan.clip
    rng = np.random.default_rng([8, seed])
    # Whole numbers whose squares add up to the clip's as nearly as they can.
    u = clipped_to(np.rint(rng.choice([-1, 1], (1, n)) * clip / np.sqrt(n)).astype(np.int64), clip)[0]
    for i in rng.permutation(n):
        step = u.copy()
        step[i] += np.sign(u[i]) or 1
        if (step.astype(np.int64) ** 2).sum() <= clip * clip:
            u = step
    direction = u.astype(np.float64) / np.linalg.norm(u)

    def scores(row: np.ndarray) -> np.ndarray:
        parts = []
        for size in [20000] * (draws // 20000) or [draws]:
            z = releaser.release(np.broadcast_to(row, (size * releases, n)))
            parts.append((z.reshape(size, releases, n) @ direction).sum(1))
        return np.sort(np.concatenate(parts))

    with_u, without = scores(u), scores(np.zeros(n, np.int16))
    half = len(with_u) // 2
    pick = np.random.default_rng(seed).permutation(len(with_u))
    choose, judge = pick[:half], pick[half:]

    def rates(index: np.ndarray, edge: float) -> tuple[int, int]:
        return int((with_u[index] > edge).sum()), int((without[index] > edge).sum())

    def lower(index: np.ndarray, edge: float) -> float:
        hits, alarms = rates(index, edge)
        tpr, fpr = interval(hits, len(index), 0.99)[0], interval(alarms, len(index), 0.99)[1]
        return float(norm.ppf(tpr) - norm.ppf(fpr))

    best = max(np.quantile(without, np.linspace(0.05, 0.999, 60)), key=lambda edge: lower(choose, edge))
    hits, alarms = rates(judge, best)
    point = float(norm.ppf(hits / len(judge)) - norm.ppf(alarms / len(judge)))
    upper = float(norm.ppf(interval(hits, len(judge), 0.99)[1]) - norm.ppf(interval(alarms, len(judge), 0.99)[0]))
    claimed = bounds.mu(releases, clip, releaser.plan.sigma)
    result = Result("mechanism as built", f"mu of {releases} releases", point, (lower(judge, best), upper), 0.0, bound=claimed,
                    profile=releaser.plan.profile, trials=len(judge),
                    note="features at the clip against none", share=False)  # fmt: skip
    return result, claimed
