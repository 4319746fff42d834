"""A network that loses and delays packets: two TUN devices, one in a network namespace, and a relay between them.

As `tc qdisc add … netem` would, on kernels without it. Needs root.
"""

from __future__ import annotations

import contextlib
import fcntl
import heapq
import itertools
import os
import random
import select
import struct
import subprocess
import threading
import time

_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000


def _tun(name: str) -> int:
    fd = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH", name.encode(), _IFF_TUN | _IFF_NO_PI))
    return fd


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


class BadLink:
    """Context manager: `near` is this machine's address, `inside` begins a command line that runs at the far end."""

    near, far = "10.213.7.1", "10.213.7.2"

    def __init__(self, loss: float, delay_s: float, seed: int = 0):
        self.loss, self.delay_s = loss, delay_s
        self.passed = self.lost = 0
        self._random = random.Random(seed)
        self._space = f"ruyicam-{os.getpid()}"
        self.inside = ["ip", "netns", "exec", self._space]

    def __enter__(self) -> BadLink:
        _ip("netns", "add", self._space)
        self._fds = [_tun("rynear"), _tun("ryfar")]
        _ip("addr", "add", f"{self.near}/30", "dev", "rynear")
        _ip("link", "set", "rynear", "up")
        _ip("link", "set", "ryfar", "netns", self._space)
        _ip("-n", self._space, "addr", "add", f"{self.far}/30", "dev", "ryfar")
        _ip("-n", self._space, "link", "set", "ryfar", "up")
        _ip("-n", self._space, "link", "set", "lo", "up")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._relay, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        for fd in self._fds:
            os.close(fd)
        subprocess.run(["ip", "netns", "del", self._space], capture_output=True)

    def _relay(self) -> None:
        waiting: list[tuple[float, int, int, bytes]] = []
        order, near, far = itertools.count(), *self._fds
        while not self._stop.is_set():
            pause = max(0.0, min(0.1, waiting[0][0] - time.monotonic())) if waiting else 0.1
            for fd in select.select([near, far], [], [], pause)[0]:
                packet = os.read(fd, 65536)
                if self._random.random() < self.loss:
                    self.lost += 1
                    continue
                self.passed += 1
                heapq.heappush(waiting, (time.monotonic() + self.delay_s, next(order), far if fd == near else near, packet))
            while waiting and waiting[0][0] <= time.monotonic():
                _, _, to, packet = heapq.heappop(waiting)
                # An interface that is not up yet takes none.
                with contextlib.suppress(OSError):
                    os.write(to, packet)
