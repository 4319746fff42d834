"""What commands take where nothing is named: a real clip, and the repository's checkpoint."""

from __future__ import annotations

from pathlib import Path

from ruyicam.cloud.errors import Exit, RuyicamError

_ROOT = Path(__file__).resolve().parent.parent
# Looked for in this order where no clip is named: the shared clips beside a checkout, then Debian's opencv-doc.
_CLIPS = (
    _ROOT.parent / "shared/data/surveillance/val/fight/fi001.mp4",
    Path("/usr/share/doc/opencv-doc/examples/data/vtest.avi"),
)


def default_clip() -> Path:
    """A real clip that this machine has; RuyicamError(SOURCE) if it has none."""
    for path in _CLIPS:
        if path.is_file():
            return path
    raise RuyicamError(Exit.SOURCE, "no clip found: name one with --clip, or install the package opencv-doc")


def default_model() -> Path:
    """The checkpoint that stands in the repository; RuyicamError(USAGE) if it is not there."""
    model = _ROOT / "cloud" / "checkpoints" / "camera"
    if not (model / "model.safetensors").is_file():
        raise RuyicamError(Exit.USAGE, f"there is no checkpoint in {model}; name one with --model")
    return model
