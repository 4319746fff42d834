"""The model's passes: in this process, or in one of its own, where they do not share an interpreter with the loop that takes
packets (its lock would make a pass several times as long)."""

from __future__ import annotations

import atexit
import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from ruyicam.cloud.errors import Exit, RuyicamError, first_line

log = logging.getLogger("ruyicam.passes")

# Windows of one pass: enough to be fast, little enough for the caches.
PASS = 32
# One pass is given up, and its process with it, after so long; making ready for the first one after so long.
_PATIENCE_S, _READY_S = 60.0, 180.0
# How long it may take to end when it is told to.
_PARTING_S = 5.0


class Reading(NamedTuple):
    """What a tier says of N windows of W ticks.

    rows: by each of the tier's exits the probabilities of the K labels, float32 [N, K]; people: how many there are, uint8
    [N, W]; figures: of each of S people, from left to right, 17 joints, uint8 [N, W, S, 17, 3]: x and y as shares of the
    picture and whether the joint is seen, each times 255; reports: what the language head says of a window, None where it
    was not asked. All but `rows` by the tier's own exit.
    """

    rows: dict[str, np.ndarray]
    people: np.ndarray
    figures: np.ndarray
    reports: list[dict | None]


class Passes(Protocol):
    """What a reasoner needs of a model."""

    def run(self, tier: str, features: np.ndarray, valid: np.ndarray, report: np.ndarray) -> Reading:
        """N windows through a tier: features int16 [N, W, n] and which of them were released, bool [N, W]. A report is made of
        those windows where `report`, bool [N], says so and that are not most likely of the first label."""


class TierPasses:
    """In this process, with PyTorch."""

    def __init__(self, family, device: str = "cpu"):
        """family: a `Family`, whose tiers are made when they are first wanted; device: where they compute, for PyTorch."""
        self._family, self._device, self._tiers = family, device, {}

    def run(self, tier: str, features: np.ndarray, valid: np.ndarray, report: np.ndarray) -> Reading:
        """See Passes."""
        import torch

        if tier not in self._tiers:
            self._tiers[tier] = self._family.tier(tier).to(self._device)
        parts, hidden = [], []
        with torch.inference_mode():
            for first in range(0, len(features), PASS):
                rows = slice(first, first + PASS)
                some = torch.from_numpy(features[rows].astype(np.float32)), torch.from_numpy(valid[rows])
                answers = self._tiers[tier](*(x.to(self._device) for x in some))
                own = answers[tier]
                figures = torch.cat([own.contour[..., :2], torch.sigmoid(own.contour[..., 2:])], -1).mul(255).round()
                parts.append(
                    (
                        {name: torch.softmax(answer.window, -1).cpu().numpy() for name, answer in answers.items()},
                        own.people.argmax(-1).to(torch.uint8).cpu().numpy(),
                        figures.to(torch.uint8).cpu().numpy(),
                    )
                )
                hidden.append(own.hidden)
            probabilities, people, figures = zip(*parts, strict=True)
            rows = {name: np.concatenate([p[name] for p in probabilities]) for name in probabilities[0]}
            reports: list[dict | None] = [None] * len(features)
            asked = np.flatnonzero(report & (rows[tier].argmax(-1) > 0))
            if len(asked):
                # All at once: decoding costs by the word, hardly by the window.
                said = self._tiers[tier].text.report(torch.cat(hidden)[torch.from_numpy(asked).to(self._device)])
                for i, what in zip(asked.tolist(), said, strict=True):
                    reports[i] = what.model_dump(mode="json")
        return Reading(rows, np.concatenate(people), np.concatenate(figures), reports)


def local_passes(model: Path, device: str) -> TierPasses:
    """Of a checkpoint, on one core or a GPU. Raises RuyicamError."""
    import torch

    from ruyicam.cloud.family.load import load_family

    torch.set_num_threads(1)
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise RuyicamError(Exit.USAGE, f"device is '{device}': {first_line(error)}") from error
    return TierPasses(load_family(model), device)


def _work(pipe: Connection, make: Callable[[], Passes]) -> None:
    """The process: a message when all is ready, or why it is not; then an answer for each question."""

    def ignore_signals() -> None:
        # Its end is the service's affair.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    ignore_signals()
    try:
        passes = make()
    except RuyicamError as error:
        pipe.send((int(error.code), str(error)))
        # What libraries have to say in parting would follow the one line about what is wrong.
        os._exit(1)
    # Ray has set its own.
    ignore_signals()
    pipe.send(None)
    while True:
        try:
            question = pipe.recv()
        except EOFError:
            return
        pipe.send(passes.run(*question))


class WorkerPasses:
    """In a process of its own, which is started again should it end or hang. Thread-safe."""

    def __init__(self, make: Callable[[], Passes]):
        """Begins to make them there; wait_ready() says what became of it. make: a function that can be pickled."""
        self._make = make
        self._closed = False
        self._lock = threading.Lock()
        self._begin()
        # A service that fails would wait for it for good: it ignores the signal that multiprocessing ends its processes with.
        atexit.register(self._end)

    def _begin(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs, self._make), name="reasoner", daemon=True)
        self._process.start()
        theirs.close()

    @property
    def pid(self) -> int | None:
        """Of the process."""
        return self._process.pid

    def _receive(self, patience_s: float = _PATIENCE_S):
        if not self._pipe.poll(patience_s):
            raise TimeoutError
        return self._pipe.recv()

    def wait_ready(self) -> None:
        """Returns when the model is loaded. Raises RuyicamError with the line of what is wrong with it."""
        try:
            problem = self._receive(_READY_S)
        except TimeoutError as error:
            raise RuyicamError(Exit.INTERNAL, f"the reasoner's process did not load the model within {_READY_S:g} s") from error
        except (OSError, EOFError) as error:
            raise RuyicamError(Exit.INTERNAL, "the reasoner's process ended while it loaded the model") from error
        if problem is not None:
            raise RuyicamError(Exit(problem[0]), problem[1])

    def run(self, tier: str, features: np.ndarray, valid: np.ndarray, report: np.ndarray) -> Reading:
        """See Passes. Raises RuyicamError(INTERNAL) if the process ended, after another was started."""
        with self._lock:
            return self._ask(tier, features, valid, report)

    def _ask(self, *question) -> Reading:
        try:
            self._pipe.send(question)
            return self._receive()
        except (OSError, EOFError) as error:
            if self._closed:
                raise RuyicamError(Exit.INTERNAL, "the service ends") from error
            self._end()
            log.error("the reasoner's process ended or hangs; another is started")
            self._begin()
            self.wait_ready()
            raise RuyicamError(Exit.INTERNAL, "the reasoner's process ended") from error

    def close(self) -> None:
        """Ends the process for good."""
        self._closed = True
        # It sees that, and a cluster that it has started ends with it.
        self._pipe.close()
        self._process.join(_PARTING_S)
        self._end()
        atexit.unregister(self._end)

    def _end(self) -> None:
        self._process.kill()
        self._process.join()
        self._pipe.close()
