"""Files that are there whole or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to, whose folder is there. It takes the place of `path` when the block ends well, and is
    gone when it does not, so that whoever reads sees the old file or the new one. OSError if it cannot be written.
    """
    # Behind a link the file is renewed, not the link; a pipe or device is written to as it is.
    path = path.resolve()
    if path.exists() and not path.is_file():
        yield path
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_whole(path: Path, text: str) -> None:
    """Writes `text` by `whole`."""
    with whole(path) as partial:
        partial.write_text(text)
