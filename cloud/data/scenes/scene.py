"""A whole scene: story, camera, place and light, rendered and labelled."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from ruyicam.cloud.family.labels import BEHAVIOURS, SLOTS

from .actions import RATE_HZ
from .backdrop import backdrop, box, chair, cloudy
from .body import joints
from .camera import place_camera
from .figure import Painter
from .identity import identity
from .story import tell, tell_alone

# Someone of whom less than this share can be seen is hidden.
HIDDEN_BELOW = 0.35


@dataclass(frozen=True)
class Scene:
    """Video and exact labels; P people in the order of their slots, leftmost first.

    frames uint8 [T, h, w]; behaviours bool [T, P, B]; keypoints float32 [T, P, 17, 3], x and y as shares of the picture
    and 1 where the joint can be seen (0: hidden or outside); visible float32 [T, P], the share of a figure that can be
    seen; inside bool [T, P]: in the picture; identities int [P]; empty uint8 [h, w], the place without anyone and without
    noise, as a camera that has hung there for long knows it. Ten frames a second.
    """

    story: str
    frames: np.ndarray
    behaviours: np.ndarray
    keypoints: np.ndarray
    visible: np.ndarray
    inside: np.ndarray
    identities: np.ndarray
    empty: np.ndarray

    @property
    def count(self) -> np.ndarray:
        """People in the picture, hidden ones included, int64 [T]."""
        return self.inside.sum(1)

    @property
    def attributes(self) -> list[dict[str, int]]:
        """`Identity.attributes` of each person."""
        return [identity(int(i)).attributes for i in self.identities]


def make_scene(
    seed: int | list[int], ticks: int = 60, size: tuple[int, int] = (192, 144), identities: int = 64, only: int | None = None
) -> Scene:
    """The scene of that seed (always the same one): `ticks` frames of `size` (width, height) with 1 to 5 people.

    only: the number of the one person who is in it.
    """
    rng = np.random.default_rng(seed)
    story, actors = tell(rng, ticks, identities) if only is None else tell_alone(rng, ticks, only)
    parts = [a.finish() for a in actors]
    world = np.stack([joints(p[0], p[1], p[2], a.who) for p, a in zip(parts, actors, strict=True)], 1)
    places = np.stack([p[1] for p in parts], 1)
    middle = places.reshape(-1, 2).mean(0)
    spread = float(np.linalg.norm(places - middle, axis=-1).max())
    camera = place_camera(rng, size, middle, np.clip(spread, 0.9, 3.2))
    pixels, depth = camera.project(world)
    order = np.argsort(pixels[:, :, :, 0].mean((0, 2)))
    world, pixels, depth = world[:, order], pixels[:, order], depth[:, order]
    people = [actors[i] for i in order]
    boxes = _furniture(rng, camera, world, size, people)
    place = backdrop(rng, camera, size, middle, spread)
    keypoints, visible, frames, empty = _render(rng, camera, world, pixels, depth, [a.who for a in people], place, boxes)
    inside = ((pixels[:, :, 11:13].mean(2) >= 0) & (pixels[:, :, 11:13].mean(2) < size)).all(-1)
    return Scene(
        story,
        frames,
        np.stack([parts[i][3] for i in order], 1),
        keypoints,
        visible,
        inside,
        np.array([a.who.number for a in people]),
        empty,
    )


def _furniture(rng, camera, world, size, people):
    """Blocks that no one walks through and that leave most of the picture open, and the chairs of those who sit."""
    boxes = []
    for _ in range(int(rng.choice(5, p=[0.3, 0.3, 0.2, 0.12, 0.08]))):
        item = box(rng, world[..., [0, 2]].mean((0, 1, 2)) + rng.uniform(-3, 3, 2))
        xy, depth = camera.project(item.corners)
        covers = np.prod(np.ptp(xy.clip(0, size), axis=0)) / (size[0] * size[1])
        apart = np.linalg.norm(world[..., [0, 2]] - item.middle[[0, 2]], axis=-1).min()
        if depth.min() > 0.5 and covers < 0.2 and apart > 0.6:
            boxes.append(item)
    return boxes + [chair(rng, *seat) for actor in people for seat in actor.seats]


def _render(rng, camera, world, pixels, depth, people, place, boxes):
    """(keypoints, visible, frames, empty) of `Scene`."""
    height, width = place.shape
    size = (width, height)
    sunlit = 1 + rng.uniform(0, 0.25) * cloudy(rng, size, 3)
    gain, gamma = rng.uniform(0.45, 1.15), np.exp(rng.uniform(-0.35, 0.35))
    noise, flicker = rng.uniform(0.5, 7) ** (rng.random() < 0.8), rng.uniform(0, 0.02)
    quality = int(rng.integers(25, 90))
    shadow, light = rng.uniform(0, 0.55), rng.uniform(-1, 1)
    shake = rng.normal(0, 0.35, (len(world), 2)) * (rng.random() < 0.15)
    frames = np.empty((len(world), height, width), np.uint8)
    visible = np.zeros(world.shape[:2], np.float32)
    seen = np.zeros(world.shape[:3], bool)
    base = np.clip(place, 0, 255).astype(np.uint8)
    table = np.clip(255 * (np.arange(256) / 255) ** gamma * gain, 0, 255)
    for t in range(len(world)):
        painter = Painter(base.copy(), camera, light)
        for p in range(len(people)):
            painter.shadow(world[t, p], shadow)
        items = [(float(depth[t, p].mean()), p, None) for p in range(len(people))]
        items += [(float(np.linalg.norm(b.middle - camera.position)), -1, b) for b in boxes]
        alone = np.zeros(len(people))
        for _, p, item in sorted(items, key=lambda i: -i[0]):
            if item is not None:
                painter.block(item)
            else:
                painter.person(world[t, p], people[p], p)
                alone[p] = np.count_nonzero(painter.owner == p)
        for p in range(len(people)):
            left = np.count_nonzero(painter.owner == p)
            visible[t, p] = left / max(alone[p], 1)
            x, y = np.rint(pixels[t, p]).astype(int).T
            within = (x >= 0) & (x < width) & (y >= 0) & (y < height)
            seen[t, p, within] = painter.owner[y[within], x[within]] == p
        lit = table[painter.luma] * sunlit * (1 + flicker * np.sin(2.1 * t))
        lit = lit + rng.normal(0, noise, lit.shape)
        frame = np.clip(lit, 0, 255).astype(np.uint8)
        if shake.any():
            frame = cv2.warpAffine(
                frame, np.array([[1, 0, shake[t, 0]], [0, 1, shake[t, 1]]]), size, borderMode=cv2.BORDER_REPLICATE
            )
        frames[t] = cv2.imdecode(cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], 0)
    keypoints = np.concatenate([pixels / [width, height], seen[..., None]], -1).astype(np.float32)
    bare = Painter(base, camera, light)
    for item in sorted(boxes, key=lambda b: -np.linalg.norm(b.middle - camera.position)):
        bare.block(item)
    return keypoints, visible, frames, np.clip(table[bare.luma] * sunlit, 0, 255).astype(np.uint8)


def verdict(behaviours: np.ndarray) -> np.ndarray:
    """Shares (normal, fight, fall) of what a window [W, P, B] shows, float [3]: blows and shoves count as fight."""
    seen = behaviours.any((0, 1))
    fight = float(seen[BEHAVIOURS.index("fight")] or seen[BEHAVIOURS.index("push")])
    fall = float(seen[BEHAVIOURS.index("fall")])
    total = fight + fall
    return np.array([1.0, 0, 0] if not total else [0, fight / total, fall / total], np.float32)


__all__ = ["HIDDEN_BELOW", "RATE_HZ", "SLOTS", "Scene", "make_scene", "verdict"]
