"""`ruyicam sizing`: what so many cameras need of a service, by arithmetic on measured figures and stated assumptions."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

from ruyicam.cloud.errors import Exit, RuyicamError

# Of one process's core, so that what comes in bursts does not wait.
LOAD = 0.6
# gRPC, HTTP/2, TLS and TCP around one packet that goes alone.
FRAMING_BYTES = 5 + 9 + 22 + 52
TICKS_PER_S, WINDOWS_PER_S = 10, 1.0
DAY_S = 86400


@dataclass(frozen=True)
class Figures:
    """Measured by `ruyicam bench serve` and `ruyicam bench ray` on one machine."""

    machine: str
    packet_bytes: float
    stored_bytes_per_packet: float
    service_us_per_packet: float
    model_ms_per_window: float
    quiet_windows_per_s: float

    @classmethod
    def of(cls, path: Path) -> Figures:
        """A file of theirs. Raises RuyicamError(USAGE)."""
        try:
            return cls(**json.loads(path.read_text()))
        except (OSError, TypeError, ValueError) as error:
            raise RuyicamError(Exit.USAGE, f"{path}: not figures of a service: {error}") from error


@dataclass(frozen=True)
class Size:
    """What the cameras need. cores: of a machine like the measured one, rounded up where a process is."""

    cameras: int
    packets_per_s: float
    uplink_mbit_s: float
    service_cores: float
    services: int
    model_cores: float
    replicas: int
    reader_load: float
    stored_gb: float

    @property
    def carried(self) -> bool:
        """Whether one reader keeps up with that many windows."""
        return self.reader_load <= 1


def size_of(cameras: int, active: float, keep_days: float, figures: Figures) -> Size:
    """active: share of windows in which features were released, which the model reads; keep_days: of features.

    Raises RuyicamError(USAGE) unless cameras >= 1, 0 <= active <= 1 and keep_days > 0."""
    if cameras < 1 or not 0 <= active <= 1 or keep_days <= 0:
        raise RuyicamError(Exit.USAGE, "expected cameras >= 1, a share of 0 to 1 and days above 0")
    packets, windows = cameras * TICKS_PER_S, cameras * WINDOWS_PER_S
    service = packets * figures.service_us_per_packet / 1e6
    model = windows * active * figures.model_ms_per_window / 1e3
    return Size(
        cameras,
        packets,
        packets * (figures.packet_bytes + FRAMING_BYTES) * 8 / 1e6,
        service,
        math.ceil(service / LOAD),
        model,
        math.ceil(model / LOAD),
        windows / figures.quiet_windows_per_s,
        packets * DAY_S * keep_days * figures.stored_bytes_per_packet / 1e9,
    )


def sizes_of(counts: list[int], active: float, keep_days: float, figures: Figures) -> dict:
    """As `ruyicam sizing --json` prints it."""
    sizes = [size_of(n, active, keep_days, figures) for n in counts]
    return {
        "figures": asdict(figures),
        "active": active,
        "keep_days": keep_days,
        "load": LOAD,
        "sizes": [asdict(s) | {"carried": s.carried} for s in sizes],
    }
