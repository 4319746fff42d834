"""Cross-validation over scenes: many short runs, resumable one by one.

What a run learns from generated scenes alone is the same in every fold, so that it is trained once for each seed.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from ruyicam.cloud.data.clips import Clip
from ruyicam.cloud.data.groups import folds, source_of
from ruyicam.cloud.data.store import Store
from ruyicam.cloud.data.workers import end_with_parent
from ruyicam.cloud.errors import Exit, RuyicamError
from ruyicam.cloud.files import write_whole

from .config import PhaseConfig, RunConfig
from .metrics import agreement, spread, tier_scores
from .report import KEPT, accuracy_against_bits
from .trainer import HISTORY, STATE, steps_of, train, untrained
from .validate import Said, open_plain, say

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Beginning:
    """The phases of scenes alone, which all folds of a seed begin from; known by its folder."""

    out: Path
    config: RunConfig = field(compare=False)
    detector: Path | None = field(compare=False)
    cache: Path = field(compare=False)

    @property
    def cpu_seconds(self) -> float | None:
        """What it took of the processor; None until it is trained."""
        done = self.out / "cpu_seconds.json"
        return json.loads(done.read_text()) if done.exists() else None


@dataclass(frozen=True)
class Job:
    """One run: trained on some clips, asked about others."""

    out: Path
    config: RunConfig
    init: Path | None
    detector: Path | None
    train: list[Clip]
    test: list[Clip]
    extra: list[Clip]
    cache: Path
    beginning: Beginning | None = None


def _cpu_seconds(run: Path) -> float:
    return sum(_counted(run, e) for e in json.loads((run / HISTORY).read_text()))


def _counted(run: Path, entry: dict) -> float:
    if "cpu_seconds" not in entry:
        raise RuyicamError(
            Exit.USAGE, f"{run} is of an earlier ruyicam, which counted no processor seconds; expected another --out"
        )
    return entry["cpu_seconds"]


def _begin(first: Beginning) -> None:
    """Trains and writes first.out/cpu_seconds.json last."""
    train(first.config, [], first.out, detector=first.detector, cache=first.cache, quiet=True, report=False)
    write_whole(first.out / "cpu_seconds.json", json.dumps(_cpu_seconds(first.out)))
    shutil.rmtree(first.out / STATE, ignore_errors=True)


def _run(job: Job) -> None:
    """Trains and writes job.out/said.json, whole or not at all."""
    init = job.beginning.out if job.beginning else job.init
    family = train(job.config, job.train, job.out, detector=job.detector, init=init, cache=job.cache, quiet=True, report=False)
    content: dict = {"cpu_seconds": _cpu_seconds(job.out)}
    for name, clips, views, shares in (
        ("test", job.test, job.config.train.views, KEPT),
        ("extra", job.extra, 0, KEPT[-1:]),
    ):
        if not clips:
            continue
        windows = open_plain(family, clips, job.cache, 1, views)
        said = [say(family, clips, windows, seed=job.config.train.seed, keep=k) for k in shares]
        content[name] = {
            "clips": [str(c.path.resolve()) for c in clips],
            "truth": said[0].truth.tolist(),
            "tiers": [{tier: p.round(5).tolist() for tier, p in s.tiers.items()} for s in said],
        }
    write_whole(job.out / "said.json", json.dumps(content))
    # The figures are what is wanted of these runs; their weights would fill the disk.
    shutil.rmtree(job.out / STATE, ignore_errors=True)


def _prepare(jobs: list[Job], workers: int, progress: Progress) -> None:
    """Makes once what the jobs learn from and are asked about; each of them would make it for itself."""
    # Without a detector every seed has a backbone, and so material, of its own.
    for seed in sorted({j.config.train.seed for j in jobs}):
        own = [j for j in jobs if j.config.train.seed == seed]
        first, t = own[0], own[0].config.train
        store = Store(first.cache, first.config.model, untrained(first.config, first.detector, first.init).encoder)
        seen = {c.path: c for j in own for c in (*j.train, *j.test)}
        shards = [
            *store.scenes(0, t.scenes, t.identities),
            *store.clips([*seen.values()], t.views),
            *store.clips(first.extra, 0),
        ]
        store.build(shards, workers, lambda done, of: progress("preparing", done, of))


def run_jobs(jobs: list[Job], workers: int, name: str, progress: Progress = lambda name, done, of: None) -> None:
    """Runs what has no said.json yet, `workers` at a time with one thread each, and what it begins from before it.

    `progress(name, done, of)` is called as they end, and before that with "preparing" as material is made for them.
    """
    left = [j for j in jobs if not (j.out / "said.json").exists()]
    _prepare(left, workers, progress)
    first = {j.beginning for j in left if j.beginning and j.beginning.cpu_seconds is None}
    of, done = len(jobs) + len(first), len(jobs) - len(left)
    with ProcessPoolExecutor(workers, get_context("spawn"), end_with_parent) as pool:
        running: dict[Future, Beginning | None] = {pool.submit(_begin, b): b for b in sorted(first, key=lambda b: b.out)}
        running |= {pool.submit(_run, j): None for j in left if j.beginning not in first}
        while running:
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                future.result()
                begun = running.pop(future)
                running |= {pool.submit(_run, j): None for j in left if begun and j.beginning == begun}
                done += 1
                progress(name, done, of)


def _beginning(config: RunConfig, out: Path, detector: Path | None, cache: Path) -> Beginning | None:
    """What runs of `config` begin from: named after its configuration, so that whoever needs the same shares it."""
    phases = tuple(p for p in config.taught if not p.clips)
    if not phases:
        return None
    alone = config.model_copy(update={"phases": phases})
    digest = hashlib.sha256(alone.model_dump_json().encode()).hexdigest()[:12]
    return Beginning(out.parent / "scenes" / f"seed-{config.train.seed}-{digest}", alone, detector, cache)


def fold_jobs(
    config: RunConfig, clips: list[Clip], extra: list[Clip], count: int, seeds: int, out: Path, init: Path | None,
    detector: Path | None, cache: Path,
) -> list[Job]:  # fmt: skip
    """A job per seed and fold in `out`; `extra` clips are asked about in all and trained on in none.

    All begin from `init`, if there is one; else those of a seed from its phases of scenes alone, in out/../scenes.
    """
    jobs = []
    for seed in range(1, seeds + 1):
        own = config.model_copy(update={"train": config.train.model_copy(update={"seed": seed, "threads": 1})})
        first = None if init else _beginning(own, out, detector, cache)
        for k, (train_part, test_part) in enumerate(folds(clips, count, seed)):
            parts = [[clips[i] for i in part] for part in (train_part, test_part)]
            jobs.append(Job(out / f"seed-{seed}-fold-{k}", own, init, detector, *parts, extra, cache, first))
    return jobs


def as_many_steps(job: Job, part: list[Clip]) -> Job:
    """The job with fewer clips, and as many more epochs as make up for the steps that an epoch has less."""

    def longer(phase: PhaseConfig) -> PhaseConfig:
        if not phase.clips:
            return phase
        before, after = (steps_of(phase, len(clips), 0) for clips in (job.train, part))
        return phase.model_copy(update={"epochs": round(phase.epochs * before / after)})

    config = job.config.model_copy(update={"phases": tuple(longer(p) for p in job.config.phases)})
    return replace(job, config=config, train=part)


@dataclass(frozen=True)
class Pooled:
    """All folds of one seed: for every kept share of ticks what was said, with the clips' paths and folds."""

    said: list[Said]
    paths: list[str]
    fold: np.ndarray
    cpu_seconds: float

    def of(self, source: str) -> Pooled:
        """Only the clips of one data set."""
        keep = np.array([source_of(Path(p)) == source for p in self.paths])
        said = [Said(s.truth[keep], {t: p[keep] for t, p in s.tiers.items()}) for s in self.said]
        return Pooled(said, [p for p, k in zip(self.paths, keep, strict=True) if k], self.fold[keep], self.cpu_seconds)


