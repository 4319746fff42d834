"""Questions about generated scenes that no training run has seen, put to every exit's text head."""

from __future__ import annotations

import warnings
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ruyicam.cloud.data.batches import collate, draw_questions, scene_labels
from ruyicam.cloud.data.questions import GROUPS, Question, report
from ruyicam.cloud.data.scoring import WORTH, parts
from ruyicam.cloud.data.store import Store, Windows, default_cache
from ruyicam.cloud.family import Family
from ruyicam.cloud.family.vocabulary import Report

from .metrics import spread

# Training takes its scenes from 0 on.
FIRST_SCENE = 900_000
_GROUP_OF = {kind: group for group, kinds in GROUPS.items() for kind in kinds}
_RESAMPLES, _MIDDLE = 2000, (2.5, 97.5)


@dataclass(frozen=True)
class Outcome:
    """What one family answered about `scenes` scenes.

    asked: (scene, question), reports left out; right: tier -> bool [questions]; reports: tier -> {"what", "who", "order",
    "when", "reward": float [scenes]}.
    """

    scenes: int
    asked: list[tuple[int, Question]]
    right: dict[str, np.ndarray]
    reports: dict[str, dict[str, np.ndarray]]

    @property
    def deepest(self) -> str:
        """The exit that sees most."""
        return list(self.right)[-1]


@torch.no_grad()
def hidden_of(family: Family, scenes: Windows, count: int, seed: int = 0) -> dict[str, torch.Tensor]:
    """What every exit makes of the released (noised) features of the first `count` windows: tier -> `Answer.hidden`."""
    family.eval()
    config, device = family.config, family.encoder.mean.device
    generator = torch.Generator(device).manual_seed(seed)
    hidden: dict[str, list[torch.Tensor]] = {t: [] for t in config.trunk.exits}
    for start in range(0, count, 32):
        batch = collate([scenes[i] for i in range(start, min(start + 32, count))], config)
        released = family.release(family.features_of_maps(batch["maps"].to(device)), generator)
        for tier, answer in family.reasoner(released, batch["exists"].to(device)).items():
            hidden[tier].append(answer.hidden)
    return {tier: torch.cat(parts) for tier, parts in hidden.items()}


@torch.no_grad()
def answers_of(family: Family, count: int, cache: Path | None = None, threads: int = 0, seed: int = 0) -> Outcome:
    """Asks each exit about `count` new scenes, from released (noised) features of all ticks."""
    family.eval()
    store = Store(cache or default_cache(), family.config, family.encoder)
    scenes = Windows(store.build(store.scenes(FIRST_SCENE, count), threads))
    hidden = hidden_of(family, scenes, count, seed)
    asked: list[tuple[int, Question]] = []
    reports: list[Report] = []
    for i in range(count):
        labels = scene_labels(scenes[i])
        asked += [(i, q) for q in draw_questions(labels, np.random.default_rng([17, seed, i]))]
        reports.append(Report.model_validate_json(report(labels).answer))
    return Outcome(
        count,
        asked,
        {tier: _right(family, states, asked) for tier, states in hidden.items()},
        {tier: _reports(family, states, reports) for tier, states in hidden.items()},
    )


def ask_family(family: Family, count: int, cache: Path | None = None, threads: int = 0, seed: int = 0) -> dict:
    """`summary` of `answers_of`."""
    return summary(answers_of(family, count, cache, threads, seed))


def summary(outcome: Outcome) -> dict:
    """Returns {"scenes", "questions", "exact_match" (of the deepest exit, mean of the groups), "tiers": {tier: {"exact_match",
    "interval", "groups": {group: share}, "kinds": {kind: share}, "report": {...}}}, "most_frequent_answer": {group: share}}.

    "interval" is where 95 % of the exact matches lie when scenes are drawn anew from these (bootstrap, Efron 1979);
    "most_frequent_answer" what always giving the most frequent answer to a kind of question would score.
    """
    kinds = np.array([q.kind for _, q in outcome.asked])
    most: dict[str, list[bool]] = {}
    for kind in _GROUP_OF:
        answers = [q.answer for _, q in outcome.asked if q.kind == kind]
        if answers:
            most[kind] = [a == Counter(answers).most_common(1)[0][0] for a in answers]
    tiers = {}
    for tier, right in outcome.right.items():
        by_kind = {kind: right[kinds == kind] for kind in _GROUP_OF if (kinds == kind).any()}
        groups = _by_group(by_kind)
        tiers[tier] = {
            "exact_match": float(np.mean(list(groups.values()))),
            "interval": _interval(_resampled(outcome, right)),
            "groups": groups,
            "kinds": {kind: float(values.mean()) for kind, values in sorted(by_kind.items())},
            "report": {name: float(values.mean()) for name, values in outcome.reports[tier].items()},
        }
    return {
        "scenes": outcome.scenes,
        "questions": len(outcome.asked),
        "exact_match": tiers[outcome.deepest]["exact_match"],
        "tiers": tiers,
        "most_frequent_answer": _by_group(most),
    }


