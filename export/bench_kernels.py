"""`ruyicam bench kernels`: the compiled kernels beside everything else that could do the same, in one run."""

from __future__ import annotations

import logging
import os
import platform
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import torch

from ruyicam.cloud.family import FamilyConfig
from ruyicam.cloud.family.mapping import FeatureMapping
from ruyicam.kernels import Mapping, Preprocessor, int8_peak, read_bandwidth, read_once, reference

from .bench_gpu import bench_gpu
from .opencv_peer import OpenCv

BATCHES = (1, 8, 64)
# The default model's sizes, in which rounding tokens is most of the work, and larger ones, in which the products are: medium
# ones, of which 64 frames fit into a second cache, and wide ones, which come from memory.
SIZES = {
    "default": FamilyConfig(),
    "medium": FamilyConfig(encoder={"tokens": 12, "dim": 256}, mapping={"out_dim": 64}),
    "wide": FamilyConfig(encoder={"tokens": 64, "dim": 512}, mapping={"out_dim": 64}),
}
FRAMES = ((1280, 720), (1920, 1080))
# A round takes at least so long, or a clock tick would be seen; medians are over so many rounds.
_ROUND_S, _ROUNDS = 0.02, 15
# One call of the loop that multiplies registers alone.
_PEAK_S = 0.002
Progress = Callable[[str], None]


def machine() -> dict:
    """What the figures were taken on: processor, cores, the instruction set that is used."""
    from ruyicam.kernels import simd_targets

    names = [line.split(":", 1)[1].strip() for line in _cpu_info() if line.startswith("model name")]
    return {"cpu": names[0] if names else platform.processor(), "cores": os.cpu_count(), "simd": simd_targets()[0]}


def _cpu_info() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def measure(contenders: dict[str, Callable[[], object]]) -> dict[str, dict[str, float]]:
    """{name: {"median_us", "spread_us"}} of one call of each; they take turns, so that all see the same noise.

    spread_us is half of the distance between the quartiles.
    """
    repeats = {}
    for name, call in contenders.items():
        call()
        began, done = time.perf_counter(), 0
        while time.perf_counter() - began < _ROUND_S:
            call()
            done += 1
        repeats[name] = done
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(_ROUNDS):
        for name, call in contenders.items():
            began = time.perf_counter()
            for _ in range(repeats[name]):
                call()
            times[name].append((time.perf_counter() - began) / repeats[name] * 1e6)
    out = {}
    for name, values in times.items():
        low, middle, high = np.percentile(values, (25, 50, 75))
        out[name] = {"median_us": float(middle), "spread_us": float(high - low) / 2}
    return out


def _session(module: FeatureMapping, batch: int, threads: int) -> onnxruntime.InferenceSession:
    class Exact(torch.nn.Module):
        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return module.exact(tokens)

    tokens = torch.zeros(batch, module.tokens, module.weight.shape[1])
    # It warns of operators of packages that are not used here.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(Exact().eval(), (tokens,), dynamo=True, verbose=False)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(program.model_proto.SerializeToString(), options, providers=["CPUExecutionProvider"])


def bench_mapping(batch: int, threads: int, size: str = "default") -> dict:
    """Steps 1 to 4 of the mapping (rounding, products, table, exact clipping) in one of the SIZES.

    Every contender's result is compared with the reference first. `threads` is what the peers may use; ours uses one.
    int8_peak_fraction: products a second over those of a loop that multiplies registers alone, beside it in the same rounds
    (None where this processor has no such loop).
    """
    config = SIZES[size]
    torch.manual_seed(0)
    module = FeatureMapping(config).eval()
    params = module.params()
    kernel = Mapping(params)
    tokens = torch.randn(batch, config.tokens, config.encoder.dim)
    array = tokens.numpy()
    session = _session(module, batch, threads)
    name = session.get_inputs()[0].name
    compiled = torch.compile(module.exact)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.inference_mode():
            contenders = {
                "ours": lambda: kernel.project(array),
                "portable": lambda: kernel.project(array, backend="portable"),
                "torch_eager": lambda: module.exact(tokens),
                "torch_compile": lambda: compiled(tokens),
                "onnxruntime": lambda: session.run(None, {name: array})[0],
                "numpy": lambda: reference.project(params, array),
            }
            truth = reference.project(params, array)
            for who, call in contenders.items():
                if not np.array_equal(np.asarray(call()), truth):
                    raise RuntimeError(f"{who} does not give the reference's bits")
            peaks: list[float] = []
            times = measure(contenders | {"peak": lambda: peaks.append(int8_peak(_PEAK_S))})
    finally:
        torch.set_num_threads(before)
    del times["peak"]
    peak = float(np.median(peaks))
    products = batch * config.tokens * config.encoder.dim * config.mapping.out_dim
    return _row(times, {"size": size, "batch": batch, "threads": threads}) | {
        "int8_peak_fraction": products / (times["ours"]["median_us"] * 1e-6) / peak if peak else None
    }


