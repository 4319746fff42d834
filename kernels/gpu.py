"""The kernels on CUDA arrays of any library: torch tensors, CuPy, pycuda, and whatever has `__cuda_array_interface__`.

Launches go to the given stream (torch's current one by default) and are never waited for. `GpuMapping` allocates nothing
on the way if `out` is given, so its calls can be captured into a CUDA graph. Constants and state live on the device that is
current when an object is made.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .reference import MappingParams

try:
    from . import _cuda
except ImportError:
    _cuda = None


def why_not() -> str | None:
    """Why CUDA cannot be used here, in one line; None if it can."""
    if _cuda is None:
        return "this build has no CUDA kernels: no CUDA compiler was found when it was made"
    if not _cuda.device_count():
        return "no CUDA device is here"
    return None


def _require() -> None:
    if reason := why_not():
        raise RuntimeError(reason)


@dataclass(frozen=True)
class _Array:
    pointer: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _array(x: Any, dtype: str, name: str, shape: tuple[int | None, ...], contiguous: bool = True) -> _Array:
    """Pointer, shape, strides in bytes of a CUDA array. TypeError for another kind or dtype, ValueError for another shape."""
    if hasattr(x, "detach"):
        x = x.detach()
    if not hasattr(x, "__cuda_array_interface__") and hasattr(x, "__dlpack__"):
        import torch

        x = torch.from_dlpack(x)
    try:
        interface = x.__cuda_array_interface__
    except AttributeError as error:
        raise TypeError(f"{name} is {type(x).__name__}, expected a CUDA array") from error
    want = np.dtype(dtype)
    if np.dtype(interface["typestr"]) != want:
        raise TypeError(f"{name} is {np.dtype(interface['typestr']).name}, expected {want.name}")
    got = tuple(interface["shape"])
    if len(got) != len(shape) or any(w is not None and w != g for w, g in zip(shape, got, strict=True)):
        raise ValueError(f"{name} is {list(got)}, expected {['any' if s is None else s for s in shape]}")
    plain = tuple(int(np.prod(got[i + 1 :], dtype=np.int64)) * want.itemsize for i in range(len(got)))
    strides = tuple(interface.get("strides") or plain)
    if contiguous and strides != plain and all(got):
        raise ValueError(f"{name} is not contiguous")
    return _Array(interface["data"][0], got, strides)


def _stream(stream: Any) -> int:
    """The handle of a stream: an int, or an object of torch, CuPy or pycuda; torch's current one for None."""
    if stream is None:
        import sys

        torch = sys.modules.get("torch")
        return torch.cuda.current_stream().cuda_stream if torch is not None and torch.cuda.is_initialized() else 0
    for name in ("cuda_stream", "ptr", "handle"):
        if hasattr(stream, name):
            return int(getattr(stream, name))
    return int(stream)


def _room(out: Any, like: Any, shape: tuple[int, ...], dtype: str) -> Any:
    if out is not None:
        return out
    if type(like).__module__.split(".")[0] != "torch":
        raise TypeError("give `out`: room is made for torch tensors only")
    import torch

    return torch.empty(shape, dtype=getattr(torch, dtype), device=like.device)


