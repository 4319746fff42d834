"""Attacks on the running device: the sizes and times of its packets on the line, and an old copy of its ledger."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from ruyicam.cloud.audit.run import Findings
from ruyicam.cloud.audit.stats import proportion
from ruyicam.cloud.errors import Exit, RuyicamError
from ruyicam.cloud.family import Family

from .bench_session import BenchSession
from .defaults import default_clip
from .evaluate import export_throwaway
from .line import Line

_SCENES = ("black", "snow")
# Packets at both ends of a run share the line with the handshake and the last acknowledgements.
_EDGE_PACKETS = 5


def _watch(session: BenchSession, pattern: str, name: str, seconds: int, rate: int) -> np.ndarray:
    """(interval in s, bytes) of every piece that went over the line, float [N, 2]."""
    tap = Line(session.grpc)
    source = (
        f"pipeline:videotestsrc is-live=true pattern={pattern} num-buffers={seconds * rate} "
        f"! video/x-raw,width=320,height=240,framerate={rate}/1"
    )
    try:
        session.play(source, name, server=tap.address)
    finally:
        tap.close()
    times, sizes = np.array(tap.seen).T
    return np.stack([np.diff(times), sizes[1:]], 1)[_EDGE_PACKETS:-_EDGE_PACKETS]


def _stump(x: np.ndarray, y: np.ndarray) -> tuple[int, float, bool]:
    """The one threshold on one figure that tells two classes apart best: (column, edge, which side is class 1)."""
    best = (0.0, 0, 0.0, True)
    for column in range(x.shape[1]):
        for edge in np.unique(np.quantile(x[:, column], np.linspace(0.02, 0.98, 49))):
            above = x[:, column] > edge
            for side in (True, False):
                score = float(((above == side) == y).mean())
                best = max(best, (score, column, float(edge), side))
    return best[1:]


def line(session: BenchSession, seconds: int, runs: int, rate: int = 10) -> Findings:
    """From one piece on the line, its size and the time since the one before: was the picture black, or full of motion?"""
    seen = {p: [_watch(session, p, f"{p}-{i}", seconds, rate) for i in range(2 * runs)] for p in _SCENES}

    def part(which: slice) -> tuple[np.ndarray, np.ndarray]:
        x = [np.concatenate(seen[p][which]) for p in _SCENES]
        count = min(len(v) for v in x)
        return np.concatenate([v[:count] for v in x]), np.repeat([False, True], count)

    # Learned on some runs and asked about others.
    column, edge, side = _stump(*part(slice(None, None, 2)))
    x, y = part(slice(1, None, 2))
    right = int((((x[:, column] > edge) == side) == y).sum())
    return Findings(
        [proportion("size and time of packets", "share of packets", [(right, len(y))], 0.5, bound=1.0, target=0.55,
                    note=f"black picture or snow, {2 * runs} runs of {seconds} s each, one threshold on size or interval")]
    )  # fmt: skip


def rollback(session: BenchSession, clip: Path) -> Findings:
    """A ledger that is put back to an older copy, whole or changed, must not open anything."""
    state = session.folder / "rollback"
    session.play(str(clip), "rollback")
    old = (state / "ledger.json").read_bytes()
    session.play(str(clip), "rollback")
    new = (state / "ledger.json").read_bytes()
    opened, tries = 0, [old, new.replace(b'"releases": ', b'"releases": -'), new[: len(new) // 2], None]
    for content in tries:
        path = state / "ledger.json"
        path.unlink() if content is None else path.write_bytes(content)
        try:
            session.play(str(clip), "rollback")
            opened += 1
        except RuyicamError as error:
            if error.code != Exit.STORAGE:
                raise
    (state / "ledger.json").write_bytes(new)
    session.play(str(clip), "rollback")
    shutil.rmtree(state, ignore_errors=True)
    return Findings(
        [proportion("ledger rollback", "attempts that were let through", [(opened, len(tries))], 0.0, bound=0.0,
                    note="an older copy, a changed total, half a file, no file")]
    )  # fmt: skip


def device(family: Family, model: Path, folder: Path, edge: Path | None, seconds: int, runs: int) -> Findings:
    """Both, with the real edge binary and the real server. RuyicamError if they cannot be run."""
    clip = default_clip()
    report, public = export_throwaway(family, folder, clip)
    found = Findings()
    with BenchSession(model, report.path, public, edge, folder / "session") as session:
        found.add(line(session, seconds, runs, family.config.input.rate_hz))
        found.add(rollback(session, clip))
    return found
