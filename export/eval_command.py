"""`ruyicam eval`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from ruyicam.cloud.errors import Exit, RuyicamError

from .options import PEER, CacheOption, EdgeOption, JsonFlag, SetOption, console, run_config, show_table


def evaluate(
    data: Annotated[list[Path] | None, typer.Option(help="folder of label/clip.mp4; may be given several times")] = None,
    model: Annotated[
        list[Path] | None, typer.Option(help="checkpoint folder; with --questions alone, several runs of one recipe")
    ] = None,
    through: Annotated[str, typer.Option(help="'edge': the real device binary and server; 'torch': the model alone")] = "edge",
    edge: EdgeOption = None,
    questions: Annotated[int, typer.Option(help="generated scenes that the text heads are asked about; 0: none")] = 0,
    first_scene: Annotated[
        int | None,
        typer.Option(
            help="with --questions: number of the first of these scenes; 0: those that training begins with; default: new ones",
            min=0,
        ),
    ] = None,
    against: Annotated[
        Path | None, typer.Option(help="with --questions: a checkpoint folder; how much better --model is, scene by scene")
    ] = None,
    folds: Annotated[int, typer.Option(help="cross-validate over scenes in so many folds; takes --config")] = 0,
    seeds: Annotated[int, typer.Option(help="with --folds: how often, each with other folds and noise")] = 3,
    config: Annotated[Path | None, typer.Option(help="with --folds: what each run trains, TOML")] = None,
    changes: SetOption = None,
    init: Annotated[Path | None, typer.Option(help="with --folds: checkpoint that each run begins from")] = None,
    peer: Annotated[bool, typer.Option("--peer", help="with --folds: also without mapping (from INIT/no-mapping)")] = False,
    alone: Annotated[bool, typer.Option(help="with --folds: also train every tier by itself")] = False,
    share: Annotated[list[float] | None, typer.Option(help="with --folds: also train on this share of the clips")] = None,
    ablate: Annotated[list[str] | None, typer.Option(help="with --folds: also with TERM=WEIGHT of \\[loss] changed")] = None,
    test: Annotated[list[Path] | None, typer.Option(help="with --folds: folder that no run trains on")] = None,
    detector: Annotated[Path | None, typer.Option(help="with --folds, without --init: the backbone's weights")] = None,
    out: Annotated[Path, typer.Option(help="with --folds: folder of the runs; what is there is kept")] = Path("runs/eval"),
    jobs: Annotated[int, typer.Option(help="with --folds: runs at a time, one thread each; 0: one per core")] = 0,
    cache: CacheOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Accuracy per tier on labelled clips and how often tiers agree; questions to the text heads; cross-validation."""
    if through not in ("edge", "torch"):
        raise RuyicamError(Exit.USAGE, f"--through is '{through}', expected 'edge' or 'torch'")
    for option, value in (("against", against), ("first-scene", first_scene)):
        if value is not None and not questions:
            raise RuyicamError(Exit.USAGE, f"--{option} {value} takes --questions N, from 1")
    if any(not 0 < s < 1 for s in share or []):
        raise RuyicamError(Exit.USAGE, f"--share is {share}, expected shares between 0 and 1")
    if folds:
        if not config or not data or folds < 2:
            raise RuyicamError(Exit.USAGE, "--folds takes a number from 2, --config FILE and --data DIR")
        if model or questions:
            raise RuyicamError(Exit.USAGE, "--folds trains models; give --model and --questions in a command without it")
        settings = run_config(config, changes=changes or [])
        ablations = [_change(text, settings.loss) for text in ablate or []]
        result = _cross(
            data, test or [], settings, folds, seeds, out, init, peer, detector, alone, share or [], ablations, jobs, cache
        )
    elif not model or not (data or questions):
        raise RuyicamError(Exit.USAGE, "give --model DIR with --data DIR or --questions N, or --folds N with --config FILE")
    elif len(model) == 1:
        result = _one(model[0], data, through, edge, cache) if data else {}
    elif data or len(set(model)) < len(model):
        raise RuyicamError(Exit.USAGE, f"{len(model)} --model are given, expected different ones and --questions N alone")
    else:
        result = {}
    if questions:
        result["text"] = _text(model, against, questions, first_scene, cache)
    if as_json:
        print(json.dumps(result))
    else:
        _show(result)


