"""Which bundle a camera is to run, and its files in the pieces that the wire carries."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from ruyicam.cloud.wire import BUNDLE_FILES

_PIECE = 64 * 1024


@dataclass(frozen=True)
class Offer:
    """A bundle for the cameras whose ids fit `pattern` (shell wildcards); `id` is what its packets carry."""

    pattern: str
    path: Path
    id: bytes

    def pieces(self) -> Iterator[tuple[str, bytes]]:
        """(file, next at most 64 KiB of it), the manifest first. Raises OSError if a file cannot be read."""
        for name in BUNDLE_FILES:
            with open(self.path / name, "rb") as file:
                while piece := file.read(_PIECE):
                    yield name, piece


def offer_for(offers: Sequence[Offer], camera_id: str, running: bytes) -> Offer | None:
    """The first offer that fits the camera; None if there is none, or the camera runs it."""
    for offer in offers:
        if fnmatchcase(camera_id, offer.pattern):
            return None if offer.id == running else offer
    return None
