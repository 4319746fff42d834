"""The bundle: what a device needs of a trained family, signed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from safetensors.numpy import save_file

from ruyicam.cloud.bundles import SCHEMA, bundle_id, read_manifest, refuse
from ruyicam.cloud.errors import Exit, RuyicamError
from ruyicam.cloud.family import Family
from ruyicam.cloud.privacy.profiles import ReleasePlan, release_plan
from ruyicam.cloud.wire import BUNDLE_FILES
from ruyicam.kernels import rounded_gaussian_cdf

from .graph import OPSET, Op, export_graph, worst_error

if TYPE_CHECKING:
    from .quantize import QuantisationLoss

FILES = tuple(f for f in BUNDLE_FILES if not f.startswith("manifest."))


@dataclass(frozen=True)
class ExportReport:
    """What an export has to show: worst absolute error of ONNX Runtime against PyTorch, per output, before quantisation;
    loss: what quantisation to int8 cost, if it was asked for."""

    path: Path
    bundle_id: str
    frames_compared: int
    worst: dict[str, float]
    opset: int
    loss: QuantisationLoss | None = None


@dataclass(frozen=True)
class Release:
    """A bundle's place among others. version: for people. serial: rises from release to release; None takes the Unix
    time. floor: the least serial that a device will run once this one has proved well there."""

    version: str = "1"
    serial: int | None = None
    floor: int = 0


def _manifest(family: Family, plan: ReleasePlan, name: str, release: Release, folder: Path, op: Op, precision: str) -> dict:
    c, params = family.config, family.mapping.params()
    serial = int(time.time()) if release.serial is None else release.serial
    if not 0 <= release.floor <= serial:
        raise RuyicamError(Exit.USAGE, f"--floor is {release.floor}, expected 0 to the bundle's serial {serial}")
    return {
        "schema": SCHEMA,
        "name": name,
        "version": release.version,
        "serial": serial,
        "floor": release.floor,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "tier": "edge",
        "labels": list(c.labels),
        "alphabet": list(plan.alphabet),
        "token_prior": list(plan.prior),
        "input": c.input.model_dump(),
        "features": {
            "tokens": c.tokens,
            "dim": params.weight.shape[1],
            "out_dim": params.weight.shape[0],
            "window": c.window,
            "packed_bytes": params.packed_bytes,
        },
        "mapping": {
            "input_scale": params.input_scale,
            "multiplier": params.multiplier,
            "round": params.round,
            "shift": params.shift,
            "clip": params.clip,
            "bits": params.bits,
        },
        "gate": {
            "look_threshold": c.gate.look_threshold,
            "around_ticks": c.gate.around_ticks,
            "heartbeat_ticks": c.gate.heartbeat_ticks,
        },
        "privacy": plan.manifest(),
        "onnx": {"opset": OPSET, "exporter": "torch.onnx dynamo", "op": op, "precision": precision},
        "files": {
            f: {"sha256": hashlib.sha256((folder / f).read_bytes()).hexdigest(), "bytes": (folder / f).stat().st_size}
            for f in FILES
        },
    }


def export_bundle(
    family: Family,
    out: Path,
    key: Ed25519PrivateKey,
    frames: np.ndarray,
    release: Release | None = None,
    op: Op = "plain",
    plan: ReleasePlan | None = None,
    calibrate: Path | None = None,
) -> ExportReport:
    """Writes the signed bundle `out` (NAME.ruyicam), whole or not at all; an older one of that name is replaced.

    frames int8 [N, 3, h, w]: real encoder inputs on which ONNX Runtime is compared with PyTorch. plan: what the profile
    releases; by default that of `reasoning`. calibrate: folder of clips; the encoder is then quantised to int8 on them.
    Raises RuyicamError(STORAGE) if it cannot be written, USAGE if `out` is not called NAME.ruyicam.
    """
    if out.suffix != ".ruyicam":
        raise RuyicamError(Exit.USAGE, f"--out is {out}, expected a name that ends in .ruyicam")
    plan = plan or release_plan(family.config)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    except OSError as error:
        raise RuyicamError(Exit.STORAGE, f"cannot write {out}: {error.strerror}") from error
    try:
        staging.chmod(0o755)
        export_graph(family, staging / "edge.onnx", op)
        model = (staging / "edge.onnx").read_bytes()
        worst, loss = worst_error(family, model, frames), None
        if calibrate is not None:
            from .quantize import calibration_clips, quantisation_loss, quantise

            chosen, others = calibration_clips(calibrate, family.config.labels)
            quantised = quantise(family, model, chosen)
            loss = quantisation_loss(family, model, quantised, others, others is not chosen)
            (staging / "edge.onnx").write_bytes(quantised)
        params = family.mapping.params()
        noise = rounded_gaussian_cdf(plan.sigma)
        save_file(
            {"weight": params.weight, "bias": params.bias, "lut": params.lut, "noise_cdf": noise},
            staging / "mapping.safetensors",
        )
        # safetensors writes files that only their owner can read.
        (staging / "mapping.safetensors").chmod(0o644)
        content = _manifest(family, plan, out.stem, release or Release(), staging, op, "int8" if loss else "float32")
        manifest = json.dumps(content, indent=2).encode() + b"\n"
        (staging / "manifest.json").write_bytes(manifest)
        (staging / "manifest.sig").write_bytes(key.sign(manifest))
        if out.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{out.name}-old-", dir=out.parent))
            os.rename(out, old / out.name)
            os.rename(staging, out)
            shutil.rmtree(old)
        else:
            os.rename(staging, out)
    except OSError as error:
        raise RuyicamError(Exit.STORAGE, f"cannot write {out}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return ExportReport(out, bundle_id(manifest).hex(), len(frames), worst, OPSET, loss)


def verify_bundle(path: Path, key: Ed25519PublicKey) -> dict:
    """The manifest of a bundle whose signature and hashes hold; RuyicamError(BUNDLE) with one line otherwise."""
    content = read_manifest(path, key)[1]
    try:
        for name in FILES:
            if hashlib.sha256((path / name).read_bytes()).hexdigest() != content["files"][name]["sha256"]:
                raise refuse(path, f"{name} does not have the hash that the manifest gives")
    except OSError as error:
        raise refuse(path, f"{Path(error.filename).name}: {error.strerror}") from error
    except (KeyError, TypeError) as error:
        raise refuse(path, f"manifest is malformed: {error!r}") from error
    return content