def pool(jobs: list[Job], seeds: int, part: str = "test") -> list[Pooled]:
    """What the jobs said, seed by seed, of the clips in their folds ("test") or of those that none trains on ("extra")."""
    per_seed = len(jobs) // seeds
    out = []
    for s in range(seeds):
        own = jobs[s * per_seed : (s + 1) * per_seed]
        every = [json.loads((j.out / "said.json").read_text()) for j in own]
        read = [r[part] for r in every]
        truth = np.concatenate([r["truth"] for r in read])
        said = [
            Said(truth, {t: np.concatenate([np.array(r["tiers"][k][t]) for r in read]) for t in read[0]["tiers"][k]})
            for k in range(len(read[0]["tiers"]))
        ]
        paths = [p for r in read for p in r["clips"]]
        fold = np.concatenate([np.full(len(r["truth"]), i) for i, r in enumerate(read)])
        begun = {j.beginning for j in own if j.beginning}
        cpu_seconds = sum(_counted(j.out, r) for j, r in zip(own, every, strict=True)) + sum(b.cpu_seconds for b in begun)
        out.append(Pooled(said, paths, fold, cpu_seconds))
    return out


def gate(pooled: list[Pooled], threshold: float) -> dict:
    """The edge exit as a gate at `threshold` (of 1 - P(normal)): recall of what is not quiet, and rate of false alarms."""
    passed = [(p.said[-1].truth > 0, 1 - p.said[-1].tiers["edge"][:, 0] >= threshold) for p in pooled]
    return {
        "threshold": threshold,
        "recall": spread([float(hit[loud].mean()) for loud, hit in passed]),
        "false_alarms": spread([float(hit[~loud].mean()) for loud, hit in passed]),
    }


