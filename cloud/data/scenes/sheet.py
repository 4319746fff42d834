"""A contact sheet: a row of moments per scene, with what is done in it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from ruyicam.cloud.family.labels import BEHAVIOURS
from ruyicam.cloud.files import whole

from .scene import Scene, make_scene

_GAP, _TEXT = 4, 16


def _row(scene: Scene, moments: int) -> np.ndarray:
    height, width = scene.frames.shape[1:]
    row = np.full((height + _TEXT, moments * (width + _GAP) - _GAP), 255, np.uint8)
    for k, t in enumerate(np.linspace(0, len(scene.frames) - 1, moments).astype(int)):
        left = k * (width + _GAP)
        row[:height, left : left + width] = scene.frames[t]
        doing = [BEHAVIOURS[b] for b in np.flatnonzero(scene.behaviours[t].any(0))]
        text = f"{t / 10:.1f} s: {', '.join(doing)}"
        cv2.putText(row, text, (left, height + _TEXT - 4), cv2.FONT_HERSHEY_SIMPLEX, 0.36, 0, 1, cv2.LINE_AA)
    return row


def contact_sheet(path: Path, first: int = 0, count: int = 16, moments: int = 4, columns: int = 2) -> None:
    """Writes `count` scenes from seed `first` on as a PNG: `columns` blocks of `moments` frames each, 192 x 144 pixels.

    OSError if it cannot be written.
    """
    rows = [_row(make_scene(seed), moments) for seed in range(first, first + count)]
    blank = np.full_like(rows[0], 255)
    lines = []
    for i in range(0, count, columns):
        line = rows[i : i + columns] + [blank] * max(0, i + columns - count)
        wide = np.full((blank.shape[0], 4 * _GAP), 255, np.uint8)
        lines.append(np.hstack([x for part in line for x in (part, wide)][:-1]))
    ok, data = cv2.imencode(".png", np.vstack(lines), [cv2.IMWRITE_PNG_COMPRESSION, 9])
    assert ok
    with whole(path) as partial:
        partial.write_bytes(data.tobytes())
