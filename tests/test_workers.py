"""Work that is spread over processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
from made import alive

from ruyicam.cloud.data.workers import in_processes

# Two workers that sleep for a minute each, and say that they have begun.
_SLEEPERS = """
import os, sys, time
from pathlib import Path
from ruyicam.cloud.data.workers import in_processes

def nothing(): pass

def sleep(path):
    Path(path).write_text(str(os.getpid()))
    time.sleep(60)

if __name__ == "__main__":
    in_processes(sleep, [(f"{sys.argv[1]}/{i}",) for i in range(4)], nothing, (), 2)
"""

# A service whose reasoner is not ready in time.
_NEVER_READY = """
import time
from ruyicam.cloud.serve import passes

passes._READY_S = 1.0

def make():
    time.sleep(600)

if __name__ == "__main__":
    passes.WorkerPasses(make).wait_ready()
"""


def nothing() -> None:
    pass


def fail(number: int) -> None:
    if number == 1:
        raise ValueError("number 1")


def soon(what, seconds: float = 60) -> bool:
    end = time.monotonic() + seconds
    while not what() and time.monotonic() < end:
        time.sleep(0.05)
    return what()


def test_the_first_error_is_raised_and_progress_counts():
    seen = []
    in_processes(fail, [(2,), (3,), (4,)], nothing, (), 2, lambda done, of: seen.append((done, of)))
    assert seen == [(1, 3), (2, 3), (3, 3)]
    with pytest.raises(ValueError, match="number 1"):
        in_processes(fail, [(0,), (1,)], nothing, (), 1)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=lambda s: s.name)
def test_workers_end_with_the_process_that_started_them(tmp_path, how):
    script = tmp_path / "sleepers.py"
    script.write_text(_SLEEPERS)
    parent = subprocess.Popen([sys.executable, script, tmp_path], env=os.environ | {"OMP_NUM_THREADS": "1"})
    try:
        assert soon(lambda: sum(bool(f.read_text()) for f in tmp_path.glob("[0-9]")) == 2)
        workers = [int(f.read_text()) for f in tmp_path.glob("[0-9]")]
    finally:
        parent.send_signal(how)
        parent.wait(20)
    assert soon(lambda: not any(map(alive, workers)), 20)
    assert len(list(tmp_path.glob("[0-9]"))) == 2


def test_a_service_whose_model_does_not_load_ends(tmp_path):
    script = tmp_path / "service.py"
    script.write_text(_NEVER_READY)
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=90)
    assert done.returncode == 1 and "did not load the model within 1 s" in done.stderr
