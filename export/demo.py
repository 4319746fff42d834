"""`ruyicam demo`: one real clip, the whole way, on this machine."""

from __future__ import annotations

import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ruyicam.cloud.errors import Exit, RuyicamError

from .bench_session import BenchSession
from .defaults import default_clip, default_model

STAGES = ("capture", "preprocess", "encoder", "mapping", "tick", "release", "spool", "uplink")


def run_demo(source: str | None, model: Path | None, edge: Path | None) -> dict:
    """Exports a bundle, starts the server, plays the source through the edge binary; returns what happened."""
    model = model or default_model()
    source = source or str(default_clip())
    is_file = "://" not in source and not source.startswith(("pipeline:", "v4l2:"))
    if is_file and not Path(source).is_file():
        raise RuyicamError(Exit.SOURCE, f"source {source}: no such file")
    # They take seconds to load; a clip that is not there is said at once.
    from ruyicam.cloud.family.load import load_family

    from .evaluate import export_throwaway

    family = load_family(model)
    with tempfile.TemporaryDirectory(prefix="ruyicam-demo-") as scratch:
        folder = Path(scratch)
        report, public = export_throwaway(family, folder, Path(source) if is_file else default_clip())
        with BenchSession(model, report.path, public, edge, folder / "session") as session:
            stats = session.play(source)
            boot = session.wait_read(stats["boot_id"])
            events = session.get(f"/v1/events?limit=1000&boot_id={stats['boot_id']}")
    return {
        "source": source,
        "bundle_id": report.bundle_id,
        "onnx_worst_error": report.worst,
        "events": sorted(events, key=lambda e: e["first_tick"]),
        "windows": boot["windows"],
        "edge": stats,
    }


def show_demo(result: dict, console: Console) -> None:
    """Draws the result as three tables."""
    rate = result["edge"]["ticks"] / max(result["edge"]["seconds"], 1e-9)
    events = Table(title=f"Events in {Path(result['source']).name}")
    for column in ("from s", "to s", "behaviour", "confidence", "tier"):
        events.add_column(column, justify="left" if column in ("behaviour", "tier") else "right")
    for e in result["events"]:
        sure = "quiet" if e["confidence"] is None else f"{e['confidence']:.2f}"
        style = "bold red" if e["alert"] else ""
        events.add_row(
            f"{e['first_tick'] / rate:.1f}",
            f"{(e['last_tick'] + 1) / rate:.1f}",
            e["behaviour"],
            sure,
            e["tier"],
            style=style,
        )
    console.print(events)
    edge = result["edge"]
    file_bits = edge["source_bytes"] * 8
    ledger = Table(title=f"Ledger (profile {edge['profile']})", show_header=False)
    ledger.add_row("ticks seen", f"{edge['ticks']} in {edge['seconds']:.1f} s")
    ledger.add_row("feature releases", f"{edge['released']} of at most {edge['bits_per_release']:.1f} bits each")
    ledger.add_row("withheld", f"{edge['withheld_by_gate']} by the gate, {edge['withheld_by_ledger']} by the ledger")
    ledger.add_row("bits released, at most", f"{edge['bits']:.0f} ({edge['bits'] / edge['seconds']:.0f} a second)")
    if file_bits:
        ledger.add_row("bits in the video file", f"{file_bits} ({file_bits / max(edge['bits'], 1):.0f} times as many)")
    mu = edge["ledger"]["mu"]
    ledger.add_row("singling out, mu", f"{mu:.1f}" + (": the proven cap is vacuous here" if mu > 6 else ""))
    console.print(ledger)
    stages = Table(title="Latency per stage on this machine")
    for column in ("stage", "p50 ms", "p95 ms", "p99 ms", "count"):
        stages.add_column(column, justify="left" if column == "stage" else "right")
    for name in STAGES:
        if s := edge["stages"].get(name):
            stages.add_row(name, *(f"{s[q] / 1000:.3f}" for q in ("p50_us", "p95_us", "p99_us")), str(s["count"]))
    console.print(stages)
