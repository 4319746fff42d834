"""One device with several cameras: they share the model and nothing else."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import sqlite3
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest
from made import write_clip
from test_end_to_end import one_line, wait_for
from test_isolation import child_of, children_of, status

from ruyicam.cloud.errors import Exit
from ruyicam.export.bench_session import BenchSession, toml_lines

LIVE = "pipeline:videotestsrc is-live=true pattern=ball ! video/x-raw,width=320,height=240,framerate=20/1"


@pytest.fixture(scope="module")
def session(module_session):
    """One server for all tests here."""
    return module_session


class Site:
    """A device with the cameras of one configuration file."""

    def __init__(self, session: BenchSession, folder: Path, cameras: dict[str, dict], **keys):
        self.session, self.folder = session, folder
        folder.mkdir(parents=True, exist_ok=True)
        self.state, self.stats = folder / "state", folder / "stats.json"
        device = {
            "bundle": session.bundle,
            "public_key": session.public_key,
            "server": session.grpc,
            "ca": session.authority.ca,
            "state_dir": self.state,
            "stats": self.stats,
        } | keys
        text = toml_lines(device)
        for camera_id, own in cameras.items():
            issued = session.authority.camera(camera_id)
            text += "[[cameras]]\n" + toml_lines({"camera_id": camera_id, "cert": issued.cert, "key": issued.key} | own)
        self.config = folder / "edge.toml"
        self.config.write_text(text)
        self.command = [str(session.edge), "--config", str(self.config)]

    def run(self) -> tuple[int, list[str]]:
        """Exit code, and the lines on stderr that are not log lines."""
        done = subprocess.run(self.command, capture_output=True, text=True, timeout=120)
        self.log = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
        return done.returncode, [line for line in done.stderr.splitlines() if not line.startswith("{")]

    def figures(self) -> dict[str, dict]:
        """Of the run, by camera."""
        return {c["camera_id"]: c for c in json.loads(self.stats.read_text())["cameras"]}

    @contextlib.contextmanager
    def running(self):
        """Yields (process, function that gives its health) and stops it in the end."""
        log = self.folder / "log"
        with open(log, "w") as out, subprocess.Popen([*self.command, "--metrics", "127.0.0.1:0"], stderr=out) as device:
            try:
                url = wait_for(lambda: re.search(r"http://[0-9.:]+", log.read_text())).group()

                def health() -> dict:
                    with (
                        contextlib.suppress(urllib.error.HTTPError),
                        urllib.request.urlopen(url + "/healthz", timeout=10) as answer,
                    ):
                        return json.load(answer)["cameras"]
                    return {}

                device.url = url
                yield device, health
                device.send_signal(signal.SIGTERM)
                assert device.wait(30) == 0, log.read_text()
            finally:
                device.kill()


def decodes(pid: int, element: str = "videotestsrc") -> bool:
    """Whether a process has a GStreamer pipeline with that source: a thread of its name."""
    return any(element in (t / "comm").read_text() for t in Path(f"/proc/{pid}/task").iterdir())


def released(session: BenchSession, camera: str, boot: str) -> list[tuple]:
    """What the server has of a boot but for the noise and the time: (sequence, kind, token)."""
    with sqlite3.connect(session.folder / "server.db") as db:
        query = "SELECT sequence, kind, token FROM packets WHERE camera_id = ? AND boot_id = ? ORDER BY sequence"
        return db.execute(query, (camera, boot)).fetchall()


def test_each_camera_is_seen_as_if_it_were_alone(session, made_clip, tmp_path, tmp_path_factory):
    other = write_clip(tmp_path_factory.mktemp("other") / "other.mp4", frames=60)
    clips = {"east": made_clip, "west": other, "north": made_clip}
    site = Site(session, tmp_path / "site", {name: {"source": clip} for name, clip in clips.items()})
    assert site.run() == (0, [])
    figures = site.figures()
    assert {c: f["ticks"] for c, f in figures.items()} == {"east": 20, "west": 30, "north": 20}
    for name, clip in clips.items():
        alone = Site(session, tmp_path / f"{name}-alone", {name: {"source": clip}})
        assert alone.run() == (0, [])
        own, by_itself = figures[name], json.loads(alone.stats.read_text())
        together = released(session, name, own["boot_id"])
        assert len(together) == own["spool"]["acknowledged"] == own["ticks"]
        assert together == released(session, name, by_itself["boot_id"])
        assert session.wait_read(own["boot_id"])["ledger_bits"] == pytest.approx(own["ledger"]["bits"])
    # Each has a ledger, a spool and certificates of its own, and says whose a line of the log is.
    assert sorted(p.name for p in site.state.iterdir() if p.is_dir() and p.name != "bundles") == ["east", "north", "west"]
    assert {line.get("camera") for line in site.log if line["message"].startswith("done ")} == {"east", "west", "north"}


def test_the_model_is_loaded_once_and_its_process_has_no_door(session, tmp_path):
    """A process for each camera's frames, and one with the model; none has a network or may write a file."""
    site = Site(session, tmp_path, {name: {"source": LIVE} for name in ("a", "b", "c")})
    with site.running() as (device, health):
        wait_for(lambda: [c["source"] for c in health().values()] == ["ticking"] * 3)
        inner = children_of(child_of(device.pid))
        assert len(inner) == 4
        assert sum(not decodes(p) for p in inner) == 1
        for pid in inner:
            s = status(pid)
            assert s["Seccomp"] == "2" and s["NoNewPrivs"] == "1", s
            assert os.readlink(f"/proc/{pid}/ns/net") != os.readlink(f"/proc/{device.pid}/ns/net")
    figures = site.figures()
    assert all(f["stages"]["encoder"]["count"] >= f["ticks"] - f["clock"]["filled"] - 2 for f in figures.values())


