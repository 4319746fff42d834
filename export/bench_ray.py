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
from ruyicam.cloud.wire import FeaturePacket, Kind

from .bench_kernels import machine
from .bench_serve import recorded_packets, windows_read
from .bench_session import BenchSession
from .ray_nodes import RayNodes

# What has piled up: cameras, and ticks of each.
CAMERAS, TICKS = 128, 240
# The first and last of it are left out: then not every pass is full.
EDGE = 0.1
Progress = Callable[[str, float, float], None]


def pile_up(database: str, packets: Path, quiet: bool) -> None:
    """Puts packets of that many cameras, all from the start, into a new database; quiet: without features, which no model
    reads."""
    clip = [FeaturePacket.FromString(bytes.fromhex(line)) for line in packets.read_text().split()]
    log = PacketLog(Store(database))
    for camera in range(CAMERAS):
        boot, made = hashlib.md5(str(camera).encode()).digest(), []
        for tick in range(TICKS):
            packet = FeaturePacket()
            packet.CopyFrom(clip[(tick + 7 * camera) % len(clip)])
            packet.camera_id, packet.boot_id, packet.sequence = f"sim-{camera}", boot, tick
            packet.last = int(tick == TICKS - 1)
            if quiet:
                packet.kind, packet.token = Kind.WITHHELD_BY_GATE, 0
            made.append(packet)
        log.add(made)
    log.store.engine.dispose()


def reading_rate(session: BenchSession, packets: Path, quiet: bool, progress: Callable[[float], None]) -> float:
    """Windows a second of a service that finds the pile when it starts."""
    session.folder.mkdir()
    database = f"sqlite:///{session.folder / 'pile.db'}"
    pile_up(database, packets, quiet)
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
    # Without Ray: what no model reads, and what the model beside the service does.
    kinds = ["quiet", "beside", *workers]
    rates: dict[str | int, list[float]] = {kind: [] for kind in kinds}
    for turn in range(rounds):
        for number, kind in enumerate(kinds):
            with contextlib.ExitStack() as stack:
                session = copy.copy(recorded)
                session.folder, session.server_keys = folder / f"round-{turn}-{kind}", {}
                if isinstance(kind, int):
                    cluster = stack.enter_context(RayNodes(kind))
                    session.server_keys["ray"] = {"address": cluster.address, "replicas_min": kind, "replicas_max": kind}
                what, done = f"round {turn + 1}, {kind}", turn * len(kinds) + number

                def tell(part: float, what: str = what, done: int = done) -> None:
                    progress(what, done + part, rounds * len(kinds))

                rates[kind].append(reading_rate(session, packets, kind == "quiet", tell))
    medians = {kind: median(some) for kind, some in rates.items()}
    return {
        "machine": machine(),
        "quiet_windows_per_s": medians["quiet"],
        "windows_per_s_without_ray": medians["beside"],
        "workers": [
            {"workers": n, "windows_per_s": medians[n], "all": rates[n], "times_fewest": medians[n] / medians[workers[0]]}
            for n in workers
        ],
    }
