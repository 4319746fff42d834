"""The model's passes: in this process, or in one of its own, where they do not share an interpreter with the loop that takes
packets (its lock would make a pass several times as long)."""

from __future__ import annotations

import logging
import multiprocessing
import signal
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Protocol

import numpy as np

from ruyicam.cloud.errors import Exit, RuyicamError

log = logging.getLogger("ruyicam.passes")

# One pass is given up, and its process with it, after so long.
_PATIENCE_S = 60.0


class Passes(Protocol):
    """What a reasoner needs of a model."""

    def run(self, tier: str, features: np.ndarray, valid: np.ndarray) -> dict[str, np.ndarray]:
        """One pass through a tier: features int16 [windows, ticks, n] and which of them were released, bool
        [windows, ticks], to the probabilities by each of the tier's exits, float32 [windows, labels]."""


class TierPasses:
    """In this process, with PyTorch."""

    def __init__(self, family):
        """family: a `Family`, whose tiers are made when they are first wanted."""
        self._family, self._tiers = family, {}

    def run(self, tier: str, features: np.ndarray, valid: np.ndarray) -> dict[str, np.ndarray]:
        """See Passes."""
        import torch

        if tier not in self._tiers:
            self._tiers[tier] = self._family.tier(tier)
        with torch.inference_mode():
            answers = self._tiers[tier](torch.from_numpy(features.astype(np.float32)), torch.from_numpy(valid))
            return {name: torch.softmax(answer.window, -1).numpy() for name, answer in answers.items()}


def _work(pipe: Connection, model: Path) -> None:
    """The process: a message when the model is loaded, or why it is not; then an answer for each question."""
    # Its end is the service's affair.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        import torch

        from ruyicam.cloud.family.load import load_family

        torch.set_num_threads(1)
        passes = TierPasses(load_family(model))
    except RuyicamError as error:
        pipe.send((int(error.code), str(error)))
        return
    pipe.send(None)
    while True:
        try:
            question = pipe.recv()
        except EOFError:
            return
        pipe.send(passes.run(*question))


class WorkerPasses:
    """In a process of its own, which is started again should it end or hang. One caller at a time."""

    def __init__(self, model: Path):
        """Begins to load the checkpoint; wait_ready() says what became of it."""
        self._model = model
        self._begin()

    def _begin(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs, self._model), name="reasoner", daemon=True)
        self._process.start()
        theirs.close()

    @property
    def pid(self) -> int | None:
        """Of the process."""
        return self._process.pid

    def _receive(self):
        if not self._pipe.poll(_PATIENCE_S):
            raise TimeoutError
        return self._pipe.recv()

    def wait_ready(self) -> None:
        """Returns when the model is loaded. Raises RuyicamError with the line of what is wrong with it."""
        try:
            problem = self._receive()
        except (OSError, EOFError) as error:
            raise RuyicamError(Exit.INTERNAL, "the reasoner's process ended while it loaded the model") from error
        if problem is not None:
            raise RuyicamError(Exit(problem[0]), problem[1])

    def run(self, tier: str, features: np.ndarray, valid: np.ndarray) -> dict[str, np.ndarray]:
        """See Passes. Raises RuyicamError(INTERNAL) if the process ended, after another was started."""
        try:
            self._pipe.send((tier, features, valid))
            return self._receive()
        except (OSError, EOFError) as error:
            self.close()
            log.error("the reasoner's process ended or hangs; another is started")
            self._begin()
            self.wait_ready()
            raise RuyicamError(Exit.INTERNAL, "the reasoner's process ended") from error

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.join()
        self._pipe.close()
