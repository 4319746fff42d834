"""Behaviour reasoning by our own family: released features in, a report or an answer out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from pydantic import ValidationError

from ruyicam.cloud.data.batches import draw_questions, scene_labels
from ruyicam.cloud.data.questions import Question, report
from ruyicam.cloud.data.scoring import report_reward
from ruyicam.cloud.data.store import Store, Windows
from ruyicam.cloud.family import Family
from ruyicam.cloud.family.reporter import Reporter, ReporterTokenizer, prompt_of
from ruyicam.cloud.family.vocabulary import Report
from ruyicam.cloud.training.ask import FIRST_SCENE, hidden_of

from .task import Example, Task

# Training of the family takes its scenes from 0 on, and questions about new ones start at FIRST_SCENE.
_FIRST = {"train": 500_000, "test": FIRST_SCENE}
# Questions that are put to a window beside the report.
_QUESTIONS = 2


class Behaviour(Task):
    """Reports on, and questions about, generated scenes, from the released (noised) features as the exits read them.

    Neither the scenes of "train" nor those of "test" were used to train the family.
    """

    name = "behaviour"
    threshold = 0.9
    max_tokens = 112
    train_prompts = 1_000_000

    def __init__(
        self,
        family: Family,
        scenes: dict[str, int],
        cache: Path,
        reads: int = 1,
        seed: int = 0,
        questions: int | None = None,
    ):
        """`scenes`: how many of "train", which all exits read, and of "test", which the deepest reads.

        reads: how often a training scene is released, each time with fresh noise and, at each exit, with questions of its
        own, `questions` beside each report (None: two, as in the test); `seed`: of both. The test scenes' are always the same.
        """
        self.family, self.scenes, self.store = family, scenes, Store(cache, family.config, family.encoder)
        self.reads, self.seed = reads, seed
        self.questions = _QUESTIONS if questions is None else questions
        self._parts: dict[str, tuple[torch.Tensor, list[list[Question]]]] = {}

    def prepare(self, progress: Callable[[int, int], None] = lambda done, of: None) -> None:
        """Generates the scenes that are not in the cache yet."""
        shards = [s for split, count in self.scenes.items() for s in self.store.scenes(_FIRST[split], count)]
        self.store.build(shards, progress=progress)

    def _read(self, split: str) -> tuple[torch.Tensor, list[list[Question]]]:
        """(`Answer.hidden` [N, R, hidden_size] of the exits, what is asked of each window)."""
        if split in self._parts:
            return self._parts[split]
        count = self.scenes[split]
        scenes = Windows(self.store.build(self.store.scenes(_FIRST[split], count)))
        labels = [scene_labels(scenes[i]) for i in range(count)]
        reports = [report(said) for said in labels]
        tiers = list(self.family.config.trunk.exits)
        hidden, asked = [], []

        def ask(states: torch.Tensor, questions: int, *seed: int) -> None:
            hidden.append(states)
            for i, said in enumerate(labels):
                asked.append([reports[i], *draw_questions(said, np.random.default_rng([29, *seed, i]), questions)])

        if split == "test":
            ask(hidden_of(self.family, scenes, count)[tiers[-1]], _QUESTIONS)
        else:
            for read in range(self.reads):
                states = hidden_of(self.family, scenes, count, self.reads * self.seed + read)
                for number, tier in enumerate(tiers):
                    ask(states[tier], self.questions, self.seed, read, number)
        self._parts[split] = torch.cat(hidden), asked
        return self._parts[split]

    def model(self) -> tuple[Reporter, ReporterTokenizer]:
        """The family's language head over the windows of both parts, and the tokenizer that names them."""
        windows = torch.cat([self._read(split)[0] for split in self.scenes])
        return Reporter.of_head(self.family.reasoner.text, windows), ReporterTokenizer.of_family(windows.shape[1])

    def examples(self, split: str, count: int) -> list[Example]:
        before = 0
        for name in self.scenes:
            if name == split:
                break
            before += len(self._read(name)[1])
        rows = [
            Example(prompt_of(before + i, q.text), q.answer, q.answer)
            for i, asked in enumerate(self._read(split)[1])
            for q in asked
        ]
        return rows[:count]

    def reward(self, completion: str, answer: str) -> float:
        """A report by its parts (see `ruyicam.cloud.data.scoring`), any other answer 1 if it is the very one, else 0."""
        if answer.startswith("{"):
            return report_reward(completion, Report.model_validate_json(answer))
        return float(completion == answer)

    def answer_of(self, completion: str) -> str | None:
        """The response; None for a report that cannot be read."""
        if completion.startswith("{"):
            try:
                Report.model_validate_json(completion)
            except ValidationError:
                return None
        return completion
