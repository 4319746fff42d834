"""Teacher keypoints of real clips: weak labels for the contour, made once by a pretrained pose network."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ruyicam.cloud.family.labels import SLOTS

# Below this score the teacher has guessed.
_SURE_BOX, _SURE_JOINT = 0.3, 0.3


class TeacherPoses:
    """Keypoints [frames, 6, 17, 3] (y, x, score) and boxes [frames, 6, 5] at `fps`, from `clip.npz`."""

    def __init__(self, path: Path):
        with np.load(path) as data:
            self.fps = float(data["fps"])
            points, boxes = data["keypoints"], data["boxes"]
        sure = boxes[..., 4] >= _SURE_BOX
        seen = (points[..., 2] >= _SURE_JOINT) & sure[..., None]
        self.points = np.concatenate([points[..., [1, 0]], seen[..., None]], -1).astype(np.float32)
        self.sure = sure

    def at(self, times_ns: np.ndarray) -> np.ndarray:
        """float32 [len(times), 6, 17, 3]: x, y as shares of the picture, 1 where the teacher is sure of the joint."""
        return self.points[np.clip((times_ns * self.fps / 1e9).astype(int), 0, len(self.points) - 1)]

    def descent(self) -> int | None:
        """Time in ns at which someone's hips go down the fastest, None where the teacher saw none of them."""
        hips = self.points[:, :, 11:13]
        height = np.where(hips[..., 2] > 0, hips[..., 1], np.nan)
        best, when = 0.0, None
        for p in range(height.shape[1]):
            if np.isfinite(height[:, p]).any(1).sum() < 4:
                continue
            y = np.array([np.nanmean(h) if np.isfinite(h).any() else np.nan for h in height[:, p]])
            for t in range(4, len(y)):
                drop = y[t] - y[t - 4]
                if np.isfinite(drop) and drop > best:
                    best, when = drop, int((t - 2) * 1e9 / self.fps)
        return when


def find_poses(clip: Path) -> TeacherPoses | None:
    """The teacher's file for `root/part/label/clip.mp4`: `root/poses/part/label/clip.npz`, if there is one."""
    clip = clip.resolve()
    for root in list(clip.parents)[:5]:
        path = (root / "poses" / clip.relative_to(root)).with_suffix(".npz")
        if path.exists():
            return TeacherPoses(path)
    return None


def slots(points: np.ndarray) -> np.ndarray:
    """[t, people, 17, 3] -> [t, SLOTS, 17, 3]: the people of every tick from left to right, empty slots last."""
    out = np.zeros((len(points), SLOTS, *points.shape[2:]), np.float32)
    for t, people in enumerate(points):
        there = [p for p in people if p[:, 2].sum() >= 3]
        there.sort(key=lambda p: float((p[:, 0] * p[:, 2]).sum() / p[:, 2].sum()))
        for s, p in enumerate(there[:SLOTS]):
            out[t, s] = p
    return out
