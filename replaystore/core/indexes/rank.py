"""Rank-based prioritized draws (Schaul et al. 2016, section 3.3, and appendix B.2.1 for the approximate order)."""

from __future__ import annotations

from typing import Any

import numpy as np

from replaystore.core import rankheap as kernels
from replaystore.core.harmonic import harmonic, harmonic_table
from replaystore.core.indexes.protocol import Ids, Leaves, Probabilities
from replaystore.core.random import State
from replaystore.growing import Array, reserve

MOST_STEPS = 1 << 31
"""A window can be as long: places are int32."""

MOST_COPIED = 1 << 18
"""Entries up to which arrays are exactly as long as needed, and longer ones a copy."""

RESERVED = 1 << 28
"""Entries that arrays beyond that have addresses for: they become longer where they are."""


class RankIndex:
    """P(place k) = k ** −alpha / H, where places are those of a binary max-heap over the leaves and H makes the sum 1.

    A heap is an order nearly by size. It is put in exact order when as many leaves have changed as there are, and at `rebuild`; that
    takes 0.03 to 0.1 µs per entry. 12 bytes per step, up to 20 while it has just grown, and 8 more for the time of a sort.
    """

    __slots__ = ("_changed", "_first", "_keys", "_places", "_reserved", "_size", "_slots", "_stop", "_table", "alpha", "stratified")

    def __init__(self, alpha: float, stratified: bool = True) -> None:
        self.alpha, self.stratified = float(alpha), stratified
        self._table = harmonic_table(self.alpha)
        self._first = self._stop = self._size = self._changed = 0
        self._reserved: dict[Any, Array] = {}
        self._places: Array = np.zeros(64, np.int32)
        self._keys: Array = np.zeros(64, np.float32)
        self._slots: Array = np.zeros(64, np.uint32)

    @property
    def total(self) -> float:
        """H(count, alpha); 0 when nothing is eligible."""
        return float(harmonic(self._table, self.alpha, self._size))

    @property
    def count(self) -> int:
        """How many ids are eligible."""
        return self._size

    @property
    def nbytes(self) -> int:
        """Bytes of RAM of the index, the leaves not counted, nor 512 KiB for all indexes of the same alpha."""
        return self._places.nbytes + self._keys.nbytes + self._slots.nbytes

    def rebuild(self, leaves: Leaves, origin: int, first: int, stop: int) -> None:
        """Reads all leaves of the window [first, stop) afresh and sorts them."""
        self._first, self._stop = first, max(first, stop)
        self._check(leaves, origin)
        live = leaves[first - origin : self._stop - origin]
        room = max(64, int(np.count_nonzero(live > 0)))
        self._begin(_ring(self._stop - first), room)
        self._size = int(kernels.gather(leaves, origin, first, self._stop, self._keys, self._slots, len(self._places) - 1))
        self._sort()

    def extend(self, leaves: Leaves, origin: int, first: int, stop: int) -> None:
        """Moves the window's end up to `stop` and its start to `first`; the new leaves are 0 or will be refreshed."""
        self.drop(leaves, origin, first)
        if stop - self._first > len(self._places):
            old = len(self._places)
            self._places = self._longer(self._places, _ring(stop - self._first))
            start = self._first
            while start < self._stop:  # at most twice around the old ring
                end = min((start | (old - 1)) + 1, self._stop)
                if start & (len(self._places) - 1) & -old:
                    kernels.lengthen(start, end, old - 1, self._slots, self._places)
                start = end
        self._stop = max(stop, self._stop)

    def drop(self, leaves: Leaves, origin: int, first: int) -> None:
        """Ids below `first` are gone; their leaves are never touched again. One by one, or, where they are many, all at once."""
        if first <= self._first:
            return
        old, stop = self._first, self._stop
        self._first, self._stop = first, max(first, stop)
        if 8 * (min(first, stop) - old) > self._size:
            self._size = int(kernels.keep_from(old, first, self._keys, self._slots, self._places, self._size))
            self._sort()
        else:
            self._size, changed = kernels.remove_range(old, min(first, stop), self._keys, self._slots, self._places, self._size)
            self._note(changed)

    def refresh(self, leaves: Leaves, origin: int, ids: Ids) -> None:
        """The leaves of `ids`, ``int64[n]``, changed: entered, updated or left (0). Ids outside the window are passed over."""
        self._check(leaves, origin)
        ids = np.ascontiguousarray(ids, np.int64)
        needed = min(self._size + len(ids), self._stop - self._first)
        if needed > len(self._keys):
            room = min(max(needed, self._size // 4 * 5), len(self._places))
            self._keys, self._slots = self._longer(self._keys, room), self._longer(self._slots, room)
        self._size, changed = kernels.change(
            leaves, origin, self._first, self._stop, self._keys, self._slots, self._places, self._size, ids
        )
        self._note(changed)

    def draw(self, leaves: Leaves, origin: int, state: State, n: int) -> tuple[Ids, Probabilities]:
        """`n` draws with replacement, stratified or independent: ids, ``int64[n]``, and the probabilities of their places, ``float64[n]``.

        Raises:
            ValueError: nothing is eligible.
        """
        if not self._size:
            raise ValueError(f"every leaf of [{self._first}, {self._stop}) is 0: there is nothing to draw")
        ids, probabilities = np.empty(n, np.int64), np.empty(n)
        mask, table = len(self._places) - 1, self._table
        kernels.draw(self._first, self._slots, mask, self._size, table, self.alpha, state, self.stratified, ids, probabilities)
        return ids, probabilities

    @property
    def least(self) -> float:
        """The smallest probability that an id has: that of the last place."""
        return float(self._size**-self.alpha / self.total)

    def _begin(self, ring: int, room: int) -> None:
        """Arrays for a ring of places, all 0, and for `room` entries."""
        self._reserved = {}
        self._places = self._longer(np.zeros(0, np.int32), ring)
        self._keys, self._slots = self._longer(np.zeros(0, np.float32), room), self._longer(np.zeros(0, np.uint32), room)

    def _longer(self, array: Array, places: int) -> Array:
        """`array` with more places: zeros in those that were never in use."""
        reserved = self._reserved.get(array.dtype, array)
        if places > len(reserved):
            reserved = self._reserved[array.dtype] = reserve(places, RESERVED if places > MOST_COPIED else places, array.dtype)
            reserved[: len(array)] = array
        return reserved[:places]

    def _note(self, changed: int) -> None:
        self._changed += int(changed)
        if self._changed and self._changed >= self._size:
            self._sort()

    def _sort(self) -> None:
        keys, packed = self._keys.view(np.uint32), np.empty(self._size, np.uint64)
        kernels.pack(keys, self._slots, packed)
        packed.sort()
        kernels.unpack(packed, keys, self._slots, self._places)
        self._changed = 0

    def _check(self, leaves: Leaves, origin: int) -> None:
        """The kernels do not check bounds: a wrong window would be a crash."""
        if self._stop - self._first > MOST_STEPS:
            raise ValueError(f"a rank index holds at most {MOST_STEPS} steps, not {self._stop - self._first}")
        if leaves.dtype != np.float32 or not origin <= self._first or self._stop - origin > len(leaves):
            raise ValueError(
                f"leaves must be float32 and reach from {self._first} to {self._stop}, "
                f"got {leaves.dtype} from {origin} to {origin + len(leaves)}"
            )


def _ring(steps: int) -> int:
    return int(max(64, 1 << (steps - 1).bit_length() if steps else 0))
