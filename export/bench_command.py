"""`ruyicam bench`: speed beside peers, measured in one run on the machine at hand."""

from __future__ import annotations

import json
import sys

import typer
from rich.console import Console

from .options import JsonFlag, console, show_table

app = typer.Typer(no_args_is_help=True, help=__doc__)


@app.callback()
def _root() -> None:
    pass


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
    console.print(f"GPU: {graphics['device']}, {graphics['copy_bytes_per_second'] / 1e9:.0f} GB/s copied; replayed graphs")
    _show("Mapping on the GPU, steps 1 to 4", ["batch"], graphics["mapping"], "memory_roofline_fraction", "of bandwidth")
