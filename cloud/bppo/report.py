"""A run of reinforcement learning drawn: one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import html
import io
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot as plt

_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1a1a1a;background:#fff}
table{border-collapse:collapse;font-size:14px;margin:1rem 0}
td,th{padding:.3rem .6rem;border-bottom:1px solid #ddd;text-align:right;font-variant-numeric:tabular-nums}
td:first-child,th:first-child{text-align:left}img{max-width:100%}
@media(prefers-color-scheme:dark){body{background:#161616;color:#e6e6e6}td,th{border-color:#444}img{background:#fff}}
"""
# Title, label of the axis, columns of the history.
_CURVES = (
    ("Reward", "reward", {"reward": "mean of a step"}),
    ("Length", "tokens", {"completions/mean_length": "of a response", "bppo/prefix_length": "of a prefix"}),
    ("Time", "seconds a step", {"time/generate_s": "generation and rewards", "time/update_s": "update"}),
    ("Tokens", "tokens a step", {"bppo/tokens_generated": "generated", "bppo/tokens_updated": "updated on"}),
    ("Groups", "share", {"bppo/mixed": "mixed", "bppo/all_correct": "all correct", "bppo/all_incorrect": "all incorrect"}),
    ("Entropy", "nats a token", {"entropy": "of what is updated on"}),
)


def picture(figure) -> str:
    """The figure as an SVG inside HTML; it is closed."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", bbox_inches="tight")
    plt.close(figure)
    return f'<img src="data:image/svg+xml;base64,{base64.b64encode(buffer.getvalue()).decode()}" alt="">'


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


def write_page(path: Path, title: str, parts: list[str]) -> None:
    """An HTML file of parts that are HTML already. OSError if it cannot be written."""
    path.write_text(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style><h1>{html.escape(title)}</h1>{''.join(parts)}</html>\n"
    )


def table(head: list[str], rows: list[list[str]]) -> str:
    """An HTML table of texts."""
    cells = "".join("<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in row) + "</tr>" for row in rows)
    return "<table><tr>" + "".join(f"<th>{html.escape(h)}</th>" for h in head) + f"</tr>{cells}</table>"


def write_report(path: Path, title: str, rows: list[dict], before: dict[str, float], after: dict[str, float]) -> None:
    """The report of one run: test scores before and after it, and its curves."""
    scores = [[name, f"{before[name]:.3f}", f"{after[name]:.3f}"] for name in before]
    write_page(path, title, [table(["on test prompts", "before", "after"], scores), picture(draw_history(rows))])