def _change(text: str, loss) -> tuple[str, float]:
    """(term, weight) of TERM=WEIGHT, checked against [loss]."""
    name, _, value = text.partition("=")
    try:
        type(loss).model_validate(loss.model_dump() | {name: float(value)})
    except ValueError as error:
        names = ", ".join(type(loss).model_fields)
        raise RuyicamError(Exit.USAGE, f"--ablate is '{text}', expected TERM=WEIGHT with one of {names}") from error
    return name, float(value)


def _bar() -> Progress:
    return Progress(console=Console(stderr=True), disable=not sys.stderr.isatty())


def _one(model: Path, data: list[Path], through: str, edge: Path | None, cache: Path | None) -> dict:
    from ruyicam.cloud.data.clips import find_clips
    from ruyicam.cloud.family.load import load_family
    from ruyicam.cloud.training.validate import validate

    from .evaluate import evaluate_through_edge

    family = load_family(model)
    clips = find_clips(data, family.config.labels)
    if through == "torch":
        result = {"clips": len(clips), "through": "torch"} | validate(family, clips, cache)
    else:
        with _bar() as progress:
            bar = progress.add_task("clips", total=len(clips))
            result = evaluate_through_edge(model, clips, edge, lambda: progress.advance(bar))
    if (model / PEER).is_dir():
        scores = validate(load_family(model / PEER), clips, cache)["tiers"]
        result["no_mapping"] = {tier: s["accuracy"] for tier, s in scores.items()}
    return result


def _text(models: list[Path], against: Path | None, questions: int, first: int | None, cache: Path | None) -> dict:
    """The same questions to one model or several runs; RuyicamError(USAGE) where they have not the same tiers."""
    from ruyicam.cloud.family.load import load_family
    from ruyicam.cloud.training.ask import FIRST_SCENE, answers_of, difference, over_runs, summary

    first = FIRST_SCENE if first is None else first
    families = {str(m): load_family(m) for m in [*models, *([against] if against else [])]}
    if len({tuple(f.config.trunk.exits) for f in families.values()}) > 1:
        raise RuyicamError(Exit.USAGE, "the models have different tiers, expected runs of one recipe")
    said = {name: answers_of(f, questions, cache, first=first) for name, f in families.items()}
    runs = {str(m): said[str(m)] for m in models}
    text = over_runs({name: summary(o) for name, o in runs.items()}) if len(runs) > 1 else summary(next(iter(runs.values())))
    text["first_scene"] = first
    if against:
        try:
            text["against"] = {"model": str(against)} | difference(list(runs.values()), said[str(against)])
        except ValueError as error:
            raise RuyicamError(Exit.USAGE, f"--against {against}: {error}") from error
    return text


def _cross(data, test, config, folds, seeds, out, init, peer, detector, alone, shares, changes, jobs, cache) -> dict:
    import os

    from ruyicam.cloud.data.clips import find_clips
    from ruyicam.cloud.data.store import default_cache

    from .crosseval import CrossEval

    labels = config.model.labels
    run = CrossEval(
        config=config,
        clips=find_clips(data, labels),
        extra=find_clips(test, labels) if test else [],
        folds=folds,
        seeds=seeds,
        out=out,
        cache=cache or default_cache(),
        init=init,
        detector=detector,
        peer=peer,
        alone=alone,
        shares=tuple(sorted(shares)),
        changes=tuple(changes),
    )
    with _bar() as progress:
        bars: dict[str, int] = {}

        def show(name: str, done: int, of: int) -> None:
            if name not in bars:
                bars[name] = progress.add_task(name, total=of)
            progress.update(bars[name], completed=done, total=of)

        return run.run(jobs or os.cpu_count() or 1, show)


def _figure(value: float | dict) -> str:
    return f"{value['mean']:.3f} ± {value['spread']:.3f}" if isinstance(value, dict) else f"{value:.3f}"


def _show_scores(title: str, tiers: dict, consistency: dict | None) -> None:
    labels = list(next(iter(tiers.values()))["recall"])
    rows = [
        [tier, *(_figure(v) for v in (s["accuracy"], s["balanced_accuracy"], *(s["recall"][x] for x in labels)))]
        for tier, s in tiers.items()
    ]
    show_table(title, ["tier", "accuracy", "balanced", *(f"recall {x}" for x in labels)], rows)
    if consistency:
        console.print("agreement: " + ", ".join(f"{pair} {_figure(value)}" for pair, value in consistency.items()))


