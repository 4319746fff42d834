"""A figure's joints from its pose angles."""

from __future__ import annotations

import numpy as np

from .identity import Identity

# Angles in radians; flexion is forward, abduction outward, of the left and the right limb.
ANGLES = (
    "pitch",
    "roll",
    "lean",
    "hip_l",
    "hip_r",
    "hip_out",
    "knee_l",
    "knee_r",
    "arm_l",
    "arm_r",
    "out_l",
    "out_r",
    "elbow_l",
    "elbow_r",
    "nod",
)
COLUMN = {name: i for i, name in enumerate(ANGLES)}


def _ray(angle: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Unit vectors (forward, up, left) of a limb that hangs down at angle 0."""
    v = np.stack([np.sin(angle) * np.cos(out), -np.cos(angle) * np.cos(out), np.sin(out)], -1)
    return v


def joints(angles: np.ndarray, place: np.ndarray, heading: np.ndarray, who: Identity) -> np.ndarray:
    """COCO's 17 joints in metres, float [N, 17, 3] as (x, y up, z), the lowest one on the ground.

    angles float [N, 15] as in `ANGLES`; place float [N, 2] of the hips on the ground (x, z); heading float [N], radians
    from x to z. Segment lengths are Winter's shares of the body's height.
    """
    a = {name: angles[:, i] for name, i in COLUMN.items()}
    h, zero = who.height, np.zeros(len(angles))
    hip = who.build * 0.085 * h / 1.7
    lean = a["lean"] + who.stoop
    up = np.stack([np.sin(lean), np.cos(lean), zero], -1)
    left = np.array([0.0, 0.0, 1.0])
    neck = up * 0.29 * h
    look = np.stack([np.cos(lean + a["nod"]), -np.sin(lean + a["nod"]), zero], -1)
    head = neck + up * 0.12 * h
    out = np.empty((len(angles), 17, 3))
    out[:, 0] = head + look * 0.06 * h
    for i, side in ((1, 1), (2, -1)):
        out[:, i] = head + look * 0.05 * h + up * 0.02 * h + left * side * 0.018 * h
        out[:, i + 2] = head + left * side * 0.045 * h
    for i, side, s in ((0, 1, "l"), (1, -1, "r")):
        spread = a[f"out_{s}"] * side
        shoulder = neck + left * side * who.shoulders
        elbow = shoulder + _ray(a[f"arm_{s}"] + lean * 0.5, spread) * 0.172 * h
        wrist = elbow + _ray(a[f"arm_{s}"] + lean * 0.5 + a[f"elbow_{s}"], spread * 0.6) * 0.157 * h
        thigh = left * side * hip + zero[:, None]
        knee = thigh + _ray(a[f"hip_{s}"], a["hip_out"] * side) * 0.245 * h
        ankle = knee + _ray(a[f"hip_{s}"] - a[f"knee_{s}"], a["hip_out"] * side * 0.5) * 0.246 * h
        out[:, 5 + i], out[:, 7 + i], out[:, 9 + i] = shoulder, elbow, wrist
        out[:, 11 + i], out[:, 13 + i], out[:, 15 + i] = thigh, knee, ankle
    c, s = np.cos(a["pitch"])[:, None], np.sin(a["pitch"])[:, None]
    f, u = out[..., 0].copy(), out[..., 1].copy()
    out[..., 0], out[..., 1] = c * f + s * u, c * u - s * f
    c, s = np.cos(a["roll"])[:, None], np.sin(a["roll"])[:, None]
    u, sideways = out[..., 1].copy(), out[..., 2].copy()
    out[..., 1], out[..., 2] = c * u - s * sideways, c * sideways + s * u
    out[..., 1] -= out[..., 1].min(1, keepdims=True) - 0.07
    c, s = np.cos(heading)[:, None], np.sin(heading)[:, None]
    f, sideways = out[..., 0].copy(), out[..., 2].copy()
    out[..., 0], out[..., 2] = c * f - s * sideways + place[:, :1], s * f + c * sideways + place[:, 1:]
    return out