def _row(times: dict, what: dict) -> dict:
    ours, peers = times["ours"], {name: t for name, t in times.items() if name != "ours"}
    ratio = {name: t["median_us"] / ours["median_us"] for name, t in peers.items()}
    return what | {"ours": ours, "peers": peers, "ratio": ratio}


def bench_release() -> dict:
    """Steps 5 and 6 (key stream, noise table, saturation, packing) of one frame; the peer is our own portable C++."""
    kernel = Mapping(FeatureMapping(FamilyConfig()).eval().params())
    clipped = np.zeros((1, kernel.params.features), np.int16)
    key = bytes(32)
    return _row(
        measure(
            {
                "ours": lambda: kernel.release(clipped, key, 1),
                "portable": lambda: kernel.release(clipped, key, 1, backend="portable"),
            }
        ),
        {"batch": 1},
    )


def bench_preprocess(width: int, height: int, threads: int) -> dict:
    """One frame of luma to the default model's input, on frames that take turns so that no cache holds them.

    bandwidth_fraction: how long it takes only to read such a frame, beside it in the same rounds, over our time.
    """
    sizes = FamilyConfig().input.model_dump(exclude={"rate_hz"})
    ours, plain, peer = Preprocessor(**sizes), Preprocessor(**sizes, backend="portable"), OpenCv(**sizes)
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 256, (height, width), np.uint8) for _ in range(max(2, 256_000_000 // (width * height)))]
    out = np.empty((3, sizes["height"], sizes["width"]), np.int8)
    turn = {"ours": 0, "portable": 0, "opencv": 0, "read": 0}

    def call(name: str, process: Callable[[np.ndarray], object]) -> Callable[[], object]:
        def run() -> object:
            turn[name] += 1
            return process(frames[turn[name] % len(frames)])

        return run

    before = cv2.getNumThreads()
    cv2.setNumThreads(threads)
    try:
        times = measure(
            {
                "ours": call("ours", lambda frame: ours.process(frame, out)),
                "portable": call("portable", lambda frame: plain.process(frame, out)),
                "opencv": call("opencv", peer.process),
                "read": call("read", read_once),
            }
        )
    finally:
        cv2.setNumThreads(before)
    read = times.pop("read")
    row = _row(times, {"width": width, "height": height, "threads": threads})
    return row | {"read": read, "bandwidth_fraction": read["median_us"] / row["ours"]["median_us"]}


def bench_kernels(progress: Progress = lambda what: None) -> dict:
    """All of it, as `ruyicam bench kernels --json` prints it."""
    progress("limits")
    peak, memory = int8_peak(1.0), read_bandwidth(np.ones(256_000_000, np.uint8), 1.0)
    out: dict = {"machine": machine() | {"int8_macs_per_second": peak, "read_bytes_per_second": memory}}
    counts = sorted({1, os.cpu_count() or 1})
    out["mapping"] = []
    for size in SIZES:
        for batch in BATCHES if size == "default" else BATCHES[-1:]:
            for threads in counts:
                progress(f"mapping, {size} sizes, batch {batch}, {threads} threads")
                out["mapping"].append(bench_mapping(batch, threads, size))
    progress("release")
    out["release"] = [bench_release()]
    out["preprocess"] = []
    for width, height in FRAMES:
        for threads in counts:
            progress(f"preprocessing {width}x{height}, {threads} threads")
            out["preprocess"].append(bench_preprocess(width, height, threads))
    progress("GPU")
    out["gpu"] = bench_gpu()
    return out
