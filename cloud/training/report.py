"""A run drawn: losses per tier, scores while training, confusion matrices, accuracy against bits, agreement."""

from __future__ import annotations

import html
from pathlib import Path

import numpy as np

from ruyicam.cloud.data.clips import Clip
from ruyicam.cloud.family import Family
from ruyicam.cloud.page import picture, plt, write_page

from .metrics import tier_scores
from .validate import Said, open_plain, say

KEPT = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0)


def accuracy_against_bits(says: list[list[Said]], config, kept: tuple[float, ...] = KEPT) -> list[dict]:
    """Points of the curve: says[k] are the answers of several seeds with the share kept[k] of ticks released."""
    rate = config.bits_per_release * config.input.rate_hz
    return [
        {
            "released_share": k,
            "bits_per_second": k * rate,
            **{
                tier: float(np.mean([tier_scores(s.truth.tolist(), s.answers(tier), config.labels)["accuracy"] for s in row]))
                for tier in row[0].tiers
                if tier != "edge"
            },
        }
        for k, row in zip(kept, says, strict=True)
    ]


def draw_losses(history: list[dict]):
    """Every term of the loss by epoch; phases are separated by lines."""
    figure, axis = plt.subplots(figsize=(8, 4))
    for name in sorted({n for e in history for n in e["loss"]}):
        at = [i for i, e in enumerate(history) if name in e["loss"]]
        axis.plot(at, [history[i]["loss"][name] for i in at], label=name)
    for i in range(1, len(history)):
        if history[i]["phase"] != history[i - 1]["phase"]:
            axis.axvline(i - 0.5, color="grey", linestyle=":")
    axis.set(xlabel="epoch", ylabel="loss", yscale="log")
    axis.legend(fontsize=7, ncols=3)
    return figure


def draw_scores(history: list[dict]):
    """Scores while training: balanced accuracy on validation clips, and exact match of text by group of the deepest exit."""
    figure, axis = plt.subplots(figsize=(8, 4))
    asked = [(i, e) for i, e in enumerate(history, start=1) if "val" in e]
    for tier in asked[0][1]["val"] if asked else []:
        axis.plot([i for i, _ in asked], [e["val"][tier]["balanced_accuracy"] for _, e in asked], marker="o", label=tier)
    asked = [(i, list(e["text"].values())[-1]) for i, e in enumerate(history, start=1) if "text" in e]
    for group in asked[0][1]["groups"] if asked else []:
        axis.plot([i for i, _ in asked], [e["groups"][group] for _, e in asked], marker="s", label=f"text: {group}")
    axis.set(xlabel="epoch", ylabel="score")
    axis.legend(fontsize=8)
    return figure


def draw_confusion(said: Said, labels: tuple[str, ...]):
    """One matrix per tier: rows are what it is, columns what was said."""
    figure, axes = plt.subplots(1, len(said.tiers), figsize=(3.2 * len(said.tiers), 3.2), squeeze=False)
    for axis, tier in zip(axes[0], said.tiers, strict=True):
        table = np.zeros((len(labels), len(labels)), int)
        np.add.at(table, (said.truth, said.answers(tier)), 1)
        axis.imshow(table, cmap="Blues")
        for (row, column), value in np.ndenumerate(table):
            axis.text(column, row, value, ha="center", va="center")
        axis.set(title=tier, xticks=range(len(labels)), yticks=range(len(labels)), xlabel="said", ylabel="is")
        axis.set_xticklabels(labels, fontsize=8)
        axis.set_yticklabels(labels, fontsize=8)
    figure.tight_layout()
    return figure


def draw_curve(points: list[dict], mark: float | None = None):
    """Accuracy against released bits per second; `mark` is the rate that keeps 95 % of the accuracy."""
    figure, axis = plt.subplots(figsize=(6, 4))
    for tier in [k for k in points[0] if k not in ("released_share", "bits_per_second")]:
        axis.plot([p["bits_per_second"] for p in points], [p[tier] for p in points], marker="o", label=tier)
    if mark is not None:
        axis.axvline(mark, color="grey", linestyle=":", label=f"{mark:.0f} bits a second keep 95 %")
    axis.set(xlabel="released bits a second, at most", ylabel="accuracy")
    axis.legend()
    return figure


def draw_learning(curves: dict[str, list[dict]]):
    """Per data set, balanced accuracy against the number of clips that were trained on; bars are the spread over seeds."""
    figure, axes = plt.subplots(1, len(curves), figsize=(4 * len(curves), 4), squeeze=False, sharey=True)
    for axis, (source, points) in zip(axes[0], curves.items(), strict=True):
        at = [p["clips"] for p in points]
        for tier in [k for k in points[0] if k != "clips"]:
            scores = [p[tier] for p in points]
            axis.errorbar(at, [s["mean"] for s in scores], [s["spread"] for s in scores], marker="o", capsize=3, label=tier)
        axis.set(title=source, xlabel="clips trained on", xscale="log")
        axis.set_xticks(at, [f"{n:.0f}" for n in at])
        axis.minorticks_off()
    axes[0, 0].set(ylabel="balanced accuracy on other scenes")
    axes[0, 0].legend()
    return figure


def write_report(family: Family, history: list[dict], path: Path, val: list[Clip] | None, cache: Path) -> None:
    """One HTML page without references to anything outside of it."""
    parts = ["<h2>Losses</h2>", picture(draw_losses(history))]
    if any("val" in e or "text" in e for e in history):
        parts += ["<h2>Scores while training</h2>", picture(draw_scores(history))]
    if val:
        windows, config = open_plain(family, val, cache), family.config
        whole = say(family, val, windows)
        points = accuracy_against_bits([[say(family, val, windows, s, k) for s in range(3)] for k in KEPT], config)
        rows = "".join(f"<tr><td>{html.escape(k)}<td>{v:.3f}" for k, v in whole.scores(config.labels)["consistency"].items())
        parts += [
            f"<h2>What the tiers say of {len(val)} validation clips</h2>",
            picture(draw_confusion(whole, config.labels)),
            f"<h2>How often two tiers agree</h2><table>{rows}</table>",
            "<h2>Accuracy against released bits</h2>",
            picture(draw_curve(points)),
        ]
    write_page(path, "Training run", parts)
