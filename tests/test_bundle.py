"""Bundles: what is exported verifies, runs as PyTorch does, and is refused by both sides when anything is changed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from ruyicam.cloud.data.clips import model_input
from ruyicam.cloud.errors import Exit, RuyicamError
from ruyicam.cloud.keys import load_private_key, load_public_key, new_keys
from ruyicam.export.bench_session import find_edge
from ruyicam.export.bundle import FILES, export_bundle, verify_bundle
from ruyicam.export.graph import INPUTS, OUTPUTS, EdgeGraph, empty_history, open_session
from ruyicam.export.pki import Authority
from ruyicam.kernels import Mapping

RUYICAM = Path(sys.executable).with_name("ruyicam")


@pytest.fixture
def copy(tmp_path, signed) -> Path:
    """A bundle to spoil."""
    return Path(shutil.copytree(signed[0], tmp_path / "copy.ruyicam"))


def edge_says(bundle: Path, public: Path, folder: Path, **flags) -> tuple[int, str]:
    """Exit code and message of the edge binary with that bundle and otherwise good input."""
    tls = folder / "tls"
    if not tls.exists():
        Authority(tls).camera("cam")
    command = [
        find_edge(),
        "--source",
        folder / "none.mp4",
        "--camera_id",
        "cam",
        "--bundle",
        bundle,
        "--public_key",
        public,
    ]
    command += ["--server", "127.0.0.1:1", "--ca", tls / "ca.pem", "--cert", tls / "cam.pem", "--key", tls / "cam.key"]
    command += ["--state_dir", folder / "state"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=30)
    return done.returncode, done.stderr


def test_export_through_the_command_line(tmp_path, made_clip):
    from ruyicam.export.defaults import default_model

    run = lambda *a: subprocess.run([RUYICAM, *map(str, a)], capture_output=True, text=True, timeout=120)  # noqa: E731
    assert run("keys", "new", tmp_path / "dev").returncode == 0
    done = run("export", "--model", default_model(), "--out", tmp_path / "a.ruyicam", "--sign", tmp_path / "dev.key",
               "--frames", made_clip, "--json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["frames_compared"] == 20
    assert max(report["worst_error"].values()) < 1e-4
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.ruyicam", "dev.key", "dev.pub"]
    done = run("verify", tmp_path / "a.ruyicam", "--key", tmp_path / "dev.pub")
    assert done.returncode == 0 and "good" in done.stdout
    again = run("keys", "new", tmp_path / "dev")
    assert again.returncode == Exit.USAGE and "never overwritten" in again.stderr


def test_the_graph_is_checked_and_carries_no_traces_of_this_machine(signed):
    raw = (signed[0] / "edge.onnx").read_bytes()
    model = onnx.load_from_string(raw)
    onnx.checker.check_model(model, full_check=True)
    assert [i.name for i in model.graph.input] == list(INPUTS)
    assert [o.name for o in model.graph.output] == list(OUTPUTS)
    assert str(Path(__file__).resolve().parent.parent).encode() not in raw
    assert {p.key for p in model.metadata_props} >= {"ruyicam.tier", "ruyicam.labels"}


def test_kernel_and_graph_agree_on_the_features_of_real_frames(signed, family, made_clip):
    session = open_session((signed[0] / "edge.onnx").read_bytes())
    kernel = Mapping(family.mapping.params())
    history, valid = (x.numpy() for x in empty_history(family))
    graph = EdgeGraph(family)
    for frame in model_input(made_clip, family.config.input)[:8]:
        inputs = {"frame": frame[None], "history": history, "history_valid": valid}
        tokens, probabilities = session.run(list(OUTPUTS), inputs)
        u = kernel.project(tokens[None])
        with torch.inference_mode():
            np.testing.assert_array_equal(u, family.mapping.exact(torch.from_numpy(tokens[None])).numpy())
            want = graph(*(torch.from_numpy(inputs[name]) for name in INPUTS))[1]
        np.testing.assert_allclose(probabilities, want.numpy(), atol=1e-4)
        history = np.concatenate([history[:, 1:], u[:, None].astype(np.float32)], 1)
        valid = np.concatenate([valid[:, 1:], np.ones((1, 1), bool)], 1)


@pytest.mark.parametrize("name", [*FILES, "manifest.json", "manifest.sig"])
def test_one_flipped_byte_is_refused_by_both_sides(tmp_path, copy, signed, name):
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(data)
    with pytest.raises(RuyicamError) as caught:
        verify_bundle(copy, load_public_key(signed[1]))
    assert caught.value.code == Exit.BUNDLE
    code, message = edge_says(copy, signed[1], tmp_path)
    assert code == Exit.BUNDLE
    assert message.count("\n") == 1 and "bundle" in message
    assert not (tmp_path / "state").exists()


def test_unsigned_wrong_key_and_missing_parts_are_refused(tmp_path, copy, signed):
    other = new_keys(tmp_path / "other")[1]
    assert edge_says(copy, other, tmp_path)[0] == Exit.BUNDLE
    with pytest.raises(RuyicamError, match="signature"):
        verify_bundle(copy, load_public_key(other))
    assert edge_says(copy, signed[2], tmp_path)[0] == Exit.CREDENTIALS
    (copy / "manifest.sig").unlink()
    code, message = edge_says(copy, signed[1], tmp_path)
    assert code == Exit.BUNDLE and "unsigned" in message
    assert edge_says(tmp_path / "none.ruyicam", signed[1], tmp_path)[0] == Exit.BUNDLE


def resign(bundle: Path, key: Path, change) -> None:
    """Changes the manifest and signs it anew, as a careless vendor would."""
    manifest = json.loads((bundle / "manifest.json").read_text())
    change(manifest)
    raw = json.dumps(manifest).encode()
    (bundle / "manifest.json").write_bytes(raw)
    (bundle / "manifest.sig").write_bytes(load_private_key(key).sign(raw))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda m: m.update(schema=99), "schema 99"),
        (lambda m: m["privacy"].update(sigma=16.0), "not that of sigma"),
        (lambda m: m["privacy"].update(bits_per_release=1.0), "the bound is"),
        (lambda m: m["mapping"].update(clip=m["mapping"]["clip"] * 10), "disagree"),
        (lambda m: m["mapping"].update(bits=40), "bits must be"),
        (lambda m: m["token_prior"].__setitem__(0, 0.1), "add up to 1"),
        (lambda m: m["features"].update(dim=65), "tensor 'weight'"),
        (lambda m: m.pop("gate"), "gate"),
        (lambda m: m["input"].update(width="wide"), "manifest: width is not a whole number"),
        (lambda m: m["gate"].update(around_ticks=2.5), "manifest: around_ticks is not a whole number"),
        (lambda m: m["mapping"].update(clip=2e33), "manifest: clip is not a whole number"),
        (lambda m: m["features"].update(tokens=-(2**40)), "manifest: tokens is not a whole number"),
        (lambda m: m["labels"].append("dance"), "do not fit"),
    ],
)
def test_a_signed_bundle_that_does_not_hold_together_is_refused(tmp_path, copy, signed, change, says):
    resign(copy, signed[2], change)
    code, message = edge_says(copy, signed[1], tmp_path)
    assert code == Exit.BUNDLE
    assert says in message and message.count("\n") == 1


def test_export_leaves_nothing_half_written(tmp_path, family, made_clip, signed, monkeypatch):
    frames = model_input(made_clip, family.config.input)
    key = load_private_key(signed[2])
    with pytest.raises(RuyicamError, match=r"ends in \.ruyicam"):
        export_bundle(family, tmp_path / "a.zip", key, frames)

    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ruyicam.export.bundle.save_file", full)
    with pytest.raises(RuyicamError, match="No space left") as caught:
        export_bundle(family, tmp_path / "a.ruyicam", key, frames)
    assert caught.value.code == Exit.STORAGE
    assert list(tmp_path.iterdir()) == []


def test_an_int8_bundle_says_what_it_costs(tmp_path, made_clip, refused):
    """Few clips, without labels: the figures are of those it was calibrated on, and it says so."""
    from ruyicam.export.defaults import default_model

    (tmp_path / "clips").mkdir()
    shutil.copy(made_clip, tmp_path / "clips" / "a.mp4")
    run = lambda *a: subprocess.run([RUYICAM, *map(str, a)], capture_output=True, text=True, timeout=120)  # noqa: E731
    assert run("keys", "new", tmp_path / "dev").returncode == 0
    common = ("export", "--model", default_model(), "--out", tmp_path / "a.ruyicam", "--sign", tmp_path / "dev.key")
    code, said = refused(*common, "--int8")
    assert code == Exit.USAGE and "--calibrate" in said
    (tmp_path / "empty").mkdir()
    code, said = refused(*common, "--int8", "--calibrate", tmp_path / "empty", "--frames", made_clip)
    assert code == Exit.SOURCE and "holds no clip" in said and not (tmp_path / "a.ruyicam").exists()
    done = run(*common, "--int8", "--calibrate", tmp_path / "clips", "--frames", made_clip, "--json")
    assert done.returncode == 0, done.stderr
    loss = json.loads(done.stdout)["int8"]
    assert loss["clips"] == 1 and not loss["held_back"] and loss["accuracy"] is None
    # Calibrated on that very clip: far from noise, and not the float graph.
    assert loss["agreement"] > 0.9 and 0.9 < loss["features"] < 1
    graph = onnx.load(tmp_path / "a.ruyicam" / "edge.onnx").graph
    kinds = [n.op_type for n in graph.node]
    assert kinds.count("QuantizeLinear") > 40 and kinds.count("DequantizeLinear") > 40
    assert json.loads((tmp_path / "a.ruyicam" / "manifest.json").read_text())["onnx"]["precision"] == "int8"
    # What follows the encoder is the mapping's own, to the bit.
    session = open_session((tmp_path / "a.ruyicam" / "edge.onnx").read_bytes())
    assert [o.name for o in session.get_outputs()] == list(OUTPUTS)