def summary(pooled: list[Pooled], labels: tuple[str, ...]) -> dict:
    """Mean and spread over seeds of every tier's scores, of the agreement between tiers, and what the deepest gets wrong."""
    tiers = list(pooled[0].said[-1].tiers)
    scores = [{t: tier_scores(p.said[-1].truth.tolist(), p.said[-1].answers(t), labels) for t in tiers} for p in pooled]
    out: dict = {"clips": len(pooled[0].said[-1].truth), "tiers": {}}
    for t in tiers:
        out["tiers"][t] = {name: spread([s[t][name] for s in scores]) for name in ("accuracy", "balanced_accuracy")} | {
            "recall": {k: float(np.mean([s[t]["recall"][k] for s in scores])) for k in scores[0][t]["recall"]}
        }
    out["wrong"] = _wrong(pooled, tiers[-1])
    pairs = [(a, b) for i, a in enumerate(tiers) for b in tiers[i + 1 :]]
    out["consistency"] = {
        f"{a}/{b}": spread([agreement(p.said[-1].answers(a), p.said[-1].answers(b)) for p in pooled]) for a, b in pairs
    }
    return out


def _wrong(pooled: list[Pooled], tier: str) -> dict[str, float]:
    """part/label/name of each clip that was ever answered wrongly: by what share of the runs that were asked; worst first."""
    answers: dict[str, list[bool]] = {}
    for p in pooled:
        for path, truth, said in zip(p.paths, p.said[-1].truth, p.said[-1].answers(tier), strict=True):
            answers.setdefault("/".join(Path(path).parts[-3:]), []).append(bool(truth != said))
    shares = {clip: round(float(np.mean(wrong)), 3) for clip, wrong in answers.items() if any(wrong)}
    return dict(sorted(shares.items(), key=lambda item: -item[1]))


def curve(pooled: list[Pooled], config, tier: str = "cloud-l") -> tuple[list[dict], float | None]:
    """(points of accuracy against released bits per second, the smallest rate that keeps 95 % of the accuracy)."""
    points = accuracy_against_bits([[p.said[k] for p in pooled] for k in range(len(KEPT))], config)
    enough = [p["bits_per_second"] for p in points if p[tier] >= 0.95 * points[-1][tier]]
    return points, min(enough) if enough else None
