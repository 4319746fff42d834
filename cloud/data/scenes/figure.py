"""People and blocks painted onto a frame, and who can be seen of them."""

from __future__ import annotations

import cv2
import numpy as np

from .backdrop import Box
from .camera import Camera
from .identity import Identity

# Limbs as (joint, joint, thickness as a share of height, lighting, part).
_LIMBS = (
    (11, 13, 0.088, "trousers"),
    (12, 14, 0.088, "trousers"),
    (13, 15, 0.062, "trousers"),
    (14, 16, 0.062, "trousers"),
    (5, 7, 0.056, "shirt"),
    (6, 8, 0.056, "shirt"),
    (7, 9, 0.044, "skin"),
    (8, 10, 0.044, "skin"),
)
NOBODY, BLOCK = 255, 254


class Painter:
    """Paints back to front into `luma` uint8 [h, w] and writes whose pixel it is into `owner` uint8 [h, w]."""

    def __init__(self, luma: np.ndarray, camera: Camera, light: float):
        self.luma, self.camera, self.light = luma, camera, light
        self.owner = np.full(luma.shape, NOBODY, np.uint8)

    def _line(self, a: np.ndarray, b: np.ndarray, width: float, luma: float, owner: int) -> None:
        p, q = tuple(np.rint(a * 8).astype(int).tolist()), tuple(np.rint(b * 8).astype(int).tolist())
        wide = max(1, round(float(width)))
        cv2.line(self.luma, p, q, float(np.clip(luma, 0, 255)), wide, cv2.LINE_AA, 3)
        cv2.line(self.owner, p, q, owner, wide, cv2.LINE_8, 3)

    def _fill(self, points: np.ndarray, luma: float, owner: int) -> None:
        whole = np.rint(points * 8).astype(np.int32)
        cv2.fillConvexPoly(self.luma, whole, float(np.clip(luma, 0, 255)), cv2.LINE_AA, 3)
        cv2.fillConvexPoly(self.owner, whole, owner, cv2.LINE_8, 3)

    def block(self, item: Box) -> None:
        """A block, its far faces first."""
        faces = sorted(item.faces, key=lambda f: -np.linalg.norm(f[0].mean(0) - self.camera.position))
        for corners, luma in faces:
            hull = cv2.convexHull(self.camera.project(corners)[0].astype(np.float32))[:, 0]
            self._fill(hull, luma, BLOCK)

    def shadow(self, joints: np.ndarray, strength: float) -> None:
        """A soft dark patch on the ground below someone."""
        flat = joints[[11, 12, 15, 16, 5, 6]] * [1, 0, 1]
        xy, _ = self.camera.project(flat)
        middle, reach = xy.mean(0), np.maximum(np.ptp(xy, 0) / 2, 2) * 1.2
        x0, y0 = np.maximum(middle - reach, 0).astype(int)
        x1, y1 = (middle + reach).astype(int) + 1
        region = self.luma[y0:y1, x0:x1]
        if region.size:
            y, x = np.mgrid[y0 : y0 + region.shape[0], x0 : x0 + region.shape[1]]
            away = ((x - middle[0]) / reach[0]) ** 2 + ((y - middle[1]) / reach[1]) ** 2
            region[:] = region * (1 - strength * np.clip(1 - away, 0, 1))

    def person(self, joints: np.ndarray, who: Identity, number: int) -> None:
        """Someone's limbs, trunk and head, the far ones first. joints float [17, 3] in metres."""
        xy, depth = self.camera.project(joints)
        scale = self.camera.focal / depth.mean() * who.height
        tones = {"trousers": who.trousers, "shirt": who.shirt, "skin": who.skin}
        trunk = xy[[5, 6, 12, 11]]
        parts: list[tuple[float, object]] = []
        for a, b, thick, tone in _LIMBS:
            near = (depth[a] + depth[b]) / 2
            # Light comes from one side: limbs that point away from it are darker.
            shade = 1 + 0.12 * np.clip((xy[b, 0] - xy[a, 0]) / (scale * 0.2), -1, 1) * self.light
            width = thick * scale * (0.75 + 0.25 * who.build)
            parts.append((near, (a, b, width, tones[tone] * shade)))
        parts.append((float(depth[[5, 6, 11, 12]].mean()) - 0.02, None))
        parts.append((float(depth[0:5].mean()), "head"))
        for _, part in sorted(parts, key=lambda p: -p[0]):
            if part is None:
                self._trunk(trunk, who, scale, number)
            elif part == "head":
                self._head(xy, depth, who, scale, number)
            else:
                self._line(xy[part[0]], xy[part[1]], part[2], part[3], number)

    def _trunk(self, trunk: np.ndarray, who: Identity, scale: float, number: int) -> None:
        middle = trunk.mean(0)
        shape = cv2.convexHull((middle + (trunk - middle) * 1.08).astype(np.float32))[:, 0]
        self._fill(shape, who.shirt, number)
        thick = 0.1 * scale * who.build
        for a, b in ((0, 3), (1, 2)):
            self._line(trunk[a], trunk[b], thick, who.shirt * (0.94 if a else 1.06), number)
        self._line(trunk[2], trunk[3], 0.11 * scale * who.build, who.trousers, number)
        mark = who.shirt + (60 if who.shirt < 128 else -60)
        if who.clothing:
            for share in (0.2, 0.45, 0.7):
                across = trunk[[0, 1]] + (trunk[[3, 2]] - trunk[[0, 1]]) * share
                self._line(across[0], across[1], 0.025 * scale, mark, number)
        if who.clothing == 2:
            for share in (0.25, 0.75):
                down = trunk[[0, 3]] + (trunk[[1, 2]] - trunk[[0, 3]]) * share
                self._line(down[0], down[1], 0.025 * scale, mark, number)

    def _head(self, xy: np.ndarray, depth: np.ndarray, who: Identity, scale: float, number: int) -> None:
        ears, neck = xy[3:5].mean(0), xy[5:7].mean(0)
        size = 0.062 * scale
        up = ears - neck
        up = up / max(np.linalg.norm(up), 1e-3)
        self._line(neck, ears, 0.05 * scale, who.skin * 0.9, number)
        self._line(ears - up * size * 0.35, ears + up * size * 0.35, size * 1.7, who.skin, number)
        hair = 0.5 + who.hair_length
        self._line(ears + up * size * 0.55, ears + up * size * 0.75, size * 1.6, who.hair, number)
        back = ears - (xy[0] - ears) * 0.55
        self._line(back + up * size * 0.6, back - up * size * hair * 0.6, size * 1.15, who.hair, number)
        if depth[0] < depth[3:5].mean() + 0.02 and size > 4:
            for i, at in enumerate((xy[1], xy[2])):
                where = at + who.face[2 * i : 2 * i + 2] * size * 0.08
                self._line(where, where, size * (0.22 + 0.06 * who.face[4]), who.skin * 0.35, number)
            mouth = xy[0] - up * size * (0.45 + 0.1 * who.face[5])
            across = (xy[1] - xy[2]) * 0.5
            self._line(mouth - across, mouth + across, size * 0.12, who.skin * 0.5, number)
