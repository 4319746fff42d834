"""`ruyicam bench`: speed beside peers, measured in one run on the machine at hand."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from ruyicam.cloud.errors import Exit, RuyicamError
from ruyicam.cloud.files import write_whole

from .options import CacheOption, EdgeOption, JsonFlag, console, show_table
from .rl_command import SMALL

app = typer.Typer(no_args_is_help=True, help=__doc__)


@app.callback()
def _root() -> None:
    pass


@contextmanager
def _scratch() -> Iterator[tuple[Path, Callable[[str, float, float], None]]]:
    """An empty folder that goes in the end, and what is to be called with (what is done, how much of it, of how much)."""
    from .rl_command import COLUMNS

    with (
        tempfile.TemporaryDirectory(prefix="ruyicam-bench-") as folder,
        Progress(*COLUMNS, console=Console(stderr=True), transient=True) as bar,
    ):
        line = bar.add_task("", total=None)
        yield Path(folder), lambda what, done, of: bar.update(line, completed=done, total=of, description=what)


def _time(t: dict) -> str:
    return f"{t['median_us']:.1f} ± {t['spread_us']:.1f}"


def _show(title: str, what: list[str], rows: list[dict], share: str, name: str) -> None:
    peers = list(rows[0]["peers"])
    cells = [
        [
            *(str(row[key]) for key in what),
            _time(row["ours"]),
            *(f"{row['ratio'][p]:.1f} x" for p in peers),
            *([f"{row[share]:.2f}"] if row.get(share) is not None else []),
        ]
        for row in rows
    ]
    show_table(title, [*what, "ours, us", *peers, *([name] if rows[0].get(share) is not None else [])], cells)


@app.command()
def kernels(as_json: JsonFlag = False) -> None:
    """The mapping and the preprocessing beside NumPy, PyTorch, ONNX Runtime and OpenCV."""
    from .bench_gpu import CALLS, FRAME
    from .bench_kernels import bench_kernels

    with Console(stderr=True).status("") as status:
        result = bench_kernels(status.update if sys.stderr.isatty() else lambda what: None)
    if as_json:
        print(json.dumps(result))
        return
    m = result["machine"]
    console.print(
        f"{m['cpu']}, {m['cores']} cores, {m['simd']}: {m['int8_macs_per_second'] / 1e9:.0f} G int8 products a second, "
        f"{m['read_bytes_per_second'] / 1e9:.1f} GB a second read, one core each"
    )
    console.print("Medians of one call, and by how much the others are slower; threads are the peers', ours takes one.")
    _show("Mapping, steps 1 to 4", ["size", "batch", "threads"], result["mapping"], "int8_peak_fraction", "of int8 peak")
    _show("Key stream, noise and packing", ["batch"], result["release"], "", "")
    _show("Preprocessing", ["width", "height", "threads"], result["preprocess"], "bandwidth_fraction", "of bandwidth")
    graphics = result["gpu"]
    if "not_run" in graphics:
        console.print(f"GPU: not run, {graphics['not_run']}")
        return
    many, alone = graphics["launch_us"]
    console.print(
        f"GPU: {graphics['device']}, {graphics['copy_bytes_per_second'] / 1e9:.0f} GB/s copied; one call of a replayed graph "
        f"of {CALLS}, where the smallest kernel takes {many:.1f} us (alone in a graph {alone:.1f})"
    )
    _show("Mapping on the GPU, steps 1 to 4", ["batch"], graphics["mapping"], "memory_roofline_fraction", "of bandwidth")
    title = "Preprocessing on the GPU, {}x{}".format(*FRAME)
    _show(title, ["cameras"], graphics["preprocess"], "memory_roofline_fraction", "of bandwidth")


@app.command()
def edge(
    model: Annotated[Path | None, typer.Option(help="checkpoint folder; default: the one in the repository")] = None,
    clip: Annotated[Path | None, typer.Option(help="video whose frames are played, at 1280x720; default: a real clip")] = None,
    soak: Annotated[float, typer.Option(help="minutes of the memory soak; 0: none", min=0)] = 30,
    rounds: Annotated[int, typer.Option(help="runs of each kind, whose medians count", min=1)] = 3,
    cameras: Annotated[int, typer.Option(help="one device with so many beside a device for each; 0: neither", min=0)] = 4,
    edge: EdgeOption = None,
    as_json: JsonFlag = False,
) -> None:
    """The device on one core beside a plain Python loop: latency, throughput, memory, start."""
    from .bench_edge import bench_edge
    from .defaults import default_clip, default_model

    with _scratch() as (folder, progress):
        result = bench_edge(folder, model or default_model(), clip or default_clip(), edge, soak, progress, rounds, cameras)
    if as_json:
        print(json.dumps(result))
        return
    m, peer, ratio = result["machine"], result["peer"], result["ratio"]
    console.print(f"{m['cpu']}, one core of {m['cores']}; 1280x720 H.264; medians of {rounds} rounds")
    rows = [
        ("capture to packet, p50 ms", result["latency_ms"]["p50"], peer["latency_ms"]["p50"], ratio["latency_p50"]),
        ("capture to packet, p99 ms", result["latency_ms"]["p99"], peer["latency_ms"]["p99"], ratio["latency_p99"]),
        ("frames/s, 30 fps clip", result["frames_per_s"], peer["frames_per_s"], ratio["frames_per_s"]),
        ("frames/s, every one encoded", result["every_frame_per_s"], peer["every_frame_per_s"], ratio["every_frame_per_s"]),
        ("start to first packet, s", result["start_s"], peer["start_s"], ratio["start"]),
    ]
    cells = [[name, *(f"{v:.2f}" for v in row)] for name, *row in rows]
    show_table("Device and plain Python loop", ["", "device", "peer", "better by"], cells)
    memory = ", ".join(f"{name} {v:.0f}" for name, v in result["processes_mb"].items())
    console.print(f"memory at most, MB: {memory}; peer {peer['rss_mb']:.0f}")
    if several := result["cameras"]:
        named = {"private_mb": "private memory in all, MB", "cpu_s": "processor, s", "p99_ms": "capture to packet, p99 ms"}
        parts = [several[k] for k in ("one_device", "a_device_each", "ratio")]
        cells = [[name, *(f"{part[key]:.2f}" for part in parts)] for key, name in named.items()]
        show_table(f"{several['n']} cameras", ["", "one device", "a device each", "better by"], cells)
    if result["soak"]:
        slopes = ", ".join(f"{n} {v:+.2f}" for n, v in result["soak"]["rss_slope_mb_per_h"].items())
        console.print(f"memory slope over {soak:g} minutes, MB an hour: {slopes}")


@app.command()
def serve(
    model: Annotated[Path | None, typer.Option(help="checkpoint folder; default: the one in the repository")] = None,
    clip: Annotated[Path | None, typer.Option(help="video whose packets all cameras send; default: a real clip")] = None,
    cameras: Annotated[int, typer.Option(help="of the steady run", min=1)] = 200,
    minutes: Annotated[float, typer.Option(help="of the steady run", min=0.2)] = 10,
    most: Annotated[int, typer.Option(help="cameras at which the search for saturation ends; 0: none", min=0)] = 2000,
    edge: EdgeOption = None,
    as_json: JsonFlag = False,
) -> None:
    """The service under simulated cameras: packet to event, loss, memory, saturation and what comes after it."""
    from .bench_serve import bench_serve
    from .defaults import default_clip, default_model

    with _scratch() as (folder, progress):
        result = bench_serve(folder, model or default_model(), clip or default_clip(), edge, cameras, minutes, most, progress)
    if as_json:
        print(json.dumps(result))
        return
    m = result["machine"]
    console.print(f"{m['cpu']}, {m['cores']} cores, the simulated cameras on them, too")
    named = {
        "cameras": "cameras", "packets_per_s": "packets/s", "p50": "p50 ms", "p99": "p99 ms", "lost": "lost",
        "most_lag_s": "lag s", "held": "held", "most_waiting": "waiting", "drained_s": "drained s", "rss_mb": "MB",
    }  # fmt: skip
    runs = [("steady", result), *(("more", run) for run in result["more"]), *((n, result[n]) for n in ("past", "after"))]
    flat = [(name, run | run["latency_ms"] | {"held": int(run["held"])}) for name, run in runs if run]
    cells = [[name, *(f"{run[key]:.4g}" for key in named)] for name, run in flat]
    show_table("Packet to event", ["", *named.values()], cells)
    used = result["processor"]
    console.print(
        f"processor in the steady run: {used['service_us_per_packet']:.0f} us a packet in the service, "
        f"{used['model_ms_per_window']:.2f} ms a window in the model"
    )
    if (slope := result["rss_slope_mb_per_h"]) is not None:
        console.print(f"memory slope of the server over {minutes:g} minutes: {slope:+.1f} MB an hour")


@app.command()
def ray(
    workers: Annotated[list[int] | None, typer.Option(help="replicas of the model, each on a node; default: 1 and 2")] = None,
    rounds: Annotated[int, typer.Option(help="of which medians are taken", min=1)] = 3,
    model: Annotated[Path | None, typer.Option(help="checkpoint folder; default: the one in the repository")] = None,
    clip: Annotated[Path | None, typer.Option(help="video whose packets have piled up; default: a real clip")] = None,
    edge: EdgeOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Windows a second that the service reads, with the model beside it and with its replicas on a Ray cluster."""
    from .bench_ray import bench_ray
    from .defaults import default_clip, default_model

    with _scratch() as (folder, progress):
        result = bench_ray(
            folder, model or default_model(), clip or default_clip(), edge, sorted(workers or [1, 2]), rounds, progress
        )
    if as_json:
        print(json.dumps(result))
        return
    m = result["machine"]
    console.print(f"{m['cpu']}, {m['cores']} cores for all; medians of {rounds} rounds")
    rows = [
        ["none: nothing was released", f"{result['quiet_windows_per_s']:.0f}", ""],
        ["beside the service", f"{result['windows_per_s_without_ray']:.0f}", ""],
    ]
    rows += [[f"Ray, {w['workers']}", f"{w['windows_per_s']:.0f}", f"{w['times_fewest']:.2f}"] for w in result["workers"]]
    show_table("Windows read", ["replicas", "windows/s", "times the fewest"], rows)


