"""An L4 balancer, as services that share a database stand behind: it knows bytes only, and who takes connections."""

from __future__ import annotations

import contextlib
import itertools
import socket

from ruyicam.export.line import Line


class Balancer(Line):
    """Context manager. Connections to `address` go to the targets (HOST:PORT) in turn, passing over those that take none."""

    def __init__(self, *targets: str):
        self._turns, self._count = itertools.cycle(targets), len(targets)
        super().__init__(targets[0])

    def __enter__(self) -> Balancer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _connect(self) -> socket.socket | None:
        for target in itertools.islice(self._turns, self._count):
            host, port = target.rsplit(":", 1)
            with contextlib.suppress(OSError):
                return socket.create_connection((host, int(port)), 2)
        return None
