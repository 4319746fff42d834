"""Floors, walls, furniture and light, without people."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from .camera import Camera


def cloudy(rng: np.random.Generator, size: tuple[int, int], coarse: int) -> np.ndarray:
    """Smooth noise float32 [h, w] of mean 0 and deviation near 1, blobs of about w / coarse pixels."""
    small = rng.normal(0, 1, (max(2, coarse * size[1] // size[0]), coarse)).astype(np.float32)
    return cv2.resize(small, size, interpolation=cv2.INTER_CUBIC)


def _floor(rng: np.random.Generator) -> np.ndarray:
    """Texture float32 [256, 256] of 16 m x 16 m: tiles, boards, carpet, asphalt or paving."""
    texture = rng.uniform(60, 190) + 8 * rng.random() * rng.normal(0, 1, (256, 256)).astype(np.float32)
    texture += rng.uniform(2, 14) * cloudy(rng, (256, 256), 12)
    if rng.random() < 0.65:
        step, line = int(rng.integers(6, 24)), rng.uniform(-40, 40)
        texture[::step] += line
        if rng.random() < 0.7:
            texture[:, :: step * int(rng.integers(1, 5))] += line
    return texture.astype(np.float32)


def _wall(rng: np.random.Generator) -> np.ndarray:
    """Texture float32 [128, 512] of a wall with doors, windows, bricks or posters."""
    wall = np.full((128, 512), rng.uniform(50, 220), np.float32)
    wall += rng.uniform(1, 8) * cloudy(rng, (512, 128), 20)
    if rng.random() < 0.35:
        wall[:: int(rng.integers(4, 9))] -= rng.uniform(5, 25)
    for _ in range(int(rng.integers(0, 8))):
        x, w = int(rng.integers(0, 480)), int(rng.integers(8, 48))
        top = int(rng.integers(0, 70))
        bottom = 128 if rng.random() < 0.5 else top + int(rng.integers(15, 50))
        wall[top:bottom, x : x + w] = rng.uniform(20, 250)
        wall[top:bottom, x : x + 1] = rng.uniform(20, 200)
    return wall


def _hang(canvas: np.ndarray, texture: np.ndarray, camera: Camera, corners: np.ndarray) -> None:
    """Paints a texture onto the quadrilateral of world points [4, 3], clockwise from its top left."""
    behind = ((corners - camera.position) @ camera.rotation.T)[:, 2] < 0.3
    if behind.any():
        return
    h, w = texture.shape
    source = np.array([[0, 0], [w, 0], [w, h], [0, h]], np.float32)
    matrix = cv2.getPerspectiveTransform(source, camera.project(corners)[0].astype(np.float32))
    size = (canvas.shape[1], canvas.shape[0])
    painted = cv2.warpPerspective(texture, matrix, size, flags=cv2.INTER_LINEAR, borderValue=-999)
    np.copyto(canvas, painted, where=painted > -100)


def backdrop(rng: np.random.Generator, camera: Camera, size: tuple[int, int], middle: np.ndarray, spread: float) -> np.ndarray:
    """The empty place, luma float32 [h, w]; its walls stand behind the circle `spread` about `middle` (x, z)."""
    width, height = size
    canvas = np.full((height, width), rng.uniform(40, 200), np.float32)
    canvas += rng.uniform(2, 12) * cloudy(rng, size, 6)
    floor = _floor(rng)
    # The ground is cut into tiles, so that those behind the camera can be left out one by one.
    turn = rng.uniform(0, np.pi / 2)
    c, s = np.cos(turn), np.sin(turn)
    for i in range(-3, 3):
        for j in range(-3, 3):
            square = np.array([[i, j + 1], [i + 1, j + 1], [i + 1, j], [i, j]], float) * 4
            at = square @ np.array([[c, s], [-s, c]]) + middle
            part = floor[(j % 2) * 128 : (j % 2) * 128 + 128, (i % 2) * 128 : (i % 2) * 128 + 128]
            _hang(canvas, part, camera, np.stack([at[:, 0], np.zeros(4), at[:, 1]], 1))
    ahead = camera.rotation[2]
    ahead = np.array([ahead[0], 0, ahead[2]]) / np.hypot(ahead[0], ahead[2])
    right = np.array([-ahead[2], 0, ahead[0]])
    for _ in range(1 if rng.random() < 0.7 else 2):
        foot = np.array([middle[0], 0, middle[1]]) + ahead * (spread + rng.uniform(0.8, 4.0)) + right * rng.normal(0, 1.0)
        lean = rng.uniform(-0.15, 0.15)
        along = right * np.cos(lean) + ahead * np.sin(lean)
        tall, half = np.array([0, rng.uniform(2.6, 8.0), 0]), along * 9
        corners = np.stack([foot - half + tall, foot + half + tall, foot + half, foot - half])
        _hang(canvas, _wall(rng), camera, corners)
    return canvas


@dataclass(frozen=True)
class Box:
    """A pillar, table, bed, counter or car: an upright block that people can be hidden by."""

    corners: np.ndarray
    lumas: np.ndarray

    @property
    def middle(self) -> np.ndarray:
        """Centre in metres."""
        return self.corners.mean(0)

    @property
    def faces(self) -> list[tuple[np.ndarray, float]]:
        """(corners [4, 3], luma) of its sides and top."""
        sides = [[i, (i + 1) % 4, (i + 1) % 4 + 4, i + 4] for i in range(4)]
        return [(self.corners[f], self.lumas[i]) for i, f in enumerate([*sides, [4, 5, 6, 7]])]


def chair(rng: np.random.Generator, at: np.ndarray, heading: float) -> Box:
    """A seat under and behind someone who sits at a place (x, z)."""
    c, s = np.cos(heading), np.sin(heading)
    base = np.array([[-0.28, -0.24], [0.12, -0.24], [0.12, 0.24], [-0.28, 0.24]]) @ np.array([[c, s], [-s, c]]) + at
    low = np.stack([base[:, 0], np.zeros(4), base[:, 1]], 1)
    return Box(np.concatenate([low, low + np.array([0, 0.42, 0])]), rng.uniform(25, 220) * rng.uniform(0.7, 1.2, 5))


def box(rng: np.random.Generator, at: np.ndarray) -> Box:
    """A block on the ground about a place (x, z)."""
    kind = rng.choice(3, p=[0.35, 0.4, 0.25])
    wide, deep, tall = (
        (rng.uniform(0.2, 0.6), rng.uniform(0.2, 0.6), rng.uniform(2.0, 3.2)),
        (rng.uniform(0.6, 1.6), rng.uniform(0.5, 0.9), rng.uniform(0.6, 1.1)),
        (rng.uniform(1.6, 4.0), rng.uniform(0.8, 1.7), rng.uniform(0.9, 1.5)),
    )[kind]
    turn = rng.uniform(0, np.pi)
    c, s = np.cos(turn), np.sin(turn)
    base = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * [wide / 2, deep / 2] @ np.array([[c, s], [-s, c]]) + at
    low = np.stack([base[:, 0], np.zeros(4), base[:, 1]], 1)
    lumas = rng.uniform(25, 220) * rng.uniform(0.7, 1.2, 5)
    return Box(np.concatenate([low, low + np.array([0, tall, 0])]), lumas)
