"""The `ruyicam` command."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from ruyicam.cloud.errors import Exit, RuyicamError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
keys_app = typer.Typer(no_args_is_help=True, help="Keys that bundles are signed with.")
certs_app = typer.Typer(no_args_is_help=True, help="Certificates for the uplink of a bench.")
app.add_typer(keys_app, name="keys")
app.add_typer(certs_app, name="certs")
console = Console()

JsonFlag = Annotated[bool, typer.Option("--json", help="print one JSON object instead of tables")]
EdgeOption = Annotated[Path | None, typer.Option(help="the ruyicam-edge binary; default: $RUYICAM_EDGE, PATH, build/")]


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"ruyicam {version('ruyicam')}")
        raise typer.Exit


@app.callback()
def _root(version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True)] = False) -> None:
    pass


@app.command()
def train(
    config: Annotated[Path, typer.Option(help="TOML file with [model] and [train]")],
    data: Annotated[list[Path], typer.Option(help="folder of label/clip.mp4; may be given several times")],
    out: Annotated[Path, typer.Option(help="folder of the run; one that is there already is continued")],
    val: Annotated[list[Path] | None, typer.Option(help="folder to score on while training; never trained on")] = None,
) -> None:
    """Train all tiers of the family together; continues an interrupted run."""
    from ruyicam.cloud.data.clips import find_clips
    from ruyicam.cloud.toml import load_toml
    from ruyicam.cloud.training.config import RunConfig
    from ruyicam.cloud.training.trainer import train as run

    settings = load_toml(RunConfig, config)
    labels = settings.model.labels
    run(settings, find_clips(data, labels), out, find_clips(val, labels) if val else None)
    console.print(f"trained into {out}")


@app.command()
def export(
    model: Annotated[Path, typer.Option(help="checkpoint folder of a training run")],
    out: Annotated[Path, typer.Option(help="NAME.ruyicam")],
    sign: Annotated[Path, typer.Option(help="Ed25519 private key, PEM; see 'ruyicam keys new'")],
    frames: Annotated[Path | None, typer.Option(help="clip to compare ONNX Runtime with PyTorch on")] = None,
    version: Annotated[str, typer.Option(help="version written into the manifest")] = "1",
    as_json: JsonFlag = False,
) -> None:
    """Make a signed device bundle of a checkpoint."""
    from ruyicam.cloud.data.clips import model_input
    from ruyicam.cloud.keys import load_private_key
    from ruyicam.cloud.serve.app import load_family

    from .bundle import export_bundle
    from .demo import default_clip

    key, family = load_private_key(sign), load_family(model)
    inputs = model_input(frames or default_clip(), family.config.input, limit=200)
    report = export_bundle(family, out, key, inputs, version)
    if as_json:
        print(
            json.dumps(
                {
                    "bundle": str(report.path),
                    "bundle_id": report.bundle_id,
                    "opset": report.opset,
                    "frames_compared": report.frames_compared,
                    "worst_error": report.worst,
                }
            )
        )
        return
    console.print(f"wrote {report.path}, id {report.bundle_id}, ONNX opset {report.opset}")
    errors = ", ".join(f"{name} {value:.2e}" for name, value in report.worst.items())
    console.print(f"worst error against PyTorch over {report.frames_compared} real frames: {errors}")


@app.command()
def verify(
    bundle: Annotated[Path, typer.Argument(help="NAME.ruyicam")],
    key: Annotated[Path, typer.Option(help="Ed25519 public key, PEM")],
) -> None:
    """Check a bundle's signature and hashes, and print what it promises."""
    from ruyicam.cloud.keys import load_public_key

    from .bundle import verify_bundle

    m = verify_bundle(bundle, load_public_key(key))
    p = m["privacy"]
    console.print(f"{bundle}: good; {m['name']} {m['version']}, labels {', '.join(m['labels'])}")
    console.print(
        f"profile {p['profile']}: at most {p['bits_per_release']:.1f} bits a release, "
        f"{p['bits_per_second']:.0f} a second, "
        f"{p['bits_per_day']:.0f} a day"
    )


