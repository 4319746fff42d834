"""A whole system on this machine for a while: authority, keys, bundle, the real server, the real edge binary."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from ruyicam.cloud.errors import Exit, RuyicamError

from .pki import Authority

CAMERA = "camera-1"


def find_edge(given: Path | None = None) -> Path:
    """The edge binary: `given`, $RUYICAM_EDGE, PATH, or this checkout's build. RuyicamError(USAGE) if there is none."""
    if given is None and "RUYICAM_EDGE" in os.environ:
        given = Path(os.environ["RUYICAM_EDGE"])
    if given is not None:
        if not given.is_file():
            raise RuyicamError(Exit.USAGE, f"edge binary {given} does not exist")
        return given
    on_path = shutil.which("ruyicam-edge")
    built = Path(__file__).resolve().parent.parent / "build" / "default" / "edge" / "ruyicam-edge"
    if on_path is None and not built.is_file():
        raise RuyicamError(Exit.USAGE, "ruyicam-edge was not found: build it with 'make setup', or set RUYICAM_EDGE")
    return built if built.is_file() else Path(on_path or "")


def command_line(edge: Path, keys: dict[str, Any]) -> list[str]:
    """The edge binary with keys of its configuration as flags; True and False are --KEY and --no-KEY."""
    command = [str(edge)]
    for key, value in keys.items():
        if isinstance(value, bool):
            command.append(f"--{key}" if value else f"--no-{key}")
        else:
            command += [f"--{key}", str(value)]
    return command


