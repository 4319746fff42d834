"""Hardware in the loop: options, the device under test, and the report that is written at the end.

pytest tests/hil --target local|ssh://[USER@]HOST [--source …] [--out DIR] [--baseline FILE --margin 0.2] [--soak SECONDS]
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from report import Results
from target import Target, target_of

from ruyicam.export.bench_session import CAMERA, BenchSession
from ruyicam.export.defaults import default_model
from ruyicam.export.sink import Sink


def pytest_addoption(parser) -> None:
    """Options of the bench."""
    group = parser.getgroup("hardware in the loop")
    group.addoption("--target", default="local", help="local or ssh://[USER@]HOST")
    group.addoption("--edge", help="ruyicam-edge on the target; default: this checkout's build, or there that on its PATH")
    group.addoption("--source", help="what load and soak are measured with, as the device names it; default: a clip, played on")
    group.addoption("--out", default="hil", type=Path, help="folder for hil.json, hil.html, plots and junit.xml")
    group.addoption("--cameras", default="1,2,4", help="numbers of cameras, each a process of its own")
    group.addoption("--load-s", default=30.0, type=float, help="seconds for which each of them runs")
    group.addoption("--changes", default=40, type=int, help="changes of the test pattern that are timed")
    group.addoption("--soak", default=0.0, type=float, help="seconds of the soak run; 0: none")
    group.addoption("--baseline", type=Path, help="hil.json of an earlier run on the same bench")
    group.addoption("--margin", default=0.25, type=float, help="how much worse than the baseline a figure may be, as a share")


def pytest_configure(config) -> None:
    """JUnit beside the rest, unless another place is named."""
    config.option.out.mkdir(parents=True, exist_ok=True)
    if config.option.xmlpath is None:
        config.option.xmlpath = str(config.option.out / "junit.xml")


@pytest.fixture(scope="session")
def results(request) -> Results:
    """Figures of all tests; written when the last of them has run, whatever became of it."""
    found = Results(request.config.option.target)
    yield found
    found.write(request.config.option.out)


@pytest.fixture(scope="session")
def target(request) -> Target:
    """The machine under test."""
    try:
        made = target_of(request.config.option.target, request.config.option.edge)
    except ValueError as error:
        raise pytest.UsageError(str(error)) from error
    with made:
        yield made


class Bench:
    """A bundle, certificates and a server for devices on the target."""

    def __init__(self, target: Target, session: BenchSession):
        self.target, self.session, self.runs = target, session, 0
        self.manifest = json.loads((session.bundle / "manifest.json").read_text())
        self.bundle, self.public_key = target.put(session.bundle), target.put(session.public_key)
        self.ca = target.put(session.authority.ca)

    @property
    def rate_hz(self) -> int:
        """Ticks of a second."""
        return self.manifest["input"]["rate_hz"]

    def keys(self, source: str, server: str, camera: str = CAMERA, **more) -> dict:
        """Configuration of a device with a state folder of its own."""
        self.runs += 1
        issued = self.session.authority.camera(camera)
        state = f"{self.target.folder}/run-{self.runs}"
        certificate = {"ca": self.ca, "cert": self.target.put(issued.cert), "key": self.target.put(issued.key)}
        return {
            **{"source": source, "camera_id": camera, "bundle": self.bundle, "public_key": self.public_key, "server": server},
            **certificate,
            **{"state_dir": state, "stats": f"{state}.json", "drain_timeout_s": 10},
        } | more

    def stats(self, keys: dict) -> dict:
        """Figures that a device has left at its end."""
        return json.loads(self.target.shell(f"cat {keys['stats']}"))

    def sink(self, **options) -> Sink:
        """A server that only notes what comes, where the target can reach it."""
        return Sink(self.session.authority, host=self.target.host, **options)


@pytest.fixture(scope="session")
def bench(target, signed, tmp_path_factory) -> Bench:
    """The bench; its server is the real one."""
    folder = tmp_path_factory.mktemp("hil") / "session"
    host = "127.0.0.1" if target.host == "localhost" else target.host
    with BenchSession(default_model(), signed[0], signed[1], folder=folder, hosts=("localhost", host), listen=host) as session:
        yield Bench(target, session)