@keys_app.command("new")
def keys_new(stem: Annotated[Path, typer.Argument(help="writes STEM.key and STEM.pub")]) -> None:
    """Make an Ed25519 key pair."""
    from ruyicam.cloud.keys import new_keys

    private, public = new_keys(stem)
    console.print(f"wrote {private} (keep it secret) and {public} (goes onto devices)")


@certs_app.command("new")
def certs_new(
    out: Annotated[Path, typer.Option(help="new folder")],
    camera: Annotated[list[str], typer.Option(help="camera id; may be given several times")],
    host: Annotated[list[str] | None, typer.Option(help="name or address of the server")] = None,
    days: Annotated[float, typer.Option(help="validity")] = 30,
) -> None:
    """Make an authority, a server certificate and one per camera, for a bench. The authority's key is not kept."""
    from .pki import Authority

    authority = Authority(out, days)
    authority.server(host or ["localhost", "127.0.0.1"])
    for name in camera:
        authority.camera(name)
    console.print(f"wrote ca.pem, server and {', '.join(camera)} into {out}")


@app.command()
def serve(config: Annotated[Path, typer.Option(help="server.toml")]) -> None:
    """Take in features, reason, and offer events."""
    from ruyicam.cloud.serve.app import serve as run
    from ruyicam.cloud.serve.config import ServerConfig
    from ruyicam.cloud.toml import load_toml

    run(load_toml(ServerConfig, config))


@app.command("eval")
def evaluate(
    model: Annotated[Path, typer.Option(help="checkpoint folder")],
    data: Annotated[list[Path], typer.Option(help="folder of label/clip.mp4; may be given several times")],
    through: Annotated[
        str, typer.Option(help="'edge': the real device binary and server; 'torch': the model alone")
    ] = "edge",
    edge: EdgeOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Accuracy per tier on labelled clips, and how often tiers agree."""
    from ruyicam.cloud.data.clips import find_clips
    from ruyicam.cloud.serve.app import load_family
    from ruyicam.cloud.training.trainer import validate

    from .evaluate import evaluate_through_edge

    if through not in ("edge", "torch"):
        raise RuyicamError(Exit.USAGE, f"--through is '{through}', expected 'edge' or 'torch'")
    family = load_family(model)
    clips = find_clips(data, family.config.labels)
    if through == "torch":
        result = {"clips": len(clips), "through": "torch", "tiers": validate(family, clips)}
    else:
        with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as progress:
            bar = progress.add_task("clips", total=len(clips))
            result = evaluate_through_edge(model, clips, edge, lambda: progress.advance(bar))
    if as_json:
        print(json.dumps(result))
        return
    table = Table(title=f"{len(clips)} clips through {through}")
    labels = [x for x in family.config.labels if x in {c.label for c in clips}]
    for column in ("tier", "accuracy", "balanced", *(f"recall {x}" for x in labels)):
        table.add_column(column, justify="left" if column == "tier" else "right")
    for tier, s in result["tiers"].items():
        table.add_row(
            tier, *(f"{v:.3f}" for v in (s["accuracy"], s["balanced_accuracy"], *(s["recall"][x] for x in labels)))
        )
    console.print(table)
    if "consistency" in result:
        agree = ", ".join(f"{pair} {value:.2f}" for pair, value in result["consistency"].items())
        console.print(f"agreement: {agree}; {result['bits_per_second']:.0f} bits a second, profile {result['profile']}")


@app.command()
def demo(
    clip: Annotated[str | None, typer.Option(help="video file or stream; default: a real clip of this machine")] = None,
    model: Annotated[Path | None, typer.Option(help="checkpoint folder; default: the one in the repository")] = None,
    edge: EdgeOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Play a real clip the whole way: edge binary, features, server, events."""
    from .demo import run_demo, show_demo

    result = run_demo(clip or None, model, edge)
    if as_json:
        print(json.dumps(result))
    else:
        show_demo(result, console)


def main() -> None:
    """Entry point: expected failures are one line on stderr and their exit code."""
    try:
        app()
    except RuyicamError as error:
        print(f"ruyicam: {error}", file=sys.stderr)
        sys.exit(int(error.code))


if __name__ == "__main__":
    main()
