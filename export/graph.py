"""edge.onnx: encoder, mapping without noise, and the edge tier, as the device runs them."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import onnxruntime
import torch
from torch import nn

from ruyicam.cloud.errors import Exit, RuyicamError
from ruyicam.cloud.family import Family

OPSET = 20
# How the mapping stands in the graph: "plain" ONNX operators that any runtime has, or "fused", the one operator
# `ruyicam::Project` of kernels/onnx, which a runtime must have been given.
Op = Literal["plain", "fused"]
OPS: tuple[Op, ...] = ("plain", "fused")
_DOMAIN = "ruyicam"
INPUTS = ("frame", "history", "history_valid")
OUTPUTS = ("tokens", "probabilities")


class EdgeGraph(nn.Module):
    """One tick on the device.

    frame int8 [1, 3, height, width]; history float [1, W - 1, n], the clipped features of the ticks before, oldest
    first; history_valid bool [1, W - 1] -> tokens float [T, D], probabilities float [K] of the edge exit. With "fused" it
    is for export only.
    """

    def __init__(self, family: Family, op: Op = "plain"):
        super().__init__()
        self.encoder, self.mapping, self.tier = family.encoder, family.mapping, family.tier("edge")
        self.op, self.constants = op, family.mapping.params()
        self.eval()

    def _features(self, tokens: torch.Tensor) -> torch.Tensor:
        if self.op == "plain":
            return self.mapping.exact(tokens)
        p = self.constants
        constants = {"weight": p.weight.ravel(), "bias": p.bias, "lut": p.lut}
        return torch.onnx.ops.symbolic(
            f"{_DOMAIN}::Project",
            (tokens,),
            {name: values.tolist() for name, values in constants.items()}
            | {name: getattr(p, name) for name in ("input_scale", "multiplier", "round", "shift", "clip")},
            dtype=torch.float32,
            shape=(tokens.shape[0], p.features),
            version=1,
        )

    def forward(
        self, frame: torch.Tensor, history: torch.Tensor, history_valid: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        tokens = self.encoder(frame)
        newest = self._features(tokens).to(tokens.dtype).unsqueeze(1)
        valid = torch.cat([history_valid, torch.ones_like(history_valid[:, :1])], 1)
        answer = self.tier(torch.cat([history, newest], 1), valid)["edge"]
        return tokens[0], torch.softmax(answer.window, -1)[0]


def empty_history(family: Family) -> tuple[torch.Tensor, torch.Tensor]:
    """The history of a camera that has seen nothing: (float [1, W - 1, n], bool [1, W - 1])."""
    c = family.config
    return torch.zeros(1, c.window - 1, c.features), torch.zeros(1, c.window - 1, dtype=torch.bool)


def operator_library() -> Path:
    """Our ONNX operators as a library: $RUYICAM_ORT_LIBRARY or this checkout's build. RuyicamError(USAGE) if there is none."""
    built = Path(__file__).resolve().parent.parent / "build" / "default" / "kernels" / "libruyicam-ort.so"
    library = Path(os.environ.get("RUYICAM_ORT_LIBRARY", built))
    if not library.is_file():
        raise RuyicamError(Exit.USAGE, f"{library} was not found: build it with 'make setup', or set RUYICAM_ORT_LIBRARY")
    return library


def export_graph(family: Family, path: Path, op: Op = "plain") -> onnx.ModelProto:
    """Writes edge.onnx with the dynamo exporter and checks it. Returns the model."""
    c = family.config
    frame = torch.zeros(1, 3, c.input.height, c.input.width, dtype=torch.int8)
    # It warns of operators of packages that this model does not use.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            EdgeGraph(family, op),
            (frame, *empty_history(family)),
            dynamo=True,
            opset_version=OPSET,
            input_names=list(INPUTS),
            output_names=list(OUTPUTS),
            verbose=False,
        )
    model = program.model_proto
    # Where every node came from in our sources is of no use on a device, and names paths of this machine.
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output):
        del value.metadata_props[:]
    for tensor in model.graph.initializer:
        del tensor.metadata_props[:]
    del model.graph.metadata_props[:]
    for function in model.functions:
        for node in function.node:
            del node.metadata_props[:]
    onnx.helper.set_model_props(model, {"ruyicam.tier": "edge", "ruyicam.labels": ",".join(c.labels)})
    onnx.checker.check_model(model, full_check=True)
    onnx.save_model(model, path)
    return model


def open_session(model: bytes) -> onnxruntime.InferenceSession:
    """One-threaded CPU session of edge.onnx, with our operators if it uses them."""
    options = onnxruntime.SessionOptions()
    if any(o.domain == _DOMAIN for o in onnx.load_from_string(model).opset_import):
        options.register_custom_ops_library(str(operator_library()))
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


@dataclass(frozen=True)
class GraphTick:
    """One tick of edge.onnx: what it was given, and tokens [T, D], clipped features [n] and probabilities [K]."""

    inputs: dict[str, np.ndarray]
    tokens: np.ndarray
    features: np.ndarray
    probabilities: np.ndarray


@torch.inference_mode()
def run_along(family: Family, session: onnxruntime.InferenceSession, frames: np.ndarray) -> Iterator[GraphTick]:
    """The graph along int8 [N, 3, h, w] in order, as on the device: the features of a tick are the history of the next."""
    history, valid = (t.numpy() for t in empty_history(family))
    for frame in frames[:, None]:
        inputs = dict(zip(INPUTS, (frame, history, valid), strict=True))
        tokens, probabilities = session.run(list(OUTPUTS), inputs)
        features = family.mapping.exact(torch.from_numpy(tokens)[None]).float().numpy()
        yield GraphTick(inputs, tokens, features[0], probabilities)
        history = np.concatenate([history[:, 1:], features[:, None]], 1)
        valid = np.concatenate([valid[:, 1:], [[True]]], 1)


@torch.inference_mode()
def worst_error(family: Family, model: bytes, frames: np.ndarray) -> dict[str, float]:
    """Largest difference between ONNX Runtime and PyTorch over int8 [N, 3, h, w] in order, history included."""
    graph, worst = EdgeGraph(family), dict.fromkeys(OUTPUTS, 0.0)
    for tick in run_along(family, open_session(model), frames):
        want = graph(*(torch.from_numpy(tick.inputs[name]) for name in INPUTS))
        for name, a, b in zip(OUTPUTS, want, (tick.tokens, tick.probabilities), strict=True):
            worst[name] = max(worst[name], float(np.abs(a.numpy() - b).max()))
    return worst
