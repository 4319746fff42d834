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

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared" / "data"

SMALL = FamilyConfig(
    input={"width": 64, "height": 64},
    encoder={"tokens": 4, "dim": 8},
    trunk={"hidden_size": 16, "intermediate_size": 16, "heads": 2},
    window=8,
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
