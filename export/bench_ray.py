"""`ruyicam bench ray`: how fast the service reads what has piled up, with the model beside it and on a Ray cluster."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from ruyicam.cloud.serve.packets import PacketLog
from ruyicam.cloud.serve.store import Store
from ruyicam.cloud.wire import FeaturePacket

from .bench_kernels import machine
from .bench_serve import recorded_packets, windows_read
from .bench_session import BenchSession
from .ray_nodes import RayNodes

# What has piled up: cameras, and ticks of each.
CAMERAS, TICKS = 128, 240
# The first and last of it are left out: then not every pass is full.
EDGE = 0.1
Progress = Callable[[str, float, float], None]


def pile_up(database: str, packets: Path) -> None:
    """Puts packets of that many cameras, all from the start, into a new database."""
    clip = [FeaturePacket.FromString(bytes.fromhex(line)) for line in packets.read_text().split()]
    log = PacketLog(Store(database))
    for camera in range(CAMERAS):
        boot, made = hashlib.md5(str(camera).encode()).digest(), []
        for tick in range(TICKS):
            packet = FeaturePacket()
            packet.CopyFrom(clip[(tick + 7 * camera) % len(clip)])
            packet.camera_id, packet.boot_id, packet.sequence = f"sim-{camera}", boot, tick
            packet.last = int(tick == TICKS - 1)
            made.append(packet)
        log.add(made)
    log.store.engine.dispose()


def reading_rate(session: BenchSession, packets: Path, progress: Callable[[float], None]) -> float:
    """Windows a second of a service that finds the pile when it starts."""
    session.folder.mkdir()
    database = f"sqlite:///{session.folder / 'pile.db'}"
    pile_up(database, packets)
    # However late: every window by the deepest tier, as less effort would be less to do.
    session.server_keys |= {"database": database, "latency_s": 1e6, "hold_s": 1e7}
    total = CAMERAS * ((TICKS - 40) // 10 + 1)
    with session:
        seen: list[tuple[float, float]] = []
        while not seen or seen[-1][1] < total:
            seen.append((time.monotonic(), windows_read(session.http)))
            progress(seen[-1][1] / total)
            time.sleep(0.1)
    inside = [(t, n) for t, n in seen if EDGE * total <= n <= (1 - EDGE) * total]
    (first, few), (last, many) = inside[0], inside[-1]
    return (many - few) / (last - first)


def bench_ray(
    folder: Path, model: Path, clip: Path, edge: Path | None, workers: list[int], rounds: int, progress: Progress
) -> dict:
    """As `ruyicam bench ray --json` prints it. folder: empty; workers: replicas, each on a node of its own."""
    progress("bundle and packets", 0, 1)
    recorded, packets = recorded_packets(folder, model, clip, edge)
    rates: dict[int, list[float]] = {count: [] for count in (0, *workers)}
    for turn in range(rounds):
        for number, count in enumerate(rates):
            with contextlib.ExitStack() as stack:
                session = copy.copy(recorded)
                session.folder, session.server_keys = folder / f"round-{turn}-{count}", {}
                if count:
                    cluster = stack.enter_context(RayNodes(count))
                    session.server_keys["ray"] = {"address": cluster.address, "replicas_min": count, "replicas_max": count}
                what = f"round {turn + 1}, {f'{count} workers' if count else 'without Ray'}"
                done = turn * len(rates) + number
                rates[count].append(
                    reading_rate(session, packets, lambda part, w=what, d=done: progress(w, d + part, rounds * len(rates)))
                )
    own, first = median(rates.pop(0)), median(rates[workers[0]])
    return {
        "machine": machine(),
        "windows_per_s_without_ray": own,
        "workers": [
            {"workers": count, "windows_per_s": median(some), "all": some, "times_fewest": median(some) / first}
            for count, some in rates.items()
        ],
    }
