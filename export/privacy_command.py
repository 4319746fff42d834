"""`ruyicam privacy`: what a profile allows, and whether a session certificate holds."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ruyicam.cloud.errors import Exit, RuyicamError

from .options import JsonFlag, console, plan_of, show_table

app = typer.Typer(invoke_without_command=True, help=__doc__)
_MINUTES = (0.5, 0.9, 5, 15, 60)
_CURVE = [0.1 * 1.25**i for i in range(40)]


@app.callback()
def calculator(
    context: typer.Context,
    profile: Annotated[list[str] | None, typer.Option(help="strict, standard or reasoning; may be given several times")] = None,
    model: Annotated[Path | None, typer.Option(help="checkpoint whose features are meant; default: the repository's")] = None,
    candidates: Annotated[int, typer.Option(help="people who it may be, equally likely beforehand", min=2)] = 1000,
    prior: Annotated[float | None, typer.Option(help="or: the attacker's best chance beforehand")] = None,
    minutes: Annotated[list[float] | None, typer.Option(help="time on screen in a day; may be given several times")] = None,
    cameras: Annotated[int, typer.Option(help="cameras that see the same person for so long", min=1)] = 1,
    visit_s: Annotated[float, typer.Option(help="length of a visit under strict and standard, seconds", min=0.1)] = 60,
    delta: Annotated[float, typer.Option(help="delta of epsilon")] = 1e-6,
    plot: Annotated[Path | None, typer.Option(help="draw the caps against minutes: PNG or SVG")] = None,
    as_json: JsonFlag = False,
) -> None:
    """From a profile and a stay to the cap on singling someone out, the bits, and epsilon. Says when a cap is vacuous."""
    if context.invoked_subcommand is not None:
        return
    from ruyicam.cloud.family import FamilyConfig
    from ruyicam.cloud.privacy.calculator import exposure
    from ruyicam.cloud.privacy.calculator import plot as draw
    from ruyicam.cloud.privacy.profiles import PROFILES

    from .defaults import default_model

    config = FamilyConfig.of_checkpoint(model or default_model())
    rate = config.input.rate_hz
    kappa = 1 / candidates if prior is None else prior
    plans = {name: plan_of(config, name, visit_s) for name in profile or PROFILES}

    def figures(name: str, length: float):
        return exposure(plans[name], rate, kappa, length, cameras, config.window / rate, delta, prior is None)

    try:
        rows = {name: [figures(name, m) for m in minutes or _MINUTES] for name in plans}
        if plot is not None:
            draw({name: [figures(name, m) for m in _CURVE] for name in plans}, kappa, plot)
    except ValueError as error:
        raise RuyicamError(Exit.USAGE, str(error)) from error
    except OSError as error:
        raise RuyicamError(Exit.STORAGE, f"cannot write {plot}: {error.strerror}") from error
    if as_json:
        print(json.dumps({name: {"plan": plans[name].manifest(), "stays": [asdict(e) for e in rows[name]]} for name in rows}))
        return
    for name, stays in rows.items():
        show_table(
            f"{name}: guessing beforehand {kappa:.2%}" + (f", {cameras} cameras" if cameras > 1 else ""),
            ["minutes on screen", "releases", "mu", "token bits", "bits", "epsilon", "cap on a right guess"],
            [
                [
                    f"{e.minutes:g}",
                    str(e.releases),
                    f"{e.mu:.3g}",
                    f"{e.token_bits:.4g}",
                    f"{e.bits:.4g}",
                    f"{e.epsilon:.3g}",
                    "vacuous" if e.vacuous else f"{e.cap:.2%}",
                ]
                for e in stays
            ],
        )
    console.print(f"epsilon is of the features alone, against none, at delta {delta:g}; a cap of 99 % or more is vacuous")
    if plot is not None:
        console.print(f"drew {plot}")


@app.command()
def verify(
    certificate: Annotated[Path, typer.Argument(help="state_dir/certificates/BOOT.json, or /v1/boots/BOOT/certificate")],
    ca: Annotated[Path | None, typer.Option(help="PEM: authority of the devices; without it anyone may have signed")] = None,
    bundle: Annotated[Path | None, typer.Option(help="NAME.ruyicam that the session should have run")] = None,
    key: Annotated[Path | None, typer.Option(help="PEM: public key of the bundle")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Check a session certificate offline: signature, figures, noise table, and the bundle and authority if they are given."""
    from cryptography import x509

    from ruyicam.cloud.bundles import bundle_id, read_manifest
    from ruyicam.cloud.keys import load_public_key, read_pem
    from ruyicam.cloud.privacy.certificate import CertificateError, check_authority, check_bundle, load_certificate

    if (bundle is None) != (key is None):
        raise RuyicamError(Exit.USAGE, "--bundle and --key go together")
    found = load_certificate(certificate)
    try:
        if ca is not None:
            check_authority(found, read_pem(ca, x509.load_pem_x509_certificate, "a certificate")[1])
        if bundle is not None:
            raw, manifest = read_manifest(bundle, load_public_key(key))
            check_bundle(found, bundle_id(raw).hex(), manifest)
    except CertificateError as error:
        raise RuyicamError(Exit.CREDENTIALS, f"{certificate}: {error}") from error
    s = found.statement
    if as_json:
        print(s.model_dump_json())
        return
    seconds = (s.end_us - s.begin_us) / 1e6
    console.print(f"{certificate}: good" + ("" if ca else "; the authority was not checked (--ca)"))
    console.print(f"camera {s.camera_id}, boot {s.boot_id}, {seconds:.1f} s, {'ended' if s.final else 'so far'}")
    console.print(f"bundle {s.bundle.name} {s.bundle.version} ({s.bundle.id})")
    console.print(f"profile {s.profile}, C {s.clip}, sigma {s.sigma:g}")
    console.print(
        f"spent: {s.spent.releases} releases of at most {s.bits_per_release:.4g} bits, mu {s.spent.mu:.3g}, "
        f"token bits {s.spent.token_bits:.4g}"
    )
    if visit := s.budget.visit:
        console.print(f"per visit of {visit.seconds:g} s: mu at most {visit.mu:g}, token bits at most {visit.token_bits:g}")
