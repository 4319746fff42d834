"""How behaviours move: pose angles over time for one person, and who steps where."""

from __future__ import annotations

import numpy as np

from .body import ANGLES, COLUMN
from .identity import Identity

RATE_HZ = 10


def _angles(ticks: int, **values: np.ndarray | float) -> np.ndarray:
    out = np.zeros((ticks, len(ANGLES)))
    for name, value in values.items():
        out[:, COLUMN[name]] = value
    return out


def _time(ticks: int) -> np.ndarray:
    return np.arange(ticks) / RATE_HZ


def stand(ticks: int, who: Identity, rng: np.random.Generator) -> np.ndarray:
    """Upright, swaying a little, arms hanging or crossed."""
    t, sway = _time(ticks), rng.uniform(0, 6.28, 3)
    arms, elbows = (0.05, 0.15) if rng.random() < 0.6 else (rng.uniform(0.2, 0.6), rng.uniform(0.8, 1.9))
    move = 0.03 * np.sin(1.1 * t + sway[0])
    return _angles(
        ticks,
        lean=move,
        arm_l=arms + 0.04 * np.sin(0.9 * t + sway[1]),
        arm_r=arms + 0.04 * np.sin(0.8 * t + sway[2]),
        out_l=0.1,
        out_r=0.1,
        elbow_l=elbows,
        elbow_r=elbows,
        nod=0.2 * np.sin(0.7 * t + sway[2]),
    )


def walk(ticks: int, who: Identity, rng: np.random.Generator, speed: float = 1.2) -> np.ndarray:
    """A gait whose rate and swing belong to the person; from about 2.2 m/s on a run."""
    run = np.clip((speed - 1.6) / 1.4, 0, 1)
    phase = 2 * np.pi * who.stride_hz * (0.75 + 0.35 * speed) * _time(ticks) + rng.uniform(0, 6.28)
    swing = (0.35 + 0.45 * run) * min(1.0, 0.4 + speed / 2)
    knee = 0.35 + 0.8 * run
    arm = (0.35 + 0.4 * run) * who.arm_swing
    return _angles(
        ticks,
        lean=0.04 + 0.2 * run + 0.03 * who.bounce * np.sin(2 * phase),
        hip_l=swing * np.sin(phase) + 0.1,
        hip_r=-swing * np.sin(phase) + 0.1,
        knee_l=knee * (0.6 + 0.6 * np.cos(phase)).clip(0.1),
        knee_r=knee * (0.6 - 0.6 * np.cos(phase)).clip(0.1),
        arm_l=-arm * np.sin(phase),
        arm_r=arm * np.sin(phase),
        out_l=0.08,
        out_r=0.08,
        elbow_l=0.25 + 1.1 * run,
        elbow_r=0.25 + 1.1 * run,
    )


def sit(ticks: int, who: Identity, rng: np.random.Generator) -> np.ndarray:
    """On a chair: thighs level, shins down."""
    t = _time(ticks)
    fidget = 0.08 * np.sin(rng.uniform(0.5, 1.5) * t + rng.uniform(0, 6))
    bend = rng.uniform(-0.1, 0.3)
    arms = rng.uniform(0.2, 0.9)
    return _angles(
        ticks, lean=bend + fidget / 2, hip_l=1.5, hip_r=1.45, hip_out=0.12, knee_l=1.5, knee_r=1.45 + fidget,
        arm_l=arms + fidget, arm_r=arms - fidget, elbow_l=0.9, elbow_r=0.8, nod=0.3,
    )  # fmt: skip


def lie(ticks: int, who: Identity, rng: np.random.Generator, back: bool | None = None) -> np.ndarray:
    """On the ground or a bed, stretched or curled up."""
    t, curl = _time(ticks), rng.uniform(0, 0.9)
    side = -1.5 if (back if back is not None else rng.random() < 0.6) else 1.5
    stir = 0.06 * np.sin(rng.uniform(0.3, 1.0) * t + rng.uniform(0, 6)) * (rng.random() < 0.6)
    return _angles(
        ticks, pitch=side, hip_l=curl, hip_r=curl * 0.8, knee_l=curl * 1.3, knee_r=curl, arm_l=rng.uniform(-0.2, 1.0) + stir,
        arm_r=rng.uniform(-0.2, 1.0), out_l=rng.uniform(0, 0.9), out_r=rng.uniform(0, 0.9), elbow_l=0.4 + stir, elbow_r=0.3,
    )  # fmt: skip


