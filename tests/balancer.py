"""An L4 balancer, as services that share a database stand behind: it knows bytes only, and who takes connections."""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)


class Balancer:
    """Context manager. Connections to `address` go to the targets in turn, passing over those that take none."""

    def __init__(self, *targets: str):
        self._turns, self._count = itertools.cycle(targets), len(targets)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Balancer:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                target = self._connect()
                if target is None:
                    client.close()
                    continue
                for a, b in ((client, target), (target, client)):
                    threading.Thread(target=self._pump, args=(a, b), daemon=True).start()

    def _connect(self) -> socket.socket | None:
        for address in itertools.islice(self._turns, self._count):
            with contextlib.suppress(OSError):
                return socket.create_connection(_split(address), 2)
        return None

    @staticmethod
    def _pump(a: socket.socket, b: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while some := a.recv(65536):
                b.sendall(some)
        for end in (a, b):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
