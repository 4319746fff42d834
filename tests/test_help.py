"""What `--help` says."""

from __future__ import annotations

import typer
from rich.text import Text

from ruyicam.export.cli import app


def _commands(command, path: str = "ruyicam"):
    yield path, command
    for name, below in getattr(command, "commands", {}).items():
        yield from _commands(below, f"{path} {name}")


def test_nothing_in_brackets_is_taken_for_markup():
    """`[loss]` is a table of a file, and Rich would leave it out as the name of a style."""
    said = 0
    for path, command in _commands(typer.main.get_command(app)):
        for text in (command.help, *(getattr(p, "help", None) for p in command.params)):
            if text:
                said += 1
                assert Text.from_markup(text).plain == text.replace("\\[", "["), f"{path}: {text}"
    assert said > 100
