"""Bundles that come as updates: fetched or found, tried, kept or taken back; never half, never below the floor."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from made import another_bundle
from test_end_to_end import one_line, run_edge, spooled, wait_for

from ruyicam.cloud.bundles import bundle_id
from ruyicam.cloud.errors import Exit, RuyicamError
from ruyicam.export.bench_session import BenchSession
from ruyicam.export.defaults import default_model

CAMERA_SOURCE = "pipeline:videotestsrc is-live=true ! video/x-raw,width=320,height=240,framerate=20/1"
# One look a second, and a second of good work is enough.
QUICK = {"update_every_s": 1, "update_health_s": 1}


@pytest.fixture(scope="module")
def bundles(tmp_path_factory, signed) -> dict[str, Path]:
    """Bundles of the same model by serial, and one whose model cannot be loaded."""
    folder, base = tmp_path_factory.mktemp("bundles"), json.loads((signed[0] / "manifest.json").read_text())["serial"]
    made = {
        name: another_bundle(signed[0], folder / f"{name}.ruyicam", signed[2], serial=base + by, version=name)
        for name, by in (("older", -10), ("newer", 10), ("newest", 20))
    }
    made["raised"] = another_bundle(signed[0], folder / "raised.ruyicam", signed[2], serial=base + 30, floor=base + 15)
    graph = {"edge.onnx": b"no graph"}
    made["broken"] = another_bundle(signed[0], folder / "broken.ruyicam", signed[2], graph, serial=base + 40)
    return made


@pytest.fixture(scope="module")
def session(tmp_path_factory, signed, bundles):
    """A server that knows all bundles but `newest`."""
    folder = tmp_path_factory.mktemp("updates") / "session"
    with BenchSession(default_model(), signed[0], signed[1], folder=folder) as running:
        running.server_keys["bundles"] = [
            str(p) for p in (signed[0], *(bundles[n] for n in ("older", "newer", "raised", "broken")))
        ]
        yield running


def offer(session: BenchSession, bundle: Path | None) -> None:
    """The server offers that bundle, and only it, to all cameras."""
    session.server_keys["offers"] = {"nobody": str(bundle), "camera-*": str(bundle)} if bundle else {}
    session.reload_server()


def identity(bundle: Path) -> str:
    """What packets of it carry."""
    return bundle_id((bundle / "manifest.json").read_bytes()).hex()


@pytest.fixture
def stick(tmp_path) -> Path:
    """An empty folder, as of a USB stick."""
    folder = tmp_path / "stick"
    folder.mkdir()
    return folder


def newest_bundle(state: Path) -> str:
    """Id of the bundle in the last packet of a spool; nothing if it holds none."""
    packets = spooled(state)
    return packets[-1].bundle_id.hex() if packets else ""


class Device:
    """A device whose supervisor starts it again whenever it asks for it."""

    def __init__(self, session: BenchSession, state: Path, **keys):
        self.session, self.state, self.keys = session, state, QUICK | keys
        self.log = state.with_suffix(".log")

    def start(self) -> subprocess.Popen:
        """One start."""
        command = self.session.edge_command(CAMERA_SOURCE, self.state, self.state.with_suffix(".json"), **self.keys)
        with open(self.log, "a") as out:
            return subprocess.Popen(command, stderr=out)

    def ends(self, process: subprocess.Popen, code: Exit) -> None:
        """It ends by itself."""
        assert process.wait(60) == code, self.log.read_text()[-2000:]

    def says(self, words: str) -> None:
        """The log comes to hold these words."""
        wait_for(lambda: words in self.log.read_text(), 30)

    def stop(self, process: subprocess.Popen) -> None:
        """It is told to stop."""
        process.send_signal(signal.SIGTERM)
        self.ends(process, Exit.OK)

    def slots(self) -> dict:
        """What is on disk about them."""
        return json.loads((self.state / "bundles" / "slots.json").read_text())


def test_a_server_s_bundle_is_fetched_tried_and_kept(session, bundles, tmp_path):
    device = Device(session, tmp_path / "state")
    offer(session, bundles["newer"])
    first = device.start()
    device.ends(first, Exit.RESTART)
    assert device.slots()["trial"] == "a" and device.slots()["active"] == ""
    second = device.start()
    device.says("has proved well")
    # The server says nothing new: it is not fetched again.
    wait_for(lambda: device.slots() == device.slots() | {"trial": "", "active": "a", "starts_left": 2})
    device.stop(second)
    session.stop_server()
    known = {p.boot_id for p in spooled(device.state)}
    third = device.start()
    wait_for(
        lambda: {p.bundle_id.hex() for p in spooled(device.state) if p.boot_id not in known} == {identity(bundles["newer"])}
    )
    device.stop(third)
    # The configured bundle is replaced by hand: it counts again.
    assert "was replaced" not in device.log.read_text()
    device.keys["bundle"] = bundles["newest"]
    fourth = device.start()
    device.says("was replaced")
    wait_for(lambda: newest_bundle(device.state) == identity(bundles["newest"]))
    device.stop(fourth)
    session.start_server()


def test_nothing_that_lets_more_out(session, signed, tmp_path):
    """A higher ceiling takes someone at the device; a lower one does not."""
    base = json.loads((signed[0] / "manifest.json").read_text())
    made = {}
    for name, factor in (("laxer", 2), ("stricter", 0.5)):
        privacy = base["privacy"] | {"bits_per_day": base["privacy"]["bits_per_day"] * factor}
        made[name] = another_bundle(
            signed[0], tmp_path / f"{name}.ruyicam", signed[2], serial=base["serial"] + 1, privacy=privacy
        )
    device = Device(session, tmp_path / "state")
    offer(session, made["laxer"])
    process = device.start()
    device.says("above the configured bundle's")
    offer(session, made["stricter"])
    device.ends(process, Exit.RESTART)
    process = device.start()
    device.says("has proved well")
    # Nor back up again: what was configured counts, not what runs.
    offer(session, made["laxer"])
    device.stop(process)
    process = device.start()
    wait_for(lambda: device.log.read_text().count("above the configured bundle's") > 1)
    device.stop(process)


def test_a_bundle_given_by_hand_ends_a_trial(session, bundles, tmp_path):
    """Whoever puts a stricter one there does not get the one that was about to be tried."""
    device = Device(session, tmp_path / "state")
    offer(session, bundles["newer"])
    device.ends(device.start(), Exit.RESTART)
    offer(session, None)
    device.keys["bundle"] = bundles["raised"]
    process = device.start()
    device.says("was replaced")
    wait_for(lambda: newest_bundle(device.state) == identity(bundles["raised"]))
    device.stop(process)
    assert device.slots()["trial"] == "" and "on trial" not in device.log.read_text()


def test_nothing_below_the_floor(session, signed, bundles, tmp_path):
    device = Device(session, tmp_path / "state", update_floor=json.loads((signed[0] / "manifest.json").read_text())["serial"])
    offer(session, bundles["older"])
    process = device.start()
    device.says("below the floor")
    device.stop(process)
    # A bundle raises it for good, once it has proved well.
    offer(session, bundles["raised"])
    device.ends(device.start(), Exit.RESTART)
    process = device.start()
    device.says("has proved well")
    device.stop(process)
    offer(session, bundles["newer"])
    process = device.start()
    wait_for(lambda: device.log.read_text().count("below the floor") > 1)
    device.stop(process)
    assert device.slots()["active"] == "a"
    # Nor is the configured one, when the slot's is gone.
    (device.state / "bundles" / "a.ruyicam" / "manifest.sig").unlink()
    one_line(run_edge(session, CAMERA_SOURCE, device.state), Exit.BUNDLE, "below the floor")


def test_a_folder_s_newest_bundle_is_taken(session, bundles, stick, tmp_path):
    offer(session, None)
    device = Device(session, tmp_path / "state", update_folder=stick)
    process = device.start()
    # Half copied, older, and not ours: none of them is taken.
    for name in ("older", "newer", "raised"):
        (stick / f"{name}.ruyicam").symlink_to(bundles[name])
    (stick / "half.ruyicam").mkdir()
    device.ends(process, Exit.RESTART)
    process = device.start()
    device.says("has proved well")
    device.stop(process)
    assert "version" in json.loads((device.state / "bundles" / "a.ruyicam" / "manifest.json").read_text())
    assert identity(device.state / "bundles" / "a.ruyicam") == identity(bundles["raised"])


def test_a_model_that_does_not_run_is_taken_back(session, bundles, stick, tmp_path):
    offer(session, None)
    device = Device(session, tmp_path / "state", update_folder=stick)
    (stick / "b.ruyicam").symlink_to(bundles["broken"])
    device.ends(device.start(), Exit.RESTART)
    device.ends(device.start(), Exit.RESTART)
    assert device.slots()["tries"] == {identity(bundles["broken"]): 3} and device.slots()["trial"] == ""
    # It runs as before, and does not take it again.
    process = device.start()
    wait_for(lambda: device.log.read_text().count('"start camera') >= 2)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(4)
    device.stop(process)


def test_one_that_the_server_does_not_know_has_to_wait(session, bundles, stick, tmp_path):
    """Its packets would be refused, and all that come behind them would wait."""
    offer(session, None)
    device = Device(session, tmp_path / "state", update_folder=stick)
    (stick / "n.ruyicam").symlink_to(bundles["newest"])
    process = device.start()
    device.says("does not know bundle")
    session.server_keys["bundles"].append(str(bundles["newest"]))
    offer(session, None)
    device.ends(process, Exit.RESTART)


def test_a_bad_stick_does_not_keep_from_the_server(session, signed, bundles, stick, tmp_path):
    device = Device(session, tmp_path / "state", update_folder=stick)
    strange = another_bundle(signed[0], stick / "strange.ruyicam", signed[2], serial=2_000_000_000)
    offer(session, bundles["newer"])
    device.ends(device.start(), Exit.RESTART)
    assert identity(device.state / "bundles" / "a.ruyicam") == identity(bundles["newer"]) != identity(strange)


def test_a_trial_without_a_server_ends(session, bundles, tmp_path):
    """The device cannot tell whose fault it is: the old one runs again, and the new one may come again twice."""
    device = Device(session, tmp_path / "state", update_trial_s=3)
    offer(session, bundles["newer"])
    device.ends(device.start(), Exit.RESTART)
    session.stop_server()
    device.ends(device.start(), Exit.RESTART)
    assert device.slots()["tries"] == {identity(bundles["newer"]): 1} and device.slots()["trial"] == ""
    session.start_server()
    device.ends(device.start(), Exit.RESTART)
    process = device.start()
    device.says("has proved well")
    device.stop(process)


def test_what_is_altered_on_the_way_is_not_installed(session, signed, bundles, tmp_path):
    """The server's file is not what it was when the server started."""
    altered = tmp_path / "altered.ruyicam"
    shutil.copytree(bundles["newer"], altered)
    offer(session, altered)
    graph = (altered / "edge.onnx").read_bytes()
    (altered / "edge.onnx").write_bytes(graph[:1000] + bytes([graph[1000] ^ 1]) + graph[1001:])
    device = Device(session, tmp_path / "state")
    process = device.start()
    device.says("does not have the hash")
    assert not (device.state / "bundles" / "slots.json").exists()
    (altered / "edge.onnx").write_bytes(graph)
    device.ends(process, Exit.RESTART)


def test_one_that_ends_the_program_is_taken_back(session, bundles, tmp_path):
    device = Device(session, tmp_path / "state", update_health_s=60)
    offer(session, bundles["newer"])
    device.ends(device.start(), Exit.RESTART)
    for start in (1, 2, 3):
        process = device.start()
        device.says(f"on trial, start {start} of 3")
        process.kill()
        process.wait()
    process = device.start()
    device.says("did not prove well in 3 starts")
    device.stop(process)
    assert device.slots()["tries"] == {identity(bundles["newer"]): 1}


def test_a_server_that_is_told_to_take_up_nonsense_goes_on(session, bundles, tmp_path):
    offer(session, bundles["newer"])
    with pytest.raises(RuyicamError, match="none"):
        offer(session, tmp_path / "none.ruyicam")
    device = Device(session, tmp_path / "state")
    device.ends(device.start(), Exit.RESTART)
