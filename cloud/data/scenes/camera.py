"""Where the scene is seen from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Camera:
    """A pinhole with one term of radial distortion; metres, radians, pixels."""

    position: np.ndarray
    rotation: np.ndarray
    focal: float
    centre: np.ndarray
    distortion: float

    def project(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """World points float [..., 3] -> (pixels [..., 2] as (x, y), depth in metres [...])."""
        p = (points - self.position) @ self.rotation.T
        depth = p[..., 2].clip(0.2)
        xy = p[..., :2] / depth[..., None]
        xy = xy * (1 + self.distortion * (xy**2).sum(-1, keepdims=True))
        return xy * self.focal + self.centre, depth


def place_camera(rng: np.random.Generator, size: tuple[int, int], look_at: np.ndarray, spread: float) -> Camera:
    """A camera on a wall, pole or ceiling whose picture holds a circle of radius `spread` metres about `look_at`."""
    width, height = size
    view = np.deg2rad(rng.uniform(45, 85))
    focal = width / 2 / np.tan(view / 2)
    far = (spread + 0.7) * rng.uniform(0.75, 1.3) / np.tan(view / 2)
    if rng.random() < 0.3:
        # In small rooms people come so near that they fill the picture.
        far = max(far * rng.uniform(0.45, 0.8), 1.6)
    kind = rng.random()
    # Most hang high on a wall; some stand as low as a face, some look down from the ceiling.
    tall = rng.uniform(1.0, 2.0) if kind < 0.2 else rng.uniform(2.0, 4.5)
    if kind > 0.88:
        tall, far = max(far, 2.4), rng.uniform(0.05, 0.8)
    way = rng.uniform(0, 2 * np.pi)
    position = np.array([look_at[0] - far * np.cos(way), tall, look_at[1] - far * np.sin(way)])
    target = np.array([look_at[0], 0.8, look_at[1]]) + rng.normal(0, 0.25, 3)
    ahead = (target - position) / np.linalg.norm(target - position)
    right = np.cross(ahead, [0.0, 1.0, 0.0])
    right /= np.linalg.norm(right)
    down = np.cross(ahead, right)
    tilt = rng.normal(0, 0.03)
    right, down = np.cos(tilt) * right + np.sin(tilt) * down, np.cos(tilt) * down - np.sin(tilt) * right
    return Camera(
        position,
        np.stack([right, down, ahead]),
        focal,
        np.array([width / 2, height / 2]),
        rng.uniform(-0.12, 0.02),
    )
