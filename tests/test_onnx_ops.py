"""The mapping inside ONNX Runtime: equal bits, clear refusals, many threads, and a bundle that uses it on the device."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made import random_params
from onnx import TensorProto, helper
from test_end_to_end import run_edge, spooled

from ruyicam.cloud.errors import Exit, RuyicamError
from ruyicam.cloud.keys import load_private_key
from ruyicam.export.bench_session import BenchSession
from ruyicam.export.bundle import export_bundle
from ruyicam.export.defaults import default_model
from ruyicam.export.graph import operator_library
from ruyicam.kernels import Mapping, MappingParams, reference
from ruyicam.kernels.torch_ops import project

try:
    LIBRARY = operator_library()
except RuyicamError as error:
    pytest.skip(str(error), allow_module_level=True)


def _model(p: MappingParams) -> bytes:
    """tokens -> Project -> Release."""
    value = helper.make_tensor_value_info
    inputs = [
        value("tokens", TensorProto.FLOAT, ["N", "T", "D"]),
        value("key", TensorProto.UINT8, [32]),
        value("number", TensorProto.INT64, ["N"]),
    ]
    constants = {"weight": p.weight.ravel(), "bias": p.bias, "lut": p.lut, "noise_cdf": p.noise_cdf.view(np.int64)}
    lists = {name: a.tolist() for name, a in constants.items()}
    cdf = lists.pop("noise_cdf")
    sizes = {"input_scale": p.input_scale, "multiplier": p.multiplier, "round": p.round, "shift": p.shift, "clip": p.clip}
    nodes = [
        helper.make_node("Project", ["tokens"], ["u"], domain="ruyicam", **lists, **sizes),
        helper.make_node("Release", ["u", "key", "number"], ["packed"], domain="ruyicam", noise_cdf=cdf, bits=p.bits),
    ]
    outputs = [value("u", TensorProto.FLOAT, None), value("packed", TensorProto.UINT8, None)]
    graph = helper.make_graph(nodes, "m", inputs, outputs)
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("ruyicam", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()


def _session(model: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(str(LIBRARY))
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32), tokens=st.integers(1, 20), dim=st.integers(1, 200), out=st.integers(1, 24),
    bits=st.integers(2, 16), batch=st.integers(0, 3),
)  # fmt: skip
def test_operators_give_the_bits_of_the_reference(seed, tokens, dim, out, bits, batch):
    rng = np.random.default_rng(seed)
    p = random_params(rng, tokens, dim, out, bits)
    h = rng.normal(0, 3, (batch, tokens, dim)).astype(np.float32)
    key, numbers = rng.bytes(32), rng.integers(0, 2**63, batch, dtype=np.int64)
    feeds = {"tokens": h, "key": np.frombuffer(key, np.uint8), "number": numbers}
    u, packed = _session(_model(p)).run(["u", "packed"], feeds)
    np.testing.assert_array_equal(u, reference.project(p, h))
    for i, number in enumerate(numbers):
        np.testing.assert_array_equal(packed[i : i + 1], reference.release(p, u[i : i + 1].astype(np.int16), key, int(number)))


def test_a_session_runs_in_many_threads():
    rng = np.random.default_rng(3)
    p = random_params(rng, 12, 64, 8, 8)
    session = _session(_model(p))
    jobs = [rng.normal(0, 1, (n % 4 + 1, 12, 64)).astype(np.float32) for n in range(64)]

    def run(h):
        numbers = np.arange(len(h), dtype=np.int64)
        return session.run(["u"], {"tokens": h, "key": np.zeros(32, np.uint8), "number": numbers})[0]

    with ThreadPoolExecutor(8) as pool:
        for h, u in zip(jobs, pool.map(run, jobs), strict=True):
            np.testing.assert_array_equal(u, reference.project(p, h))


def test_bad_models_and_inputs_are_refused_with_what_is_wrong():
    rng = np.random.default_rng(3)
    p = random_params(rng, 2, 8, 4, 8)
    wrong = onnx.load_from_string(_model(p))
    next(a for a in wrong.graph.node[0].attribute if a.name == "weight").ints[3] = 128
    with pytest.raises(Exception, match="weight holds 128, beyond 8 bits"):
        _session(wrong.SerializeToString())
    wrong = onnx.load_from_string(_model(p))
    next(a for a in wrong.graph.node[0].attribute if a.name == "clip").i = 0
    with pytest.raises(Exception, match="clip must be 1 to 2"):
        _session(wrong.SerializeToString())
    session = _session(_model(p))
    good = {"tokens": np.zeros((1, 2, 8), np.float32), "key": np.zeros(32, np.uint8), "number": np.zeros(1, np.int64)}
    session.run(None, good)
    with pytest.raises(Exception, match=r"tokens must be \[N, T, 8\]"):
        session.run(None, good | {"tokens": np.zeros((1, 2, 9), np.float32)})
    with pytest.raises(Exception, match="number for each of the 1 frames"):
        session.run(None, good | {"number": np.zeros(2, np.int64)})


def test_a_fused_bundle_releases_what_a_plain_one_does(tmp_path, signed, family, made_clip):
    """Through the real binary: the same behaviour token for every tick."""
    from ruyicam.cloud.data.clips import model_input

    frames = model_input(made_clip, family.config.input)
    bundle = tmp_path / "fused.ruyicam"
    report = export_bundle(family, bundle, load_private_key(signed[2]), frames, op="fused")
    assert max(report.worst.values()) < 1e-4
    said = []
    for name, path in {"plain": signed[0], "fused": bundle}.items():
        with BenchSession(default_model(), path, signed[1], folder=tmp_path / name) as session:
            session.stop_server()
            # Behaviour tokens come of the features of all ticks before, through this very operator.
            code, _ = run_edge(session, str(made_clip), tmp_path / f"{name}-state", drain_timeout_s=0)
            assert code == Exit.UNDELIVERED
            said.append([packet.token for packet in spooled(tmp_path / f"{name}-state")])
    assert said[0] == said[1] and len(said[0]) > 15


def test_threads_do_not_share_a_mapping(family):
    """The PyTorch operator keeps its latest mappings, whose room serves one thread at a time."""
    # Constants whose answers tell tokens apart, and enough frames that threads meet in the kernel.
    p = family.mapping.params()
    jobs = [torch.randn(4000, p.tokens, p.weight.shape[1], generator=torch.Generator().manual_seed(i)) for i in range(6)]
    arrays = (torch.from_numpy(p.weight), torch.from_numpy(p.bias), torch.from_numpy(p.lut))
    constants = (p.input_scale, p.multiplier, p.round, p.shift, p.clip)
    alone = [Mapping(p).project(h) for h in jobs]
    with ThreadPoolExecutor(6) as pool:
        for u, together in zip(alone, pool.map(lambda h: project(h, *arrays, *constants), jobs), strict=True):
            np.testing.assert_array_equal(together, u)
