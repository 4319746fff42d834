"""Shards of prepared windows: everything before the trained part of the encoder, computed once and kept on disk.

A shard is a safetensors file with the ticks of all of its windows end to end (t in all) and their lengths:

| tensor | dtype, shape | what |
|---|---|---|
| `lengths` | int64 [N] | ticks of each window |
| `maps` | float16 [t, channels, rows, columns] | `Encoder.maps` |
| `luma` | uint8 [t, 12, 16] | the picture, small: what an adversary tries to see |
| `verdict` | float32 [N, labels] | shares of the labels |
| `contour` | float16 [t, SLOTS, 17, 3] | x, y, seen; slots from left to right |
| `doing` | uint8 [t, SLOTS, behaviours] | scenes only, else empty |
| `inside`, `visible` | uint8, float16 [t, SLOTS] | scenes only: in the picture; share of the figure that can be seen |
| `identity` | int64 [N, SLOTS] | scenes only, -1: empty slot |
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from ruyicam.cloud.family.config import FamilyConfig
from ruyicam.cloud.family.encoder import Encoder
from ruyicam.cloud.family.labels import BEHAVIOURS, SLOTS
from ruyicam.cloud.files import whole
from ruyicam.cloud.memory import keep_freed_memory
from ruyicam.kernels import Preprocessor

from .augment import augmented_window
from .clips import Clip, luma_frames
from .poses import find_poses, slots
from .scenes import make_scene
from .scenes.scene import verdict
from .workers import in_processes

SCENES_PER_SHARD = 50
LUMA = (16, 12)
# Clips are kept a little above the model's grid, so that crops stay sharp; scenes, so that edges are smooth.
_CLIP_SCALE, _SCENE_SCALE = 1.5, 1.25
# Share of its ticks for which someone must be in the picture to count.
_THERE = 0.3
# Share of the scenes whose camera knows no background: who does not move there cannot be told from the wall.
_COLD = 0.1
# Change whenever shards of that kind would differ from an older program's.
_VERSIONS = {"scenes": 4, "clips": 4}
_STATE: dict[str, object] = {}


def default_cache() -> Path:
    """Where shards are kept unless told otherwise: $XDG_CACHE_HOME/ruyicam or ~/.cache/ruyicam."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ruyicam"


def _small(luma: np.ndarray) -> np.ndarray:
    return np.stack([cv2.resize(f, LUMA, interpolation=cv2.INTER_AREA) for f in luma])


def _maps(inputs: np.ndarray) -> torch.Tensor:
    encoder: Encoder = _STATE["encoder"]
    return torch.cat([encoder.maps(x) for x in torch.from_numpy(inputs).split(64)]).half()


def _scene_window(seed: int, config: FamilyConfig, identities: int) -> dict[str, torch.Tensor]:
    """One scene, mostly seen by a camera that knows the place without anyone; else by one that was just switched on."""
    rng = np.random.default_rng([11, seed])
    settled = rng.random() >= _COLD
    before = int(rng.integers(1, 21)) if settled else 0
    size = (int(config.input.width * _SCENE_SCALE), int(config.input.height * _SCENE_SCALE))
    scene = make_scene(seed, config.window + before, size, identities)
    kernel = Preprocessor(**config.input.model_dump(exclude={"rate_hz"}))
    if settled:
        kernel.process(scene.empty)
    inputs = np.stack([kernel.process(f) for f in scene.frames])[before:]
    points, within = scene.keypoints[before:], scene.inside[before:]
    # Whoever is hardly ever in the picture is not there, and no one does anything outside of it.
    there = np.flatnonzero(within.mean(0) >= _THERE)
    order = there[np.argsort(points[:, there][..., 0].mean((0, 2)))]
    people = len(order)
    contour = np.zeros((len(inputs), SLOTS, *points.shape[2:]), np.float32)
    doing = np.zeros((len(inputs), SLOTS, len(BEHAVIOURS)), np.uint8)
    inside, visible = np.zeros((len(inputs), SLOTS), np.uint8), np.zeros((len(inputs), SLOTS), np.float32)
    identity = np.full(SLOTS, -1)
    contour[:, :people] = points[:, order]
    doing[:, :people] = scene.behaviours[before:][:, order] & within[:, order, None]
    inside[:, :people], visible[:, :people] = within[:, order], scene.visible[before:][:, order]
    identity[:people] = scene.identities[order]
    return {
        "maps": _maps(inputs),
        "luma": torch.from_numpy(_small(scene.frames[before:])),
        "verdict": torch.from_numpy(verdict(doing.astype(bool))),
        "contour": torch.from_numpy(contour).half(),
        "doing": torch.from_numpy(doing),
        "inside": torch.from_numpy(inside),
        "visible": torch.from_numpy(visible).half(),
        "identity": torch.from_numpy(identity),
    }


