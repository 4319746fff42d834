"""The plain NumPy version of every kernel: slow, short, and the truth that the compiled ones are tested against."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

_MASK32 = 0xFFFFFFFF


@dataclass(frozen=True)
class MappingParams:
    """The constants of one mapping (design page, "The mapping"); every field is public and stands in the bundle.

    weight int8 [d, D]; bias int32 [d]; lut int16 [L], L a power of two; noise_cdf uint64 [2m], rising;
    input_scale s_h > 0 (float32); multiplier, round, shift: index = (a * multiplier + round) >> shift;
    clip: L2 bound C of one frame's features; bits: width of one packed feature, 2 to 16.
    """

    tokens: int
    weight: np.ndarray
    bias: np.ndarray
    lut: np.ndarray
    noise_cdf: np.ndarray
    input_scale: float
    multiplier: int
    round: int
    shift: int
    clip: int
    bits: int

    @property
    def features(self) -> int:
        """n = tokens * d, the features of one frame."""
        return self.tokens * self.weight.shape[0]

    @property
    def packed_bytes(self) -> int:
        """Bytes of one packed release."""
        return (self.features * self.bits + 7) // 8


def quantize(tokens: np.ndarray, input_scale: float) -> np.ndarray:
    """clamp(rint(tokens / input_scale), -127, 127) as int8, any shape; NaN gives 0."""
    with np.errstate(over="ignore"):
        x = tokens.astype(np.float32) / np.float32(input_scale)
    return np.rint(np.clip(np.where(np.isnan(x), np.float32(0), x), -127, 127)).astype(np.int8)


def clip_l2(u: np.ndarray, clip: int) -> np.ndarray:
    """Shrinks one frame's features u int16 [n] so that sum(u^2) <= clip^2 exactly; unchanged if that holds."""
    total = sum(int(x) * int(x) for x in u)
    if total <= clip * clip:
        return u.astype(np.int16)
    root = math.isqrt(total)
    root += root * root < total
    factor = (clip << 16) // root
    shrunk = [(abs(int(x)) * factor >> 16) * (1 if x >= 0 else -1) for x in u]
    return np.array(shrunk, dtype=np.int16)


def project(p: MappingParams, tokens: np.ndarray) -> np.ndarray:
    """Steps 1 to 4: float32 [batch, T, D] -> clipped features int16 [batch, T * d]."""
    q = quantize(tokens, p.input_scale).astype(np.int64)
    a = q @ p.weight.astype(np.int64).T + p.bias.astype(np.int64)
    half = len(p.lut) // 2
    index = np.clip((a * p.multiplier + p.round) >> p.shift, -half, half - 1)
    u = p.lut[index + half].reshape(len(tokens), p.features)
    return np.stack([clip_l2(frame, p.clip) for frame in u]) if len(u) else u.astype(np.int16)


def noise(p: MappingParams, words: np.ndarray) -> np.ndarray:
    """Rounded Gaussian noise, int64, from uniform uint64 words of any shape, by inverse CDF."""
    return np.searchsorted(p.noise_cdf, words, side="right").astype(np.int64) - len(p.noise_cdf) // 2


def pack(z: np.ndarray, bits: int) -> np.ndarray:
    """int [n] -> uint8 [ceil(n * bits / 8)]: two's complement, least significant bit first."""
    shifts = np.arange(bits)
    return np.packbits(((z.astype(np.int64)[:, None] >> shifts) & 1).astype(np.uint8).ravel(), bitorder="little")


def unpack(packed: np.ndarray, features: int, bits: int) -> np.ndarray:
    """Inverse of `pack` on a batch: uint8 [batch, bytes] -> int16 [batch, features]."""
    flat = np.unpackbits(packed, axis=1, count=features * bits, bitorder="little")
    raw = flat.reshape(len(packed), features, bits).astype(np.int32) @ (1 << np.arange(bits, dtype=np.int32))
    return (raw - ((raw >> (bits - 1)) << bits)).astype(np.int16)