def over_runs(said: dict[str, dict]) -> dict:
    """`summary` of several runs of one recipe, by name: mean and spread of each tier's exact match, in whole and by group,
    and under "runs" what the deepest exit of each scored.
    """
    first = next(iter(said.values()))
    tiers = {
        tier: {"exact_match": spread([s["tiers"][tier]["exact_match"] for s in said.values()])}
        | {
            part: {name: spread([s["tiers"][tier][part][name] for s in said.values()]) for name in own[part]}
            for part in ("groups", "kinds", "report")
        }
        for tier, own in first["tiers"].items()
    }
    deepest = list(tiers)[-1]
    runs = {
        name: {part: s["tiers"][deepest][part] for part in ("exact_match", "interval", "groups", "report")}
        for name, s in said.items()
    }
    return first | {"exact_match": tiers[deepest]["exact_match"], "tiers": tiers, "runs": runs}


def difference(runs: list[Outcome], other: Outcome) -> dict:
    """How much better the deepest exits of `runs` are than that of `other` at the same questions.

    Returns {"exact_match", "report"}: each {"mean": mean difference over runs, "interval": where 95 % of it lie when scenes
    are drawn anew, the same for all}. ValueError where they were asked other things.
    """
    if any(run.asked != other.asked for run in runs):
        raise ValueError("its windows are of other scenes or lengths, expected those of the runs")
    match = _resampled(other, *(run.right[run.deepest] for run in (*runs, other)))
    reward = _resampled_mean(*(run.reports[run.deepest]["reward"] for run in (*runs, other)))
    plain = summary(other)
    own = [summary(run) for run in runs]
    return {
        "exact_match": {
            "mean": float(np.mean([s["exact_match"] for s in own]) - plain["exact_match"]),
            "interval": _interval(match[:-1].mean(0) - match[-1]),
        },
        "report": {
            "mean": float(np.mean([s["tiers"][r.deepest]["report"]["reward"] for s, r in zip(own, runs, strict=True)]))
            - plain["tiers"][other.deepest]["report"]["reward"],
            "interval": _interval(reward[:-1].mean(0) - reward[-1]),
        },
    }


def _draws(scenes: int) -> np.ndarray:
    """How often each resample draws each scene, [resamples, scenes]; always the same."""
    return np.random.default_rng(23).multinomial(scenes, np.full(scenes, 1 / scenes), _RESAMPLES).astype(np.float32)


def _resampled(outcome: Outcome, *right: np.ndarray) -> np.ndarray:
    """Exact match, mean of the groups, of every resample: answers [questions] each -> [answers, resamples]."""
    groups = list(GROUPS)
    asked = np.zeros((outcome.scenes, len(groups)), np.float32)
    known = np.zeros((len(right), outcome.scenes, len(groups)), np.float32)
    for i, (scene, q) in enumerate(outcome.asked):
        group = groups.index(_GROUP_OF[q.kind])
        asked[scene, group] += 1
        known[:, scene, group] += [r[i] for r in right]
    draws = _draws(outcome.scenes)
    # A group that a resample has no question of says nothing there.
    with np.errstate(invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.nanmean((draws @ known) / (draws @ asked), -1)


def _resampled_mean(*values: np.ndarray) -> np.ndarray:
    """Mean of every resample: values [scenes] each -> [values, resamples]."""
    return np.stack(values) @ _draws(len(values[0])).T / len(values[0])


def _interval(values: np.ndarray) -> list[float]:
    return [float(v) for v in np.nanpercentile(values, _MIDDLE)]


def _by_group(right: dict[str, np.ndarray | list[bool]]) -> dict[str, float]:
    pooled = {group: [r for k in kinds for r in right.get(k, [])] for group, kinds in GROUPS.items()}
    return {group: float(np.mean(values)) for group, values in pooled.items() if values}


def _right(family: Family, hidden: torch.Tensor, asked: list[tuple[int, Question]]) -> np.ndarray:
    """Whether each answer is the very one; bool [questions]."""
    by_text: dict[str, list[int]] = defaultdict(list)
    for i, (_, q) in enumerate(asked):
        by_text[q.text].append(i)
    right = np.zeros(len(asked), bool)
    for text, numbers in by_text.items():
        said = family.reasoner.text.answer(hidden[[asked[i][0] for i in numbers]], text)
        right[numbers] = [a == asked[i][1].answer for a, i in zip(said, numbers, strict=True)]
    return right


def _reports(family: Family, hidden: torch.Tensor, wanted: list[Report]) -> dict[str, np.ndarray]:
    rows = []
    for said, true in zip(family.reasoner.text.report(hidden), wanted, strict=True):
        scores = parts(said, true)
        rows.append(
            {
                "what": sorted(said.what) == sorted(true.what),
                "who": sorted(said.who) == sorted(true.who),
                "order": scores["order"],
                "when": scores["when"],
                "reward": sum(WORTH[name] * value for name, value in scores.items()),
            }
        )
    return {name: np.array([row[name] for row in rows], float) for name in rows[0]}