def fall(ticks: int, who: Identity, rng: np.random.Generator, backwards: bool | None = None) -> np.ndarray:
    """From upright to the ground within 0.5 to 1.1 s, forwards, backwards or sideways; then it lies there."""
    down = rng.uniform(0.5, 1.1)
    share = np.clip(_time(ticks) / down, 0, 1) ** rng.uniform(1.4, 2.2)
    kind = rng.integers(4) if backwards is None else (1 if backwards else 0)
    flail = np.sin(np.pi * share.clip(0, 1)) * rng.uniform(0.6, 1.8)
    crumple = np.sin(np.pi * share) * rng.uniform(0.2, 1.1)
    values = dict(
        hip_l=crumple + share * 0.3, hip_r=crumple * 0.8 + share * 0.2, knee_l=1.4 * crumple + 0.3 * share,
        knee_r=1.2 * crumple + 0.2 * share, arm_l=flail + 0.3 * share, arm_r=flail * 0.8, out_l=flail * 0.7 + 0.3 * share,
        out_r=flail * 0.6 + 0.3 * share, elbow_l=0.5, elbow_r=0.5,
    )  # fmt: skip
    if kind == 0:
        values["pitch"] = 1.5 * share
    elif kind == 1:
        values["pitch"] = -1.5 * share
    else:
        values["roll"] = (1.5 if kind == 2 else -1.5) * share
        values["pitch"] = rng.uniform(-0.4, 0.4) * share
    return _angles(ticks, **values)


def rise(ticks: int, who: Identity, rng: np.random.Generator) -> np.ndarray:
    """From the ground to the feet over the whole stretch."""
    share = np.linspace(0, 1, ticks)
    down = 1 - share
    tuck = np.sin(np.pi * share.clip(0, 1))
    return _angles(
        ticks, pitch=-1.5 * down**1.5, lean=0.9 * tuck, hip_l=1.6 * tuck, hip_r=1.4 * tuck, knee_l=1.9 * tuck,
        knee_r=1.6 * tuck, arm_l=0.6 * tuck, arm_r=0.8 * tuck, out_l=0.2, out_r=0.2, elbow_l=0.4, elbow_r=0.4,
    )  # fmt: skip


def fight(ticks: int, who: Identity, rng: np.random.Generator, style: int | None = None) -> np.ndarray:
    """Blows (0), kicks (1) or a scuffle at close quarters (2), in bursts."""
    t = _time(ticks)
    style = int(rng.integers(3)) if style is None else style
    rate = rng.uniform(1.2, 2.6)
    beat = 2 * np.pi * rate * t + rng.uniform(0, 6.28) + 0.6 * np.sin(rng.uniform(2, 4) * t)
    burst = (np.sin(rng.uniform(0.8, 2.0) * t + rng.uniform(0, 6.28)) > -0.5).astype(float)
    hit_l, hit_r = np.maximum(0, np.sin(beat)) ** 2 * burst, np.maximum(0, -np.sin(beat)) ** 2 * burst
    shake = rng.normal(0, 0.08, (ticks, 4))
    if style == 2:
        values = dict(
            lean=0.35 + 0.25 * np.sin(0.7 * beat) + shake[:, 0], roll=0.2 * np.sin(0.5 * beat), arm_l=1.3 + 0.4 * np.sin(beat),
            arm_r=1.2 - 0.4 * np.sin(beat), elbow_l=0.6 + 0.5 * hit_l, elbow_r=0.7 + 0.5 * hit_r, out_l=0.3, out_r=0.3,
        )  # fmt: skip
    else:
        values = dict(
            lean=0.1 + 0.3 * (hit_l + hit_r) + shake[:, 0], arm_l=0.7 + 0.9 * hit_l + shake[:, 1], arm_r=0.7 + 0.9 * hit_r,
            elbow_l=1.9 * (1 - hit_l), elbow_r=1.9 * (1 - hit_r), out_l=0.25 * (1 - hit_l), out_r=0.25 * (1 - hit_r),
        )  # fmt: skip
    step = 0.3 * np.sin(0.8 * beat)
    values |= dict(hip_l=0.2 + step, hip_r=0.2 - step, knee_l=0.4 + 0.3 * np.abs(step), knee_r=0.4, hip_out=0.15)
    if style == 1:
        values["hip_r"] = 0.2 + 1.3 * hit_r
        values["knee_r"] = 0.9 * (1 - hit_r) * (hit_r > 0.05) + 0.3
        values["lean"] = -0.3 * hit_r + shake[:, 2]
    return _angles(ticks, **values)


