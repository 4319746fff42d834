"""The CUDA kernels beside `torch.compile`, both replayed as CUDA graphs; part of `ruyicam bench kernels`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from ruyicam.cloud.family import FamilyConfig
from ruyicam.cloud.family.mapping import FeatureMapping
from ruyicam.kernels import gpu, reference

BATCHES = (1, 8, 64, 256)
_REPLAYS, _ROUNDS = 200, 15


def why_not() -> str | None:
    """Why there is nothing to measure here; None if there is."""
    if reason := gpu.why_not():
        return reason
    return None if torch.cuda.is_available() else "this PyTorch has no CUDA"


def _replayed(call: Callable[[], object]) -> torch.cuda.CUDAGraph:
    """`call` as a graph, after warming up on a stream of its own."""
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        for _ in range(3):
            call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph


def _time(graphs: dict[str, torch.cuda.CUDAGraph]) -> dict[str, dict[str, float]]:
    """{name: {"median_us", "spread_us"}} of one replay; the graphs take turns."""
    times: dict[str, list[float]] = {name: [] for name in graphs}
    for _ in range(_ROUNDS):
        for name, graph in graphs.items():
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            begin.record()
            for _ in range(_REPLAYS):
                graph.replay()
            end.record()
            end.synchronize()
            times[name].append(begin.elapsed_time(end) * 1000 / _REPLAYS)
    quartiles = {name: np.percentile(values, (25, 50, 75)) for name, values in times.items()}
    return {name: {"median_us": float(m), "spread_us": float(b - a) / 2} for name, (a, m, b) in quartiles.items()}


def _copy_bandwidth() -> float:
    """Bytes a second that the device's memory moves, both ways counted."""
    source = torch.empty(256 << 20, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    graph = _replayed(lambda: target.copy_(source))
    return 2 * source.numel() / (_time({"copy": graph})["copy"]["median_us"] * 1e-6)


def _bench(batch: int, bandwidth: float) -> dict:
    config = FamilyConfig()
    torch.manual_seed(0)
    module = FeatureMapping(config).eval()
    params = module.params()
    kernel = gpu.GpuMapping(params)
    module = module.cuda()
    tokens = torch.randn(batch, config.tokens, config.encoder.dim, device="cuda")
    out = torch.empty(batch, config.features, dtype=torch.int16, device="cuda")
    compiled = torch.compile(module.exact, mode="max-autotune-no-cudagraphs")
    with torch.inference_mode():
        truth = reference.project(params, tokens.cpu().numpy())
        for name, got in {"ours": kernel.project(tokens, out), "torch_compile": compiled(tokens)}.items():
            if not np.array_equal(got.cpu().numpy(), truth):
                raise RuntimeError(f"{name} does not give the reference's bits on the GPU")
        times = _time(
            {
                "ours": _replayed(lambda: kernel.project(tokens, out)),
                "torch_compile": _replayed(lambda: compiled(tokens)),
            }
        )
    moved = tokens.numel() * 4 + out.numel() * 2
    ours = times["ours"]["median_us"]
    return {
        "batch": batch,
        "ours": times["ours"],
        "peers": {"torch_compile": times["torch_compile"]},
        "ratio": {"torch_compile": times["torch_compile"]["median_us"] / ours},
        "memory_roofline_fraction": moved / (ours * 1e-6) / bandwidth,
    }


def bench_gpu() -> dict:
    """{"device", "copy_bytes_per_second", "mapping": [...]}, or {"not_run": why}."""
    if reason := why_not():
        return {"not_run": reason}
    bandwidth = _copy_bandwidth()
    rows = [_bench(batch, bandwidth) for batch in BATCHES]
    return {"device": torch.cuda.get_device_name(), "copy_bytes_per_second": bandwidth, "mapping": rows}
