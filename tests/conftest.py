"""Shared by all tests: small models, real clips where the shared folder is there, made ones everywhere."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from ruyicam.cloud.data.clips import model_input
from ruyicam.cloud.family import Family, FamilyConfig
from ruyicam.cloud.keys import load_private_key, new_keys
from ruyicam.export.bench_session import BenchSession
from ruyicam.export.bundle import export_bundle
from ruyicam.export.demo import default_model
from ruyicam.kernels import MappingParams

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared" / "data"

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


@pytest.fixture(scope="session")
def made_clip(tmp_path_factory) -> Path:
    """A clip of two seconds made here."""
    return write_clip(tmp_path_factory.mktemp("clips") / "made.mp4")


@pytest.fixture(scope="session")
def long_clip(tmp_path_factory) -> Path:
    """A clip of 20 seconds made here."""
    return write_clip(tmp_path_factory.mktemp("clips") / "long.mp4", frames=400)


@pytest.fixture(scope="session")
def shared_clips() -> Path:
    """The folder of real clips; skips where it is not beside the checkout."""
    if not SHARED.is_dir():
        pytest.skip("the shared clips are not beside this checkout")
    return SHARED


@pytest.fixture(scope="session")
def family() -> Family:
    """The default checkpoint."""
    return Family.from_pretrained(default_model())


@pytest.fixture(scope="session")
def signed(tmp_path_factory, family, made_clip) -> tuple[Path, Path, Path]:
    """(bundle, public key, private key) of the default checkpoint."""
    folder = tmp_path_factory.mktemp("bundle")
    private, public = new_keys(folder / "test")
    frames = model_input(made_clip, family.config.input)
    report = export_bundle(family, folder / "camera.ruyicam", load_private_key(private), frames)
    return report.path, public, private


@pytest.fixture
def session(tmp_path, signed):
    """The real server, ready for the real edge binary."""
    with BenchSession(default_model(), signed[0], signed[1], folder=tmp_path / "session") as running:
        yield running
