"""Simulated cameras of `ruyicam bench serve`: they speak the real wire, each over a connection and a certificate of its own.

A process of its own, `python -m ruyicam.export.load_cameras FILE`, with a JSON object of options in FILE. It prints a line of
JSON when all are connected, and one of figures at the end. Like a device, a camera keeps what the server does not take and
sends it later; packets that were not acknowledged when a connection breaks are sent again.
"""

from __future__ import annotations

import asyncio
import collections
import json
import os
import sys
import time
from pathlib import Path

import grpc

from ruyicam.cloud.wire import METHOD, SERVICE, Ack, FeaturePacket

# Packets on the way at once, as a device has.
_IN_FLIGHT = 512


class Camera:
    """One simulated camera, which repeats the packets of a real clip."""

    def __init__(self, options: dict, own: dict, clip: list[FeaturePacket], number: int):
        self.id, self.boot, self.rate = own["id"], os.urandom(16), options["rate_hz"]
        pem = {name: Path(path).read_bytes() for name, path in own.items() if name != "id"}
        self._credentials = grpc.ssl_channel_credentials(Path(options["ca"]).read_bytes(), pem["key"], pem["cert"])
        self._server, self._clip, self._shift = options["server"], clip, number * 7
        # Cameras do not tick at once.
        self.phase_s = (number * 0.618 % 1) / self.rate
        self.first_us = 0
        self.made = self.acknowledged = self.connections = 0
        self.ready = False
        self._spool: collections.deque[tuple[int, bytes]] = collections.deque()
        self._sent = 0  # of the spool's first packets
        self._more = asyncio.Event()

    @property
    def waiting(self) -> int:
        """Packets that are not acknowledged."""
        return len(self._spool)

    def _packet(self, tick: int, last: bool) -> bytes:
        model = self._clip[(tick + self._shift) % len(self._clip)]
        packet = FeaturePacket(
            camera_id=self.id,
            boot_id=self.boot,
            sequence=tick,
            captured_at_us=self.first_us + tick * 1_000_000 // self.rate,
            bundle_id=model.bundle_id,
            features=model.features,
            kind=model.kind,
            token=model.token,
            last=int(last),
            ledger_releases=tick + 1,
            ledger_bits=0.0,
        )
        return packet.SerializeToString()

    async def tick(self, begin: float, ticks: int) -> None:
        """Makes its packets, each at its time; begin: time.time() of the first."""
        self.first_us = int((begin + self.phase_s) * 1e6)
        for tick in range(ticks):
            await asyncio.sleep(max(0.0, begin + self.phase_s + tick / self.rate - time.time()))
            self._spool.append((tick, self._packet(tick, tick == ticks - 1)))
            self.made += 1
            self._more.set()

    async def deliver(self, connected: asyncio.Semaphore) -> None:
        """Sends and is acknowledged, for ever."""
        while True:
            self.connections += 1
            self._sent = 0
            async with grpc.aio.secure_channel(self._server, self._credentials) as channel:
                try:
                    async with connected:
                        await asyncio.wait_for(channel.channel_ready(), 60)
                    self.ready = True
                    call = channel.stream_stream(f"/{SERVICE}/{METHOD}", response_deserializer=Ack.FromString)()
                    sender = asyncio.create_task(self._send(call))
                    try:
                        async for ack in call:
                            while self._spool and self._spool[0][0] <= ack.sequence:
                                self._spool.popleft()
                                self._sent = max(0, self._sent - 1)
                                self.acknowledged += 1
                            self._more.set()
                    finally:
                        sender.cancel()
                except (grpc.aio.AioRpcError, TimeoutError):
                    await asyncio.sleep(1)

    async def _send(self, call: grpc.aio.StreamStreamCall) -> None:
        while True:
            if self._sent < min(len(self._spool), _IN_FLIGHT):
                raw = self._spool[self._sent][1]
                self._sent += 1
                await call.write(raw)
            else:
                self._more.clear()
                if self._sent >= min(len(self._spool), _IN_FLIGHT):
                    await self._more.wait()


async def main(options: dict) -> None:
    """Runs all cameras for `seconds`, then until all is acknowledged or `drain_s` is over."""
    clip = [FeaturePacket.FromString(bytes.fromhex(line)) for line in Path(options["packets"]).read_text().split()]
    cameras = [Camera(options, own, clip, i) for i, own in enumerate(options["cameras"])]
    connected = asyncio.Semaphore(16)
    links = [asyncio.create_task(c.deliver(connected)) for c in cameras]
    while not all(c.ready for c in cameras):
        await asyncio.sleep(0.05)
    begin = time.time() + 1
    boots = {c.id: c.boot.hex() for c in cameras}
    print(json.dumps({"begin": begin, "boots": boots, "phase_s": {c.id: c.phase_s for c in cameras}}), flush=True)
    ticks = int(options["seconds"] * options["rate_hz"])
    makers = [asyncio.create_task(c.tick(begin, ticks)) for c in cameras]
    waiting = []
    while not all(m.done() for m in makers):
        waiting.append(sum(c.waiting for c in cameras))
        await asyncio.sleep(0.25)
    await asyncio.gather(*makers)
    until = time.time() + options["drain_s"]
    while any(c.waiting for c in cameras) and time.time() < until:
        await asyncio.sleep(0.05)
    drained_s = max(0.0, time.time() - begin - options["seconds"])
    for link in links:
        link.cancel()
    figures = {
        "made": sum(c.made for c in cameras),
        "acknowledged": sum(c.acknowledged for c in cameras),
        "connections": sum(c.connections for c in cameras),
        "most_waiting": max(waiting, default=0),
        "drained_s": drained_s,
    }
    print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    asyncio.run(main(json.loads(Path(sys.argv[1]).read_text())))
