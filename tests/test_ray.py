"""The model on a Ray cluster of two nodes: the same answers, and nothing lost when a node or a replica goes."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
from made import alive
from service import check_whole
from test_end_to_end import RUYICAM, one_line

from ruyicam.cloud.errors import Exit, RuyicamError
from ruyicam.cloud.serve.config import Ray
from ruyicam.cloud.serve.passes import PASS, Reading, TierPasses
from ruyicam.cloud.serve.scale.cluster import RayPasses, TierReplica, digest_of, ray_passes
from ruyicam.export.bench_device import processes_of
from ruyicam.export.bench_session import BenchSession
from ruyicam.export.defaults import default_model
from ruyicam.export.ray_nodes import RayNodes


class Answer(SimpleNamespace):
    """What a handle gives for a question."""

    def result(self, timeout_s: float) -> Reading:
        import ray

        if self.lost:
            raise ray.exceptions.RayActorError
        return self.reading


class Handle:
    """A deployment's handle, whose first answers are lost; it remembers which rows it was asked for."""

    def __init__(self, passes: TierPasses, lost: int):
        self.lost, self.asked, self._passes = lost, [], passes
        self.run = SimpleNamespace(remote=self._ask)

    def _ask(self, tier, features, valid, report) -> Answer:
        self.asked.append(len(features))
        self.lost -= 1
        if self.lost >= 0:
            return Answer(lost=True)
        return Answer(lost=False, reading=self._passes.run(tier, features, valid, report))


def question(family, windows: int) -> tuple:
    """A pass through the deepest tier of random features."""
    noise, size = np.random.default_rng(0), family.config.window
    features = noise.integers(-100, 100, (windows, size, family.config.features)).astype(np.int16)
    return "cloud-l", features, np.ones((windows, size), bool), np.arange(windows) % 20 == 0


def same(a: Reading, b: Reading) -> bool:
    """Whether two readings say the same."""
    close = all(np.allclose(a.rows[k], b.rows[k], atol=1e-4) for k in a.rows)
    return close and a.rows.keys() == b.rows.keys() and (a.people == b.people).all() and a.reports == b.reports


def test_a_part_whose_replica_dies_is_given_to_another(family, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda _: None)
    passes, asked = TierPasses(family), question(family, 2 * PASS + 3)
    handle = Handle(passes, lost=2)
    assert same(RayPasses(handle).run(*asked), passes.run(*asked))
    assert handle.asked == [PASS, PASS, 3, PASS, PASS]
    with pytest.raises(RuyicamError, match="no replica"):
        RayPasses(Handle(passes, lost=1000)).run(*asked)


def test_another_checkpoint_is_refused(tmp_path):
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(RuyicamError, match="another checkpoint"):
        TierReplica(str(tmp_path), "cpu", digest_of(default_model()))


def test_nothing_is_lost_when_nodes_and_replicas_go(signed, long_clip, family, tmp_path):
    running = BenchSession(default_model(), signed[0], signed[1], folder=tmp_path / "session")
    with RayNodes(2) as cluster:
        running.server_keys["ray"] = {"address": cluster.address, "replicas_min": 2, "replicas_max": 2}
        with running:
            assert [len(cluster.replicas(node)) for node in cluster.nodes] == [1, 1]

            def break_things() -> None:
                time.sleep(5)
                cluster.kill(cluster.nodes[1])
                time.sleep(5)
                (replica,) = cluster.replicas(cluster.nodes[0])
                os.kill(replica, signal.SIGKILL)

            breaking = threading.Thread(target=break_things)
            breaking.start()
            stats = running.play(str(long_clip), realtime=True)
            breaking.join()
            boot = running.wait_read(stats["boot_id"], 90)
            check_whole(running, boot, 200)


def test_a_cluster_that_is_not_there_is_said():
    with pytest.raises(RuyicamError, match=r"no cluster at 127\.0\.0\.1:1: Connection refused"):
        ray_passes(default_model(), "cpu", Ray(address="127.0.0.1:1"))


def test_a_cluster_that_the_service_has_started_ends_with_it(signed, made_clip, tmp_path):
    running = BenchSession(default_model(), signed[0], signed[1], folder=tmp_path / "session")
    running.server_keys["ray"] = {"replicas_max": 1}
    with running:
        boot = running.wait_read(running.play(str(made_clip))["boot_id"], 60)
        started = processes_of(running.server.pid)
    assert boot["packets"] == 20 and {w["tier"] for w in boot["windows"]} == {"edge", "cloud-s", "cloud-l"}
    until = time.monotonic() + 10
    while any(map(alive, started)) and time.monotonic() < until:
        time.sleep(0.1)
    assert len(started) > 5 and not any(map(alive, started))


def test_processes_are_found_while_threads_come_and_go():
    over = threading.Event()

    def churn() -> None:
        while not over.is_set():
            short = [threading.Thread(target=time.sleep, args=(0,)) for _ in range(20)]
            for thread in short:
                thread.start()
            for thread in short:
                thread.join()

    busy = threading.Thread(target=churn)
    busy.start()
    try:
        assert all(os.getpid() in processes_of(os.getpid()) for _ in range(1000))
    finally:
        over.set()
        busy.join()


def test_the_flag_asks_for_a_cluster(signed, tmp_path):
    running = BenchSession(default_model(), signed[0], signed[1], folder=tmp_path / "session")
    with running:
        command = [RUYICAM, "serve", "--config", running.server_config(), "--ray"]
    environment = os.environ | {"RAY_ADDRESS": "127.0.0.1:1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    one_line((done.returncode, done.stderr.splitlines()), Exit.USAGE, "Ray: no cluster at 127.0.0.1:1: Connection refused")
