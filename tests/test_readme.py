"""The README as a stranger follows it: its own lines, on two machines that see each other over a network only."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ruyicam.export.bench_session import find_edge

ROOT = Path(__file__).resolve().parent.parent
PASSWORD = "a long enough one"
ASK = """
import json, sys, urllib.request as u
o = u.build_opener(u.HTTPCookieProcessor())
where, name, password, path = sys.argv[1:]
said = json.dumps({"name": name, "password": password}).encode()
o.open(u.Request(where + "/v1/login", said, {"Content-Type": "application/json"}))
print(o.open(where + path).read().decode())
"""


def blocks_of(heading: str) -> list[list[str]]:
    """Commands of the README's blocks of shell below a heading, a here-document with the command that it belongs to."""
    below = (ROOT / "README.md").read_text().split(f"{heading}\n", 1)[1]
    return [_commands(block) for block in re.findall(r"```sh\n(.*?)```", re.split(r"\n#+ ", below)[0], re.DOTALL)]


def _commands(block: str) -> list[str]:
    commands, lines = [], iter(block.splitlines())
    for line in lines:
        if (end := re.search(r"<<(\w+)$", line)) is not None:
            while not line.endswith(f"\n{end[1]}"):
                line += "\n" + next(lines)
        commands.append(line)
    return commands


class Machine:
    """A network namespace and a folder; what is on PATH are the project's two commands."""

    def __init__(self, name: str, folder: Path):
        self.name, self.folder = name, folder
        folder.mkdir()
        (folder / "bin").mkdir()
        for command in (Path(sys.executable).parent / "ruyicam", find_edge()):
            (folder / "bin" / command.name).symlink_to(command)
        self._environment = os.environ | {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}

    def _inside(self, line: str) -> dict:
        return {
            "args": ["ip", "netns", "exec", self.name, "bash", "-ec", line], "cwd": self.folder,
            "env": self._environment, "text": True,
        }  # fmt: skip

    def run(self, line: str, types: str = "") -> str:
        """What a command prints to someone who types that."""
        done = subprocess.run(**self._inside(line), input=types, capture_output=True, timeout=120)
        assert done.returncode == 0, f"{line}: {done.stderr}"
        return done.stdout

    def start(self, line: str) -> subprocess.Popen:
        """A command that goes on."""
        return subprocess.Popen(**self._inside(f"exec {line}"), stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.fixture
def machines(tmp_path):
    """A server and a device on one wire."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and iproute2")
    names = [f"ruyicam-{os.getpid()}-{which}" for which in "ab"]

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True)

    try:
        for name in names:
            ip("netns", "add", name)
        ends = [f"ry{os.getpid() % 100000}{which}" for which in "ab"]
        ip("link", "add", ends[0], "netns", names[0], "type", "veth", "peer", "name", ends[1], "netns", names[1])
        for name, end, address in zip(names, ends, ("10.0.0.1", "10.0.0.2"), strict=True):
            ip("-n", name, "addr", "add", f"{address}/24", "dev", end)
            for link in (end, "lo"):
                ip("-n", name, "link", "set", link, "up")
        yield [Machine(name, tmp_path / which) for name, which in zip(names, ("server", "device"), strict=True)]
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespaces here: {error.stderr.decode().strip()}")
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


def test_a_stranger_connects_a_second_machine(machines, long_clip):
    server, device = machines
    on_server, on_device = blocks_of("### A camera on another machine")
    for name in ("cloud", "docs"):
        (server.folder / name).symlink_to(ROOT / name)
    (server.folder / "ask.py").write_text(ASK)

    def ask(path: str):
        return json.loads(server.run(f"{sys.executable} -P ask.py http://127.0.0.1:8080 ada '{PASSWORD}' {path!r}"))

    *prepare, serve = on_server
    said = {}
    for line in prepare:
        said[line.split()[1]] = server.run(line, types=f"{PASSWORD}\n{PASSWORD}\n" if "users add" in line else "")
    token = said["enrol"].split()[0]
    service = server.start(serve)
    try:
        assert "ready" in service.stdout.readline(), service.stderr.read()
        for name in ("camera.ruyicam", "vendor.pub", "tls/ca.pem"):
            subprocess.run(["cp", "-r", server.folder / name, device.folder], check=True)
        write, enrol, doctor, run = on_device
        # The one thing that the stranger's camera and this one have not in common.
        device.run(re.sub(r'source = ".*?".*', f'source = "{long_clip}"\nsource_retry = "never"', write))
        device.run(enrol, types=f"{token}\n")
        device.run(doctor)
        device.run(run)
        until = time.monotonic() + 60
        while True:
            (camera,) = ask("/v1/cameras")
            boot = ask(f"/v1/boots/{camera['boot_id']}")
            if boot["closed"] or time.monotonic() > until:
                break
            time.sleep(0.5)
        assert camera["camera_id"] == "ward-3" and boot["closed"] and boot["packets"] == 200
        events = ask("/v1/events?limit=1000")
        assert {e["camera_id"] for e in events} == {"ward-3"}
        assert min(e["first_tick"] for e in events) == 0 and max(e["last_tick"] for e in events) == 199
    finally:
        service.terminate()
        service.wait()
