"""Label-safe augmentation of whole clips, before preprocessing."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from ruyicam.cloud.family.config import InputConfig
from ruyicam.cloud.family.labels import KEYPOINTS
from ruyicam.kernels import Preprocessor

# Left and right joints change places in a mirror.
_MIRROR = [KEYPOINTS.index(k.replace("left", "*").replace("right", "left").replace("*", "right")) for k in KEYPOINTS]


@dataclass(frozen=True)
class View:
    """One way to look at a clip: the same crop, tilt, exposure and hidden patch for all of its frames."""

    size: tuple[int, int]
    to_source: np.ndarray
    flip: bool
    gamma: np.ndarray
    gain: float
    lift: float
    patch: tuple[slice, slice]
    noise: float
    shake: float
    quality: int

    @classmethod
    def draw(cls, frames: np.ndarray, size: tuple[int, int], rng: np.random.Generator) -> View:
        """A random view whose crop keeps a place in sight where something moves, or the label could be cropped away."""
        out_w, out_h = size
        height, width = frames.shape[1:]
        scale = rng.uniform(0.5, 1.0)
        box_w, box_h = scale * width, min(scale * rng.uniform(0.85, 1.15), 1.0) * height
        at_y, at_x = _moving_place(frames, rng)
        left = np.clip(at_x - rng.uniform(0.25, 0.75) * box_w, 0, width - box_w)
        top = np.clip(at_y - rng.uniform(0.25, 0.75) * box_h, 0, height - box_h)
        flip = bool(rng.random() < 0.5)
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
            flip=flip,
            gamma=gamma,
            gain=rng.uniform(0.7, 1.4),
            lift=rng.uniform(-25, 25),
            patch=(slice(y, y + tall), slice(x, x + wide)),
            noise=rng.uniform(0, 4) if rng.random() < 0.5 else 0.0,
            shake=rng.uniform(0, 0.6) if rng.random() < 0.3 else 0.0,
            quality=int(rng.integers(20, 90)) if rng.random() < 0.3 else 0,
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
        out = np.clip(x, 0, 255).astype(np.uint8)
        if self.quality:
            out = cv2.imdecode(cv2.imencode(".jpg", out, [cv2.IMWRITE_JPEG_QUALITY, self.quality])[1], 0)
        return out

    def keypoints(self, points: np.ndarray, source: tuple[int, int]) -> np.ndarray:
        """Moves keypoints [..., 17, 3] (x, y as shares of a `source` = (width, height) picture, seen) into this view."""
        inverse = np.linalg.inv(self.to_source[:, :2])
        at = (points[..., :2] * source - self.to_source[:, 2]) @ inverse.T / self.size
        inside = ((at >= 0) & (at < 1)).all(-1)
        moved = np.concatenate([at, (points[..., 2] * inside)[..., None]], -1)
        return moved[..., _MIRROR, :] if self.flip else moved


def _moving_place(frames: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    """(y, x) of a place drawn by how much it moves over the clip, in pixels of the stored frames."""
    small = np.stack([cv2.resize(f, (16, 12), interpolation=cv2.INTER_AREA) for f in frames]).astype(np.float32)
    energy = np.abs(np.diff(small, axis=0)).mean(0) ** 2 + 1e-3 if len(small) > 1 else np.ones((12, 16))
    cell = rng.choice(energy.size, p=(energy / energy.sum()).ravel())
    return (cell // 16 + 0.5) * frames.shape[1] / 12, (cell % 16 + 0.5) * frames.shape[2] / 16


@dataclass(frozen=True)
class Seen:
    """A window of a view: input int8 [t, 3, height, width], luma uint8 [t, height, width], its frames int [t]."""

    input: np.ndarray
    luma: np.ndarray
    frames: np.ndarray
    view: View


def augmented_window(
    frames: np.ndarray,
    times_ns: np.ndarray,
    config: InputConfig,
    window: int,
    rng: np.random.Generator,
    reversible: bool = False,
    moment: int | None = None,
) -> Seen:
    """A random view of up to `window` ticks of a clip: tempo, start, dropped frames, crop, flip, tilt, shake, exposure,
    a hidden patch, sensor noise, compression, and the arrow of time where the label does not depend on it
    (`reversible`). The window holds frame `moment`, if there is one that the label stands or falls with.

    frames uint8 [N, h, w], times_ns int64 [N].
    """
    tempo = np.exp(rng.uniform(np.log(0.8), np.log(1.25)))
    ticks = np.floor(times_ns * tempo * config.rate_hz / 1e9).astype(np.int64)
    chosen = np.unique(ticks, return_index=True)[1]
    if rng.random() < 0.2:
        # A dropped frame repeats the one before it.
        lost = np.flatnonzero(rng.random(len(chosen)) < 0.1)
        chosen[lost] = chosen[np.maximum(lost - 1, 0)]
    if reversible and rng.random() < 0.5:
        chosen = chosen[::-1]
    start = begin = 0
    if len(chosen) > window:
        low, high = 0, len(chosen) - window
        if moment is not None:
            at = int(np.searchsorted(chosen, moment))
            low, high = np.clip([at - window + 8, at - 8], low, high)
        # Now and then the background has had time to settle before the window begins.
        start = int(rng.integers(low, high + 1))
        begin = int(rng.integers(0, start + 1))
    picked = chosen[begin : start + window]
    view = View.draw(frames[picked], (config.width, config.height), rng)
    kernel = Preprocessor(**config.model_dump(exclude={"rate_hz"}))
    luma = np.stack([view.render(frames[i], rng) for i in picked])
    outputs = np.stack([kernel.process(f) for f in luma])
    keep = slice(start - begin, None)
    return Seen(outputs[keep], luma[keep], picked[keep], view)
