"""A line between device and server that can be slow, and on which someone may listen."""

from __future__ import annotations

import contextlib
import socket
import threading
import time


class Line:
    """A TCP relay to `target` (HOST:PORT) that keeps every piece back for `delay_s` and notes what the device sends.

    `seen`: (time, bytes) of every piece from the device's side.
    """

    def __init__(self, target: str, delay_s: float = 0.0):
        host, port = target.rsplit(":", 1)
        self.seen: list[tuple[float, int]] = []
        self._target, self._delay_s = (host, int(port)), delay_s
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near = self._listener.accept()[0]
                far = self._connect()
                if far is None:
                    near.close()
                    continue
                for a, b in ((near, far), (far, near)):
                    threading.Thread(target=self._relay, args=(a, b, a is near), daemon=True).start()

    def _connect(self) -> socket.socket | None:
        """To the target; None: the device's connection is closed again."""
        return socket.create_connection(self._target)

    def _relay(self, a: socket.socket, b: socket.socket, note: bool) -> None:
        with contextlib.suppress(OSError):
            while data := a.recv(65536):
                if note:
                    self.seen.append((time.monotonic(), len(data)))
                if self._delay_s:
                    time.sleep(self._delay_s)
                b.sendall(data)
        with contextlib.suppress(OSError):
            b.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Takes no more connections."""
        self._listener.close()