def push(ticks: int, who: Identity, rng: np.random.Generator) -> np.ndarray:
    """Both arms thrown forward once, in the middle of the stretch."""
    share = np.exp(-(((np.linspace(0, 1, ticks) - 0.5) / 0.22) ** 2))
    return _angles(
        ticks, lean=0.1 + 0.35 * share, arm_l=0.4 + 1.1 * share, arm_r=0.4 + 1.1 * share, elbow_l=1.6 * (1 - share),
        elbow_r=1.6 * (1 - share), hip_l=0.4 * share, hip_r=-0.2 * share, knee_l=0.4 * share, knee_r=0.1,
    )  # fmt: skip


def stagger(ticks: int, who: Identity, rng: np.random.Generator) -> np.ndarray:
    """Thrown back but kept on the feet."""
    share = np.sin(np.pi * np.linspace(0, 1, ticks))
    step = np.sin(2 * np.pi * 1.8 * _time(ticks))
    return _angles(
        ticks, lean=-0.4 * share, hip_l=0.4 * step * share, hip_r=-0.4 * step * share, knee_l=0.4 * share, knee_r=0.4 * share,
        arm_l=0.9 * share, arm_r=0.9 * share, out_l=0.7 * share, out_r=0.7 * share, elbow_l=0.4, elbow_r=0.4,
    )  # fmt: skip


def smoke(ticks: int, who: Identity, rng: np.random.Generator) -> np.ndarray:
    """Standing; a hand goes to the mouth and rests there now and then."""
    out = stand(ticks, who, rng)
    t = _time(ticks)
    up = np.clip(1.6 * np.sin(2 * np.pi * t / rng.uniform(2.0, 4.0) + rng.uniform(0, 6.28)), 0, 1)
    out[:, COLUMN["arm_r"]] = 0.15 + 0.45 * up
    out[:, COLUMN["elbow_r"]] = 0.5 + 1.9 * up
    out[:, COLUMN["out_r"]] = 0.1
    return out


def loiter(ticks: int, who: Identity, rng: np.random.Generator) -> np.ndarray:
    """Standing about: shifting weight, looking round."""
    out = stand(ticks, who, rng)
    t = _time(ticks)
    out[:, COLUMN["roll"]] = 0.06 * np.sin(rng.uniform(1, 2) * t)
    out[:, COLUMN["hip_l"]] = 0.15 * np.sin(rng.uniform(1, 2.5) * t)
    out[:, COLUMN["knee_l"]] = 0.2 * np.abs(np.sin(rng.uniform(1, 2.5) * t))
    return out


def assist(ticks: int, who: Identity, rng: np.random.Generator) -> np.ndarray:
    """Bent over someone, arms down and forward, straightening up at the end."""
    share = np.sin(np.pi * np.linspace(0.1, 1, ticks))
    return _angles(
        ticks, lean=0.9 * share, hip_l=0.7 * share, hip_r=0.5 * share, knee_l=0.9 * share, knee_r=0.8 * share,
        arm_l=0.6 + 0.4 * share, arm_r=0.6 + 0.4 * share, elbow_l=0.4, elbow_r=0.4,
    )  # fmt: skip


def bend(ticks: int, who: Identity, rng: np.random.Generator) -> np.ndarray:
    """Picks something up: down and up again once, from the back or from the knees."""
    share = np.sin(np.pi * np.linspace(0, 1, ticks)) ** rng.uniform(0.5, 1.5)
    knees = rng.uniform(0.1, 1.0)
    return _angles(
        ticks, lean=(1.3 - 0.7 * knees) * share, hip_l=(0.3 + 1.2 * knees) * share, hip_r=(0.3 + 1.0 * knees) * share,
        knee_l=1.9 * knees * share, knee_r=1.8 * knees * share, arm_l=0.2 + 0.6 * share, arm_r=0.2 + 0.9 * share, elbow_l=0.3,
        elbow_r=0.2, nod=0.3 * share,
    )  # fmt: skip


def crouch(ticks: int, who: Identity, rng: np.random.Generator) -> np.ndarray:
    """Squatting, busy with something on the ground."""
    stir = 0.1 * np.sin(rng.uniform(1, 3) * _time(ticks) + rng.uniform(0, 6))
    return _angles(
        ticks, lean=0.5 + stir, hip_l=1.7, hip_r=1.6, knee_l=2.1, knee_r=2.0, hip_out=0.15, arm_l=0.8 + stir, arm_r=0.9 - stir,
        elbow_l=0.5, elbow_r=0.5, nod=0.4,
    )  # fmt: skip


def smooth(track: np.ndarray) -> np.ndarray:
    """Limbs do not jump where one action ends and the next begins: a three-tick average along the first axis."""
    padded = np.concatenate([track[:1], track, track[-1:]])
    return 0.25 * padded[:-2] + 0.5 * padded[1:-1] + 0.25 * padded[2:]