def test_a_camera_that_goes_away_is_alone_with_it(session, tmp_path):
    # A pipeline's thread is called after its element.
    named = {name: {"source": LIVE.replace("videotestsrc", f"videotestsrc name={name}")} for name in ("kept", "killed")}
    site = Site(session, tmp_path, named)
    with site.running() as (device, health):
        wait_for(lambda: [c["source"] for c in health().values()] == ["ticking"] * 2)
        (frames,) = [p for p in children_of(child_of(device.pid)) if decodes(p, "killed")]
        os.kill(frames, signal.SIGKILL)
        away = wait_for(lambda: (h := health()) and h["killed"]["source"] == "away" and h)
        assert away["kept"]["source"] == "ticking"
        wait_for(lambda: [c["source"] for c in health().values()] == ["ticking"] * 2)
        time.sleep(1)
    figures = site.figures()
    assert figures["killed"]["outages"]["count"] == 1 and figures["kept"]["outages"]["count"] == 0
    assert figures["killed"]["clock"]["filled"] > figures["kept"]["clock"]["filled"]
    assert all(f["spool"]["acknowledged"] == f["ticks"] for f in figures.values())


def test_the_end_of_the_model_s_process_ends_no_camera(session, tmp_path):
    site = Site(session, tmp_path, {"one": {"source": LIVE}, "two": {"source": LIVE}})
    with site.running() as (device, health):
        wait_for(lambda: [c["source"] for c in health().values()] == ["ticking"] * 2)
        before = children_of(child_of(device.pid))
        (model,) = [p for p in before if not decodes(p)]
        os.kill(model, signal.SIGKILL)
        wait_for(lambda: {c["source"] for c in health().values()} != {"ticking"})
        wait_for(lambda: [c["source"] for c in health().values()] == ["ticking"] * 2)
        assert not set(before) & set(children_of(child_of(device.pid)))
        time.sleep(1)
    figures = site.figures()
    assert [f["outages"]["count"] for f in figures.values()] == [1, 1]
    assert all(f["spool"]["acknowledged"] == f["ticks"] for f in figures.values())


