"""The whole way on real parts: the C++ edge binary, mutual TLS, the server process, and what may go wrong."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from made import write_clip

from ruyicam.cloud.errors import Exit, RuyicamError
from ruyicam.cloud.serve.tls import server_credentials
from ruyicam.cloud.wire import CERTIFY, METHOD, SERVICE, Ack, Certified, FeaturePacket, packet_size
from ruyicam.export.bench_session import CAMERA, BenchSession
from ruyicam.export.defaults import default_model
from ruyicam.export.line import Line
from ruyicam.export.pki import Authority

RUYICAM = Path(sys.executable).with_name("ruyicam")


def spooled(state: Path) -> list:
    """The packets that lie in a spool, read as the format says: length, CRC-32, packet."""
    packets = []
    for segment in sorted((state / "spool").glob("*.seg")):
        data, at = segment.read_bytes(), 0
        while at + 8 <= len(data):
            length = int.from_bytes(data[at : at + 4], "little")
            if length == 0 or at + 8 + length > len(data):
                break
            # What a power cut has damaged is passed over, as the device does.
            if zlib.crc32(data[at + 8 : at + 8 + length]) == int.from_bytes(data[at + 4 : at + 8], "little"):
                packets.append(FeaturePacket.FromString(data[at + 8 : at + 8 + length]))
            at += 8 + length
    return packets


def start(session: BenchSession, source: Path, state: Path, **flags) -> subprocess.Popen:
    """The edge binary in the background."""
    command = session.edge_command(str(source), state, state.with_suffix(".json"), **flags)
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def wait_for(condition, timeout_s: float = 20):
    """The first true value of `condition`."""
    until = time.monotonic() + timeout_s
    while time.monotonic() < until:
        with contextlib.suppress(OSError):
            if value := condition():
                return value
        time.sleep(0.05)
    raise AssertionError("it did not happen in time")


def run_edge(session: BenchSession, source: str, state: Path, **flags) -> tuple[int, list[str]]:
    """Exit code, and the lines on stderr that are not log lines."""
    done = subprocess.run(session.edge_command(source, state, **flags), capture_output=True, text=True, timeout=60)
    return done.returncode, [line for line in done.stderr.splitlines() if not line.startswith("{")]


def test_a_clip_becomes_events(session, made_clip):
    stats = session.play(str(made_clip))
    boot = session.wait_read(stats["boot_id"])
    assert boot["packets"] == stats["ticks"] == 20
    assert {w["tier"] for w in boot["windows"]} == {"edge", "cloud-s", "cloud-l"}
    events = session.get(f"/v1/events?boot_id={stats['boot_id']}")
    assert events and events[0]["last_tick"] == 19 and events[0]["camera_id"] == CAMERA
    assert session.get("/healthz")["status"] == "ok"
    with urllib.request.urlopen(f"http://{session.http}/metrics") as answer:
        assert f'ruyicam_packets_total{{camera="{CAMERA}"}} 20.0' in answer.read().decode()
    # The ledger has charged every release and every token, and says so on disk and on the wire.
    ledger = json.loads((session.folder / "run" / "ledger.json").read_text())["ledger"]
    assert ledger["releases"] == stats["released"] == boot["ledger_releases"]
    assert ledger["feature_bits"] == pytest.approx(stats["released"] * stats["bits_per_release"])
    assert ledger["token_bits"] > 0
    assert boot["ledger_bits"] == pytest.approx(ledger["feature_bits"] + ledger["token_bits"])


def test_a_long_clip_is_read_window_by_window_and_the_ledger_adds_up_over_runs(session, long_clip, family):
    first = session.play(str(long_clip))
    boot = session.wait_read(first["boot_id"])
    starts = sorted({w["start"] for w in boot["windows"]})
    assert starts == list(range(0, 201 - family.config.window, 10)) and boot["packets"] == 200
    events = sorted(session.get(f"/v1/events?boot_id={first['boot_id']}"), key=lambda e: e["first_tick"])
    assert events[0]["first_tick"] == 0 and events[-1]["last_tick"] == 199
    for a, b in itertools.pairwise(events):
        assert a["last_tick"] >= b["first_tick"] - 1 and a["behaviour"] != b["behaviour"]
    second = session.play(str(long_clip))
    assert second["ledger"]["releases"] == first["released"] + second["released"]


def test_an_empty_budget_lets_no_feature_out(session, made_clip):
    stats = session.play(str(made_clip), bits_per_second=1, bits_per_day=1)
    assert stats["released"] == 0 and stats["withheld_by_ledger"] + stats["withheld_by_gate"] == 20
    state = session.folder / "dry"
    session.stop_server()
    assert run_edge(session, str(made_clip), state, bits_per_day=0.001, drain_timeout_s=0)[0] == Exit.UNDELIVERED
    packets = spooled(state)
    assert len(packets) == 20 and {p.kind for p in packets} == {2}
    assert all(p.features == bytes(len(p.features)) and p.token == 0 for p in packets)


def test_every_packet_has_the_same_size_and_no_pixel_lies_on_disk(session, made_clip):
    session.stop_server()
    state = session.folder / "still"
    assert run_edge(session, str(made_clip), state, drain_timeout_s=0)[0] == Exit.UNDELIVERED
    packets = spooled(state)
    assert [p.sequence for p in packets] == list(range(20)) and packets[-1].last == 1
    want = packet_size(CAMERA, len(packets[0].features))
    assert {p.ByteSize() for p in packets} == {want}
    assert want < 400
    # Two runs on the same clip give different bytes: the noise is fresh at every boot.
    other = session.folder / "other"
    run_edge(session, str(made_clip), other, drain_timeout_s=0)
    released = [(a.features, b.features) for a, b in zip(packets, spooled(other), strict=True) if a.kind == b.kind == 1]
    assert all(a != b for a, b in released)


def test_sigterm_finishes_cleanly(session, long_clip):
    state = session.folder / "term"
    edge = start(session, long_clip, state, realtime=True)
    wait_for(lambda: session.get("/v1/events"))
    edge.send_signal(signal.SIGTERM)
    edge.communicate(timeout=15)
    assert edge.returncode == 0
    stats = json.loads(state.with_suffix(".json").read_text())
    assert 0 < stats["ticks"] < 200 and stats["spool"]["pending"] == 0
    assert session.get(f"/v1/boots/{stats['boot_id']}")["packets"] == stats["ticks"]


def test_twenty_seconds_without_a_server_lose_no_packet(session, long_clip, family):
    state = session.folder / "outage"
    edge = start(session, long_clip, state, realtime=True)
    wait_for(lambda: session.get("/v1/events"))
    session.stop_server(kill=True)
    time.sleep(20)
    assert spooled(state), "the outage is not long enough to test anything"
    session.start_server()
    _, log = edge.communicate(timeout=60)
    assert edge.returncode == 0, log
    stats = json.loads(state.with_suffix(".json").read_text())
    assert stats["uplink"]["failures"] > 0 and stats["spool"]["dropped"] == 0
    boot = session.wait_read(stats["boot_id"])
    assert boot["packets"] == stats["ticks"] == 200
    assert sorted({w["start"] for w in boot["windows"]}) == list(range(0, 201 - family.config.window, 10))


def test_a_slow_link_only_takes_longer(session, made_clip):
    link = Line(session.grpc, 0.4)
    stats = session.play(str(made_clip), server=link.address)
    assert session.wait_read(stats["boot_id"])["packets"] == 20
    assert stats["uplink"]["connections"] == 1
    link.close()


def test_sigkill_of_the_edge_loses_nothing_spooled_and_repeats_nothing(session, long_clip, made_clip):
    session.server_keys = {"idle_s": 1.0}
    session.stop_server()
    session.start_server()
    state = session.folder / "kill"
    edge = start(session, long_clip, state, realtime=True)
    boot_id = wait_for(lambda: session.get("/v1/events"))[0]["boot_id"]
    # Some packets acknowledged but still in their segment, some never sent.
    session.stop_server(kill=True)
    time.sleep(2)
    edge.kill()
    edge.communicate()
    left = spooled(state)
    newest = max(p.sequence for p in left)
    session.start_server()
    stats = session.play(str(made_clip), "kill")
    assert stats["spool"]["recovered"] == len(left)
    session.wait_read(stats["boot_id"])
    boot = wait_for(lambda: (b := session.get(f"/v1/boots/{boot_id}"))["closed"] and b)
    assert boot["packets"] == newest + 1
    events = session.get(f"/v1/events?boot_id={boot_id}")
    # Sent once more, as after a lost acknowledgement: nothing changes.
    credentials = grpc.ssl_channel_credentials(
        session.authority.ca.read_bytes(), session.camera_cert.key.read_bytes(), session.camera_cert.cert.read_bytes()
    )
    with grpc.secure_channel(session.grpc, credentials) as channel:
        call = channel.stream_stream(f"/{SERVICE}/{METHOD}")
        assert list(call(iter([p.SerializeToString() for p in left]), timeout=10))
    time.sleep(2)
    assert session.get(f"/v1/events?boot_id={boot_id}") == events
    again = session.get(f"/v1/boots/{boot_id}")
    assert again["packets"] == newest + 1 and len(again["windows"]) == len(boot["windows"])


def test_a_packet_is_sent_again_byte_for_byte(session, made_clip):
    """A server that breaks the first connections without an acknowledgement sees the same bytes on the next."""
    session.stop_server()
    seen: list[list[bytes]] = []

    def stream(requests, context):
        seen.append([])
        for raw in requests:
            seen[-1].append(raw)
            if len(seen) < 4:
                if len(seen[-1]) == 6:
                    context.abort(grpc.StatusCode.UNAVAILABLE, "broken on purpose")
                continue
            packet = FeaturePacket.FromString(raw)
            yield Ack(boot_id=packet.boot_id, sequence=packet.sequence)

    identity = lambda raw: raw  # noqa: E731
    handlers = {
        METHOD: grpc.stream_stream_rpc_method_handler(stream, identity, Ack.SerializeToString),
        CERTIFY: grpc.unary_unary_rpc_method_handler(lambda raw, context: Certified(), identity, Certified.SerializeToString),
    }
    server = grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    port = server.add_secure_port(
        "127.0.0.1:0", server_credentials(session.authority.ca, session.server_cert.cert, session.server_cert.key)
    )
    server.start()
    try:
        stats = session.play(str(made_clip), server=f"127.0.0.1:{port}")
    finally:
        server.stop(0)
    assert stats["spool"]["pending"] == 0 and len(seen) == 4
    whole = seen[-1]
    assert len(whole) == stats["ticks"] == 20
    for broken in seen[:-1]:
        assert len(broken) >= 6 and broken == whole[: len(broken)]


def test_the_server_refuses_what_no_device_sends(session, made_clip):
    state = session.folder / "s"
    session.stop_server()
    run_edge(session, str(made_clip), state, drain_timeout_s=0)
    session.start_server()
    good = spooled(state)[0]
    stranger = session.authority.camera("stranger")

    def send(cert, packet_bytes: bytes) -> grpc.StatusCode:
        credentials = grpc.ssl_channel_credentials(
            session.authority.ca.read_bytes(), cert.key.read_bytes(), cert.cert.read_bytes()
        )
        with grpc.secure_channel(session.grpc, credentials) as channel:
            try:
                list(channel.stream_stream(f"/{SERVICE}/{METHOD}")(iter([packet_bytes]), timeout=10))
            except grpc.RpcError as error:
                return error.code()
        return grpc.StatusCode.OK

    def changed(**fields) -> bytes:
        packet = FeaturePacket.FromString(good.SerializeToString())
        for name, value in fields.items():
            setattr(packet, name, value)
        return packet.SerializeToString()

    bad = grpc.StatusCode.INVALID_ARGUMENT
    assert send(stranger, good.SerializeToString()) == bad
    assert send(session.camera_cert, changed(features=good.features + b"\0")) == bad
    assert send(session.camera_cert, changed(bundle_id=bytes(16))) == bad
    assert send(session.camera_cert, changed(kind=9)) == bad
    assert send(session.camera_cert, changed(token=200)) == bad
    assert send(session.camera_cert, good.SerializeToString() + b"\x62\x02hi") == bad
    assert send(session.camera_cert, os.urandom(300)) == bad
    assert send(session.camera_cert, bytes(100_000)) == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert send(session.camera_cert, good.SerializeToString()) == grpc.StatusCode.OK
    # A certificate of another authority does not get through the handshake.
    foreign = Authority(session.folder / "foreign").camera(CAMERA)
    assert send(foreign, good.SerializeToString()) == grpc.StatusCode.UNAVAILABLE


@pytest.fixture(scope="module")
def idle(tmp_path_factory, signed):
    """A session for tests of bad input, shared because nothing of them may leave a trace."""
    with BenchSession(default_model(), signed[0], signed[1], folder=tmp_path_factory.mktemp("idle") / "s") as running:
        yield running


def one_line(result: tuple[int, list[str]], code: Exit, says: str) -> None:
    """The result is that exit code and one line that holds `says`."""
    assert result[0] == code, result
    assert len(result[1]) == 1 and says in result[1][0], result


def test_bad_sources(idle, tmp_path, made_clip, family):
    state = tmp_path / "state"
    one_line(run_edge(idle, "none.mp4", state), Exit.SOURCE, "no such file")
    assert not state.exists()
    data = made_clip.read_bytes()
    for name, content in {
        "text.mp4": b"this is no film\n" * 100,
        "empty.mp4": b"",
        "cut.mp4": data[: len(data) // 3],
        "head.mp4": data[:200],
    }.items():
        (tmp_path / name).write_bytes(content)
        result = run_edge(idle, str(tmp_path / name), state)
        assert result[0] == Exit.SOURCE and len(result[1]) == 1, (name, result)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    one_line(run_edge(idle, f"rtsp://127.0.0.1:{port}/x", state), Exit.SOURCE, "cannot be opened")
    one_line(run_edge(idle, "pipeline:nosuchelement", state), Exit.SOURCE, "not a pipeline")
    one_line(run_edge(idle, "v4l2:/dev/video99", state), Exit.SOURCE, "cannot be opened")
    small, size = write_clip(tmp_path / "small.mp4", frames=4, size=(64, 64)), family.config.input
    one_line(run_edge(idle, str(small), state), Exit.SOURCE, f"at least {size.width}x{size.height}")


def test_any_pipeline_is_a_source(session):
    pattern = "pipeline:videotestsrc pattern=ball num-buffers=30 ! video/x-raw,width=320,height=240,framerate=10/1"
    stats = session.play(pattern)
    assert stats["ticks"] == 30


def test_bad_certificates(idle, tmp_path, made_clip):
    clip, state = str(made_clip), tmp_path / "state"
    late = idle.authority.camera("late", days=-1)
    one_line(run_edge(idle, clip, state, camera_id="late", cert=late.cert, key=late.key), Exit.CREDENTIALS, "expired on")
    one_line(run_edge(idle, clip, state, key=idle.server_cert.key), Exit.CREDENTIALS, "is not the key of")
    one_line(run_edge(idle, clip, state, camera_id="other"), Exit.CREDENTIALS, "common name is")
    one_line(run_edge(idle, clip, state, ca=made_clip), Exit.CREDENTIALS, "not a certificate")
    one_line(run_edge(idle, clip, state, cert=tmp_path / "none"), Exit.CREDENTIALS, "No such file")
    assert not state.exists()


def test_bad_edge_configuration(idle, tmp_path):
    good = idle.edge_command("x.mp4", tmp_path / "state")
    printed = subprocess.run([*good, "--print-config"], capture_output=True, text=True)
    assert printed.returncode == 0 and 'camera_id = "camera-1"' in printed.stdout.replace("'", '"')
    for text, says in {
        "colour = 1\n": "unknown key 'colour'",
        'threads = "two"\n': "'threads' must be a whole number",
        "source = \n": "edge.toml:1",
    }.items():
        (tmp_path / "edge.toml").write_text(text)
        command = [str(idle.edge), "--config", str(tmp_path / "edge.toml")]
        done = subprocess.run(command, capture_output=True, text=True)
        one_line((done.returncode, done.stderr.splitlines()), Exit.USAGE, says)
    done = subprocess.run([str(idle.edge), "--nonsense"], capture_output=True, text=True)
    assert done.returncode == Exit.USAGE
    done = subprocess.run([str(idle.edge), "--version"], capture_output=True, text=True)
    assert done.stdout.startswith("ruyicam-edge 0.")


def test_bad_server_configuration_and_a_port_in_use(idle, tmp_path):
    def serve(config: Path) -> tuple[int, list[str]]:
        done = subprocess.run([RUYICAM, "serve", "--config", config], capture_output=True, text=True, timeout=60)
        return done.returncode, done.stderr.splitlines()

    good = idle.server_config().read_text()
    config = tmp_path / "server.toml"

    def with_keys(**keys) -> Path:
        lines = [line for line in good.splitlines() if line.split(" = ")[0] not in keys]
        config.write_text("\n".join(lines + [f"{k} = {json.dumps(v)}" for k, v in keys.items()]) + "\n")
        return config

    database = f"sqlite:///{tmp_path / 'x.db'}"
    one_line(serve(with_keys(colour=1)), Exit.USAGE, "unknown key 'colour'")
    one_line(serve(with_keys(idle_s="long")), Exit.USAGE, "'idle_s'")
    one_line(serve(tmp_path / "none.toml"), Exit.USAGE, "No such file")
    one_line(serve(with_keys(grpc=idle.grpc, http="127.0.0.1:0", database=database)), Exit.ADDRESS, idle.grpc)
    one_line(serve(with_keys(grpc="127.0.0.1:0", http=idle.http, database=database)), Exit.ADDRESS, idle.http)
    late = Authority(tmp_path / "late", days=1).server(["localhost"], days=-1)
    one_line(serve(with_keys(cert=str(late.cert), key=str(late.key))), Exit.CREDENTIALS, "expired on")
    one_line(serve(with_keys(model=str(tmp_path))), Exit.USAGE, "model")
    one_line(serve(with_keys(database=f"sqlite:///{tmp_path}/no/where.db")), Exit.STORAGE, "database")
    one_line(serve(with_keys(bundles=[str(tmp_path)])), Exit.BUNDLE, "bundle")


def test_a_full_disk_stops_the_edge_with_one_line_and_a_whole_spool(idle, tmp_path, long_clip):
    disk = tmp_path / "disk"
    disk.mkdir()
    # The smallest tmpfs that holds the ledger and a little of the spool.
    mount = shutil.which("mount")
    if mount is None or os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    if subprocess.run([mount, "-t", "tmpfs", "-o", "size=40k", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        result = run_edge(idle, str(long_clip), disk / "state", server="127.0.0.1:1", drain_timeout_s=0)
        one_line(result, Exit.STORAGE, "No space left on device")
        kept = spooled(disk / "state")
        assert [p.sequence for p in kept] == list(range(len(kept))) and kept
        json.loads((disk / "state" / "ledger.json").read_text())
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_real_clips_go_all_the_way(session, shared_clips):
    for name in ("surveillance/val/fight/fi002.mp4", "falls/val/fall/s2_fall12.mp4", "urfd/val/normal/adl-01-cam0.mp4"):
        stats = session.play(str(shared_clips / name), Path(name).stem)
        boot = session.wait_read(stats["boot_id"])
        assert boot["packets"] == stats["ticks"] > 15
        assert session.get(f"/v1/events?boot_id={stats['boot_id']}")


def test_the_device_and_python_see_the_same_bits(session, shared_clips, family):
    """Clean tokens decide the behaviour tokens, so equal tokens over a clip mean equal preprocessing and decoding."""
    from ruyicam.cloud.data.clips import model_input
    from ruyicam.export.graph import OUTPUTS, empty_history, open_session
    from ruyicam.kernels import Mapping

    clip = shared_clips / "surveillance/val/fight/fi001.mp4"
    session.stop_server()
    state = session.folder / "same"
    run_edge(session, str(clip), state, drain_timeout_s=0)
    graph = open_session((session.bundle / "edge.onnx").read_bytes())
    kernel = Mapping(family.mapping.params())
    history, valid = (x.numpy() for x in empty_history(family))
    want = []
    for frame in model_input(clip, family.config.input):
        tokens, p = graph.run(list(OUTPUTS), {"frame": frame[None], "history": history, "history_valid": valid})
        best = int(p.argmax())
        want.append(best + 1 if best else int(1 - p[0] >= family.config.gate.look_threshold))
        history[0] = [*history[0, 1:], kernel.project(tokens[None])[0]]
        valid[0] = [*valid[0, 1:], True]
    assert [p.token for p in spooled(state)] == want


def test_demo_and_eval_print_what_they_promise(shared_clips, made_clip, tmp_path):
    done = subprocess.run([RUYICAM, "demo", "--clip", made_clip, "--json"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["events"] and result["edge"]["bits"] < result["edge"]["source_bytes"] * 8
    assert {"preprocess", "encoder", "mapping", "uplink"} <= set(result["edge"]["stages"])
    done = subprocess.run([RUYICAM, "demo", "--clip", "none.mp4"], capture_output=True, text=True, timeout=60)
    one_line((done.returncode, done.stderr.splitlines()), Exit.SOURCE, "no such file")
    for label, clip in {"fight": "fight/fi001.mp4", "normal": "normal/nofi001.mp4"}.items():
        (tmp_path / label).mkdir()
        shutil.copy(shared_clips / "surveillance/val" / clip, tmp_path / label)
    command = [RUYICAM, "eval", "--model", default_model(), "--data", tmp_path, "--through", "edge", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["clips"] == 2 and set(result["tiers"]) == {"edge", "cloud-s", "cloud-l"}
    for tier in result["tiers"].values():
        assert set(tier) >= {"accuracy", "balanced_accuracy", "recall"}
    assert set(result["consistency"]) == {"edge/cloud-s", "edge/cloud-l", "cloud-s/cloud-l"}
    assert result["bits_per_second"] > 0 and result["profile"] == "reasoning"


def test_a_missing_binary_is_one_clear_line(tmp_path, signed):
    with pytest.raises(RuyicamError, match="does not exist"):
        BenchSession(default_model(), signed[0], signed[1], tmp_path / "nothing")
