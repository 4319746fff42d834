"""What an operator's tools see of a running device: metrics, health, the service manager, doctor, the package."""

from __future__ import annotations

import ctypes
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from test_end_to_end import one_line, run_edge, wait_for
from test_isolation import child_of

from ruyicam.cloud.errors import Exit
from ruyicam.export.bench_session import CAMERA, BenchSession

ROOT = Path(__file__).resolve().parent.parent
UNIT = ROOT / "edge" / "packaging" / "ruyicam-edge@.service"
CAMERA_SOURCE = "pipeline:videotestsrc is-live=true ! video/x-raw,width=320,height=240,framerate=20/1"


@pytest.fixture(scope="module")
def session(module_session):
    """One server for all tests here."""
    return module_session


class Device:
    """A running edge binary and its operations address."""

    def __init__(self, session: BenchSession, tmp_path: Path, environment: dict | None = None, **keys):
        self.stats, log = tmp_path / "stats.json", tmp_path / "log"
        command = session.edge_command(CAMERA_SOURCE, tmp_path / "state", self.stats, metrics="127.0.0.1:0", **keys)
        with open(log, "w") as out:
            self.process = subprocess.Popen(command, stderr=out, env=os.environ | (environment or {}))
        self.url = wait_for(lambda: re.search(r"http://[0-9.:]+", log.read_text())).group()

    def get(self, path: str) -> tuple[int, str]:
        """(status, body)"""
        try:
            with urllib.request.urlopen(self.url + path, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def metrics(self) -> dict[str, float]:
        """Values by name and labels, as Prometheus reads them; the camera is left out where it is the usual one."""
        status, text = self.get("/metrics")
        assert status == 200
        found = [s for family in text_string_to_metric_families(text) for s in family.samples]
        named = [({k: v for k, v in s.labels.items() if (k, v) != ("camera", CAMERA)}, s) for s in found]
        return {s.name + "".join(f",{k}={v}" for k, v in sorted(labels.items())): s.value for labels, s in named}

    def end(self) -> dict:
        """Stops it; the figures of its run."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(30) == 0
        return json.loads(self.stats.read_text())


def test_metrics_are_those_of_the_run(session, tmp_path):
    device = Device(session, tmp_path)
    seen = wait_for(lambda: (m := device.metrics()).get("ruyicam_edge_packets_total,kind=features", 0) > 5 and m)
    assert {seen[f"ruyicam_edge_healthy,part={part}"] for part in ("source", "storage", "link", "budget")} == {1}
    assert 0 < seen["ruyicam_edge_stage_quantile_seconds,quantile=0.5,stage=capture_to_packet"] < 1
    assert 0 < seen["ruyicam_edge_ledger_day_bits"] < seen["ruyicam_edge_ledger_day_bits_limit"]
    assert time.time() < seen["ruyicam_edge_certificate_expiry_timestamp_seconds"] < time.time() + 2 * 86400
    stats = device.end()
    assert 5 < seen["ruyicam_edge_packets_total,kind=features"] <= stats["released"]
    assert seen["ruyicam_edge_spool_acknowledged_total"] <= stats["spool"]["acknowledged"]


def test_health_tells_what_mends_itself_from_what_does_not(session, tmp_path):
    device = Device(session, tmp_path)
    wait_for(lambda: device.get("/readyz")[0] == 200)
    assert json.loads(device.get("/healthz")[1])["status"] == "ok"
    assert device.get("/etc/passwd")[0] == 404
    os.kill(child_of(child_of(device.process.pid)), signal.SIGKILL)
    status, body = wait_for(lambda: (answer := device.get("/readyz"))[0] == 503 and answer)
    assert status == 503 and json.loads(body)["source"] == "away"
    assert device.get("/healthz")[0] == 200
    wait_for(lambda: device.get("/readyz")[0] == 200)
    assert device.metrics()["ruyicam_edge_source_outages_total"] == 1
    device.end()


def test_a_spent_budget_is_degraded(session, tmp_path):
    device = Device(session, tmp_path, bits_per_day=0.001)
    wait_for(lambda: json.loads(device.get("/readyz")[1])["budget"] == "spent")
    assert device.get("/readyz")[0] == 503 and device.get("/healthz")[0] == 200
    assert device.end()["released"] == 0


def test_an_address_that_cannot_be_had(session, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        one_line(run_edge(session, CAMERA_SOURCE, tmp_path / "state", metrics=address), Exit.ADDRESS, "cannot listen")
    for wrong in ("9464", "host:", "host:99999", "host:9x"):
        one_line(run_edge(session, CAMERA_SOURCE, tmp_path / "state", metrics=wrong), Exit.USAGE, "HOST:PORT")


def test_the_service_manager_is_told(session, tmp_path):
    """sd_notify(3): ready once all is checked, the watchdog fed by the main loop, a status to look at, stopping."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(10)
        device = Device(session, tmp_path, {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "200000"})
        said: list[str] = []
        until = time.monotonic() + 10
        while not (said.count("WATCHDOG=1") > 5 and any("packets wait" in s for s in said)) and time.monotonic() < until:
            said.append(listener.recv(4096).decode())
        assert said[0] == "READY=1" and said.count("WATCHDOG=1") > 5
        device.end()
        while said[-1] != "STOPPING=1":
            said.append(listener.recv(4096).decode())


def doctor(session: BenchSession, source: str, state: Path, **keys) -> tuple[int, dict[str, str]]:
    """Exit code, and the line of each part."""
    command = session.edge_command(source, state, **keys)
    done = subprocess.run([command[0], "doctor", *command[1:]], capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    lines = [re.fullmatch(r"(ok  |note|FAIL) (\S+) +(.+)", line) for line in done.stdout.splitlines()]
    assert all(lines), done.stdout
    return done.returncode, {m[2]: f"{m[1].strip()} {m[3]}" for m in lines}


def test_doctor_on_a_device_that_is_well(session, made_clip, tmp_path):
    code, parts = doctor(session, str(made_clip), tmp_path / "state")
    assert code == 0
    assert list(parts) == ["camera", "isolation", "model", "gpu", "clock", "disk", "identity", "link"]
    assert all(parts[p].startswith("ok") for p in ("camera", "model", "disk", "link")), parts
    assert not (tmp_path / "state").exists()
    # Issued for a day: worth a word.
    assert parts["identity"].startswith("note") and "mend" in parts["identity"]


def test_doctor_names_each_ill_and_its_mend(session, made_clip, tmp_path):
    nobody = "rtsp://user:secret@127.0.0.1:9/none"
    code, parts = doctor(session, nobody, tmp_path / "state", source_timeout_s=2, server="127.0.0.1:9")
    assert code == Exit.SOURCE
    assert parts["camera"].startswith("FAIL") and parts["link"].startswith("FAIL") and "secret" not in parts["camera"]
    assert all("; mend: " in line for line in parts.values() if not line.startswith("ok"))
    code, parts = doctor(session, str(made_clip), tmp_path / "state", key=session.server_cert.key)
    assert code == Exit.CREDENTIALS and "not the key of" in parts["identity"] and "link" not in parts
    altered = tmp_path / "altered.ruyicam"
    shutil.copytree(session.bundle, altered)
    (altered / "edge.onnx").write_bytes((altered / "edge.onnx").read_bytes()[:-1] + b"x")
    code, parts = doctor(session, str(made_clip), tmp_path / "state", bundle=altered)
    assert code == Exit.BUNDLE and "hash" in parts["model"] and "camera" not in parts
    (tmp_path / "file").write_text("")
    code, parts = doctor(session, str(made_clip), tmp_path / "file" / "state")
    assert code == Exit.STORAGE and parts["disk"].startswith("FAIL")


def test_the_unit_is_hardened():
    if not shutil.which("systemd-analyze"):
        pytest.skip("needs systemd-analyze")
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", UNIT], capture_output=True, text=True, check=True
    )
    exposure = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
    assert float(exposure[1]) <= 2.0, exposure[0]
    assert "Unknown" not in done.stderr


def test_as_a_user_without_privileges_and_without_new_code(session, made_clip, tmp_path):
    """As the unit runs it: no root, no capability, no memory both writable and executable."""
    if os.geteuid() != 0:
        pytest.skip("it runs so already")
    home = tmp_path / "home"
    home.mkdir()
    for folder in (home, session.folder, session.folder / "tls"):
        os.chown(folder, 65534, 65534)
    for file in (*session.folder.glob("tls/*"), *session.bundle.rglob("*"), session.public_key, made_clip):
        os.chown(file, 65534, 65534)
    for folder in (tmp_path, session.bundle, made_clip.parent, session.folder):
        for parent in (folder, *folder.parents):
            if parent.is_relative_to("/tmp/") and parent.stat().st_uid == 0:
                parent.chmod(parent.stat().st_mode | 0o011)

    def give_up():
        libc = ctypes.CDLL(None)
        libc.prctl(65, 1, 0, 0, 0)  # PR_SET_MDWE, Linux 6.3

    command = session.edge_command(str(made_clip), home / "state", home / "stats.json")
    bare = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs", "--bounding-set=-all"]
    environment = {"HOME": str(home), "PATH": os.environ["PATH"]}
    done = subprocess.run([*bare, *command], preexec_fn=give_up, capture_output=True, text=True, timeout=60, env=environment)
    assert done.returncode == 0, done.stderr
    stats = json.loads((home / "stats.json").read_text())
    assert stats["ticks"] == stats["spool"]["acknowledged"] == 20


def test_the_package_holds_all_that_runs(session, made_clip, tmp_path):
    build = ROOT / "build" / "default"
    if not shutil.which("dpkg-deb") or not (build / "CPackConfig.cmake").is_file():
        pytest.skip("needs dpkg-deb and a build in build/default")
    pack = ["cpack", "--config", build / "CPackConfig.cmake", "-B", tmp_path]
    subprocess.run(pack, cwd=build, check=True, capture_output=True)
    (package,) = tmp_path.glob("ruyicam-edge_*.deb")
    subprocess.run(["dpkg-deb", "-x", package, tmp_path / "root"], check=True)
    depends = subprocess.run(["dpkg-deb", "-f", package, "Depends"], capture_output=True, text=True, check=True).stdout
    assert "libgstreamer1.0-0" in depends and "libgrpc++" in depends
    root = tmp_path / "root" / "usr"
    assert (root / "lib" / "systemd" / "system" / UNIT.name).read_text() == UNIT.read_text()
    command = session.edge_command(str(made_clip), tmp_path / "state", tmp_path / "stats.json")
    linked = subprocess.run(["ldd", root / "bin" / "ruyicam-edge"], capture_output=True, text=True, check=True).stdout
    assert str(root) in os.path.realpath(re.search(r"libonnxruntime\S+ => (\S+)", linked)[1])
    subprocess.run([root / "bin" / "ruyicam-edge", *command[1:]], check=True, capture_output=True, timeout=60)
    assert json.loads((tmp_path / "stats.json").read_text())["camera_id"] == CAMERA
