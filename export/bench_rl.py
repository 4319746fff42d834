"""`ruyicam bench rl`: BPPO beside TRL's GRPO, the same model, prompts, samples and machine, in one run."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, median, stdev

import torch

from ruyicam.cloud.bppo.report import smooth
from ruyicam.cloud.bppo.run import History, RLConfig, evaluate, make_trainer
from ruyicam.cloud.bppo.tasks import Task
from ruyicam.cloud.files import write_whole
from ruyicam.cloud.page import picture, plt, table, write_page

from .bench_kernels import machine

# Steps over which a reward is averaged before it counts as reached.
OVER = 5
RATES = (5e-5, 1e-4, 2e-4)
# Seeds of the search for each algorithm's learning rate, apart from those that are reported.
SEARCH_SEEDS = (100, 101)
# Rewards on test prompts that are no further apart count as equal.
ALIKE = 0.01
ABLATION = {
    "bppo": {},
    "without pair selection": {"selection": "all"},
    "half as prefix": {"prefix_ratio": 0.5},
    "without prefix": {"prefix": "full"},
    "without scheduling": {"schedule": "none"},
    "random pair": {"selection": "random"},
    "longest pair": {"selection": "longest"},
    "pair not weighted": {"pair_weight": "sample"},
    "rounds until a pair": {"schedule": "pair", "first_round": 4},
    "ended responses stay": {"compact_every": 0},
}


class Bench:
    """Runs, each kept as a file in `out`, so that an interrupted bench goes on."""

    def __init__(self, task: Task, model, words, out: Path, base: RLConfig, target: float, tests: int):
        self.task, self.model, self.words = task, model, words
        self.out, self.base, self.target, self.tests = out, base, target, tests
        self.start = evaluate(task, model, words, tests)

    def run(self, name: str, seed: int, step: Callable[[int], None], **changes) -> dict:
        """One training run from the start: {"rows": a line per step, "test": scores}."""
        config = self.base.model_copy(update={"seed": seed, **changes})
        path = self.out / "runs" / f"{name.replace(' ', '-')}-{seed}.json"
        own = config.model_dump() | {"tests": self.tests}
        if path.exists() and (kept := json.loads(path.read_text()))["config"] == own:
            return kept
        model = copy.deepcopy(self.model)
        history = History(None, lambda row: step(row["step"]))
        trainer = make_trainer(config, self.task, model, self.words, self.out, history, logs=False)
        trainer.train()
        result = {"config": own, "rows": history.rows, "test": evaluate(self.task, model, self.words, self.tests)}
        write_whole(path, json.dumps(result))
        return result

    def time_to_target(self, run: dict) -> float | None:
        """Seconds of training until the mean reward of OVER steps reaches the target; None if it never does."""
        rows = run["rows"]
        means = smooth([r["reward"] for r in rows], OVER)
        return next((r["time_s"] for r, m in list(zip(rows, means, strict=True))[OVER - 1 :] if m >= self.target), None)

    def summary(self, runs: list[dict]) -> dict:
        """Medians over seeds of the times, means of reward and length on test prompts, and their spread."""
        times = [self.time_to_target(r) for r in runs]
        reached = [t for t in times if t is not None]

        def column(name: str) -> float:
            return median(median(x[name] for x in r["rows"]) for r in runs)

        tests = [r["test"] for r in runs]
        rewards, lengths = [t["sampled"] for t in tests], [t["length"] for t in tests]
        return {
            # A run that never got there counts as later than all others.
            "time_to_target_s": median(t if t is not None else float("inf") for t in times) if reached else None,
            "reached": len(reached),
            "update_s": column("time/update_s"),
            "generate_s": column("time/generate_s"),
            "tokens_updated": median(fmean(_updated(x, r["config"]) for x in r["rows"]) for r in runs),
            "steps": runs[0]["config"]["steps"],
            "whole_s": median(r["rows"][-1]["time_s"] for r in runs),
            "reward": fmean(rewards),
            "reward_spread": stdev(rewards) if len(rewards) > 1 else 0.0,
            "greedy": fmean(t["greedy"] for t in tests),
            "length": fmean(lengths),
            "length_spread": stdev(lengths) if len(lengths) > 1 else 0.0,
            "times_to_target_s": times,
        }


def _updated(row: dict, config: dict) -> float:
    """Tokens of a step that enter the loss; GRPO's are all that were sampled."""
    return row.get("bppo/tokens_updated", row["completions/mean_length"] * config["prompts"] * config["samples"])


