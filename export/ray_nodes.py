"""A Ray cluster on this machine: nodes as several machines would be, each with one core to give."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ruyicam.cloud.errors import Exit, RuyicamError

from .bench_device import processes_of
from .bench_session import free_port

_STARTS_S = 60


class RayNodes:
    """Context manager. `address` is what [ray] of server.toml wants; `nodes[0]` is the head."""

    def __init__(self, count: int):
        self.address, self._count = f"127.0.0.1:{free_port()}", count
        self.nodes: list[subprocess.Popen] = []

    def __enter__(self) -> RayNodes:
        # Short, as sockets with long names lie in it.
        self._folder = Path(tempfile.mkdtemp(prefix="ray-"))
        port = self.address.rpartition(":")[2]
        try:
            self._start("--head", f"--port={port}", "--include-dashboard=false", f"--temp-dir={self._folder}")
            for _ in range(self._count - 1):
                self.add()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for node in reversed(self.nodes):
            self.kill(node)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _start(self, *options: str) -> None:
        command = [sys.executable, "-P", "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus=1", *options]
        # On loopback, and the same for all: a token in the home folder would be asked for by the head, and not shown by others.
        environment = os.environ | {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
        with open(self._folder / f"node-{len(self.nodes)}.log", "wb") as log:
            node = subprocess.Popen(command, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        self.nodes.append(node)
        self._wait(len(self.nodes) - 1)

    def _wait(self, number: int) -> None:
        """Until the node says that it runs: its port is open before it can be joined."""
        log, until = self._folder / f"node-{number}.log", time.monotonic() + _STARTS_S
        while self.nodes[number].poll() is None and time.monotonic() < until:
            if "Ray runtime started" in log.read_text():
                return
            time.sleep(0.1)
        said = log.read_text().strip().splitlines()
        raise RuyicamError(Exit.INTERNAL, f"Ray did not start: {said[-1] if said else 'no output'}")

    def add(self) -> None:
        """One more node."""
        self._start(f"--address={self.address}")

    def kill(self, node: subprocess.Popen) -> None:
        """All of it at once, as when a machine loses its power."""
        # Stopped first, so that it starts nothing while it goes.
        for pid in processes_of(node.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        for pid in processes_of(node.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        node.wait()

    def replicas(self, node: subprocess.Popen) -> list[int]:
        """Processes of a deployment's replicas there."""
        found = []
        for pid in processes_of(node.pid):
            with contextlib.suppress(OSError):
                if "ServeReplica" in Path(f"/proc/{pid}/cmdline").read_text():
                    found.append(pid)
        return found
