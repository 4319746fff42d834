"""A checkpoint folder, with one line for what is wrong with it."""

from __future__ import annotations

from pathlib import Path

from ruyicam.cloud.errors import Exit, RuyicamError

from .model import Family


def load_family(path: Path) -> Family:
    """A checkpoint folder; RuyicamError(USAGE) with one line if it is none."""
    try:
        return Family.from_pretrained(path)
    except OSError as error:
        raise RuyicamError(Exit.USAGE, f"model {path}: {error.strerror or error}") from error
    except Exception as error:
        raise RuyicamError(Exit.USAGE, f"model {path}: not a checkpoint: {str(error).splitlines()[0]}") from error
