"""Generated people whom no model has seen, each alone in many scenes, as clean features: what attackers learn from.

A shard is a safetensors file of one person's windows; N windows, W ticks:

| tensor | dtype, shape | what |
|---|---|---|
| `features` | int16 [N, W, n] | clipped features before the noise |
| `token` | uint8 [N, W] | the behaviour token of every tick |
| `picture` | uint8 [N, P, 36, 48] | the luma of every fourth tick, small |
| `points` | float16 [N, W, 17, 3] | joints: x, y as shares of the picture, seen |
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from safetensors.torch import load_file, save_file

from ruyicam.cloud.data.scenes import make_scene
from ruyicam.cloud.data.scenes.identity import Identity, identity
from ruyicam.cloud.data.workers import in_processes
from ruyicam.cloud.family import Family, FamilyConfig
from ruyicam.cloud.files import whole
from ruyicam.kernels import Preprocessor

# Numbers of the people that training draws from end far below.
FIRST = 100_000
PICTURE = (48, 36)
EVERY = 4
_SCALE = 1.25
_VERSION = 1
_STATE: dict[str, Family] = {}


@dataclass(frozen=True)
class People:
    """Windows of several people, in the order of `who`; see the module for the tensors."""

    features: torch.Tensor
    token: torch.Tensor
    picture: torch.Tensor
    points: torch.Tensor
    who: torch.Tensor

    @property
    def identities(self) -> list[Identity]:
        """Of the person of each number in `who`."""
        return [identity(FIRST + i) for i in range(int(self.who.max()) + 1)]

    def __len__(self) -> int:
        return len(self.who)


@torch.inference_mode()
def edge_tokens(family: Family, features: torch.Tensor) -> torch.Tensor:
    """The behaviour tokens that the device would send (edge/src/gate.cpp): float [W, n] -> uint8 [W]."""
    config = family.config
    window = config.window
    ticks = len(features)
    past = torch.cat([features.new_zeros(window - 1, features.shape[1]), features])
    views = past.unfold(0, window, 1).transpose(1, 2)
    there = torch.arange(window)[None] >= window - 1 - torch.arange(ticks)[:, None]
    answer = family.reasoner(views, there, ("edge",))["edge"]
    chance = torch.softmax(answer.window, -1)
    best = chance.argmax(-1)
    look = (1 - chance[:, 0] >= config.gate.look_threshold).to(torch.uint8)
    return torch.where(best > 0, (best + 1).to(torch.uint8), look)


def frames_to_features(family: Family, frames: np.ndarray) -> torch.Tensor:
    """uint8 [T, h, w], a camera's frames in order -> clipped features without noise, float [T, n]."""
    kernel = Preprocessor(**family.config.input.model_dump(exclude={"rate_hz"}))
    inputs = torch.from_numpy(np.stack([kernel.process(f) for f in frames]))
    with torch.inference_mode():
        return torch.cat([family.features(part[None])[0] for part in inputs.split(64)])


def small(frames: np.ndarray) -> torch.Tensor:
    """uint8 [T, h, w] -> uint8 [T, 36, 48]."""
    return torch.from_numpy(np.stack([cv2.resize(f, PICTURE, interpolation=cv2.INTER_AREA) for f in frames]))


def _start_worker(state: dict[str, torch.Tensor], config: FamilyConfig) -> None:
    family = Family(config)
    family.load_state_dict(state)
    _STATE["family"] = family.eval()


def _person(path: Path, number: int, windows: int) -> Path:
    family = _STATE["family"]
    config = family.config
    size = (int(config.input.width * _SCALE), int(config.input.height * _SCALE))
    rows = []
    for i in range(windows):
        scene = make_scene([17, number, i], config.window, size, only=FIRST + number)
        features = frames_to_features(family, scene.frames)
        rows.append(
            {
                "features": features.to(torch.int16),
                "token": edge_tokens(family, features),
                "picture": small(scene.frames[EVERY - 1 :: EVERY]),
                "points": torch.from_numpy(scene.keypoints[:, 0]).half(),
            }
        )
    with whole(path) as partial:
        save_file({name: torch.stack([r[name] for r in rows]) for name in rows[0]}, partial)
    return path


def make_people(
    family: Family,
    people: int,
    windows: int,
    cache: Path,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> People:
    """`windows` scenes of each of `people` people, kept under `cache` and made where they are missing.

    `progress(done, of)` is called per person; an interrupted call goes on where it was. OSError if nothing can be written.
    """
    digest = hashlib.sha256(f"{_VERSION} {family.config.model_dump_json()}".encode())
    for value in family.state_dict().values():
        digest.update(value.cpu().numpy().tobytes())
    folder = cache / f"people-{digest.hexdigest()[:12]}"
    paths = [folder / f"{i:04d}-{windows}.safetensors" for i in range(people)]
    missing = [(p, i) for i, p in enumerate(paths) if not p.exists()]
    state = ({k: v.cpu() for k, v in family.state_dict().items()}, family.config)
    in_processes(_person, [(path, number, windows) for path, number in missing], _start_worker, state, progress=progress)
    loaded = [load_file(p) for p in paths]
    return People(
        **{name: torch.cat([x[name] for x in loaded]) for name in ("features", "token", "picture", "points")},
        who=torch.arange(people).repeat_interleave(windows),
    )
