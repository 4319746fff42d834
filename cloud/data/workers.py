"""Work that is spread over processes, each of which is made ready once."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import connection, get_context, parent_process

import cv2
import torch


def end_with_parent() -> None:
    """Called first in a worker: ends it, whatever it is doing, as soon as the process that started it is gone."""

    def watch() -> None:
        connection.wait([parent_process().sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _begin(start: Callable, state: tuple) -> None:
    end_with_parent()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    start(*state)


def in_processes(
    function: Callable,
    jobs: Sequence[tuple],
    start: Callable,
    state: tuple,
    workers: int = 0,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> None:
    """Calls `function(*job)` for every job in processes that have called `start(*state)` and compute on one thread each;
    by default one per processor.

    `progress(done, of)` is called as they come. The first error is raised here, once the jobs under way have ended.
    """
    if not jobs:
        return
    with ProcessPoolExecutor(
        min(workers or os.cpu_count() or 1, len(jobs)), get_context("spawn"), _begin, (start, state)
    ) as pool:
        running = [pool.submit(function, *job) for job in jobs]
        try:
            for done, job in enumerate(as_completed(running), start=1):
                job.result()
                progress(done, len(jobs))
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
