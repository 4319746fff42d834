"""A checkpoint folder, with one line for what is wrong with it."""

from __future__ import annotations

from pathlib import Path

from .config import reading_checkpoint
from .model import Family


def load_family(path: Path) -> Family:
    """A checkpoint folder; RuyicamError(USAGE) with one line if it is none."""
    with reading_checkpoint(path):
        return Family.from_pretrained(path)
