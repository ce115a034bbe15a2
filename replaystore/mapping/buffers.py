"""Buffers used again: copying into fresh pages is several times slower than into pages that are there already."""

from __future__ import annotations

import math
import sys
import threading
from typing import Any

import numpy as np
import numpy.typing as npt

LARGE_BYTES = 1 << 17
"""Below this the allocator reuses memory by itself."""

KEPT_PER_SIZE = 8
KEPT_SIZES = 16


class BufferPool:
    """Hands out arrays over memory that nobody uses any more.

    A buffer is free again when no array over it is left, which its reference count tells; there is nothing to give back.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._buffers: dict[int, list[npt.NDArray[np.uint8]]] = {}
        self._unused = self._references_of_unused()

    @staticmethod
    def _references_of_unused() -> int:
        pool = [np.empty(1, np.uint8)]
        for buffer in pool:
            return sys.getrefcount(buffer)
        raise AssertionError

    def take(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        """An array of any content."""
        size = math.prod(shape) * dtype.itemsize
        if size < LARGE_BYTES:
            return np.empty(shape, dtype)
        step = 1 << (size.bit_length() - 4)
        rounded = -(-size // step) * step  # batches of episodes differ a little every time
        with self._lock:
            if rounded not in self._buffers and len(self._buffers) >= KEPT_SIZES:
                self._buffers.pop(next(iter(self._buffers)))
            kept = self._buffers.setdefault(rounded, [])
            for buffer in kept:
                if sys.getrefcount(buffer) == self._unused:
                    return buffer[:size].view(dtype).reshape(shape)
            fresh = np.empty(rounded, np.uint8)
            if len(kept) < KEPT_PER_SIZE:
                kept.append(fresh)
            return fresh[:size].view(dtype).reshape(shape)
