"""Rows that are not in memory: the pages of a whole batch are asked for in one call, so that the disk has all of its reads at once.

Mapped columns are read page by page as they are touched, one after the other, unless the pages were asked for before. Asking costs about
as much as gathering a batch that is in memory; so it is done only while something is missing, which is found out, not configured: pages
are probed (mincore) while asking, and when all were there for a while that ends; then the process's major page faults are looked at now
and then, and when there are some it begins again. Where the system has none of this (not Linux), nothing is asked for.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

if sys.platform != "win32":
    import resource

Array = npt.NDArray[Any]
Addresses = npt.NDArray[np.int64]
Part = tuple[Array, npt.NDArray[np.int64]]

LOOKED_EVERY = 16
"""Batches between two looks at the page faults, while everything seems to be in memory."""

MOST_FAULTS = 8 * LOOKED_EVERY
"""More major faults than these in that time cost more than asking does."""

PROBES = 8
"""Pages of a batch that are looked at while asking."""

QUIET_AFTER = 32
"""Batches in a row with all probed pages in memory after which asking ends."""

MOST_RANGES = 1024
"""That one call takes (UIO_MAXIOV)."""

SUPPORTED = sys.platform == "linux"

_PAGE = mmap.PAGESIZE
_NOWHERE = np.zeros(0, np.int64)
_WILLNEED, _POPULATE_READ, _POPULATE_WRITE = 3, 22, 23
_PROCESS_MADVISE = 440  # on every architecture
_libc = ctypes.CDLL(None, use_errno=True)
if SUPPORTED:
    _libc.syscall.restype = ctypes.c_long
    _libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    _libc.mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)


def major_faults() -> int:
    """Page faults of this process that had to wait for the disk, so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_majflt


def page_ranges(parts: Iterable[Part], block_bytes: int = _PAGE) -> tuple[Addresses, Addresses]:
    """The pages that elements of arrays lie on, as ranges of whole blocks: ascending, none touching another.

    Args:
        parts: arrays ``(rows, …)``, C-contiguous, and places in them, of any shape.
        block_bytes: a power of two, at least a page.

    Returns:
        Addresses and lengths in bytes, ``int64[n]`` each.
    """
    starts, stops = [_NOWHERE], [_NOWHERE]
    for array, places in parts:
        size = array.strides[0]
        begin = array.__array_interface__["data"][0] + places.reshape(-1).astype(np.int64, copy=False) * size
        starts.append(begin & -block_bytes)
        stops.append((begin + (size + block_bytes - 1)) & -block_bytes)
    low, high = np.concatenate(starts), np.concatenate(stops)
    order = np.argsort(low)
    low, high = low[order], np.maximum.accumulate(high[order])
    begins = np.flatnonzero(np.append(True, low[1:] > high[:-1])[: len(low)])
    low = low[begins]
    return low, high[np.append(begins[1:], len(order))[: len(low)] - 1] - low


def ask(starts: Addresses, lengths: Addresses) -> None:
    """Has the kernel read the pages of mapped ranges that are not in memory, all at once. It is no error if it will not."""
    vectors = np.empty((len(starts), 2), np.uint64)
    vectors[:, 0], vectors[:, 1] = starts, lengths
    try:
        process = os.pidfd_open(os.getpid())
    except (AttributeError, OSError):  # unknown here, not allowed, or no descriptor is left: one by one
        for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
            _libc.madvise(start, length, _WILLNEED)
        return
    try:
        for begin in range(0, len(vectors), MOST_RANGES):
            some = vectors[begin : begin + MOST_RANGES]
            advised = _libc.syscall(
                _PROCESS_MADVISE, process, ctypes.c_void_p(some.ctypes.data), ctypes.c_size_t(len(some)), _WILLNEED, ctypes.c_uint(0)
            )
            if advised != int(some[:, 1].sum()):  # not allowed here, or it stopped at something: one by one
                for start, length in some.tolist():
                    _libc.madvise(start, length, _WILLNEED)
    finally:
        os.close(process)


def will_need(rows: Array) -> Array:
    """Has the kernel read mapped `rows`, C-contiguous, ahead, because they are about to be read in order; returns them. It is no error if
    it will not."""
    _advise(rows, _WILLNEED)
    return rows


def populate(rows: Array, *, write: bool = False) -> bool:
    """Reads mapped `rows`, C-contiguous, into memory and into the page table; with `write` as if they were written, which marks their pages
    as changed and saves the fault on their first change. False where the system cannot, or a file has become too short."""
    return _advise(rows, _POPULATE_WRITE if write else _POPULATE_READ)


def _advise(rows: Array, advice: int) -> bool:
    if not SUPPORTED or not rows.nbytes:
        return SUPPORTED
    start = rows.__array_interface__["data"][0]
    return bool(_libc.madvise(start & -_PAGE, rows.nbytes + (start & (_PAGE - 1)), advice) == 0)


def resident_share(rows: Array) -> float:
    """Which part of the pages of mapped `rows`, C-contiguous, is in memory, 0 to 1; 0 where the system does not say."""
    if not SUPPORTED or not rows.nbytes:
        return 0.0
    start = rows.__array_interface__["data"][0]
    length = rows.nbytes + (start & (_PAGE - 1))
    found = np.zeros(-(-length // _PAGE), np.uint8)
    return float((found & 1).mean()) if _libc.mincore(start & -_PAGE, length, found.ctypes.data) == 0 else 0.0


def in_memory(start: int) -> bool:
    """Whether the page at an address is. Files that are not ours to write always seem to be."""
    found = ctypes.c_ubyte(1)
    return _libc.mincore(start, _PAGE, ctypes.byref(found)) != 0 or bool(found.value & 1)


class Residency:
    """Whether batches from some columns find their rows in memory. One per kind of reader; calls of several threads may overlap."""

    __slots__ = ("_batches", "_faults", "_quiet", "asking")

    def __init__(self) -> None:
        self.asking = SUPPORTED
        """Whether pages are asked for at present."""
        self._batches = self._quiet = self._faults = 0

    def ahead(self, parts: Callable[[], Iterable[Part]], block_bytes: int = _PAGE) -> None:
        """Asks for the rows of a batch, if some like them were not in memory lately; to be called once per batch, before they are touched.

        Args:
            parts: as for `page_ranges`, called only then; all rows must be mapped.
            block_bytes: as for `page_ranges`; what is not mapped around the rows is passed over.
        """
        if not self.asking:
            self._batches += 1
            if self._batches % LOOKED_EVERY or not self._missed():
                return
        self._ask(*page_ranges(parts(), block_bytes))

    def _missed(self) -> bool:
        faults = major_faults()
        fresh, self._faults = faults - self._faults, faults
        self.asking = SUPPORTED and fresh > MOST_FAULTS
        return self.asking

    def _ask(self, starts: Addresses, lengths: Addresses) -> None:
        if not len(starts):
            return
        self._batches += 1
        chosen = (self._batches + np.arange(PROBES) * max(1, len(starts) // PROBES)) % len(starts)
        probes = starts[chosen] + (self._batches + np.arange(PROBES)) % (lengths[chosen] // _PAGE) * _PAGE
        self._quiet = self._quiet + 1 if all(in_memory(start) for start in probes.tolist()) else 0
        ask(starts, lengths)
        if self._quiet >= QUIET_AFTER:
            self.asking, self._quiet, self._faults = False, 0, major_faults()
