"""`ruyicam eval --folds`: cross-validation beside the peers that its figures are compared with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ruyicam.cloud.data.clips import Clip
from ruyicam.cloud.data.groups import part_of, source_of
from ruyicam.cloud.training.config import RunConfig
from ruyicam.cloud.training.crossval import (
    Job,
    Pooled,
    Progress,
    as_many_steps,
    curve,
    fold_jobs,
    gate,
    pool,
    run_jobs,
    summary,
)
from ruyicam.cloud.training.report import draw_curve, draw_learning

from .options import PEER


@dataclass(frozen=True)
class CrossEval:
    """What to cross-validate: clips in folds, extra clips that no fold trains on, and what to compare with."""

    config: RunConfig
    clips: list[Clip]
    extra: list[Clip]
    folds: int
    seeds: int
    out: Path
    cache: Path
    init: Path | None = None
    detector: Path | None = None
    peer: bool = False
    alone: bool = False
    shares: tuple[float, ...] = ()
    changes: tuple[tuple[str, float], ...] = ()

    def _jobs(self, name: str, config: RunConfig, init: Path | None, seeds: int) -> list[Job]:
        return fold_jobs(config, self.clips, self.extra, self.folds, seeds, self.out / name, init, self.detector, self.cache)

    def run(self, workers: int, progress: Progress = lambda name, done, of: None) -> dict:
        """Runs what is missing and returns the result as `ruyicam eval --json` prints it; a curve is drawn into `out`."""
        labels = self.config.model.labels
        own = self._jobs("family", self.config, self.init, self.seeds)
        run_jobs(own, workers, "family", progress)
        sources = self._sources(own)
        of_clips = [source_of(c.path) for c in self.clips]
        first = max(sorted(set(of_clips)), key=of_clips.count)
        parts = sources[first]
        points, least = curve(parts, self.config.model)
        self.out.mkdir(parents=True, exist_ok=True)
        draw_curve(points, least).savefig(self.out / "accuracy-against-bits.svg", bbox_inches="tight")
        result = {
            "folds": self.folds,
            "seeds": self.seeds,
            "main_source": first,
            "sources": {name: summary(rows, labels) for name, rows in sources.items()},
            "gate": {name: gate(rows, self.config.model.gate.look_threshold) for name, rows in sources.items()},
            "curve": points,
            "keeps_95_percent_bits_per_second": least,
            "training_cpu_seconds": float(np.mean([p.cpu_seconds for p in parts])),
        }
        result["tiers"] = {t: s["accuracy"]["mean"] for t, s in result["sources"][first]["tiers"].items()}
        result["consistency"] = {k: v["mean"] for k, v in result["sources"][first]["consistency"].items()}
        if self.peer:
            mapping = self.config.model.mapping.model_copy(update={"bypass": True})
            plain = self.config.model_copy(update={"model": self.config.model.model_copy(update={"mapping": mapping})})
            jobs = self._jobs(PEER, plain, self.init / PEER if self.init else None, self.seeds)
            run_jobs(jobs, workers, "no mapping", progress)
            scores = summary([p.of(first) for p in pool(jobs, self.seeds)], labels)
            result["no_mapping"] = {t: s["accuracy"]["mean"] for t, s in scores["tiers"].items()}
            result["no_mapping_spread"] = {t: s["accuracy"]["spread"] for t, s in scores["tiers"].items()}
        if self.shares:
            result["learning_curve"] = self._learning_curve(workers, progress, own)
        if self.changes:
            result["ablation"] = self._ablation(workers, progress, first)
        if self.alone:
            result["tier_by_tier"] = self._tier_by_tier(workers, progress, first)
        return result

    def _sources(self, jobs: list[Job]) -> dict[str, list[Pooled]]:
        """What the jobs said of each data set, seed by seed: those in folds, then those that none trains on."""
        out = {}
        for part, clips in (("test", self.clips), ("extra", self.extra)):
            if clips:
                pooled = pool(jobs, self.seeds, part)
                out |= {name: [p.of(name) for p in pooled] for name in sorted({source_of(c.path) for c in clips})}
        return out

    def _ablation(self, workers: int, progress: Progress, source: str) -> list[dict]:
        """The family with one weight of its loss changed at a time, in all phases."""
        rows = []
        for name, value in self.changes:
            loss = self.config.loss.model_copy(update={name: value})
            phases = tuple(
                p.model_copy(update={"loss": {k: v for k, v in p.loss.items() if k != name}}) for p in self.config.phases
            )
            changed = self.config.model_copy(update={"loss": loss, "phases": phases})
            title = f"{name} = {value:g}"
            jobs = self._jobs(f"{name}-{value:g}", changed, self.init, self.seeds)
            run_jobs(jobs, workers, title, progress)
            scores = summary([p.of(source) for p in pool(jobs, self.seeds)], self.config.model.labels)
            row = {t: s["accuracy"] for t, s in scores["tiers"].items()}
            rows.append({"loss": title, "tiers": row, "consistency": scores["consistency"]})
        return rows

    def _learning_curve(self, workers: int, progress: Progress, own: list[Job]) -> dict[str, list[dict]]:
        """Balanced accuracy of each tier on each data set after training on parts of the clips, for as many steps."""
        curves: dict[str, list[dict]] = {}
        for share in (*self.shares, 1.0):
            jobs = own if share == 1 else self._part_jobs(share)
            run_jobs(jobs, workers, f"{share:.0%} of the clips", progress)
            clips = float(np.mean([len(j.train) for j in jobs]))
            for source, rows in self._sources(jobs).items():
                scores = summary(rows, self.config.model.labels)["tiers"]
                point = {"clips": clips, **{t: s["balanced_accuracy"] for t, s in scores.items()}}
                curves.setdefault(source, []).append(point)
        draw_learning(curves).savefig(self.out / "learning-curve.svg", bbox_inches="tight")
        return curves

    def _part_jobs(self, share: float) -> list[Job]:
        jobs = self._jobs(f"part-{share:.2f}", self.config, self.init, self.seeds)
        return [as_many_steps(j, part_of(j.train, share, i)) for i, j in enumerate(jobs)]

    def _tier_by_tier(self, workers: int, progress: Progress, source: str) -> dict:
        """Every tier trained for itself, with as many steps as the family: scores, agreement, and what it costs."""
        parts: dict[str, list[Pooled]] = {}
        for tier in self.config.model.trunk.exits:
            train = self.config.train.model_copy(update={"tiers": (tier,)})
            jobs = self._jobs(f"alone-{tier}", self.config.model_copy(update={"train": train}), self.init, self.seeds)
            run_jobs(jobs, workers, f"{tier} alone", progress)
            parts[tier] = pool(jobs, self.seeds)
        cpu_seconds = float(np.sum([np.mean([p.cpu_seconds for p in row]) for row in parts.values()]))
        joined = []
        for seed in range(self.seeds):
            said = [p[seed].of(source) for p in parts.values()]
            tiers = {t: p.said[-1].tiers[t] for t, p in zip(parts, said, strict=True)}
            one = said[0]
            joined.append(Pooled([type(one.said[-1])(one.said[-1].truth, tiers)], one.paths, one.fold, cpu_seconds))
        scores = summary(joined, self.config.model.labels)
        return {
            "tiers": {t: s["accuracy"] for t, s in scores["tiers"].items()},
            "consistency": scores["consistency"],
            "training_cpu_seconds": cpu_seconds,
        }
