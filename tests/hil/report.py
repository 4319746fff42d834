"""Figures of a bench run: JSON, plots, a page, and the comparison with an earlier run."""

from __future__ import annotations

import base64
import html
import json
import platform
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

QUANTILES = {"p50": 50, "p95": 95, "p99": 99, "p99.9": 99.9}


def summary(seconds: np.ndarray) -> dict[str, float]:
    """p50, p95, p99, p99.9, largest and jitter (standard deviation) in milliseconds, and how many there are."""
    ms = np.asarray(seconds) * 1000
    figures = {name: float(np.percentile(ms, q)) for name, q in QUANTILES.items()}
    return {**figures, "max": float(ms.max()), "jitter": float(ms.std()), "count": len(ms)}


class Results:
    """What was measured. `figures`: by name, all of them better when smaller; `tables` and `series` are for people."""

    def __init__(self, target: str):
        self.target = target
        self.figures: dict[str, float] = {}
        self.tables: dict[str, dict] = {}
        self.series: dict[str, tuple[str, str, dict[str, tuple[list, list]]]] = {}
        self.latencies: dict[str, np.ndarray] = {}

    def latency(self, name: str, seconds: np.ndarray) -> dict[str, float]:
        """Notes a distribution; its quantiles count for the baseline, the largest value does not."""
        said = summary(seconds)
        self.latencies[name], self.tables[name] = np.asarray(seconds) * 1000, said
        self.figures |= {f"{name}_{q}_ms": said[q] for q in ("p50", "p95", "p99")}
        return said

    def json(self) -> dict:
        """What hil.json holds."""
        when = datetime.now(UTC).isoformat(timespec="seconds")
        return {"target": self.target, "bench": platform.node(), "when": when, "figures": self.figures, "tables": self.tables}

    def worse_than(self, baseline: dict, margin: float) -> list[str]:
        """One line for each figure that is worse than `baseline`'s by more than that share."""
        lines = []
        for name, before in baseline["figures"].items():
            now = self.figures.get(name)
            if now is not None and now > before * (1 + margin):
                lines.append(f"{name}: {now:.3g}, was {before:.3g}, at most {before * (1 + margin):.3g}")
        return lines

    def write(self, out: Path) -> None:
        """hil.json, a PNG for every distribution and series, and hil.html with all of it."""
        (out / "hil.json").write_text(json.dumps(self.json(), indent=2) + "\n")
        plots = [self._draw_latency(out, n) for n in self.latencies] + [self._draw_series(out, n) for n in self.series]
        rows = "".join(
            f"<h2>{html.escape(n)}</h2><pre>{html.escape(json.dumps(t, indent=1))}</pre>" for n, t in self.tables.items()
        )
        pictures = "".join(
            f'<img alt="{html.escape(p.stem)}" src="data:image/png;base64,{base64.b64encode(p.read_bytes()).decode()}">'
            for p in plots
        )
        title = f"ruyicam bench: {html.escape(self.target)}"
        page = f"<!doctype html><meta charset=utf-8><title>{title}</title><h1>{title}</h1>{pictures}{rows}"
        (out / "hil.html").write_text(page)

    def _axes(self):
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot

        return pyplot.subplots(figsize=(7, 3.5), layout="constrained")

    def _save(self, figure, path: Path) -> Path:
        from matplotlib import pyplot

        figure.savefig(path, dpi=110)
        pyplot.close(figure)
        return path

    def _draw_latency(self, out: Path, name: str) -> Path:
        figure, axes = self._axes()
        ms = np.sort(self.latencies[name])
        axes.step(ms, 1 - np.arange(len(ms)) / len(ms), where="post")
        axes.set(xlabel="ms", ylabel="share that is slower", yscale="log", title=name.replace("_", " "))
        axes.grid(alpha=0.3)
        return self._save(figure, out / f"{name}.png")

    def _draw_series(self, out: Path, name: str) -> Path:
        figure, axes = self._axes()
        x_label, y_label, lines = self.series[name]
        for label, (x, y) in lines.items():
            axes.plot(x, y, marker="o", label=label)
        axes.set(xlabel=x_label, ylabel=y_label, title=name.replace("_", " "), ylim=(0, None))
        axes.legend()
        axes.grid(alpha=0.3)
        return self._save(figure, out / f"{name}.png")
