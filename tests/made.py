"""What several tests are made of: a small model's configuration, random constants, clips."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import av
import numpy as np

from ruyicam.cloud.family import FamilyConfig
from ruyicam.cloud.keys import load_private_key
from ruyicam.cloud.privacy import bounds
from ruyicam.cloud.privacy.certificate import noise_hash, prior_hash
from ruyicam.cloud.privacy.profiles import release_plan
from ruyicam.kernels import MappingParams

SMALL = FamilyConfig(
    input={"width": 64, "height": 64},
    encoder={"tokens": 4, "dim": 8},
    trunk={"hidden_size": 16, "intermediate_size": 16, "heads": 2},
    window=8,
)


def random_params(rng: np.random.Generator, tokens: int, dim: int, out: int, bits: int) -> MappingParams:
    """Valid constants of any kind."""
    return MappingParams(
        tokens=tokens,
        weight=rng.integers(-128, 128, (out, dim)).astype(np.int8),
        bias=rng.integers(-(2**24), 2**24, out).astype(np.int32) // int(rng.choice([1, 1000, 2**20])),
        lut=rng.integers(-32768, 32768, 2 ** int(rng.integers(1, 12))).astype(np.int16) // int(rng.choice([1, 300])),
        noise_cdf=np.sort(rng.integers(0, 2**64, 2 * int(rng.integers(1, 90)), dtype=np.uint64)),
        input_scale=float(np.float32(2.0 ** rng.uniform(-8, 3))),
        multiplier=int(rng.integers(-(2**31), 2**31)) // int(rng.choice([1, 2**20])),
        round=int(rng.integers(-(2**40), 2**40)),
        shift=int(rng.integers(0, 63)),
        clip=int(2 ** rng.uniform(0, 20)),
        bits=bits,
    )


def write_clip(path: Path, frames: int = 40, size: tuple[int, int] = (320, 240), seed: int = 0, rate: int = 20) -> Path:
    """An H.264 clip of bright squares that wander over noise."""
    rng = np.random.default_rng(seed)
    width, height = size
    ground = rng.integers(60, 120, (height, width), dtype=np.uint8)
    where, speed = rng.uniform(40, 160, (3, 2)), rng.uniform(-9, 9, (3, 2))
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for _ in range(frames):
            picture = ground.copy()
            for y, x in where.astype(int):
                picture[max(y, 0) : y + 40, max(x, 0) : x + 20] = 220
            where = np.clip(where + speed, 0, (height - 41, width - 21))
            frame = av.VideoFrame.from_ndarray(np.repeat(picture[..., None], 3, 2), format="rgb24")
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


def another_bundle(bundle: Path, out: Path, key: Path, files: dict[str, bytes] | None = None, **manifest) -> Path:
    """A copy of a bundle with other files and other values in its manifest, signed anew."""
    shutil.copytree(bundle, out)
    content = json.loads((out / "manifest.json").read_text()) | manifest
    for name, data in (files or {}).items():
        (out / name).write_bytes(data)
        content["files"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    raw = json.dumps(content, indent=2).encode()
    (out / "manifest.json").write_bytes(raw)
    (out / "manifest.sig").write_bytes(load_private_key(key).sign(raw))
    return out


def statement(**changes) -> dict:
    """A session certificate's statement that holds."""
    plan = release_plan(FamilyConfig(), "strict")
    visit = {"seconds": 60.0, "mu": 0.5, "token_bits": 2.0}
    budget = {"bits_per_second": 1.0, "bits_per_day": 9.0, "mu_per_day": 1.0, "token_bits_per_day": 9.0, "visit": visit}
    return {
        "schema": 1, "camera_id": "ward", "boot_id": "0" * 32, "begin_us": 1, "end_us": 2, "final": True,
        "bundle": {"id": "0" * 32, "name": "n", "version": "1"},
        "noise_sha256": noise_hash(plan.sigma), "prior_sha256": prior_hash([0.5, 0.5]),
        "profile": "strict", "clip": plan.clip, "sigma": plan.sigma, "features": plan.features,
        "bits_per_release": plan.bits_per_release, "budget": budget,
        "spent": {"releases": 2, "feature_bits": 2 * plan.bits_per_release, "token_bits": 2.0,
                  "mu": bounds.mu(2, plan.clip, plan.sigma)},
        "camera_total": {"releases": 5, "bits": 7.0, "mu": 1.0},
    } | changes  # fmt: skip


def alive(pid: int) -> bool:
    """Whether there is such a process, and it has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
