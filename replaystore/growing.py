"""Memory for what grows: long ranges of addresses that take memory page by page, as they are used, and rings that become longer in them.

An array that is reserved much longer than it is needs no copy to grow, so nobody waits for one under a lock.
"""

from __future__ import annotations

import contextlib
import mmap
import sys
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

LEAST_RESERVED_BYTES = 1 << 18
"""Smaller arrays are copied when they grow: that takes tens of microseconds."""

_FLAGS = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000 if sys.platform == "linux" else 0  # the last: MAP_NORESERVE


def zeros(places: int, kind: Any) -> Array:
    """``kind[places]`` of zeros. Where it is long, on Linux, a page takes memory from its first change on; elsewhere that is up to NumPy.

    Raises:
        MemoryError: there are not so many addresses (``ulimit -v``), or not so much memory.
    """
    length = places * np.dtype(kind).itemsize
    if not _FLAGS or length < LEAST_RESERVED_BYTES:
        return np.zeros(places, kind)
    try:
        memory = mmap.mmap(-1, length, flags=_FLAGS)
    except OSError as error:
        raise MemoryError(f"{length} bytes of addresses cannot be had ({error.strerror}): check 'ulimit -v'") from error
    with contextlib.suppress(OSError, AttributeError):  # not every kernel has large pages
        memory.madvise(mmap.MADV_NOHUGEPAGE)  # one would be 2 MB for the few nodes of an upper level, and is no faster to draw from
    return np.frombuffer(memory, kind)


def reserve(places: int, most: int, kind: Any) -> Array:
    """``kind[most]`` of zeros, or ``kind[places]`` where the system does not give so many addresses."""
    if most > places:
        with contextlib.suppress(MemoryError):
            return zeros(most, kind)
    return zeros(places, kind)


def spread(old: Array, old_base: int, old_mask: int, new: Array, base: int, mask: int, begin: int, end: int) -> None:
    """Brings the elements [begin, end) of a ring to their places in a ring that is as long or longer.

    Element k is at ``base + (k & mask)``; masks are powers of two less one, and all of [begin, end) fits into the old ring. Both may lie in
    the same array with the same base: then only those move whose place is another, and none to a place that was in use.
    """
    while begin < end:
        stretch = min(end - begin, old_mask + 1 - (begin & old_mask))  # contiguous in both
        source, target = old_base + (begin & old_mask), base + (begin & mask)
        if new is not old or source != target:
            new[target : target + stretch] = old[source : source + stretch]
        begin += stretch