def _clip_windows(clip: Clip, config: FamilyConfig, views: int) -> Iterator[dict[str, torch.Tensor]]:
    """The whole clip as it is, then `views` augmented windows of it."""
    size = (int(config.input.width * _CLIP_SCALE), int(config.input.height * _CLIP_SCALE))
    kernel = Preprocessor(**config.input.model_dump(exclude={"rate_hz"}))
    times, stored, plain, plain_times, last = [], [], [], [], -1
    for time, luma in luma_frames(clip.path):
        times.append(time)
        stored.append(cv2.resize(luma, size, interpolation=cv2.INTER_AREA))
        if (tick := time * config.input.rate_hz // 1_000_000_000) > last:
            last = tick
            plain.append((kernel.process(luma), stored[-1]))
            plain_times.append(time)
    frames, when = np.stack(stored), np.array(times, np.int64)
    poses = find_poses(clip.path)
    share = torch.zeros(len(config.labels))
    share[config.labels.index(clip.label)] = 1
    descent = poses.descent() if poses and clip.label == "fall" else None
    moment = None if descent is None else int(np.searchsorted(when, descent))

    def window(inputs: np.ndarray, luma: np.ndarray, contour: np.ndarray) -> dict[str, torch.Tensor]:
        return {
            "maps": _maps(inputs),
            "luma": torch.from_numpy(_small(luma)),
            "verdict": share,
            "contour": torch.from_numpy(contour).half(),
        }

    def points(chosen: np.ndarray) -> np.ndarray:
        return poses.at(chosen) if poses else np.zeros((len(chosen), 1, 17, 3), np.float32)

    inputs, luma = (np.stack(x) for x in zip(*plain, strict=True))
    yield window(inputs, luma, slots(points(np.array(plain_times))))
    for view in range(views):
        rng = np.random.default_rng([13, view])
        # A fall played backwards is someone getting up.
        seen = augmented_window(frames, when, config.input, config.window, rng, clip.label != "fall", moment)
        yield window(seen.input, seen.luma, slots(seen.view.keypoints(points(when[seen.frames]), size)))


def _write(windows: list[dict[str, torch.Tensor]], path: Path) -> None:
    out = {"lengths": torch.tensor([len(w["maps"]) for w in windows])}
    for name in windows[0]:
        join = torch.stack if name in ("verdict", "identity") else torch.cat
        out[name] = join([w[name] for w in windows]).contiguous()
    with whole(path) as partial:
        save_file(out, partial)


def _start_worker(state: dict[str, torch.Tensor], config: FamilyConfig) -> None:
    keep_freed_memory()
    encoder = Encoder(config)
    encoder.load_state_dict(state)
    _STATE["encoder"] = encoder.eval()


def _make(path: Path, config: FamilyConfig, job: tuple) -> Path:
    if job[0] == "scenes":
        _, first, identities = job
        _write([_scene_window(s, config, identities) for s in range(first, first + SCENES_PER_SHARD)], path)
    else:
        _, clip, views = job
        _write(list(_clip_windows(clip, config, views)), path)
    return path


class Store:
    """Shards under `folder`, made where they are missing; the same ones serve every run with the same backbone."""

    def __init__(self, folder: Path, config: FamilyConfig, encoder: Encoder):
        self.config, self.encoder = config, encoder
        self._folders = {kind: folder / f"{kind}-{self._key(version)}" for kind, version in _VERSIONS.items()}

    def _key(self, version: int) -> str:
        config = self.config
        digest = hashlib.sha256(f"{version} {config.input} {config.window} {config.labels}".encode())
        for value in self.encoder.backbone.state_dict().values():
            digest.update(value.cpu().numpy().tobytes())
        return digest.hexdigest()[:12]

    def scenes(self, first: int, count: int, identities: int = 64) -> list[tuple[Path, tuple]]:
        """Shards of the scenes first to first + count - 1, rounded up to whole shards."""
        starts = range(first, first + count, SCENES_PER_SHARD)
        return [(self._folders["scenes"] / f"{s:08d}-{identities}.safetensors", ("scenes", s, identities)) for s in starts]

    def clips(self, clips: list[Clip], views: int) -> list[tuple[Path, tuple]]:
        """One shard per clip: the clip as it is, then `views` augmented windows."""
        out = []
        for clip in clips:
            name = hashlib.sha256(clip.path.read_bytes() + clip.label.encode()).hexdigest()[:24]
            out.append((self._folders["clips"] / f"{name}-{views}.safetensors", ("clip", clip, views)))
        return out

    def build(
        self,
        shards: list[tuple[Path, tuple]],
        workers: int = 0,
        progress: Callable[[int, int], None] = lambda done, of: None,
    ) -> list[Path]:
        """Makes the shards that are missing, in processes of their own, and returns all paths in order.

        `progress(done, of)` is called as they come; an interrupted build goes on where it was. OSError if the folder
        cannot be written; RuyicamError(SOURCE) for a clip that cannot be decoded.
        """
        missing = list({path: (path, job) for path, job in shards if not path.exists()}.values())
        state = ({k: v.cpu() for k, v in self.encoder.state_dict().items()}, self.config)
        in_processes(_make, [(path, self.config, job) for path, job in missing], _start_worker, state, workers, progress)
        return [path for path, _ in shards]


class Windows:
    """Random access to the windows of some shards; maps are read from disk as they are needed."""

    def __init__(self, paths: list[Path]):
        self.index: list[tuple[int, int, int, int]] = []
        self.shards, self.small = [], []
        for s, path in enumerate(paths):
            handle = safe_open(path, "pt")
            self.shards.append(handle.get_slice("maps"))
            self.small.append({k: handle.get_tensor(k) for k in handle.keys() if k != "maps"})  # noqa: SIM118
            ends = self.small[-1]["lengths"].cumsum(0).tolist()
            starts = [0, *ends[:-1]]
            self.index += [(s, i, a, b) for i, (a, b) in enumerate(zip(starts, ends, strict=True))]

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, i: int) -> dict[str, torch.Tensor]:
        shard, row, start, end = self.index[i]
        out = {"maps": self.shards[shard][start:end]}
        for name, value in self.small[shard].items():
            if name != "lengths":
                out[name] = value[row] if name in ("verdict", "identity") else value[start:end]
        return out


__all__ = ["LUMA", "SCENES_PER_SHARD", "Store", "Windows", "default_cache"]
