"""Cameras that go away and come back: RTSP over loopback, folders of clips, live pipelines."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from made import write_clip
from test_end_to_end import one_line, run_edge, spooled, start, wait_for
from test_isolation import _SYS_PTRACE, child_of, children_of, status

from ruyicam.cloud.errors import Exit

PYTHON = "/usr/bin/python3"


@pytest.fixture(scope="module")
def session(module_session):
    """One server for all tests here."""
    return module_session


@contextlib.contextmanager
def server_away(session):
    """The server stopped, so that the spool keeps all; started again for the next test, whatever became of this one."""
    session.stop_server()
    try:
        yield
    finally:
        session.start_server()


class Camera:
    """An RTSP server that can be pulled out and plugged in again, on the same port."""

    def __init__(self):
        self.url, self.port, self.process = "", "0", None

    def plug(self, what: str | Path) -> str:
        """Serves a clip or a picture size (see rtsp_server.py); its URL."""
        command = [PYTHON, str(Path(__file__).with_name("rtsp_server.py")), str(what), self.port]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.url = self.process.stdout.readline().strip()
        self.port = self.url.split(":")[2].split("/")[0]
        return self.url

    def pull(self) -> None:
        """Gone without a word, as when its cable is cut."""
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def camera():
    """A camera that is not plugged in yet."""
    if subprocess.run([PYTHON, "-c", "import gi; gi.require_version('GstRtspServer', '1.0')"], capture_output=True).returncode:
        pytest.skip("needs python3-gi and gir1.2-gst-rtsp-server-1.0 (make setup)")
    one = Camera()
    yield one
    with contextlib.suppress(AttributeError, ProcessLookupError):
        one.process.kill()
        one.process.communicate()


def ended(edge: subprocess.Popen, state: Path) -> dict:
    """The figures of a run that is told to stop."""
    edge.send_signal(signal.SIGTERM)
    _, log = edge.communicate(timeout=30)
    assert edge.returncode == 0, log
    return json.loads(state.with_suffix(".json").read_text())


def newest(state: Path) -> int:
    """Sequence of the last packet in a spool."""
    return max((p.sequence for p in spooled(state)), default=-1)


def test_an_rtsp_camera_is_fetched_by_a_process_of_its_own(session, camera, long_clip, tmp_path):
    """The one with the network sees the stream only compressed, and the one that sees frames has no network."""
    state = tmp_path / "rtsp"
    edge = start(session, camera.plug(long_clip), state, source_retry="never")
    wait_for(lambda: len(spooled(state)) > 3)
    children = children_of(child_of(edge.pid))
    assert len(children) == 2
    if os.geteuid() == 0:
        home = os.readlink(f"/proc/{edge.pid}/ns/net")
        fetcher, seer = sorted(children, key=lambda pid: os.readlink(f"/proc/{pid}/ns/net") != home)
        assert os.readlink(f"/proc/{fetcher}/ns/net") == home != os.readlink(f"/proc/{seer}/ns/net")
        assert status(seer)["Seccomp"] == status(fetcher)["Seccomp"] == "2"
        assert int(status(fetcher)["CapEff"], 16) & _SYS_PTRACE == 0
    _, log = edge.communicate(timeout=60)
    assert edge.returncode == 0, log
    stats = json.loads(state.with_suffix(".json").read_text())
    assert 190 <= stats["ticks"] <= 201 and stats["stages"]["tick"]["count"] >= 150


def test_a_camera_is_opened_again_whatever_it_has_become(session, camera, long_clip, tmp_path):
    """Unplugged and back with another codec and size, then hanging; one boot, one packet per tick all along."""
    state = tmp_path / "camera"
    with server_away(session):
        edge = start(session, camera.plug(long_clip), state, source_timeout_s=2)
        wait_for(lambda: newest(state) > 5)
        camera.pull()
        camera.plug("640x480")
        seer = wait_for(lambda: len(c := children_of(child_of(edge.pid))) == 2 and c)
        away = newest(state)
        wait_for(lambda: any(p.kind for p in spooled(state) if p.sequence > away + 10), 30)
        # It keeps the connection and says no more; after the time-out it is opened again, by then it answers.
        camera.process.send_signal(signal.SIGSTOP)
        time.sleep(4)
        camera.process.send_signal(signal.SIGCONT)
        silent = newest(state)
        wait_for(lambda: any(p.kind for p in spooled(state) if p.sequence > silent + 10), 30)
        assert children_of(child_of(edge.pid)) != seer
        stats = ended(edge, state)
        packets = spooled(state)
        assert len({p.boot_id for p in packets}) == 1
        assert [p.sequence for p in packets] == list(range(len(packets)))
        assert stats["outages"]["count"] >= 2 and stats["outages"]["all_s"] > 2
        print(f"back after {stats['outages']['last_s']:.1f} s")


def test_a_camera_that_comes_later_is_waited_for(session, camera, tmp_path):
    url = camera.plug("320x240")
    camera.pull()
    state = tmp_path / "later"
    one_line(run_edge(session, url, state), Exit.SOURCE, "cannot be opened")
    edge = start(session, url, state, source_retry="always")
    time.sleep(1.5)
    assert edge.poll() is None and not state.exists()
    camera.plug("320x240")
    wait_for(lambda: newest(state) > 3, 30)
    assert ended(edge, state)["outages"]["count"] == 1


def test_stopping_while_a_camera_is_away(session, tmp_path):
    edge = start(session, "rtsp://127.0.0.1:9/none", tmp_path / "state", source_retry="always")
    time.sleep(1)
    edge.send_signal(signal.SIGTERM)
    assert edge.wait(10) == 0 and not (tmp_path / "state").exists()
    edge.communicate()


def test_a_live_source_whose_process_dies_goes_on(session, tmp_path):
    """As after a crash of a decoder: the same boot, in another process."""
    state = tmp_path / "live"
    source = "pipeline:videotestsrc is-live=true ! video/x-raw,width=320,height=240,framerate=20/1"
    with server_away(session):
        edge = start(session, source, state)
        wait_for(lambda: newest(state) > 3)
        seer = child_of(child_of(edge.pid))
        os.kill(seer, signal.SIGKILL)
        before = newest(state)
        wait_for(lambda: newest(state) > before + 20)
        assert child_of(child_of(edge.pid)) != seer
        stats = ended(edge, state)
        packets = spooled(state)
        assert [p.sequence for p in packets] == list(range(len(packets)))
        assert len({p.boot_id for p in packets}) == 1 and stats["outages"]["count"] == 1


def test_a_folder_is_played_in_order(session, tmp_path):
    """Clips of other sizes and rates follow each other as one source."""
    clips = tmp_path / "clips"
    write_clip(clips / "b.mp4", frames=20, rate=10, size=(640, 480))
    write_clip(clips / "a.mp4", frames=20, rate=20)
    (clips / ".hidden").write_text("not meant")
    stats = session.play(str(clips), "folder")
    assert stats["ticks"] == 30 and stats["source_bytes"] == sum(c.stat().st_size for c in clips.glob("*.mp4"))
    (clips / "c.mp4").write_text("no clip")
    result = run_edge(session, str(clips), tmp_path / "state", drain_timeout_s=0)
    one_line(result, Exit.SOURCE, "c.mp4")
    (tmp_path / "empty").mkdir()
    one_line(run_edge(session, str(tmp_path / "empty"), tmp_path / "state"), Exit.SOURCE, "holds no file")


def test_credentials_are_renewed_while_it_runs(session, tmp_path):
    """Bad ones are named and not taken; good ones are, and the next connection is made with them."""
    state, log = tmp_path / "state", tmp_path / "log"
    source = "pipeline:videotestsrc is-live=true ! video/x-raw,width=320,height=240,framerate=20/1"
    # Issued into the same files every time.
    issued = session.authority.camera("camera-renewed")
    with open(log, "w") as out:
        keys = {"camera_id": "camera-renewed", "cert": issued.cert, "key": issued.key}
        edge = subprocess.Popen(session.edge_command(source, state, state.with_suffix(".json"), **keys), stderr=out)
    wait_for(lambda: newest(state) > 3)
    issued.key.write_bytes(b"no key")
    wait_for(lambda: "not a private key" in log.read_text(), 30)
    session.authority.camera("camera-renewed")
    wait_for(lambda: "credentials renewed" in log.read_text(), 30)
    time.sleep(2)
    edge.send_signal(signal.SIGTERM)
    assert edge.wait(30) == 0
    stats = json.loads(state.with_suffix(".json").read_text())
    assert stats["uplink"]["connections"] >= 2 and stats["spool"]["pending"] == 0