def bench_rl(
    bench: Bench,
    seeds: int,
    progress: Callable[[str, int, int], None],
    ablation_seeds: int = 3,
    search: bool = True,
    bppo_steps: int | None = None,
) -> dict:
    """Searches learning rates, runs both algorithms by turns, then BPPO with each part changed. See `docs/bppo.md`.

    bppo_steps: of BPPO, where it is not to take as many as GRPO.
    """
    steps = {"grpo": bench.base.steps, "bppo": bppo_steps or bench.base.steps}

    def run(name: str, seed: int, **changes) -> dict:
        changes = {"steps": steps[changes["algorithm"]]} | changes
        return bench.run(name, seed, lambda step: progress(f"{name}, seed {seed}", step, changes["steps"]), **changes)

    best, searched = {}, {}
    for algorithm in ("grpo", "bppo"):
        best[algorithm] = bench.base.learning_rate
        if not search:
            continue
        found = {
            rate: [run(f"{algorithm} {rate:g}", seed, algorithm=algorithm, learning_rate=rate) for seed in SEARCH_SEEDS]
            for rate in RATES
        }
        searched[algorithm] = {f"{rate:g}": bench.summary(runs) for rate, runs in found.items()}
        best[algorithm] = _best(bench, found)
    main: dict[str, list[dict]] = {"grpo": [], "bppo": []}
    for seed in range(seeds):
        for algorithm, runs in main.items():
            runs.append(run(algorithm, seed, algorithm=algorithm, learning_rate=best[algorithm]))
    ablation = {}
    changed = ABLATION | ({"as many steps as GRPO": {"steps": steps["grpo"]}} if steps["bppo"] != steps["grpo"] else {})
    for name, changes in changed.items() if ablation_seeds else ():
        runs = [
            run(name, seed, algorithm="bppo", learning_rate=best["bppo"], **changes)
            for seed in range(min(ablation_seeds, seeds))
        ]
        ablation[name] = bench.summary(runs)
    grpo, bppo = (bench.summary(runs) for runs in main.values())
    result = {
        "seeds": seeds,
        "task": bench.task.name,
        "target": bench.target,
        "start": bench.start,
        "learning_rate": best,
        "grpo": grpo,
        "bppo": bppo,
        "ratio": _ratios(grpo, bppo),
        "ablation": ablation,
        "search": searched,
        "machine": {
            **{k: v for k, v in machine().items() if k != "simd"},
            "threads": torch.get_num_threads(),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
            "torch": torch.__version__,
        },
    }
    _draw(bench, main, result)
    return result


def _best(bench: Bench, found: dict[float, list[dict]]) -> float:
    """The learning rate with the highest reward on test prompts at the end; of those with about as much, that which reaches
    the target first."""
    sums = {rate: bench.summary(runs) for rate, runs in found.items()}
    highest = max(s["reward"] for s in sums.values())
    good = {rate: s["time_to_target_s"] for rate, s in sums.items() if s["reward"] >= highest - ALIKE}
    return min(good, key=lambda rate: float("inf") if good[rate] is None else good[rate])


def _ratios(grpo: dict, bppo: dict) -> dict:
    """GRPO's figure over BPPO's, but for the last two; None where there is none."""

    def over(name: str) -> float | None:
        return grpo[name] / bppo[name] if grpo[name] and bppo[name] else None

    return {
        "time_to_target": over("time_to_target_s"),
        "update": over("update_s"),
        "generate": over("generate_s"),
        "whole": over("whole_s"),
        "tokens_updated": over("tokens_updated"),
        "length": bppo["length"] / grpo["length"],
        "reward_difference": bppo["reward"] - grpo["reward"],
    }


def _draw(bench: Bench, main: dict[str, list[dict]], result: dict) -> None:
    """report.html beside the runs: reward and length against time, and the tables."""
    figure, axes = plt.subplots(1, 2, figsize=(11, 4))
    for (name, runs), colour in zip(main.items(), ("tab:gray", "tab:blue"), strict=True):
        for i, r in enumerate(runs):
            at = [x["time_s"] for x in r["rows"]]
            for axis, column in zip(axes, ("reward", "completions/mean_length"), strict=True):
                axis.plot(
                    at, smooth([x[column] for x in r["rows"]], OVER), color=colour, alpha=0.7, label=name if not i else None
                )
    axes[0].axhline(bench.target, color="black", linestyle=":", linewidth=1)
    axes[0].set(xlabel="seconds of training", ylabel=f"reward, mean of {OVER} steps")
    axes[1].set(xlabel="seconds of training", ylabel="tokens of a response")
    axes[0].legend()
    figure.savefig(bench.out / "curves.svg", bbox_inches="tight")
    names = (
        "time_to_target_s", "reached", "update_s", "generate_s", "tokens_updated", "steps", "whole_s", "reward", "length",
    )  # fmt: skip
    rows = [
        [n, *(("never" if s[k] is None else f"{s[k]:.3g}") for k in names)]
        for n, s in {
            "grpo": result["grpo"],
            "bppo": result["bppo"],
            **{f"bppo: {k}": v for k, v in result["ablation"].items()},
        }.items()
    ]
    write_page(bench.out / "report.html", f"BPPO beside GRPO: {bench.task.name}", [picture(figure), table(["", *names], rows)])
