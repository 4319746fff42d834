"""Where the time of an optimiser step goes; for GRPO and BPPO alike, so that they are measured in the same way."""

from __future__ import annotations

import time
from contextlib import contextmanager

import torch
from transformers import TrainerCallback


class _Clock(TrainerCallback):
    """Closes a step's books: what was not generation (sampling and scoring) was the update."""

    def __init__(self, trainer: StepClock):
        self.trainer = trainer

    def on_step_begin(self, args, state, control, **kwargs):
        self.trainer._step_start = time.perf_counter()
        self.trainer._generate_s = 0.0

    def on_step_end(self, args, state, control, **kwargs):
        if torch.cuda.is_available():
            # The optimiser's work would else be counted with the next generation.
            torch.cuda.synchronize()
        whole = time.perf_counter() - self.trainer._step_start
        metrics = self.trainer._metrics["train"]
        metrics["time/generate_s"].append(self.trainer._generate_s)
        metrics["time/update_s"].append(whole - self.trainer._generate_s)


class StepClock:
    """Mixin before a TRL trainer: logs `time/generate_s` and `time/update_s`, seconds of each optimiser step.

    Generation is sampling, scoring and choosing; the update is forward, backward and the optimiser.
    """

    _generate_s = 0.0
    _step_start = 0.0

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.add_callback(_Clock(self))

    @contextmanager
    def _timed(self):
        start = time.perf_counter()
        try:
            yield
        finally:
            self._generate_s += time.perf_counter() - start

    def _prepare_inputs(self, generation_batch):
        with self._timed():
            return super()._prepare_inputs(generation_batch)
