"""`ruyicam eval`: accuracy per tier, through the real device binary and the real server or in PyTorch alone."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import fmean

from ruyicam.cloud.data.clips import Clip, model_input
from ruyicam.cloud.family import Family
from ruyicam.cloud.keys import load_private_key, new_keys
from ruyicam.cloud.training.metrics import agreement, tier_scores
from ruyicam.cloud.training.validate import clip_answers

from .bench_session import BenchSession
from .bundle import ExportReport, export_bundle


def export_throwaway(family: Family, folder: Path, clip: Path) -> tuple[ExportReport, Path]:
    """A bundle signed by a key made for the occasion; (report, public key)."""
    private, public = new_keys(folder / "throwaway")
    frames = model_input(clip, family.config.input, limit=100)
    return export_bundle(family, folder / "camera.ruyicam", load_private_key(private), frames), public


def clip_answer(windows: list[dict], quiet: str) -> str:
    """One tier's answer for a whole clip: the surest behaviour that is not quiet in any of its windows, else quiet."""
    loud = [w for w in windows if w["behaviour"] != quiet]
    if not loud:
        return quiet
    return max(loud, key=lambda w: w["confidence"] or 0.0)["behaviour"]


def evaluate_through_edge(
    model: Path, clips: list[Clip], edge: Path | None = None, progress: Callable[[], None] = lambda: None
) -> dict:
    """Plays every clip through `ruyicam-edge` into `ruyicam serve`; the result as `ruyicam eval --json` prints it."""
    family = Family.from_pretrained(model)
    labels = family.config.labels
    said: dict[str, list[int]] = {tier: [] for tier in family.config.trunk.exits}
    rates, released, ticks, profile = [], 0, 0, ""
    with tempfile.TemporaryDirectory(prefix="ruyicam-eval-") as scratch:
        folder = Path(scratch)
        report, public = export_throwaway(family, folder, clips[0].path)
        with BenchSession(model, report.path, public, edge, folder / "session") as session:
            for i, clip in enumerate(clips):
                stats = session.play(str(clip.path), f"clip-{i}")
                boot = session.wait_read(stats["boot_id"])
                for tier, answers in said.items():
                    windows = [w for w in boot["windows"] if w["tier"] == tier]
                    answers.append(labels.index(clip_answer(windows, labels[0])))
                rates.append(stats["bits"] / stats["seconds"])
                released += stats["released"]
                ticks += stats["ticks"]
                profile = stats["profile"]
                progress()
    truth = [labels.index(c.label) for c in clips]
    tiers = list(said)
    return {
        "clips": len(clips),
        "through": "edge",
        "tiers": {tier: tier_scores(truth, answers, labels) for tier, answers in said.items()},
        "consistency": {f"{a}/{b}": agreement(said[a], said[b]) for i, a in enumerate(tiers) for b in tiers[i + 1 :]},
        "bits_per_second": fmean(rates),
        "released_share": released / ticks,
        "profile": profile,
        "answers": clip_answers(clips, said, labels),
    }
