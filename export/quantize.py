"""edge.onnx with an int8 encoder: static quantisation (QDQ), calibrated on real clips, and what it costs in accuracy."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static

from ruyicam.cloud.data.clips import SUFFIXES, Clip, find_clips, model_input
from ruyicam.cloud.errors import Exit, RuyicamError
from ruyicam.cloud.family import Family

from .graph import open_session, run_along

_TICKS = 60  # of each clip
_CLIPS = 24  # for calibration; others, if there are any, are for the loss
# Beyond it activations are clipped: a few outliers would take the resolution from all others.
_PERCENTILE = 99.9


@dataclass(frozen=True)
class QuantisationLoss:
    """Int8 against float on clips that were not calibrated on, where there are enough. agreement: share of ticks with the
    same behaviour; features: cosine of the clipped features of a tick, mean; accuracy: share of clips whose surest
    behaviour is right, {"float", "int8"}; None where the clips have no labels."""

    clips: int
    held_back: bool
    agreement: float
    features: float
    accuracy: dict[str, float] | None


class _Reader(CalibrationDataReader):
    def __init__(self, family: Family, model: bytes, clips: list[Clip]):
        session, shape = open_session(model), family.config.input
        walks = (run_along(family, session, model_input(c.path, shape, limit=_TICKS)) for c in clips)
        self._all = (tick.inputs for walk in walks for tick in walk)

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._all, None)


def calibration_clips(folder: Path, labels: tuple[str, ...]) -> tuple[list[Clip], list[Clip]]:
    """(for calibration, for the loss): clips under DIR, in folders named after their behaviour or just so, every n-th in
    turn. The same ones twice where there are fewer than four. RuyicamError(SOURCE) if there is none."""
    try:
        clips = find_clips([folder], labels)
    except RuyicamError:
        plain = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
        clips = [Clip(p, "") for p in plain]
    if not clips:
        raise RuyicamError(Exit.SOURCE, f"--calibrate {folder} holds no clip ({', '.join(sorted(SUFFIXES))})")
    if len(clips) < 4:
        return clips, clips
    chosen = clips[:: max(2, -(-len(clips) // _CLIPS))]
    rest = [c for c in clips if c not in chosen]
    return chosen, rest[:: max(1, len(rest) // _CLIPS)]


def quantise(family: Family, model: bytes, clips: list[Clip]) -> bytes:
    """The graph with int8 convolutions: per-channel weights, activations by the range seen on the clips. Those that read the
    picture and those of one channel each stay float: they are little work, and half of the loss (measured). What follows
    the encoder stays as it is, the mapping to the bit."""
    import onnx

    graph = onnx.load_from_string(model).graph
    inputs = {tensor.name: tensor.dims[1] for tensor in graph.initializer if len(tensor.dims) == 4}
    nodes = [n.name for n in graph.node if n.op_type == "Conv" and inputs[n.input[1]] > 4]
    # It prints, and advises a step that the graph has been through.
    logging.getLogger().setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="ruyicam-int8-") as scratch, contextlib.redirect_stdout(io.StringIO()):
        source, out = Path(scratch) / "float.onnx", Path(scratch) / "int8.onnx"
        source.write_bytes(model)
        quantize_static(
            source,
            out,
            _Reader(family, model, clips),
            quant_format=QuantFormat.QDQ,
            nodes_to_quantize=nodes,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.Percentile,
            extra_options={"CalibPercentile": _PERCENTILE},
        )
        return out.read_bytes()


def quantisation_loss(family: Family, model: bytes, quantised: bytes, clips: list[Clip], held_back: bool) -> QuantisationLoss:
    """Both graphs along the same clips."""
    same, cosines, right = [], [], {"float": [], "int8": []}
    sessions = {"float": open_session(model), "int8": open_session(quantised)}
    for clip in clips:
        frames = model_input(clip.path, family.config.input, limit=_TICKS)
        said = {name: list(run_along(family, session, frames)) for name, session in sessions.items()}
        for a, b in zip(said["float"], said["int8"], strict=True):
            same.append(int(a.probabilities.argmax()) == int(b.probabilities.argmax()))
            lengths = float(np.linalg.norm(a.features) * np.linalg.norm(b.features))
            cosines.append(float(a.features @ b.features) / lengths if lengths else 1.0)
        for name, ticks in said.items():
            # Not quiet if any tick is not: what the gate would let through.
            surest = max((t.probabilities for t in ticks), key=lambda p: 1 - p[0])
            right[name].append(family.config.labels[int(surest.argmax())] == clip.label)
    labelled = all(c.label for c in clips)
    accuracy = {name: float(np.mean(r)) for name, r in right.items()} if labelled else None
    return QuantisationLoss(len(clips), held_back, float(np.mean(same)), float(np.mean(cosines)), accuracy)
