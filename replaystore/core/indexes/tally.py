"""How many ids are eligible: one byte per 64 ids, in a ring addressed by absolute id like the trees' nodes."""

from __future__ import annotations

from typing import Any

import numpy as np

from replaystore.core.indexes.protocol import Ids, Leaves
from replaystore.core.jit import kernel
from replaystore.growing import Array, reserve, spread

MOST_COPIED = 1 << 18
"""Blocks up to which a longer ring is a copy."""

RESERVED = 1 << 28
"""Blocks that a ring beyond that has addresses for, 2 · 10^10 steps: it doubles where it is."""


@kernel
def _count_block(leaves: Any, origin: int, first: int, stop: int, block: int) -> int:
    begin, end = max(block << 6, first) - origin, min((block + 1) << 6, stop) - origin
    count = 0
    for i in range(begin, end):
        count += leaves[i] > 0
    return count


@kernel
def _recount_range(leaves: Any, origin: int, counts: Any, first: int, stop: int, begin: int, end: int) -> int:
    change, mask = 0, counts.shape[0] - 1
    for block in range(begin, end):
        count = _count_block(leaves, origin, first, stop, block)
        change += count - counts[block & mask]
        counts[block & mask] = count
    return change


@kernel
def _recount(leaves: Any, origin: int, counts: Any, first: int, stop: int, ids: Any) -> int:
    change, last = 0, -1
    for i in range(ids.shape[0]):
        block = ids[i] >> 6
        if block != last and first <= ids[i] < stop:
            last = block
            change += _recount_range(leaves, origin, counts, first, stop, block, block + 1)
    return change


class Tally:
    """The number of leaves above 0 in the window [first, stop). Same calls as an index; bounds are the caller's to check."""

    __slots__ = ("_counts", "_first", "_reserved", "_stop", "count")

    def __init__(self) -> None:
        self._first = self._stop = 0
        self._reserved: Array = np.zeros(64, np.uint8)
        self._counts = self._reserved
        self.count = 0
        """How many there are."""

    @property
    def nbytes(self) -> int:
        """Bytes of RAM."""
        return self._counts.nbytes

    def rebuild(self, leaves: Leaves, origin: int, first: int, stop: int) -> None:
        """Counts everything afresh, for the window [first, stop)."""
        self._first, self._stop = first, max(first, stop)
        begin, end = self._blocks(self._stop)
        self._begin(_ring(end - begin))
        self.count = int(_recount_range(leaves, origin, self._counts, self._first, self._stop, begin, end))

    def extend(self, leaves: Leaves, origin: int, first: int, stop: int) -> None:
        """Moves the window's end up to `stop` and its start to `first`; the new leaves are 0 or will be refreshed."""
        self.drop(leaves, origin, first)
        if stop <= self._stop:
            return
        begin, old_end = self._blocks(self._stop)
        begin, end = self._blocks(stop)
        self._stop = stop
        if end - begin > len(self._counts):
            old, longer = self._counts, _ring(end - begin)
            if longer <= len(self._reserved):
                self._counts = self._reserved[:longer]
            else:
                self._begin(longer)
            spread(old, 0, len(old) - 1, self._counts, 0, len(self._counts) - 1, begin, old_end)
        self._counts[np.arange(old_end, end) & (len(self._counts) - 1)] = 0

    def drop(self, leaves: Leaves, origin: int, first: int) -> None:
        """Ids below `first` are gone."""
        if first <= self._first:
            return
        begin, end = self._blocks(self._stop)
        self._first, self._stop = first, max(first, self._stop)
        cut = min(first >> 6, end)
        gone = np.arange(begin, cut)
        self.count -= int(self._counts[gone & (len(self._counts) - 1)].sum())
        if cut < end:
            self.count += int(_recount_range(leaves, origin, self._counts, self._first, self._stop, cut, cut + 1))

    def refresh(self, leaves: Leaves, origin: int, ids: Ids) -> None:
        """The leaves of `ids`, ``int64[n]``, changed. Ids outside the window are passed over."""
        self.count += int(_recount(leaves, origin, self._counts, self._first, self._stop, ids))

    def _begin(self, blocks: int) -> None:
        """A ring of `blocks`, none of which has been counted."""
        self._reserved = reserve(blocks, RESERVED if blocks > MOST_COPIED else blocks, np.uint8)
        self._counts = self._reserved[:blocks]

    def _blocks(self, stop: int) -> tuple[int, int]:
        """The blocks of [first, stop), as a range; none when that is empty."""
        return self._first >> 6, ((stop - 1) >> 6) + 1 if stop > self._first else self._first >> 6


def _ring(blocks: int) -> int:
    return int(max(64, 1 << (blocks - 1).bit_length() if blocks else 0))
