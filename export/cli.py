"""The `ruyicam` command."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ruyicam.cloud.errors import Exit, RuyicamError

from .audit_command import audit
from .bench_command import app as bench_app
from .eval_command import evaluate
from .options import CacheOption, EdgeOption, JsonFlag, SetOption, console, plan_of, run_config
from .privacy_command import app as privacy_app
from .rl_command import rl
from .service_command import labels, sizing, users_app

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
keys_app = typer.Typer(no_args_is_help=True, help="Keys that bundles are signed with.")
certs_app = typer.Typer(no_args_is_help=True, help="Certificates for the uplink of a bench.")
app.command("eval")(evaluate)
app.command("audit")(audit)
app.command("rl")(rl)
app.command("labels")(labels)
app.command("sizing")(sizing)
app.add_typer(bench_app, name="bench")
app.add_typer(keys_app, name="keys")
app.add_typer(certs_app, name="certs")
app.add_typer(privacy_app, name="privacy")
app.add_typer(users_app, name="users")


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
    config: Annotated[Path, typer.Option(help="TOML file with \\[model], \\[train], \\[loss] and \\[\\[phases]]")],
    out: Annotated[Path, typer.Option(help="folder of the run; one that is there already is continued")],
    data: Annotated[list[Path] | None, typer.Option(help="folder of label/clip.mp4; may be given several times")] = None,
    val: Annotated[list[Path] | None, typer.Option(help="folder to score on while training; never trained on")] = None,
    detector: Annotated[Path | None, typer.Option(help="yolox_nano.onnx: the backbone's weights")] = None,
    init: Annotated[Path | None, typer.Option(help="checkpoint to begin from; phases of scenes alone are left out")] = None,
    cache: CacheOption = None,
    changes: SetOption = None,
    mapping: Annotated[bool, typer.Option(help="--no-mapping trains the peer that the mapping is measured against")] = True,
) -> None:
    """Train all tiers of the family together; continues an interrupted run."""
    from ruyicam.cloud.data.clips import find_clips
    from ruyicam.cloud.training.trainer import train as run

    settings = run_config(config, mapping, changes or [])
    labels = settings.model.labels
    clips = find_clips(data, labels) if data else []
    run(settings, clips, out, find_clips(val, labels) if val else None, detector, init, cache)
    console.print(f"trained into {out}")


@app.command()
def export(
    model: Annotated[Path, typer.Option(help="checkpoint folder of a training run")],
    out: Annotated[Path, typer.Option(help="NAME.ruyicam")],
    sign: Annotated[Path, typer.Option(help="Ed25519 private key, PEM; see 'ruyicam keys new'")],
    frames: Annotated[Path | None, typer.Option(help="clip to compare ONNX Runtime with PyTorch on")] = None,
    version: Annotated[str, typer.Option(help="version written into the manifest")] = "1",
    serial: Annotated[int | None, typer.Option(help="rises from release to release; default: the time", min=0)] = None,
    floor: Annotated[int, typer.Option(help="least serial that a device runs once this bundle has proved well", min=0)] = 0,
    op: Annotated[str, typer.Option(help="the mapping in the graph: 'plain' ONNX operators, or 'fused', our own")] = "plain",
    int8: Annotated[bool, typer.Option("--int8", help="quantise the encoder; needs --calibrate")] = False,
    calibrate: Annotated[Path | None, typer.Option(help="folder of clips, best in folders named after their label")] = None,
    profile: Annotated[str, typer.Option(help="what may leave: strict, standard or reasoning")] = "reasoning",
    visit_s: Annotated[float, typer.Option(help="length of a visit under strict and standard, seconds", min=0.1)] = 60,
    as_json: JsonFlag = False,
) -> None:
    """Make a signed device bundle of a checkpoint."""
    from ruyicam.cloud.data.clips import model_input
    from ruyicam.cloud.family.load import load_family
    from ruyicam.cloud.keys import load_private_key

    from .bundle import Release, export_bundle
    from .defaults import default_clip
    from .graph import OPS

    if op not in OPS:
        raise RuyicamError(Exit.USAGE, f"--op is {op}, expected {' or '.join(OPS)}")
    if int8 != (calibrate is not None):
        raise RuyicamError(Exit.USAGE, "--int8 and --calibrate DIR go together")
    key, family = load_private_key(sign), load_family(model)
    inputs = model_input(frames or default_clip(), family.config.input, limit=200)
    plan = plan_of(family.config, profile, visit_s)
    report = export_bundle(family, out, key, inputs, Release(version, serial, floor), op, plan, calibrate)
    if as_json:
        print(
            json.dumps(
                {
                    "bundle": str(report.path),
                    "bundle_id": report.bundle_id,
                    "opset": report.opset,
                    "frames_compared": report.frames_compared,
                    "worst_error": report.worst,
                    "int8": asdict(report.loss) if report.loss else None,
                }
            )
        )
        return
    console.print(f"wrote {report.path}, id {report.bundle_id}, ONNX opset {report.opset}")
    errors = ", ".join(f"{name} {value:.2e}" for name, value in report.worst.items())
    console.print(f"worst error against PyTorch over {report.frames_compared} real frames: {errors}")
    if loss := report.loss:
        which = "clips that were not calibrated on" if loss.held_back else "the clips that were calibrated on, as they are few"
        console.print(f"int8 against float on {loss.clips} {which}:")
        console.print(f"  same behaviour in {loss.agreement:.2%} of ticks, features' cosine {loss.features:.4f}")
        if loss.accuracy:
            console.print(f"  edge tier right on {loss.accuracy['int8']:.1%} of clips, {loss.accuracy['float']:.1%} in float")


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
    console.print(f"{bundle}: good; {m['name']} {m['version']} (serial {m.get('serial', 0)}), labels {', '.join(m['labels'])}")
    console.print(
        f"profile {p['profile']}: at most {p['bits_per_release']:.1f} bits a release, "
        f"{p['bits_per_second']:.0f} a second, "
        f"{p['bits_per_day']:.0f} a day"
    )
    if visit := p["visit"]:
        console.print(f"per visit of {visit['seconds']:g} s: mu at most {visit['mu']:g}, token bits {visit['token_bits']:g}")


@keys_app.command("new")
def keys_new(stem: Annotated[Path, typer.Argument(help="writes STEM.key and STEM.pub")]) -> None:
    """Make an Ed25519 key pair."""
    from ruyicam.cloud.keys import new_keys

    private, public = new_keys(stem)
    console.print(f"wrote {private} (keep it secret) and {public} (goes onto devices)")


@certs_app.command("new")
def certs_new(
    out: Annotated[Path, typer.Option(help="new folder")],
    camera: Annotated[list[str] | None, typer.Option(help="camera id; may be given several times")] = None,
    host: Annotated[list[str] | None, typer.Option(help="name or address of the server")] = None,
    days: Annotated[float, typer.Option(help="validity")] = 30,
    keep_key: Annotated[bool, typer.Option("--keep-key", help="write ca.key, for a server that enrols devices")] = False,
) -> None:
    """Make an authority, a server certificate and one per camera. The authority's key is not kept unless asked for."""
    from .pki import Authority

    authority = Authority(out, days)
    authority.server(host or ["localhost", "127.0.0.1"])
    for name in camera or []:
        authority.camera(name)
    names = ["ca.pem", *(["ca.key (keep it secret)"] if keep_key and authority.keep_key() else []), "server", *(camera or [])]
    console.print(f"wrote {', '.join(names)} into {out}")


