"""The model's passes on a Ray cluster: as many replicas as there is to read, each on a core or a GPU of some machine."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import socket
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np

from ruyicam.cloud.errors import Exit, RuyicamError, first_line

from ..config import Ray
from ..passes import PASS, Reading, local_passes

log = logging.getLogger("ruyicam.ray")
# A replica that does not answer for so long is asked no more; so often a part is given to another one.
_PATIENCE_S, _TRIES = 20.0, 5
# How long a cluster may take to answer, and how often it is tried to join one.
_CONNECT_S, _JOINS, _JOIN_AGAIN_S = 5.0, 5, 3.0


def digest_of(model: Path) -> str:
    """What a checkpoint holds, in short."""
    found = hashlib.sha256()
    for name in ("config.json", "model.safetensors"):
        found.update((model / name).read_bytes())
    return found.hexdigest()[:12]


class TierReplica:
    """One replica: the whole model, which one window after another goes through."""

    def __init__(self, model: str, device: str, digest: str):
        """The folder is the same on every machine, and so must be what it holds. Raises RuyicamError."""
        if digest_of(Path(model)) != digest:
            raise RuyicamError(Exit.USAGE, f"{model} is another checkpoint here than where the service runs")
        self._passes = local_passes(Path(model), device)

    def run(self, tier: str, features: np.ndarray, valid: np.ndarray, report: np.ndarray) -> Reading:
        """See Passes."""
        return self._passes.run(tier, features, valid, report)


def joined(readings: list[Reading]) -> Reading:
    """The parts of a pass as one."""
    first = readings[0]
    return Reading(
        {name: np.concatenate([r.rows[name] for r in readings]) for name in first.rows},
        np.concatenate([r.people for r in readings]),
        np.concatenate([r.figures for r in readings]),
        [said for r in readings for said in r.reports],
    )


class RayPasses:
    """Passes in parts of `PASS` windows to all replicas at once. A part whose replica dies is given to another one."""

    def __init__(self, handle):
        """handle: a ray.serve DeploymentHandle of TierReplica."""
        self._handle = handle

    def run(self, tier: str, features: np.ndarray, valid: np.ndarray, report: np.ndarray) -> Reading:
        """See Passes. Raises RuyicamError(INTERNAL) if no replica answers."""
        import ray

        parts = [slice(first, first + PASS) for first in range(0, max(1, len(features)), PASS)]
        questions = [(tier, features[rows], valid[rows], report[rows]) for rows in parts]
        answers: dict[int, Reading] = {}
        for attempt in range(_TRIES):
            asked = {i: self._handle.run.remote(*q) for i, q in enumerate(questions) if i not in answers}
            for i, answer in asked.items():
                try:
                    answers[i] = answer.result(timeout_s=_PATIENCE_S)
                except (ray.exceptions.RayError, TimeoutError) as error:
                    log.warning("a part of a pass is given to another replica: %s", type(error).__name__)
            if len(answers) == len(questions):
                return joined([answers[i] for i in range(len(questions))])
            # Until the dead one is known to be.
            time.sleep(0.2 * 2**attempt)
        raise RuyicamError(Exit.INTERNAL, "no replica of the model answers")


def _application(model: Path, device: str, settings: Ray):
    """The handle of this model's replicas, which are started unless another service has."""
    from ray import serve

    # Another model, or another form of these replicas, stands beside this one until nobody uses it any more.
    digest, folder = digest_of(model), str(model.resolve())
    told = "\n".join((version("ruyicam"), folder, digest, device, settings.model_dump_json()))
    name = f"ruyicam-{hashlib.sha256(told.encode()).hexdigest()[:12]}"
    there = serve.status().applications.get(name)
    if there is None or there.status not in ("RUNNING", "DEPLOYING"):
        deployment = serve.deployment(
            TierReplica,
            name="tiers",
            max_ongoing_requests=2,
            ray_actor_options={"num_cpus": settings.cpus, "num_gpus": settings.gpus},
            autoscaling_config={
                "min_replicas": settings.replicas_min,
                "initial_replicas": settings.replicas_min,
                "max_replicas": settings.replicas_max,
                "target_ongoing_requests": 1,
                # Sooner than by default: what waits is late.
                "look_back_period_s": 10,
                "upscale_delay_s": 5,
                "downscale_delay_s": 60,
            },
            health_check_period_s=2,
            health_check_timeout_s=10,
            graceful_shutdown_timeout_s=10,
            max_constructor_retry_count=3,
        )
        try:
            serve.run(deployment.bind(folder, device, digest), name=name, route_prefix=None)
        except RuntimeError as error:
            deployments = serve.status().applications[name].deployments.values()
            said = [line for d in deployments for line in d.message.strip().splitlines()]
            raise RuyicamError(Exit.USAGE, f"Ray: the model's replicas do not start: {said[-1] if said else error}") from error
    return serve.get_app_handle(name)


def _check_there(address: str) -> None:
    # Ray itself would try for minutes.
    host, _, port = address.rpartition(":")
    if not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), _CONNECT_S).close()
    except OSError as error:
        raise RuyicamError(Exit.USAGE, f"Ray: no cluster at {address}: {error.strerror or error}") from error


def _join(address: str | None) -> None:
    import ray

    for left in reversed(range(_JOINS)):
        try:
            # Ray puts the working directory before all else where its workers look for packages.
            with contextlib.chdir("/"):
                ray.init(address=address, namespace="ruyicam", log_to_driver=False, logging_level=logging.WARNING)
            return
        except (ConnectionError, RuntimeError) as error:
            # A cluster that has just begun to start is not ready when its port is.
            if not left:
                raise
            log.warning("the cluster does not let this service in yet: %s", first_line(error))
            ray.shutdown()
            time.sleep(_JOIN_AGAIN_S)


def ray_passes(model: Path, device: str, settings: Ray) -> RayPasses:
    """Joins or starts the cluster, and the replicas of this model unless another service has. Raises RuyicamError(USAGE)."""
    # Nothing is told to anybody.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        from ray import serve
    except ImportError as error:
        raise RuyicamError(Exit.USAGE, "Ray is not installed: pip install 'ruyicam[ray]'") from error
    if address := settings.address or os.environ.get("RAY_ADDRESS"):
        _check_there(address)
    try:
        _join(settings.address)
        serve.start(proxy_location="Disabled")
        return RayPasses(_application(model, device, settings))
    except (ray.exceptions.RayError, ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise RuyicamError(Exit.USAGE, f"Ray: {first_line(error)}") from error