def free_port() -> int:
    """Of loopback, which nobody listens on at the moment."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)} = {_toml(v)}" for k, v in value.items()) + "}"
    return json.dumps(value, default=str)


def toml_lines(keys: dict[str, Any]) -> str:
    """Keys and values of a configuration as lines of TOML; paths are strings."""
    bare = {k: k if k.replace("_", "").isalnum() else json.dumps(k) for k in keys}
    return "".join(f"{bare[k]} = {_toml(v)}\n" for k, v in keys.items())


class BenchSession:
    """Context manager. `folder` holds everything; a temporary one is removed at the end."""

    def __init__(
        self,
        model: Path,
        bundle: Path,
        public_key: Path,
        edge: Path | None = None,
        folder: Path | None = None,
        hosts: tuple[str, ...] = ("localhost", "127.0.0.1"),
        listen: str = "127.0.0.1",
    ):
        """hosts: names and addresses in the server's certificate; listen: the address that its uplink is bound to."""
        self.hosts, self.listen = hosts, listen
        self.model, self.bundle, self.public_key = model, bundle, public_key
        self.edge = find_edge(edge)
        self._temporary = folder is None
        self.folder = folder or Path(tempfile.mkdtemp(prefix="ruyicam-"))
        self.server: subprocess.Popen | None = None
        self.server_keys: dict[str, Any] = {}  # replace keys of server.toml
        self.grpc = self.http = self.enrol = ""

    def __enter__(self) -> BenchSession:
        self.authority = Authority(self.folder / "tls", days=1)
        if "ca_key" in self.server_keys:
            self.authority.keep_key()
        self.server_cert = self.authority.server(list(self.hosts))
        self.camera_cert = self.authority.camera(CAMERA)
        try:
            self.start_server()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop_server()
        if self._temporary:
            shutil.rmtree(self.folder, ignore_errors=True)

    def server_config(self) -> Path:
        """Writes server.toml."""
        keys = {
            "grpc": self.grpc or f"{self.listen}:0",
            "http": self.http or "127.0.0.1:0",
            "ca": str(self.authority.ca),
            "cert": str(self.server_cert.cert),
            "key": str(self.server_cert.key),
            "model": str(self.model),
            "bundles": [str(self.bundle)],
            "public_key": str(self.public_key),
            "database": f"sqlite:///{self.folder / 'server.db'}",
            # What is played faster than a camera sees is no load: every window is read by every tier.
            "latency_s": 3600.0,
            "hold_s": 7200.0,
            "open": True,
        } | self.server_keys
        path = self.folder / "server.toml"
        tables = {k: v for k, v in keys.items() if isinstance(v, dict)}
        text = toml_lines({k: v for k, v in keys.items() if k not in tables})
        path.write_text(text + "".join(f"[{name}]\n{toml_lines(table)}" for name, table in tables.items()))
        return path

    def start_server(self) -> None:
        """Starts `ruyicam serve`; after a stop on the same addresses and database."""
        with open(self.folder / "server.log", "ab") as log:
            # -P: a folder called kernels in the working directory would hide a package of that name.
            self.server = subprocess.Popen(
                [sys.executable, "-P", "-m", "ruyicam.export.cli", "serve", "--config", str(self.server_config())],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self.server.stdout is not None
        line = self.server.stdout.readline()
        if "ready" not in line:
            why = (self.folder / "server.log").read_text().strip().splitlines() or ["no output"]
            raise RuyicamError(Exit(self.server.wait()), f"the server did not start: {why[-1]}")
        words = dict(w.split("=", 1) for w in line.split() if "=" in w)
        self.grpc, self.http, self.enrol = words["grpc"], words["http"], words.get("enrol", "")

    def stop_server(self, kill: bool = False) -> None:
        """SIGTERM, or SIGKILL."""
        if self.server is None:
            return
        (self.server.kill if kill else self.server.terminate)()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.server.wait(10)
        if self.server.poll() is None:
            self.server.kill()
            self.server.wait()
        if self.server.stdout:
            self.server.stdout.close()
        self.server = None

    def reload_server(self) -> None:
        """Has the server take up bundles and offers of `server_keys` anew. Raises RuyicamError(USAGE) with its reason."""
        self.server_config()
        log = self.folder / "server.log"
        before = log.stat().st_size
        assert self.server is not None
        self.server.send_signal(signal.SIGHUP)
        while b"reloaded" not in (said := log.read_bytes()[before:]):
            time.sleep(0.01)
        if b"not reloaded" in said:
            raise RuyicamError(Exit.USAGE, said.decode().strip())

    def get(self, path: str) -> Any:
        """JSON of a GET on the server's API."""
        with urllib.request.urlopen(f"http://{self.http}{path}", timeout=30) as answer:
            return json.load(answer)

    def edge_command(self, source: str, state: Path, stats: Path | None = None, **flags: Any) -> list[str]:
        """Command line of the edge binary; keyword arguments are further keys of its configuration."""
        keys = {
            "source": source,
            "camera_id": CAMERA,
            "bundle": self.bundle,
            "public_key": self.public_key,
            "server": self.grpc.replace("0.0.0.0", "127.0.0.1"),
            "ca": self.authority.ca,
            "cert": self.camera_cert.cert,
            "key": self.camera_cert.key,
            "state_dir": state,
        } | flags
        if stats is not None:
            keys["stats"] = stats
        return command_line(self.edge, keys)

    def play(self, source: str, name: str = "run", **flags: Any) -> dict:
        """Runs the edge binary on a source to its end and returns its figures. Raises RuyicamError with its message."""
        state, stats = self.folder / name, self.folder / f"{name}.json"
        flags = {"source_retry": "never"} | flags
        done = subprocess.run(self.edge_command(source, state, stats, **flags), capture_output=True, text=True)
        if done.returncode != 0:
            lines = [x for x in done.stderr.splitlines() if x.startswith("ruyicam-edge: ")] or done.stderr.splitlines()
            message = lines[-1].removeprefix("ruyicam-edge: ") if lines else f"exit code {done.returncode}"
            code = Exit(done.returncode) if done.returncode in set(Exit) else Exit.INTERNAL
            raise RuyicamError(code, message)
        return json.loads(stats.read_text())

    def wait_read(self, boot_id: str, timeout_s: float = 30) -> dict:
        """Waits until the server has read all windows of a boot; its GET /v1/boots/ID, with all windows."""
        until, path = time.monotonic() + timeout_s, f"/v1/boots/{boot_id}"
        while time.monotonic() < until:
            with contextlib.suppress(urllib.error.URLError):
                boot = self.get(path)
                if boot["ended"] and boot["closed"]:
                    while older := boot["windows"] and self.get(f"{path}?before={boot['windows'][0]['start']}")["windows"]:
                        boot["windows"] = older + boot["windows"]
                    return boot
            time.sleep(0.02)
        raise RuyicamError(Exit.UNDELIVERED, f"the server has not read all of boot {boot_id} after {timeout_s:.0f} s")