def release(p: MappingParams, clipped: np.ndarray, key: bytes, first: int) -> np.ndarray:
    """Steps 5 and 6: clipped int16 [batch, n] -> packed uint8 [batch, bytes]; frame i is release number first + i."""
    high = (1 << (p.bits - 1)) - 1
    rows = []
    for i, u in enumerate(clipped):
        g = noise(p, noise_words(key, first + i, p.features))
        rows.append(pack(np.clip(u.astype(np.int64) + g, -high - 1, high), p.bits))
    return np.stack(rows) if rows else np.empty((0, p.packed_bytes), np.uint8)


def _quarter_round(x: list[int], a: int, b: int, c: int, d: int) -> None:
    for to, add, mix, by in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
        x[to] = (x[to] + x[add]) & _MASK32
        v = x[mix] ^ x[to]
        x[mix] = ((v << by) | (v >> (32 - by))) & _MASK32


def chacha20_block(key: bytes, nonce: bytes, counter: int) -> bytes:
    """One 64-byte ChaCha20 block (RFC 8439, 2.3): key 32 bytes, nonce 12 bytes."""
    state = [0x61707865, 0x3320646E, 0x79622D32, 0x6B206574]
    state += [int.from_bytes(key[i : i + 4], "little") for i in range(0, 32, 4)]
    state += [counter] + [int.from_bytes(nonce[i : i + 4], "little") for i in range(0, 12, 4)]
    x = list(state)
    for _ in range(10):
        for lane in ((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15)):
            _quarter_round(x, *lane)
        for lane in ((0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14)):
            _quarter_round(x, *lane)
    return b"".join(((a + b) & _MASK32).to_bytes(4, "little") for a, b in zip(x, state, strict=True))


def noise_words(key: bytes, release: int, count: int) -> np.ndarray:
    """`count` uint64 words for one release: nonce = 4 zero bytes + release number (8 bytes, little-endian)."""
    nonce = bytes(4) + release.to_bytes(8, "little")
    stream = b"".join(chacha20_block(key, nonce, i) for i in range((count + 7) // 8))
    return np.frombuffer(stream, dtype="<u8")[:count].astype(np.uint64)


def _overlaps(size: int, cells: int) -> np.ndarray:
    """int64 [cells, size]: overlap of source pixel i with output cell j, in units of 1 / cells of a pixel."""
    j, i = np.arange(cells)[:, None], np.arange(size)[None, :]
    return np.clip(np.minimum((j + 1) * size, (i + 1) * cells) - np.maximum(j * size, i * cells), 0, None)


class Preprocessor:
    """Luma frames -> encoder input, int8 [3, height, width]; formulas in `kernels/preprocess.hpp`."""

    def __init__(self, *, width: int = 128, height: int = 96, background_shift: int = 6, mask_floor: int = 64):
        self.width, self.height = width, height
        self.background_shift, self.mask_floor = background_shift, mask_floor
        self.reset()

    def reset(self) -> None:
        """Forgets all frames: the next one starts a new background."""
        self._previous: np.ndarray | None = None
        self._background: np.ndarray | None = None

    def process(self, luma: np.ndarray) -> np.ndarray:
        """luma uint8 [h, w] -> int8 [3, height, width]."""
        h, w = luma.shape
        total = _overlaps(h, self.height) @ luma.astype(np.int64) @ _overlaps(w, self.width).T
        a = (16 * total + h * w // 2) // (h * w)
        if self._background is None:
            self._previous, self._background = a, a << 8
        long = a - (self._background >> 8)
        weight = np.clip(np.abs(long) - self.mask_floor, 0, 128)
        channels = (
            (((a - 2048) >> 4) * weight) >> 7,
            np.clip((a - self._previous + 4) >> 3, -127, 127),
            np.clip((long + 4) >> 3, -127, 127),
        )
        self._background = self._background + (((a << 8) - self._background) >> self.background_shift)
        self._previous = a
        return np.stack(channels).astype(np.int8)
