"""Questions about generated scenes that no training run has seen, put to every exit's text head."""

from __future__ import annotations

from collections import Counter, defaultdict
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
def ask_family(family: Family, count: int, cache: Path | None = None, threads: int = 0, seed: int = 0) -> dict:
    """Asks each exit about `count` new scenes, from released (noised) features of all ticks.

    Returns {"scenes", "questions", "exact_match" (of the deepest exit, mean of the groups), "tiers": {tier: {"exact_match",
    "groups": {group: share}, "kinds": {kind: share}, "report": {...}}}, "most_frequent_answer": {group: share}}, where the
    last is what always giving the most frequent answer to a kind of question would score.
    """
    family.eval()
    store = Store(cache or default_cache(), family.config, family.encoder)
    scenes = Windows(store.build(store.scenes(FIRST_SCENE, count), threads))
    hidden = hidden_of(family, scenes, count, seed)
    asked: list[tuple[int, Question]] = []
    for i in range(count):
        rng = np.random.default_rng([17, seed, i])
        labels = scene_labels(scenes[i])
        asked += [(i, q) for q in [*draw_questions(labels, rng), report(labels)]]
    tiers = {tier: _score(family, states, asked) for tier, states in hidden.items()}
    deepest = list(family.config.trunk.exits)[-1]
    return {
        "scenes": count,
        "questions": sum(q.kind != "report" for _, q in asked),
        "exact_match": tiers[deepest]["exact_match"],
        "tiers": tiers,
        "most_frequent_answer": _by_group(
            {kind: [a == Counter(answers).most_common(1)[0][0] for a in answers] for kind, answers in _answers(asked).items()}
        ),
    }


def over_runs(said: dict[str, dict]) -> dict:
    """What `ask_family` gave of several runs of one recipe, by name: mean and spread of each tier's exact match, in
    whole and by group, and under "runs" what the deepest exit of each scored.
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
    runs = {name: {"exact_match": s["exact_match"], "groups": s["tiers"][deepest]["groups"]} for name, s in said.items()}
    return first | {"exact_match": tiers[deepest]["exact_match"], "tiers": tiers, "runs": runs}


def _answers(asked: list[tuple[int, Question]]) -> dict[str, list[str]]:
    out: dict[str, list[str]] = defaultdict(list)
    for _, q in asked:
        out[q.kind].append(q.answer)
    return out


def _by_group(right: dict[str, list[bool]]) -> dict[str, float]:
    pooled = {group: [r for k in kinds for r in right.get(k, [])] for group, kinds in GROUPS.items()}
    return {group: float(np.mean(values)) for group, values in pooled.items() if values}


def _score(family: Family, hidden: torch.Tensor, asked: list[tuple[int, Question]]) -> dict:
    right: dict[str, list[bool]] = defaultdict(list)
    by_text: dict[str, list[tuple[int, Question]]] = defaultdict(list)
    for row, q in asked:
        by_text[q.text].append((row, q))
    head = family.reasoner.text
    reports: dict[str, list[float]] = defaultdict(list)
    for text, group in by_text.items():
        rows = hidden[[row for row, _ in group]]
        if group[0][1].kind == "report":
            for said, (_, q) in zip(head.report(rows), group, strict=True):
                wanted = Report.model_validate_json(q.answer)
                reports["what"].append(sorted(said.what) == sorted(wanted.what))
                reports["who"].append(sorted(said.who) == sorted(wanted.who))
                scores = parts(said, wanted)
                reports["order"].append(scores["order"])
                reports["when"].append(scores["when"])
                reports["reward"].append(sum(WORTH[name] * value for name, value in scores.items()))
            continue
        for said, (_, q) in zip(head.answer(rows, text), group, strict=True):
            right[q.kind].append(said == q.answer)
    groups = _by_group(right)
    return {
        "exact_match": float(np.mean(list(groups.values()))),
        "groups": groups,
        "kinds": {k: float(np.mean(v)) for k, v in sorted(right.items())},
        "report": {k: float(np.mean(v)) for k, v in reports.items()},
    }