@app.command()
def rl(
    out: Annotated[Path, typer.Option(help="folder of the runs and the report; a bench goes on there")],
    task: Annotated[str, typer.Option(help="arithmetic, gsm8k or behaviour")] = "arithmetic",
    model: Annotated[str | None, typer.Option(help="see 'ruyicam rl'")] = None,
    data: Annotated[Path | None, typer.Option(help="gsm8k: folder of train.jsonl and test.jsonl")] = None,
    target: Annotated[float, typer.Option(help="reward that is to be reached", min=0, max=1)] = 0.85,
    seeds: Annotated[int, typer.Option(min=1)] = 5,
    steps: Annotated[int, typer.Option(help="of GRPO", min=1)] = 60,
    bppo_steps: Annotated[
        int | None, typer.Option(help="of BPPO, which take less time each; default: twice as many", min=1)
    ] = None,
    checked: Annotated[
        float | None,
        typer.Option(help="arithmetic: share of the worked-out demonstrations that do every step twice", min=0, max=1),
    ] = None,
    schedule: Annotated[
        str, typer.Option(help="of BPPO, as in 'ruyicam rl'; none where a second round costs more than its tokens, as on a GPU")
    ] = "decided",
    hidden: Annotated[int, typer.Option(help="arithmetic: hidden size of the new model, a multiple of 32", min=32)] = SMALL[0],
    layers: Annotated[int, typer.Option(help="arithmetic: layers of the new model", min=1)] = SMALL[1],
    prompts: Annotated[int, typer.Option(help="prompts of a step", min=1)] = 16,
    samples: Annotated[int, typer.Option(help="responses of a group", min=2)] = 8,
    micro_batch: Annotated[int, typer.Option(help="responses of one forward pass", min=1)] = 32,
    learning_rate: Annotated[float | None, typer.Option(help="of both; default: the best of a search for each")] = None,
    ablation_seeds: Annotated[int, typer.Option(help="seeds of each row of the ablation; 0: none", min=0)] = 2,
    tests: Annotated[int, typer.Option(help="test prompts", min=1)] = 600,
    scenes: Annotated[int, typer.Option(help="behaviour: scenes to learn from", min=1)] = 1000,
    bf16: Annotated[bool, typer.Option("--bf16")] = False,
    cache: CacheOption = None,
    as_json: JsonFlag = False,
) -> None:
    """BPPO beside TRL's GRPO: time to a target reward, and what each part of it does."""
    from .rl_command import COLUMNS, load_task, load_trl, rl_config

    if hidden % 32:
        raise RuyicamError(Exit.USAGE, f"--hidden is {hidden}, expected a multiple of 32")
    load_trl()
    from .bench_rl import Bench, bench_rl

    with Progress(*COLUMNS, console=Console(stderr=True), transient=True) as bar:
        size = (hidden, layers)
        kind, network, words, _ = load_task(task, model, data, scenes, tests, cache, out, bar, checked, size=size)
        given = {"learning_rate": learning_rate} if learning_rate else {}
        base = rl_config(
            steps=steps, prompts=prompts, samples=samples, micro_batch=micro_batch, bf16=bf16, schedule=schedule, **given
        )
        line = bar.add_task("", total=steps)
        bench = Bench(kind, network, words, out, base, target, tests)
        result = bench_rl(
            bench,
            seeds,
            lambda what, done, of: bar.update(line, completed=done, total=of, description=what),
            ablation_seeds,
            learning_rate is None,
            bppo_steps or 2 * steps,
        )
    write_whole(out / "bench.json", json.dumps(result, indent=1) + "\n")
    if as_json:
        print(json.dumps(result))
        return
    m = result["machine"]
    console.print(
        f"{m['gpu'] or m['cpu']}, {m['threads']} threads; {task}, {seeds} seeds; before: reward "
        f"{result['start']['sampled']:.3f}, {result['start']['length']:.1f} tokens; learning rates "
        + ", ".join(f"{rate:g} ({name})" for name, rate in result["learning_rate"].items())
    )
    names = {
        "time_to_target_s": "to target, s", "reached": "reached", "update_s": "update, s", "generate_s": "generate, s",
        "tokens_updated": "tokens", "steps": "steps", "whole_s": "whole, s", "reward": "reward", "length": "length",
    }  # fmt: skip

    def cells(s: dict) -> list[str]:
        return ["never" if s[n] is None else f"{s[n]:.3g}" for n in names]

    show_table(
        f"To a reward of {target:g}",
        ["", *names.values()],
        [["grpo", *cells(result["grpo"])], ["bppo", *cells(result["bppo"])]],
    )
    if result["ablation"]:
        rows = [[n, *cells(s)] for n, s in result["ablation"].items()]
        show_table(f"BPPO with one part changed, seeds: {min(ablation_seeds, seeds)}", ["", *names.values()], rows)
    show_table("GRPO over BPPO", ["", "ratio"], [[n, "" if v is None else f"{v:.3g}"] for n, v in result["ratio"].items()])
