"""The exact kernels: `Mapping` and `Preprocessor` on NumPy arrays and torch CPU tensors.

`backend="simd"` (default) is the Highway version, `"portable"` plain C++, `"reference"` NumPy; all give the same bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from . import reference
from ._native import Mapping as _NativeMapping
from ._native import Preprocessor as _NativePreprocessor
from ._native import force_simd_target, int8_peak, read_bandwidth, read_once, simd_targets
from .noise import rounded_gaussian_cdf
from .reference import MappingParams, unpack

__all__ = [
    "BACKENDS",
    "Mapping",
    "MappingParams",
    "Preprocessor",
    "force_simd_target",
    "int8_peak",
    "native_constants",
    "read_bandwidth",
    "read_once",
    "reference",
    "rounded_gaussian_cdf",
    "simd_targets",
    "unpack",
]

BACKENDS = ("reference", "portable", "simd")


def _view(x: Any, dtype: type, name: str) -> np.ndarray:
    """x as a NumPy array over the same memory: torch CPU tensors and whatever speaks DLPack come through without a copy."""
    if hasattr(x, "detach"):
        x = x.detach()
    if not isinstance(x, np.ndarray) and hasattr(x, "__dlpack__"):
        if x.__dlpack_device__()[0] != 1:
            raise TypeError(f"{name} is not in the processor's memory; see ruyicam.kernels.gpu")
        x = np.from_dlpack(x)
    if not isinstance(x, np.ndarray) or x.dtype != dtype:
        got = getattr(x, "dtype", type(x).__name__)
        raise TypeError(f"{name} is {got}, expected a {np.dtype(dtype).name} NumPy array or torch CPU tensor")
    return x


def native_constants(params: MappingParams) -> dict[str, Any]:
    """The constants as the compiled classes take them."""
    sizes = {"tokens": params.tokens, "in_dim": params.weight.shape[1], "out_dim": params.weight.shape[0]}
    arrays = {"weight": params.weight.ravel(), "bias": params.bias, "lut": params.lut, "noise_cdf": params.noise_cdf}
    names = ("input_scale", "multiplier", "round", "shift", "clip", "bits")
    return sizes | arrays | {name: getattr(params, name) for name in names}


class Mapping:
    """The feature mapping with fixed constants. One object serves one thread at a time."""

    def __init__(self, params: MappingParams):
        """Raises ValueError with the field that is wrong and what would be right."""
        self.params = params
        self._native = _NativeMapping(**native_constants(params))

    def map(self, tokens: Any, keys: Any, releases: Any, backend: str = "simd") -> np.ndarray:
        """All steps, for frames of many cameras: float32 [batch, T, D] -> packed uint8 [batch, packed_bytes].

        Frame i is release number releases[i] (uint64 [batch]) under keys[i] (uint8 [batch, 32], or [1, 32] for all).
        """
        tokens, keys = _view(tokens, np.float32, "tokens"), _view(keys, np.uint8, "keys")
        releases = _view(releases, np.uint64, "releases")
        if backend == "reference":
            clipped, every = reference.project(self.params, tokens), np.broadcast_to(keys, (len(tokens), 32))
            rows = zip(clipped, every, releases, strict=True)
            packed = [reference.release(self.params, u[None], k.tobytes(), int(r))[0] for u, k, r in rows]
            return np.stack(packed) if packed else np.empty((0, self.params.packed_bytes), np.uint8)
        return self._native.map(tokens, keys, releases, backend)

    def project(self, tokens: Any, backend: str = "simd") -> np.ndarray:
        """Steps 1 to 4. tokens float32 [batch, T, D], last axis contiguous -> clipped features int16 [batch, T * d].

        Raises TypeError for another dtype, ValueError for another shape.
        """
        tokens = _view(tokens, np.float32, "tokens")
        if backend == "reference":
            return reference.project(self.params, tokens)
        return self._native.project(tokens, backend)

    def release(self, clipped: Any, key: bytes, first: int = 0, backend: str = "simd") -> np.ndarray:
        """Steps 5 and 6. clipped int16 [batch, T * d], key 32 bytes -> packed uint8 [batch, packed_bytes].

        Frame i is release number first + i; a number must never be used twice with one key.
        """
        clipped = _view(clipped, np.int16, "clipped")
        if backend == "reference":
            return reference.release(self.params, clipped, key, first)
        return self._native.release(clipped, key, first, backend)


class Preprocessor:
    """Luma frames of one camera, in order -> encoder input int8 [3, height, width]."""

    def __init__(
        self,
        *,
        width: int = 128,
        height: int = 96,
        background_shift: int = 6,
        mask_floor: int = 64,
        backend: str = "simd",
    ):
        sizes = dict(width=width, height=height, background_shift=background_shift, mask_floor=mask_floor)
        self._backend = backend
        self._impl: Any = reference.Preprocessor(**sizes) if backend == "reference" else _NativePreprocessor(**sizes)

    def process(self, luma: Any, out: np.ndarray | None = None) -> np.ndarray:
        """luma uint8 [h, w], rows at any stride -> int8 [3, height, width], in `out` (contiguous) if it is given.

        Raises ValueError for a frame under the grid, TypeError for another dtype.
        """
        luma = _view(luma, np.uint8, "luma")
        if out is not None and not (isinstance(out, np.ndarray) and out.dtype == np.int8 and out.flags.c_contiguous):
            raise TypeError("out must be a contiguous int8 NumPy array")
        if self._backend == "reference":
            made = self._impl.process(luma)
            if out is None:
                return made
            np.copyto(out, made)
            return out
        return self._impl.process(luma, out, self._backend)

    def reset(self) -> None:
        """Forgets all frames: the next one starts a new background."""
        self._impl.reset()