def test_a_process_that_hangs_is_ended(session, tmp_path):
    site = Site(session, tmp_path, {"one": {"source": LIVE}, "two": {"source": LIVE}}, source_timeout_s=1)
    with site.running() as (device, health):
        wait_for(lambda: [c["source"] for c in health().values()] == ["ticking"] * 2)
        (model,) = [p for p in children_of(child_of(device.pid)) if not decodes(p)]
        os.kill(model, signal.SIGSTOP)
        # Its cameras' processes are ended first; what that says does not come through it.
        wait_for(lambda: not Path(f"/proc/{model}").exists() or status(model)["State"].startswith("Z"), 60)
        wait_for(lambda: [c["source"] for c in health().values()] == ["ticking"] * 2)


def test_a_source_that_is_not_there_keeps_no_other_from_its_end(session, made_clip, tmp_path):
    site = Site(session, tmp_path, {"good": {"source": made_clip}, "none": {"source": tmp_path / "none.mp4"}})
    code, lines = site.run()
    one_line((code, lines), Exit.SOURCE, "no such file")
    assert site.figures()["good"]["ticks"] == 20 and list(site.figures()) == ["good"]
    assert any("the other cameras go on" in line["message"] and line["camera"] == "none" for line in site.log)


def test_health_and_metrics_tell_the_cameras_apart(session, tmp_path):
    site = Site(session, tmp_path, {"open": {"source": LIVE}, "spent": {"source": LIVE, "bits_per_day": 0.001}})
    with site.running() as (device, health):
        seen = wait_for(lambda: (h := health()) and h["spent"]["budget"] == "spent" and h["open"]["source"] == "ticking" and h)
        assert seen["open"]["budget"] == "open"
        with urllib.request.urlopen(device.url + "/metrics", timeout=10) as answer:
            text = answer.read().decode()
        assert text.count("# TYPE ruyicam_edge_packets_total counter") == 1
        for camera in ("open", "spent"):
            assert f'ruyicam_edge_healthy{{camera="{camera}",part="budget"}} {int(camera == "open")}' in text


def test_doctor_looks_at_every_camera(session, made_clip, tmp_path):
    site = Site(session, tmp_path, {"good": {"source": made_clip}, "none": {"source": tmp_path / "none.mp4"}})
    done = subprocess.run([site.command[0], "doctor", *site.command[1:]], capture_output=True, text=True, timeout=60)
    assert done.returncode == Exit.SOURCE and done.stderr == ""
    parts = [line.split()[1] for line in done.stdout.splitlines()]
    cameras = [line for line in done.stdout.splitlines() if line.split()[1] == "camera"]
    assert len(cameras) == 2 and cameras[0].startswith("ok") and "good: " in cameras[0]
    assert cameras[1].startswith("FAIL") and "none: " in cameras[1] and "mend" in cameras[1]
    assert parts.count("link") == parts.count("disk") == 2 and parts.count("model") == 1


def test_bad_configurations_are_one_line(session, made_clip, tmp_path):
    good = {"source": made_clip}

    def refused(cameras: dict[str, dict], *words: str, **keys):
        site = Site(session, tmp_path / "bad", cameras, **keys)
        result = site.run()
        for word in words:
            one_line(result, Exit.USAGE, word)

    refused({"a": good, "b": good}, "given for the whole device", camera_id="c")
    refused({"a": good, "b": good | {"camera_id": "a"}}, "two cameras 'a'")
    refused({"a": good | {"state_dir": tmp_path / "x"}, "b": good | {"state_dir": f"{tmp_path}/x"}}, "same 'state_dir'")
    refused({"a": good | {"server": "x:1"}, "b": good}, "'server' is the device's")
    refused({"a": good | {"colour": "red"}, "b": good}, "unknown key 'colour'")
    refused({"a": good, "b": {}}, "camera 'b'", "'source' is missing")
    refused({"a": good, "b": good | {"bits_per_day": -1}}, "camera 'b'", "'bits_per_day'")
    site = Site(session, tmp_path / "enrol", {"a": good, "b": good})
    for words, why in (([], "say which with --camera: a, b"), (["--camera", "c"], "there is no camera 'c'")):
        command = [site.command[0], "enrol", *site.command[1:], "--token", "x", "--at", "localhost:1", *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
        assert done.returncode == Exit.USAGE and why in done.stderr