class GpuMapping:
    """`Mapping` on CUDA arrays. Equal bits; see `ruyicam.kernels.Mapping` for the constants."""

    def __init__(self, params: MappingParams):
        """RuntimeError where CUDA cannot be used, ValueError with the field that is wrong."""
        from . import native_constants

        _require()
        self.params = params
        self._native = _cuda.Mapping(**native_constants(params))

    def _tokens(self, tokens: Any) -> tuple[_Array, int]:
        """tokens and the distance of its frames in floats; rows are contiguous."""
        d = self.params.weight.shape[1]
        a = _array(tokens, "float32", "tokens", (None, self.params.tokens, d), contiguous=False)
        if all(a.shape) and (a.strides[1:] != (4 * d, 4) or a.strides[0] % 4):
            raise ValueError("the rows of tokens are not contiguous")
        return a, a.strides[0] // 4

    def project(self, tokens: Any, out: Any = None, stream: Any = None) -> Any:
        """Steps 1 to 4: float32 [batch, T, D] -> clipped features int16 [batch, T * d]."""
        a, step = self._tokens(tokens)
        out = _room(out, tokens, (a.shape[0], self.params.features), "int16")
        to = _array(out, "int16", "out", (a.shape[0], self.params.features))
        self._native.project(a.pointer, step, a.shape[0], to.pointer, _stream(stream))
        return out

    def _keys(self, keys: Any, batch: int) -> tuple[_Array, int]:
        k = _array(keys, "uint8", "keys", (None, 32))
        if k.shape[0] not in (1, batch):
            raise ValueError(f"keys is [{k.shape[0]}, 32], expected 1 or {batch} rows")
        return k, 32 * (k.shape[0] > 1)

    def release(self, clipped: Any, keys: Any, releases: Any, out: Any = None, stream: Any = None) -> Any:
        """Steps 5 and 6: int16 [batch, T * d] -> packed uint8 [batch, packed_bytes].

        keys uint8 [1 or batch, 32]; releases int64 or uint64 [batch]: the numbers of these releases, to each of which the
        kernel adds 1, so that a replayed graph never repeats its noise.
        """
        c = _array(clipped, "int16", "clipped", (None, self.params.features))
        k, step = self._keys(keys, c.shape[0])
        out = _room(out, clipped, (c.shape[0], self.params.packed_bytes), "uint8")
        to = _array(out, "uint8", "out", (c.shape[0], self.params.packed_bytes))
        self._native.release(
            c.pointer, c.shape[0], k.pointer, step, _counters(releases, c.shape[0]), to.pointer, _stream(stream)
        )
        return out

    def map(self, tokens: Any, keys: Any, releases: Any, clipped: Any, out: Any = None, stream: Any = None) -> Any:
        """All steps in one launch; `clipped` int16 [batch, T * d] is room that the kernel needs. See `release`."""
        a, frame_step = self._tokens(tokens)
        batch = a.shape[0]
        k, key_step = self._keys(keys, batch)
        c = _array(clipped, "int16", "clipped", (batch, self.params.features))
        out = _room(out, tokens, (batch, self.params.packed_bytes), "uint8")
        to = _array(out, "uint8", "out", (batch, self.params.packed_bytes))
        counters = _counters(releases, batch)
        self._native.map(a.pointer, frame_step, batch, k.pointer, key_step, counters, c.pointer, to.pointer, _stream(stream))
        return out


def _counters(releases: Any, batch: int) -> int:
    try:
        return _array(releases, "uint64", "releases", (batch,)).pointer
    except TypeError:
        return _array(releases, "int64", "releases", (batch,)).pointer


class GpuPreprocessor:
    """`Preprocessor` for `batch` cameras of one frame size at once, on torch CUDA tensors."""

    def __init__(
        self, batch: int, *, width: int = 128, height: int = 96, background_shift: int = 6, mask_floor: int = 64,
        device: Any = "cuda",
    ):  # fmt: skip
        """RuntimeError where CUDA cannot be used."""
        _require()
        import torch

        self._sizes = (width, height, background_shift, mask_floor)
        self._previous = torch.empty(batch, height * width, dtype=torch.int32, device=device)
        self._background = torch.zeros_like(self._previous)
        self.reset()

    def reset(self) -> None:
        """Forgets all frames: the next one starts a new background."""
        self._previous.fill_(_cuda.NOT_STARTED)

    def process(self, luma: Any, out: Any = None) -> Any:
        """luma uint8 [batch, h, w], rows at any stride -> int8 [batch, 3, height, width], on torch's current stream."""
        batch, (width, height, *_) = self._previous.shape[0], self._sizes
        a = _array(luma, "uint8", "luma", (batch, None, None), contiguous=False)
        if a.strides[2] != 1:
            raise ValueError("the rows of luma are not contiguous")
        _, h, w = a.shape
        out = _room(out, luma, (batch, 3, height, width), "int8")
        to = _array(out, "int8", "out", (batch, 3, height, width))
        _cuda.preprocess(
            *self._sizes, w, h, a.pointer, *a.strides[:2], batch, self._previous.data_ptr(), self._background.data_ptr(),
            to.pointer, _stream(None),
        )  # fmt: skip
        return out
