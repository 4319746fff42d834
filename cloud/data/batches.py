"""Batches of prepared windows, each a pure function of seed, phase, epoch and step."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from ruyicam.cloud.family.config import FamilyConfig
from ruyicam.cloud.family.labels import BEHAVIOURS, SLOTS
from ruyicam.cloud.family.vocabulary import tokenizer

from .questions import GROUPS, Labels, Question, ask, report
from .store import LUMA, Windows

# How many a scene is asked, and of how many it teaches in one step.
QUESTIONS, _TAUGHT = 8, 16
# "No one is hidden" is by far the most frequent answer of its kind.
_KEEP_UNHIDDEN = 0.25

Batch = dict[str, torch.Tensor]


def draw_questions(labels: Labels, rng: np.random.Generator, count: int = QUESTIONS) -> list[Question]:
    """Up to `count` questions, groups of kinds drawn evenly among those that the scene has a clear case of."""
    out: list[Question] = []
    groups = list(GROUPS.values())
    for _ in range(3 * count):
        kinds = groups[int(rng.integers(len(groups)))]
        question = ask(labels, rng, str(rng.choice(kinds)))
        if question is None or question in out:
            continue
        if question.kind == "hidden" and question.answer == "no" and rng.random() > _KEEP_UNHIDDEN:
            continue
        out.append(question)
        if len(out) == count:
            break
    return out


def scene_labels(window: dict[str, torch.Tensor]) -> Labels:
    """The labels of one window of a scene."""
    return Labels(*(window[name].numpy() for name in ("doing", "inside", "visible", "contour")))


def pack(questions: list[Question]) -> tuple[list[int], list[int], list[int]]:
    """(ids, segment of each, next token to learn or -100) of prompts and answers end to end."""
    ids, segments, targets = [], [], []
    words = tokenizer()
    for number, q in enumerate(questions):
        prompt, answer = words(q.text)["input_ids"], words(q.answer)["input_ids"]
        ids += prompt + answer
        segments += [number] * (len(prompt) + len(answer))
        targets += [-100] * (len(prompt) - 1) + answer + [words.eos_token_id]
    return ids, segments, targets


def _text(windows: list[dict[str, torch.Tensor]], rng: np.random.Generator) -> Batch:
    """Packed questions and, for half of the windows, the report; windows without labels have none."""
    packed = []
    for w in windows:
        if "doing" not in w:
            packed.append(([], [], []))
            continue
        labels = scene_labels(w)
        questions = draw_questions(labels, rng, _TAUGHT)
        if rng.random() < 0.5:
            questions.append(report(labels))
        packed.append(pack(questions))
    length = max(1, *(len(p[0]) for p in packed))
    out = {"ids": torch.zeros(len(windows), length, dtype=torch.int64)}
    out["segment"] = torch.full((len(windows), length), -1)
    out["target"] = torch.full((len(windows), length), -100)
    for row, values in enumerate(packed):
        for name, value in zip(("ids", "segment", "target"), values, strict=True):
            out[name][row, : len(value)] = torch.tensor(value, dtype=torch.int64)
    return out


def collate(windows: list[dict[str, torch.Tensor]], config: FamilyConfig, rng: np.random.Generator | None = None) -> Batch:
    """Windows, newest tick last, as the trunk takes them; N windows, W ticks.

    maps float16 [N, W, channels, rows, columns]; exists bool [N, W]; verdict [N, K]; luma [N, W, 12, 16] of -1 to 1;
    contour [N, W, S, 17, 3]; doing [N, W, S, B]; inside [N, W, S]; identity [N, S]; is_scene bool [N]; and with `rng`
    packed texts: ids, segment, target [N, L].
    """
    n, w = len(windows), config.window
    maps = windows[0]["maps"]
    out = {
        "maps": torch.zeros(n, w, *maps.shape[1:], dtype=maps.dtype),
        "exists": torch.zeros(n, w, dtype=torch.bool),
        "luma": torch.zeros(n, w, LUMA[1], LUMA[0]),
        "contour": torch.zeros(n, w, SLOTS, 17, 3),
        "doing": torch.zeros(n, w, SLOTS, len(BEHAVIOURS)),
        "inside": torch.zeros(n, w, SLOTS),
        "identity": torch.full((n, SLOTS), -1),
        "is_scene": torch.tensor(["doing" in x for x in windows]),
        "verdict": torch.stack([x["verdict"] for x in windows]),
    }
    for row, x in enumerate(windows):
        ticks = min(len(x["maps"]), w)
        keep = slice(w - ticks, w)
        out["exists"][row, keep] = True
        for name in ("maps", "contour", "doing", "inside"):
            if name in x:
                out[name][row, keep] = x[name][-ticks:].to(out[name].dtype)
        out["luma"][row, keep] = x["luma"][-ticks:] / 128 - 1
        if "identity" in x:
            out["identity"][row] = x["identity"]
    return out | _text(windows, rng) if rng is not None else out


class Mixed:
    """Endless material of one phase: scenes in order of a permutation, clips balanced by label, a random view each."""

    def __init__(
        self,
        scenes: Windows | None,
        clips: list[Windows],
        kinds: list[tuple[str, str]],
        weights: dict[str, float],
        seed: list[int],
    ):
        """`kinds`: label and source of each clip; `weights`: how often a label is drawn, relative to the others."""
        self.scenes, self.clips, self.seed = scenes, clips, seed
        self.decks: dict[tuple[str, str], list[int]] = {}
        for i, kind in enumerate(kinds):
            self.decks.setdefault(kind, []).append(i)
        # Within a label a small source is drawn more often than its share, or what it alone shows would hardly be seen.
        roots = {kind: len(deck) ** 0.5 for kind, deck in self.decks.items()}
        whole = {label: sum(r for (other, _), r in roots.items() if other == label) for label, _ in roots}
        raw = np.array([weights.get(kind[0], 1.0) * root / whole[kind[0]] for kind, root in roots.items()])
        self.weights = raw / raw.sum() if len(raw) else raw

    def _draw_clips(self, count: int, rng: np.random.Generator) -> list[tuple[int, int]]:
        """Labels by weight, clips evenly within a label and source (least shown first), and a view of each."""
        left: dict[tuple[str, str], list[int]] = {kind: [] for kind in self.decks}
        names, out = list(self.decks), []
        for choice in rng.choice(len(names), count, p=self.weights):
            deck = left[names[choice]]
            if not deck:
                deck.extend(rng.permutation(self.decks[names[choice]]).tolist())
            clip = deck.pop()
            out.append((clip, int(rng.integers(1, len(self.clips[clip])))))
        return out

    def epoch(
        self, number: int, steps: int, clips: int, scenes: int, config: FamilyConfig, rank: int = 0, world: int = 1
    ) -> Iterator[Batch]:
        """`steps` batches of `clips` windows of clips and `scenes` windows of scenes; each of `world` takes its part."""
        rng = np.random.default_rng([*self.seed, number])
        views = self._draw_clips(steps * clips, rng) if clips else []
        order: list[int] = []
        while scenes and len(order) < steps * scenes:
            order += rng.permutation(len(self.scenes)).tolist()
        for step in range(steps):
            chosen = [("clip", v) for v in views[step * clips : (step + 1) * clips]]
            chosen += [("scene", i) for i in order[step * scenes : (step + 1) * scenes]]
            own = chosen[rank::world]
            windows = [self.clips[v[0]][v[1]] if kind == "clip" else self.scenes[v] for kind, v in own]
            yield collate(windows, config, np.random.default_rng([*self.seed, number, step, rank]))
