"""Generated scenes: labelled video of articulated figures, a pure function of a seed."""

from ruyicam.cloud.family.labels import BEHAVIOURS, KEYPOINTS, SLOTS

from .scene import Scene, make_scene

__all__ = ["BEHAVIOURS", "KEYPOINTS", "SLOTS", "Scene", "make_scene"]
