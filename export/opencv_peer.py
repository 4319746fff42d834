"""The preprocessing as one would write it with OpenCV: what ours is measured against."""

from __future__ import annotations

import cv2
import numpy as np


class OpenCv:
    """The preprocessing in OpenCV's calls: area average, differences, background; float, so that nothing rounds twice."""

    def __init__(self, width: int, height: int, background_shift: int, mask_floor: int):
        self.size, self.rate, self.floor = (width, height), 2.0**-background_shift, mask_floor / 16
        self.previous: np.ndarray | None = None

    def process(self, luma: np.ndarray) -> np.ndarray:
        """luma uint8 [h, w] -> int8 [3, height, width], within rounding of `Preprocessor`."""
        now = cv2.resize(luma, self.size, interpolation=cv2.INTER_AREA).astype(np.float32)
        if self.previous is None:
            self.previous, self.background = now, now.copy()
        far = cv2.subtract(now, self.background)
        mask = cv2.min(cv2.max(cv2.subtract(cv2.absdiff(now, self.background), self.floor), 0), 8)
        out = np.stack([(now - 128) * mask / 8, 2 * cv2.subtract(now, self.previous), 2 * far])
        cv2.accumulateWeighted(now, self.background, self.rate)
        self.previous = now
        return np.clip(out, -127, 127).astype(np.int8)
