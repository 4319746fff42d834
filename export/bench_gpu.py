"""The CUDA kernels beside `torch.compile`, all replayed as CUDA graphs; part of `ruyicam bench kernels`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from ruyicam.cloud.family import FamilyConfig
from ruyicam.cloud.family.mapping import FeatureMapping
from ruyicam.kernels import gpu, reference

from .torch_peer import TorchPreprocess

# The last of each is more than the caches of a GPU hold.
BATCHES = (1, 8, 64, 256, 65536)
CAMERAS = (1, 8, 64)
FRAME = (1920, 1080)
# Calls in a graph, so that what is timed is the GPU's work, not how fast graphs can be launched.
CALLS = 20
_ROUNDS, _ROUND_US = 15, 10_000.0


def why_not() -> str | None:
    """Why there is nothing to measure here; None if there is."""
    if reason := gpu.why_not():
        return reason
    return None if torch.cuda.is_available() else "this PyTorch has no CUDA"


def _replayed(call: Callable[[], object], calls: int = CALLS) -> torch.cuda.CUDAGraph:
    """So many calls as a graph, after warming up on a stream of its own."""
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        for _ in range(3):
            call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(calls):
            call()
    return graph


def _once(graph: torch.cuda.CUDAGraph, replays: int) -> float:
    """Microseconds of a replay, of so many."""
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    for _ in range(replays):
        graph.replay()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) * 1000 / replays


def _time(contenders: dict[str, Callable[[], object]], calls: int = CALLS) -> dict[str, dict[str, float]]:
    """{name: {"median_us", "spread_us"}} of one call in a replayed graph of `calls`; they take turns."""
    graphs = {name: _replayed(call, calls) for name, call in contenders.items()}
    replays = {name: max(1, min(200, int(_ROUND_US / _once(graph, 3)))) for name, graph in graphs.items()}
    times: dict[str, list[float]] = {name: [] for name in graphs}
    for _ in range(_ROUNDS):
        for name, graph in graphs.items():
            times[name].append(_once(graph, replays[name]) / calls)
    quartiles = {name: np.percentile(values, (25, 50, 75)) for name, values in times.items()}
    return {name: {"median_us": float(m), "spread_us": float(b - a) / 2} for name, (a, m, b) in quartiles.items()}


def _copy_bandwidth() -> float:
    """Bytes a second that the device's memory moves, both ways counted."""
    source = torch.empty(256 << 20, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.numel() / (_time({"copy": lambda: target.copy_(source)})["copy"]["median_us"] * 1e-6)


def _row(what: dict, contenders: dict[str, Callable[[], object]], moved: int, bandwidth: float) -> dict:
    """`moved`: the fewest bytes that such a call can read and write."""
    times, alone = _time(contenders), _time(contenders, 1)
    ours = times.pop("ours")
    return what | {
        "ours": ours,
        "peers": times,
        "ratio": {name: t["median_us"] / ours["median_us"] for name, t in times.items()},
        "memory_roofline_fraction": moved / (ours["median_us"] * 1e-6) / bandwidth,
        "alone_us": {name: t["median_us"] for name, t in alone.items()},
    }


def _bench_mapping(batch: int, bandwidth: float) -> dict:
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
        moved = tokens.numel() * tokens.element_size() + out.numel() * out.element_size()
        contenders = {"ours": lambda: kernel.project(tokens, out), "torch_compile": lambda: compiled(tokens)}
        return _row({"batch": batch}, contenders, moved, bandwidth)


def _bench_preprocess(cameras: int, bandwidth: float) -> dict:
    sizes = FamilyConfig().input.model_dump(exclude={"rate_hz"})
    generator = torch.Generator("cuda").manual_seed(0)
    width, height = FRAME
    luma = torch.randint(0, 256, (3, cameras, height, width), dtype=torch.uint8, device="cuda", generator=generator)
    ours, peer = gpu.GpuPreprocessor(cameras, **sizes), TorchPreprocess(cameras, FRAME, **sizes).cuda()
    compiled = torch.compile(peer)
    out = torch.empty(cameras, 3, sizes["height"], sizes["width"], dtype=torch.int8, device="cuda")
    with torch.inference_mode():
        ours.process(luma[0], out)
        peer.start(luma[0])
        peer(luma[0])
        for frame in luma[1:]:
            far = (ours.process(frame, out).int() - compiled(frame).int()).abs().max()
            if far > 2:
                raise RuntimeError(f"torch_compile is {far} away from the preprocessing, expected at most 2")
        frame = luma[0]
        state = 2 * 2 * 4 * cameras * sizes["width"] * sizes["height"]
        contenders = {"ours": lambda: ours.process(frame, out), "torch_compile": lambda: compiled(frame)}
        return _row({"cameras": cameras}, contenders, frame.numel() + out.numel() + state, bandwidth)


def bench_gpu() -> dict:
    """{"device", "copy_bytes_per_second", "launch_us", "mapping": [...], "preprocess": [...]}, or {"not_run": why}.

    Times are of one call in a replayed graph of CALLS; "alone_us": of a graph of that call alone, which launching bounds.
    launch_us: the smallest kernel there is, in such a graph and in a graph alone.
    """
    if reason := why_not():
        return {"not_run": reason}
    bandwidth = _copy_bandwidth()
    one = torch.zeros(1, device="cuda")
    return {
        "device": torch.cuda.get_device_name(),
        "copy_bytes_per_second": bandwidth,
        "launch_us": [_time({"one": lambda: one.add_(1)}, calls)["one"]["median_us"] for calls in (CALLS, 1)],
        "mapping": [_bench_mapping(batch, bandwidth) for batch in BATCHES],
        "preprocess": [_bench_preprocess(cameras, bandwidth) for cameras in CAMERAS],
    }
