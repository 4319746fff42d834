"""How this process treats memory that it has freed."""

from __future__ import annotations

import ctypes

# mallopt(3).
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def keep_freed_memory() -> None:
    """Lets glibc keep what is freed instead of handing it back: every batch is as large as the last, and new pages are slow."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
