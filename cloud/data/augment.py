"""Label-safe augmentation of whole clips, before preprocessing."""

from __future__ import annotations

import cv2
import numpy as np

from ruyicam.cloud.family.config import InputConfig
from ruyicam.kernels import Preprocessor


def _moving_place(frames: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    """(y, x) of a place drawn by how much it moves over the clip, in pixels of the stored frames."""
    small = np.stack([cv2.resize(f, (16, 12), interpolation=cv2.INTER_AREA) for f in frames]).astype(np.float32)
    energy = np.abs(np.diff(small, axis=0)).mean(0) ** 2 + 1e-3 if len(small) > 1 else np.ones((12, 16))
    cell = rng.choice(energy.size, p=(energy / energy.sum()).ravel())
    return (cell // 16 + 0.5) * frames.shape[1] / 12, (cell % 16 + 0.5) * frames.shape[2] / 16


def augmented_input(
    frames: np.ndarray,
    times_ns: np.ndarray,
    config: InputConfig,
    window: int,
    rng: np.random.Generator,
    reversible: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """A random view of a clip: tempo, start, crop, flip, tilt, shake, brightness, contrast, gamma, a hidden
    patch, sensor noise, and the arrow of time where the label does not depend on it (`reversible`).

    frames uint8 [N, h, w], times_ns int64 [N] -> (input int8 [window, 3, height, width], ticks that
    exist bool [window]),
    the newest tick last.
    """
    tempo = np.exp(rng.uniform(np.log(0.8), np.log(1.25)))
    ticks = np.floor(times_ns * tempo * config.rate_hz / 1e9).astype(np.int64)
    _, chosen = np.unique(ticks, return_index=True)
    if reversible and rng.random() < 0.5:
        chosen = chosen[::-1]
    spare = len(chosen) - window
    if spare > 0:
        # Now and then the background has had time to settle before the window begins.
        start = int(rng.integers(0, spare + 1))
        begin = int(rng.integers(0, start + 1))
    else:
        start = begin = 0
    chosen = chosen[begin : start + window]
    height, width = frames.shape[1:]
    scale = rng.uniform(0.5, 1.0)
    box_w, box_h = scale * width, min(scale * rng.uniform(0.85, 1.15), 1.0) * height
    # The crop keeps a place where something moves in view, or the label could be cropped away.
    at_y, at_x = _moving_place(frames[chosen], rng)
    left = np.clip(at_x - rng.uniform(0.25, 0.75) * box_w, 0, width - box_w)
    top = np.clip(at_y - rng.uniform(0.25, 0.75) * box_h, 0, height - box_h)
    flip = rng.random() < 0.5
    angle = np.deg2rad(rng.uniform(-5, 5))
    table = 255 * (np.arange(256) / 255) ** np.exp(rng.uniform(-0.4, 0.4))
    patch_w, patch_h = int(rng.uniform(0, 0.4) * config.width), int(rng.uniform(0, 0.4) * config.height)
    patch_x, patch_y = int(rng.integers(0, config.width - patch_w)), int(rng.integers(0, config.height - patch_h))
    gain, lift = rng.uniform(0.7, 1.4), rng.uniform(-25, 25)
    noise = rng.uniform(0, 4) if rng.random() < 0.5 else 0.0
    shake = rng.uniform(0, 0.6) if rng.random() < 0.3 else 0.0
    out_w, out_h = config.width, config.height
    c, s = np.cos(angle), np.sin(angle)
    kernel = Preprocessor(
        width=out_w, height=out_h, background_shift=config.background_shift, mask_floor=config.mask_floor
    )
    outputs = []
    for i in chosen:
        dx, dy = rng.normal(0, shake, 2) if shake else (0.0, 0.0)
        sx, sy = box_w / out_w, box_h / out_h
        to_source = np.array([[c * sx, -s * sy, 0], [s * sx, c * sy, 0]])
        if flip:
            to_source[:, 0] *= -1
        centre = np.array([left + box_w / 2 + dx, top + box_h / 2 + dy])
        to_source[:, 2] = centre - to_source[:, :2] @ np.array([out_w / 2, out_h / 2])
        view = cv2.warpAffine(
            frames[i],
            to_source,
            (out_w, out_h),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        view[patch_y : patch_y + patch_h, patch_x : patch_x + patch_w] = 128
        x = table[view].astype(np.float32) * gain + lift
        if noise:
            x += rng.normal(0, noise, x.shape).astype(np.float32)
        outputs.append(kernel.process(np.clip(x, 0, 255).astype(np.uint8)))
    outputs = outputs[start - begin :]
    full = np.zeros((window, 3, out_h, out_w), np.int8)
    full[window - len(outputs) :] = outputs
    return full, np.arange(window) >= window - len(outputs)
