"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from ruyicam.cloud.errors import Exit, RuyicamError

console = Console()
# Beside a checkpoint: the same model trained without the mapping.
PEER = "no-mapping"

JsonFlag = Annotated[bool, typer.Option("--json", help="print one JSON object instead of tables")]
CacheOption = Annotated[Path | None, typer.Option(help="prepared windows; default: ~/.cache/ruyicam, shared by all runs")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="TABLE.KEY=VALUE in place of what --config says; phases.0.KEY=VALUE: of its first phase"),
]
EdgeOption = Annotated[Path | None, typer.Option(help="the ruyicam-edge binary; default: $RUYICAM_EDGE, PATH, build/")]


def run_config(path: Path, mapping: bool = True, changes: Iterable[str] = ()):
    """The RunConfig in a TOML file, with `changes` (KEY=VALUE) and without the mapping if asked.

    RuyicamError(USAGE) with one line if it is malformed.
    """
    from ruyicam.cloud.toml import load_toml
    from ruyicam.cloud.training.config import RunConfig

    settings = load_toml(RunConfig, path, changes)
    if mapping:
        return settings
    without = settings.model.mapping.model_copy(update={"bypass": True})
    return settings.model_copy(update={"model": settings.model.model_copy(update={"mapping": without})})


def plan_of(config, profile: str, visit_s: float):
    """The ReleasePlan of a profile for a FamilyConfig; RuyicamError(USAGE) with one line if there is no such profile."""
    from ruyicam.cloud.privacy.profiles import release_plan

    try:
        return release_plan(config, profile, visit_s)
    except ValueError as error:
        raise RuyicamError(Exit.USAGE, str(error)) from error


def show_table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """Prints a table; the first column is text, the others are figures."""
    table = Table(title=title)
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i else "left")
    for row in rows:
        table.add_row(*row)
    console.print(table)
