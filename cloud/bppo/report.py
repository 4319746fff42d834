"""A run of reinforcement learning drawn: one HTML file that needs nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ruyicam.cloud.page import picture, plt, table, write_page

# Title, label of the axis, columns of the history.
_CURVES = (
    ("Reward", "reward", {"reward": "mean of a step"}),
    ("Length", "tokens", {"completions/mean_length": "of a response", "bppo/prefix_length": "of a prefix"}),
    ("Time", "seconds a step", {"time/generate_s": "generation and rewards", "time/update_s": "update"}),
    ("Tokens", "tokens a step", {"bppo/tokens_generated": "generated", "bppo/tokens_updated": "updated on"}),
    ("Groups", "share", {"bppo/mixed": "mixed", "bppo/all_correct": "all correct", "bppo/all_incorrect": "all incorrect"}),
    ("Entropy", "nats a token", {"entropy": "of what is updated on"}),
)


def smooth(values: list[float], over: int) -> np.ndarray:
    """Mean of the last `over` values at each place."""
    sums = np.cumsum(np.concatenate([[0.0], values]))
    at = np.arange(1, len(values) + 1)
    first = np.maximum(0, at - over)
    return (sums[at] - sums[first]) / (at - first)


def draw_history(rows: list[dict], over: int = 10):
    """Six curves by step, running means over `over` steps; what a run does not have is left out."""
    figure, axes = plt.subplots(2, 3, figsize=(12, 6))
    for axis, (title, unit, columns) in zip(axes.flat, _CURVES, strict=True):
        for name, label in columns.items():
            kept = [(r["step"], r[name]) for r in rows if name in r]
            if kept:
                axis.plot([s for s, _ in kept], smooth([v for _, v in kept], over), label=label)
        axis.set(title=title, xlabel="step", ylabel=unit)
        if axis.lines:
            axis.legend(fontsize=8)
    figure.tight_layout()
    return figure


def write_report(path: Path, title: str, rows: list[dict], before: dict[str, float], after: dict[str, float]) -> None:
    """The report of one run: test scores before and after it, and its curves."""
    scores = [[name, f"{before[name]:.3f}", f"{after[name]:.3f}"] for name in before]
    write_page(path, title, [table(["on test prompts", "before", "after"], scores), picture(draw_history(rows))])
