"""Questions about generated scenes that no training run has seen, put to every exit's text head."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ruyicam.cloud.data.batches import Batch, collate, draw_questions, scene_labels
from ruyicam.cloud.data.questions import GROUPS, Question, report
from ruyicam.cloud.data.scoring import WORTH, parts
from ruyicam.cloud.data.store import Store, Windows, default_cache
from ruyicam.cloud.family import Answer, Family
from ruyicam.cloud.family.labels import BEHAVIOURS
from ruyicam.cloud.family.vocabulary import Report

from .metrics import middle, resampled, spread

# Training takes its scenes from 0 on.
FIRST_SCENE = 900_000
_GROUP_OF = {kind: group for group, kinds in GROUPS.items() for kind in kinds}
_SEED = 23


@dataclass(frozen=True)
class Outcome:
    """What one family answered about `scenes` scenes.

    asked: (scene, question), reports left out; right: tier -> bool [questions]; reports: tier -> {"what", "who", "order",
    "when", "reward": float [scenes]}; chosen: tier -> float [2, behaviours], see `one_of_two`.
    """

    scenes: int
    asked: list[tuple[int, Question]]
    right: dict[str, np.ndarray]
    reports: dict[str, dict[str, np.ndarray]]
    chosen: dict[str, np.ndarray]

    @property
    def deepest(self) -> str:
        """The exit that sees most."""
        return list(self.right)[-1]


@torch.no_grad()
def _exits(family: Family, scenes: Windows, count: int, seed: int) -> Iterator[tuple[Batch, dict[str, Answer]]]:
    """What every exit makes of the released (noised) features of the first `count` windows, some at a time."""
    family.eval()
    config, device = family.config, family.encoder.mean.device
    generator = torch.Generator(device).manual_seed(seed)
    for start in range(0, count, 32):
        batch = collate([scenes[i] for i in range(start, min(start + 32, count))], config)
        released = family.release(family.features_of_maps(batch["maps"].to(device)), generator)
        yield batch, family.reasoner(released, batch["exists"].to(device))


def hidden_of(family: Family, scenes: Windows, count: int, seed: int = 0) -> dict[str, torch.Tensor]:
    """tier -> `Answer.hidden` of the first `count` windows, of released (noised) features."""
    return _joined([_hidden(answers) for _, answers in _exits(family, scenes, count, seed)])


def _hidden(answers: dict[str, Answer]) -> dict[str, torch.Tensor]:
    return {tier: answer.hidden for tier, answer in answers.items()}


def _joined(read: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    return {tier: torch.cat([some[tier] for some in read]) for tier in read[0]}


def one_of_two(answer: Answer, doing: torch.Tensor, inside: torch.Tensor) -> np.ndarray:
    """Where exactly one of exactly two people does something, whether the exit finds it likelier of that one; doing [N, W, S,
    B] and inside [N, W, S] are the truth. Returns float [2, B]: in how many ticks it does, and of how many. Guessing is right
    in one of two.
    """
    inside = inside.bool()
    doing = doing.bool() & inside[..., None]
    asked = (doing.sum(2) == 1) & (inside.sum(2) == 2)[..., None]
    likely = answer.slots.cpu().masked_fill(~inside[..., None], -torch.inf)
    right = asked & (likely.argmax(2) == doing.int().argmax(2))
    return torch.stack([right.sum((0, 1)), asked.sum((0, 1))]).double().numpy()


@torch.no_grad()
def answers_of(
    family: Family, count: int, cache: Path | None = None, threads: int = 0, seed: int = 0, first: int = FIRST_SCENE
) -> Outcome:
    """Asks each exit about `count` scenes from number `first` on, from released (noised) features of all ticks.

    No training run has seen those from FIRST_SCENE on. Training takes its own from 0 on (of as many identities, where
    the recipe leaves that as it is): a model that answers them no better than new ones is not held back by how few they were.
    """
    family.eval()
    store = Store(cache or default_cache(), family.config, family.encoder)
    scenes = Windows(store.build(store.scenes(first, count), threads))
    read, chosen = [], dict.fromkeys(family.config.trunk.exits, 0.0)
    for batch, answers in _exits(family, scenes, count, seed):
        read.append(_hidden(answers))
        chosen = {tier: chosen[tier] + one_of_two(answer, batch["doing"], batch["inside"]) for tier, answer in answers.items()}
    hidden = _joined(read)
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
        chosen,
    )


def ask_family(family: Family, count: int, cache: Path | None = None, threads: int = 0, seed: int = 0) -> dict:
    """`summary` of `answers_of`."""
    return summary(answers_of(family, count, cache, threads, seed))


def summary(outcome: Outcome) -> dict:
    """Returns {"scenes", "questions", "exact_match" (of the deepest exit, mean of the groups), "tiers": {tier: {"exact_match",
    "interval", "groups": {group: share}, "kinds": {kind: share}, "report": {...}, "one_of_two": {behaviour: share}}},
    "most_frequent_answer": {group: share}}.

    "interval" is where 95 % of the exact matches lie when scenes are drawn anew from these (bootstrap, Efron 1979);
    "most_frequent_answer" what always giving the most frequent answer to a kind of question would score.
    """
    kinds = np.array([q.kind for _, q in outcome.asked])
    answers = np.array([q.answer for _, q in outcome.asked])
    most = np.zeros(len(answers), bool)
    for kind in set(kinds):
        most[kinds == kind] = answers[kinds == kind] == Counter(answers[kinds == kind]).most_common(1)[0][0]
    names, known, asked = _tally(outcome, *outcome.right.values(), most)
    shares, drawn = known.sum(1) / asked.sum(0), _mean(resampled(known, asked, _SEED))
    tiers = {
        tier: {
            "exact_match": float(own.mean()),
            "interval": list(middle(draws)),
            "groups": dict(zip(names, own.tolist(), strict=True)),
            "kinds": {str(kind): float(right[kinds == kind].mean()) for kind in sorted(set(kinds))},
            "report": {name: float(values.mean()) for name, values in outcome.reports[tier].items()},
            "one_of_two": {b: float(r / n) for b, r, n in zip(BEHAVIOURS, *outcome.chosen[tier], strict=True) if n},
        }
        for (tier, right), own, draws in zip(outcome.right.items(), shares[:-1], drawn[:-1], strict=True)
    }
    return {
        "scenes": outcome.scenes,
        "questions": len(outcome.asked),
        "exact_match": tiers[outcome.deepest]["exact_match"],
        "tiers": tiers,
        "most_frequent_answer": dict(zip(names, shares[-1].tolist(), strict=True)),
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
            for part in ("groups", "kinds", "report", "one_of_two")
        }
        for tier, own in first["tiers"].items()
    }
    deepest = list(tiers)[-1]
    runs = {
        name: {part: s["tiers"][deepest][part] for part in ("exact_match", "interval", "groups", "report", "one_of_two")}
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
    both = (*runs, other)
    _, known, asked = _tally(other, *(run.right[run.deepest] for run in both))
    rewards = np.stack([run.reports[run.deepest]["reward"] for run in both])[..., None]
    return {
        name: {"mean": float(_gain(_mean(sums.sum(1) / counts.sum(0)))), "interval": list(middle(_gain(drawn)))}
        for name, sums, counts in (("exact_match", known, asked), ("report", rewards, np.ones_like(rewards[0])))
        for drawn in [_mean(resampled(sums, counts, _SEED))]
    }


def _gain(scores: np.ndarray) -> np.ndarray:
    """[runs + 1, ...] -> [...]: mean of the runs less the last."""
    return scores[:-1].mean(0) - scores[-1]


def _tally(outcome: Outcome, *right: np.ndarray) -> tuple[list[str], np.ndarray, np.ndarray]:
    """(the groups that were asked about, right answers [answers, scenes, groups], questions [scenes, groups]); `right`: bool
    [questions] each.
    """
    names = [group for group in GROUPS if any(_GROUP_OF[q.kind] == group for _, q in outcome.asked)]
    scene = [i for i, _ in outcome.asked]
    group = [names.index(_GROUP_OF[q.kind]) for _, q in outcome.asked]
    asked = np.zeros((outcome.scenes, len(names)))
    known = np.zeros((len(right), *asked.shape))
    np.add.at(asked, (scene, group), 1)
    np.add.at(known, (slice(None), scene, group), np.stack(right))
    return names, known, asked


def _mean(shares: np.ndarray) -> np.ndarray:
    """Mean of the groups, [..., groups] -> [...]; a group that a draw has no question of says nothing there."""
    with np.errstate(invalid="ignore"):
        return np.nansum(shares, -1) / np.isfinite(shares).sum(-1)


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