def _show(result: dict) -> None:
    if "sources" in result:
        how = f"{result['folds']}-fold cross-validation, {result['seeds']} seeds"
        for source, s in result["sources"].items():
            _show_scores(f"{source}: {s['clips']} clips, {how}", s["tiers"], s["consistency"])
            g = result["gate"][source]
            console.print(
                f"edge exit as a gate at {g['threshold']}: recall {_figure(g['recall'])}, "
                f"false alarms {_figure(g['false_alarms'])}"
            )
        if "tier_by_tier" in result:
            alone = result["tier_by_tier"]
            rows = [
                [name, *(_figure(v) for v in part["consistency"].values()), f"{part['training_cpu_seconds']:.0f} s"]
                for name, part in (
                    ("together", {**result, "consistency": result["sources"][result["main_source"]]["consistency"]}),
                    ("tier by tier", alone),
                )
            ]
            show_table("Trained together or tier by tier", ["", *alone["consistency"], "CPU"], rows)
        if "learning_curve" in result:
            for source, curve in result["learning_curve"].items():
                points = [[f"{p['clips']:.0f}", *(_figure(v) for k, v in p.items() if k != "clips")] for p in curve]
                show_table(f"{source}: balanced accuracy against clips trained on", ["clips", *result["tiers"]], points)
        if "ablation" in result:
            own = {
                "loss": "as configured",
                "tiers": {t: v["accuracy"] for t, v in result["sources"][result["main_source"]]["tiers"].items()},
                "consistency": result["sources"][result["main_source"]]["consistency"],
            }
            rows = [
                [row["loss"], *(_figure(v) for part in ("tiers", "consistency") for v in row[part].values())]
                for row in (own, *result["ablation"])
            ]
            show_table("Accuracy and agreement with one weight changed", ["", *own["tiers"], *own["consistency"]], rows)
        points = [[f"{p['bits_per_second']:.0f}", _figure(p["cloud-s"]), _figure(p["cloud-l"])] for p in result["curve"]]
        show_table("Accuracy against released bits a second", ["bits a second", "cloud-s", "cloud-l"], points)
        console.print(f"{result['keeps_95_percent_bits_per_second']:.0f} bits a second keep 95 % of the accuracy")
    elif "tiers" in result:
        _show_scores(f"{result['clips']} clips through {result['through']}", result["tiers"], result["consistency"])
        if "bits_per_second" in result:
            console.print(f"{result['bits_per_second']:.0f} bits a second, profile {result['profile']}")
    if "no_mapping" in result:
        figures = ", ".join(f"{tier} {value:.3f}" for tier, value in result["no_mapping"].items())
        console.print(f"without mapping: {figures}")
    if "text" in result:
        _show_text(result["text"])


def _show_text(text: dict) -> None:
    groups = list(text["most_frequent_answer"])
    scored = {**text["tiers"], **text.get("runs", {})}
    rows = [
        [
            name,
            _figure(s["exact_match"]),
            "{:.2f} to {:.2f}".format(*s["interval"]) if "interval" in s else "",
            *(_figure(s["groups"][g]) for g in groups),
        ]
        for name, s in scored.items()
    ]
    rows.append(["most frequent", "", "", *(_figure(text["most_frequent_answer"][g]) for g in groups)])
    show_table(
        f"{text['questions']} questions about {text['scenes']} scenes: exact match, mean of the groups",
        ["tier", "mean", "95 %", *groups],
        rows,
    )
    deepest = list(text["tiers"])[-1]
    chosen = ", ".join(f"{b} {_figure(value)}" for b, value in text["tiers"][deepest]["one_of_two"].items())
    console.print(f"{deepest} has the right one of two people: {chosen}")
    console.print("reward of a report: " + ", ".join(f"{n} {_figure(s['report']['reward'])}" for n, s in scored.items()))
    if other := text.get("against"):
        figures = (
            f"{name} {other[part]['mean']:+.3f} ({other[part]['interval'][0]:+.3f} to {other[part]['interval'][1]:+.3f})"
            for name, part in (("exact match", "exact_match"), ("report", "report"))
        )
        console.print(f"better than {other['model']} by: {', '.join(figures)}")
