"""Label-safe augmentation of whole clips, before preprocessing."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from ruyicam.cloud.family.config import InputConfig
from ruyicam.kernels import Preprocessor


@dataclass(frozen=True)
class _View:
    """One way to look at a clip: the same crop, tilt, exposure and hidden patch for all of its frames."""

    size: tuple[int, int]
    to_source: np.ndarray
    gamma: np.ndarray
    gain: float
    lift: float
    patch: tuple[slice, slice]
    noise: float
    shake: float

    @classmethod
    def draw(cls, frames: np.ndarray, size: tuple[int, int], rng: np.random.Generator) -> _View:
        """A random view whose crop keeps a place in sight where something moves, or the label could be cropped away."""
        out_w, out_h = size
        height, width = frames.shape[1:]
        scale = rng.uniform(0.5, 1.0)
        box_w, box_h = scale * width, min(scale * rng.uniform(0.85, 1.15), 1.0) * height
        at_y, at_x = _moving_place(frames, rng)
        left = np.clip(at_x - rng.uniform(0.25, 0.75) * box_w, 0, width - box_w)
        top = np.clip(at_y - rng.uniform(0.25, 0.75) * box_h, 0, height - box_h)
        flip = rng.random() < 0.5
        angle = np.deg2rad(rng.uniform(-5, 5))
        c, s, sx, sy = np.cos(angle), np.sin(angle), box_w / out_w, box_h / out_h
        linear = np.array([[c * sx, -s * sy], [s * sx, c * sy]])
        if flip:
            linear[:, 0] *= -1
        offset = np.array([left + box_w / 2, top + box_h / 2]) - linear @ np.array([out_w / 2, out_h / 2])
        gamma = 255 * (np.arange(256) / 255) ** np.exp(rng.uniform(-0.4, 0.4))
        wide, tall = int(rng.uniform(0, 0.4) * out_w), int(rng.uniform(0, 0.4) * out_h)
        x, y = int(rng.integers(0, out_w - wide)), int(rng.integers(0, out_h - tall))
        return cls(
            size=size,
            to_source=np.column_stack([linear, offset]),
            gamma=gamma,
            gain=rng.uniform(0.7, 1.4),
            lift=rng.uniform(-25, 25),
            patch=(slice(y, y + tall), slice(x, x + wide)),
            noise=rng.uniform(0, 4) if rng.random() < 0.5 else 0.0,
            shake=rng.uniform(0, 0.6) if rng.random() < 0.3 else 0.0,
        )

    def render(self, frame: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """uint8 [h, w] of the stored clip -> uint8 [height, width] of the model's grid."""
        matrix = self.to_source.copy()
        if self.shake:
            matrix[:, 2] += rng.normal(0, self.shake, 2)
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        seen = cv2.warpAffine(frame, matrix, self.size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
        seen[self.patch] = 128
        x = self.gamma[seen].astype(np.float32) * self.gain + self.lift
        if self.noise:
            x = x + rng.normal(0, self.noise, x.shape).astype(np.float32)
        return np.clip(x, 0, 255).astype(np.uint8)


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
    """A random view of a clip: tempo, start, crop, flip, tilt, shake, exposure, a hidden patch, sensor noise, and the
    arrow of time where the label does not depend on it (`reversible`).

    frames uint8 [N, h, w], times_ns int64 [N] -> (input int8 [window, 3, height, width], ticks that exist bool
    [window]), the newest tick last.
    """
    tempo = np.exp(rng.uniform(np.log(0.8), np.log(1.25)))
    ticks = np.floor(times_ns * tempo * config.rate_hz / 1e9).astype(np.int64)
    chosen = np.unique(ticks, return_index=True)[1]
    if reversible and rng.random() < 0.5:
        chosen = chosen[::-1]
    start = begin = 0
    if len(chosen) > window:
        # Now and then the background has had time to settle before the window begins.
        start = int(rng.integers(0, len(chosen) - window + 1))
        begin = int(rng.integers(0, start + 1))
    clip = frames[chosen[begin : start + window]]
    view = _View.draw(clip, (config.width, config.height), rng)
    kernel = Preprocessor(**config.model_dump(exclude={"rate_hz"}))
    outputs = [kernel.process(view.render(f, rng)) for f in clip][start - begin :]
    full = np.zeros((window, 3, config.height, config.width), np.int8)
    full[window - len(outputs) :] = outputs
    return full, np.arange(window) >= window - len(outputs)