@certs_app.command("revoke")
def certs_revoke(
    certificates: Annotated[list[Path], typer.Argument(help="certificates of cameras, PEM")],
    crl: Annotated[Path, typer.Option(help="the list, new or to be added to: 'crl' in server.toml, taken up on SIGHUP")],
    ca: Annotated[Path, typer.Option(help="the authority's certificate")],
    ca_key: Annotated[Path, typer.Option(help="its private key")],
    days: Annotated[float, typer.Option(help="how long the list is good", min=0.01)] = 365,
) -> None:
    """Have a server refuse certificates that are still valid, of devices that were stolen or taken down."""
    from .pki import Authority

    console.print(f"{Authority.revoke(ca, ca_key, crl, certificates, days)} certificates are on {crl}")


@app.command()
def enrol(
    config: Annotated[Path, typer.Option(help="server.toml, whose database the token goes into")],
    camera: Annotated[str, typer.Option(help="camera id that a new device is to have")],
    hours: Annotated[float, typer.Option(help="how long the token is good", min=0.01)] = 24,
    as_json: JsonFlag = False,
) -> None:
    """Print a token with which one new device gets the certificate of a camera: 'ruyicam-edge enrol' on the device."""
    import re

    from ruyicam.cloud.serve.config import ServerConfig
    from ruyicam.cloud.toml import load_toml

    settings = load_toml(ServerConfig, config)
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", camera):
        raise RuyicamError(Exit.USAGE, f"--camera is '{camera}', expected 1 to 64 letters, digits, '-', '_' or '.'")
    if settings.enrol is None:
        raise RuyicamError(Exit.USAGE, f"{config}: enrol and ca_key are not set, so nobody can enrol")
    from ruyicam.cloud.serve.enrol import new_token
    from ruyicam.cloud.serve.store import Store

    token = new_token(Store(settings.database), camera, hours)
    if as_json:
        print(json.dumps({"camera": camera, "token": token, "hours": hours}))
    else:
        console.print(f"{token}\ngood once, for {hours:g} hours: ruyicam-edge enrol --token - on the device of {camera}")


@app.command()
def serve(
    config: Annotated[Path, typer.Option(help="server.toml")],
    ray: Annotated[bool, typer.Option("--ray", help="the model on a Ray cluster, as \\[ray] in server.toml says")] = False,
) -> None:
    """Take in features, reason, and offer events. SIGHUP: take up bundles and offers of the configuration anew."""
    from ruyicam.cloud.serve.config import Ray, ServerConfig
    from ruyicam.cloud.toml import load_toml

    def read() -> ServerConfig:
        said = load_toml(ServerConfig, config)
        return said.model_copy(update={"ray": said.ray or Ray()}) if ray else said

    read()
    # Only now, as it takes seconds to load.
    from ruyicam.cloud.serve.app import serve as run

    run(read)


@app.command()
def scenes(
    out: Annotated[Path, typer.Option(help="PNG file")],
    first: Annotated[int, typer.Option(help="seed of the first scene", min=0)] = 0,
    count: Annotated[int, typer.Option(help="how many", min=1, max=200)] = 16,
) -> None:
    """Draw a contact sheet of generated scenes."""
    from ruyicam.cloud.data.scenes.sheet import contact_sheet

    try:
        contact_sheet(out, first, count)
    except OSError as error:
        raise RuyicamError(Exit.STORAGE, f"cannot write {out}: {error.strerror}") from error
    console.print(f"drew {count} scenes into {out}")


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
