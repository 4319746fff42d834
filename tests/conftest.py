"""Shared by all tests: small models, real clips where the shared folder is there, made ones everywhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from databases import DATABASES, Databases
from made import write_clip
from playwright.sync_api import sync_playwright
from service import made_backend

from ruyicam.cloud.data.clips import model_input
from ruyicam.cloud.family import Family
from ruyicam.cloud.keys import load_private_key, new_keys
from ruyicam.cloud.serve.store import Store
from ruyicam.export.bench_session import BenchSession
from ruyicam.export.bundle import export_bundle
from ruyicam.export.cli import main
from ruyicam.export.defaults import default_model

CHROMIUM = Path("/usr/bin/chromium")
ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared" / "data"


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


@pytest.fixture(scope="module")
def module_session(tmp_path_factory, signed):
    """One server for all tests of a module, for those whose devices have a state folder each."""
    folder = tmp_path_factory.mktemp("module") / "session"
    with BenchSession(default_model(), signed[0], signed[1], folder=folder) as running:
        yield running


@pytest.fixture
def session(tmp_path, signed):
    """The real server, ready for the real edge binary."""
    with BenchSession(default_model(), signed[0], signed[1], folder=tmp_path / "session") as running:
        yield running


@pytest.fixture(scope="session")
def databases(tmp_path_factory) -> Iterator[Databases]:
    """Makes databases of every kind."""
    with Databases(tmp_path_factory.mktemp("databases")) as made:
        yield made


@pytest.fixture(params=DATABASES)
def store(request, databases) -> Store:
    """An empty database of each kind."""
    return Store(databases.new(request.param))


@pytest.fixture
def backend(store, signed, family):
    """The service behind its API, with an event and users, on a database of each kind."""
    return made_backend(store, signed, family)


@pytest.fixture(scope="module")
def browser():
    """Debian's Chromium."""
    if not CHROMIUM.exists():
        pytest.skip("chromium is not installed")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def refused(monkeypatch, capsys):
    """(exit code, what is said of it) of a command that fails; in this process, as starting another takes seconds."""

    def run(*arguments) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["ruyicam", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code, capsys.readouterr().err

    return run
