"""`ruyicam audit`: what the strongest attacks that we could build achieve, beside what is proven."""

from __future__ import annotations

import json
import shlex
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ruyicam.cloud.errors import Exit, RuyicamError
from ruyicam.cloud.files import write_whole

from .options import CacheOption, EdgeOption, JsonFlag, console, show_table


def audit(
    out: Annotated[Path, typer.Option(help="folder for report.html and for what is done already; an audit goes on there")],
    model: Annotated[Path | None, typer.Option(help="checkpoint folder; default: the one in the repository")] = None,
    data: Annotated[
        Path | None, typer.Option(help="folder with surveillance, falls and faces; default: ../shared/data")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="minutes instead of hours; wide intervals")] = False,
    device: Annotated[bool, typer.Option(help="also attack the running edge binary: line and ledger")] = True,
    generated_only: Annotated[bool, typer.Option(help="no pictures of real people in the report")] = False,
    edge: EdgeOption = None,
    cache: CacheOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Attack the frozen system by everyone who knows all but its random bits. Exit code 9: a bound or control fails."""
    from ruyicam.cloud.audit.report import write_report
    from ruyicam.cloud.audit.run import QUICK, Audit, Findings, Scale, verdict
    from ruyicam.cloud.data.store import default_cache
    from ruyicam.cloud.family.load import load_family

    from .audit_device import device as attack_device
    from .defaults import default_model

    model = model or default_model()
    family = load_family(model)
    beside = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
    data = data or (beside if beside.is_dir() else None)
    found = Findings()
    if data is None:
        found.skipped.append("everything that needs real pictures: there is no --data")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    try:
        with Progress(*columns, console=console, transient=True, disable=as_json) as bar:
            tasks: dict[str, int] = {}

            def progress(what: str, done: int, of: int) -> None:
                kind = what if what.startswith("generating") else "attacks"
                if kind not in tasks:
                    tasks[kind] = bar.add_task(kind)
                bar.update(tasks[kind], completed=done, total=of, description=what)

            attacks = Audit(family, QUICK if quick else Scale(), cache or default_cache(), data, progress)
            for _, part in attacks.run(out):
                found.add(part)
            if device:
                stem = attacks.folder(out) / "device"
                try:
                    part = Findings.load(stem)
                except (OSError, ValueError, KeyError, TypeError):
                    progress("device", 0, 1)
                    with tempfile.TemporaryDirectory(prefix="ruyicam-audit-") as scratch:
                        part = attack_device(family, model, Path(scratch), edge, 6 if quick else 20, 1 if quick else 3)
                    part.save(stem)
                found.add(part)
            else:
                found.skipped.append("the running device: --no-device")
        said = shlex.join(["ruyicam", *(a for a in sys.argv[1:] if a != "--json")])
        write_report(found, out / "report.html", f"ruyicam audit: {model.name}", said, generated_only)
    except OSError as error:
        raise RuyicamError(Exit.STORAGE, f"cannot write {error.filename or out}: {error.strerror or error}") from error
    wrong = verdict(found)
    result = {
        "attacks": [r.json() for r in found.attacks],
        "controls": {"positive": [r.json() for r in found.positive], "negative": [r.json() for r in found.negative]},
        "skipped": found.skipped,
        "fails": wrong,
    }
    write_whole(out / "audit.json", json.dumps(result, indent=1) + "\n")
    if as_json:
        print(json.dumps(result))
    else:
        _show(found)
        console.print(f"wrote {out / 'report.html'} and {out / 'audit.json'}")
    if wrong:
        raise RuyicamError(Exit.AUDIT, f"the audit fails: {'; '.join(wrong)}")


def _show(found) -> None:
    def target(r) -> str:
        return "" if r.target is None else f"{r.target:.3g}" + ("" if r.meets_target else ", missed")

    for title, results in (
        ("Measured against bound", found.attacks),
        ("Positive controls", found.positive),
        ("Negative controls", found.negative),
    ):
        show_table(
            title,
            ["attack", "measured", "95 %", "chance", "bound", "target"],
            [
                [f"{r.name} ({r.profile}): {r.metric}", f"{r.value:.4g}", f"{r.ci[0]:.3g} to {r.ci[1]:.3g}",
                 f"{r.chance:.3g}", r.limit, target(r)]
                for r in results
            ],
        )  # fmt: skip
