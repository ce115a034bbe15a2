"""What the 64-ary trees have in common: inner nodes in rings, addressed by absolute id, over leaves that somebody else owns.

Level 0 are the leaves. Node k of level l ≥ 1 covers the nodes ``64 k … 64 k + 63`` below it, so the ids ``[k << 6 l, (k + 1) << 6 l)``. All
levels lie in one array; level l owns the ring of ``masks[l] + 1`` places (a power of two, at least 64) from ``bases[l]`` on, and node k is
at ``bases[l] + (k & masks[l])``. 64 siblings are aligned, hence always next to each other. So the window of live ids slides for ever and
nothing moves when it does. What is outside the window counts as nothing and is never read.

Every node follows from the live nodes below it, in a fixed order: however it was updated, and after every restart, it has the same bits.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from replaystore.core.jit import kernel
from replaystore.growing import spread, zeros

Ids = npt.NDArray[np.int64]
Leaves = npt.NDArray[np.float32]

MOST_COPIED = 1 << 14
"""Nodes of level 1 up to which rings are exactly as long as needed, and longer ones a copy: for 10^6 steps."""

RESERVED = 1 << 26
"""Nodes of level 1 that rings beyond that have addresses for, 4 · 10^9 steps: they double where they are."""


@kernel
def clear_new(nodes: Any, bases: Any, masks: Any, first: int, old_stop: int, stop: int, empty: float) -> None:
    """Empties the nodes that [old_stop, stop) adds to the window: their places may hold what was dropped long ago."""
    for level in range(1, bases.shape[0]):
        begin = first >> (6 * level)
        if old_stop > first:
            begin = ((old_stop - 1) >> (6 * level)) + 1
        for node in range(begin, ((stop - 1) >> (6 * level)) + 1):
            nodes[bases[level] + (node & masks[level])] = empty


@kernel
def top_level(first: int, stop: int) -> int:
    """The lowest level ≥ 1 with at most 64 live nodes: where draws begin, and what the total is the sum of."""
    level = 1
    while ((stop - 1) >> (6 * level)) - (first >> (6 * level)) >= 64:
        level += 1
    return level


@kernel
def live_children(first: int, stop: int, level: int, node: int) -> tuple[int, int]:
    """Which of the 64 children of `node` (of `level` ≥ 1) are in the window, as a range."""
    bits, begin = 6 * (level - 1), node << 6
    return max((first >> bits) - begin, 0), min(((stop - 1) >> bits) + 1 - begin, 64)


@kernel
def keep_live(ids: Any, first: int, stop: int, scratch: Any) -> int:
    """Copies the ids of the window to `scratch`, ``int64[len(ids)]``; returns how many."""
    count = 0
    for i in range(ids.shape[0]):
        if first <= ids[i] < stop:
            scratch[count] = ids[i]
            count += 1
    return count


@kernel
def to_parents(scratch: Any, count: int) -> tuple[int, int, int]:
    """Turns `count` nodes into their parents, in place; returns how many are left, the lowest, and one more than the highest.

    Neighbours are often siblings, because blocks come in order: those become one. If no fewer are left than there are nodes in the
    range, it is the range that should be worked through, each node once.
    """
    kept = 0
    last = lowest = highest = -1
    for i in range(count):
        node = scratch[i] >> 6
        if node != last:
            scratch[kept] = last = node
            lowest = node if kept == 0 else min(lowest, node)
            highest = max(highest, node)
            kept += 1
    return kept, lowest, highest + 1


class RingTree:
    """The window and the rings. What a node holds, and how it follows from its children, is in the subclass.

    In every method ``leaves[i]`` belongs to id ``origin + i``; `origin` may differ from call to call, and `leaves` must reach from
    `first` to `stop`. Leaves are finite and not negative (`replaystore.core.indexes.sanitise`). Not safe for several threads at once.
    """

    __slots__ = ("_bases", "_first", "_masks", "_reserved", "_rings", "_stop")

    EMPTY: ClassVar[tuple[tuple[type[np.generic], float], ...]]
    """The arrays of nodes: for each its type, and the value of a node that covers nothing."""

    LEAVES: ClassVar[tuple[type[np.generic], ...]] = (np.float32,)
    """Types of leaves."""

    def __init__(self) -> None:
        self._first = self._stop = 0
        self._allocate(0)

    @property
    def nbytes(self) -> int:
        """Bytes of RAM of the inner nodes."""
        return int((self._masks + 1).sum()) * sum(nodes.itemsize for nodes in self._rings)

    def rebuild(self, leaves: Leaves, origin: int, first: int, stop: int) -> None:
        """Reads all leaves afresh, for the window [first, stop)."""
        self._first, self._stop = first, max(first, stop)
        self._allocate(self._needed())
        self.refresh_range(leaves, origin, first, stop)

    def extend(self, leaves: Leaves, origin: int, first: int, stop: int) -> None:
        """Moves the window's end up to `stop` and its start to `first`. The new leaves are 0, or will be refreshed.

        Rings that are too short double. Those of many steps do so where they are: only nodes from the end of a ring on that had begun
        anew at its start move, which without retention are none.
        """
        if first > self._first:
            self.drop(leaves, origin, first)
        if stop <= self._stop:
            return
        old_stop, self._stop = self._stop, stop
        levels = len(self._bases)
        if self._needed() > self._masks[1] + 1:
            self._double(old_stop)
        for nodes, (_, empty) in zip(self._rings, self.EMPTY, strict=True):
            clear_new(nodes, self._bases, self._masks, self._first, old_stop, stop, empty)
        if len(self._bases) > levels and old_stop > self._first:
            self._check(leaves, origin)
            self._work_range(leaves, origin, self._first, stop, levels)
        self._work_top()

    def refresh(self, leaves: Leaves, origin: int, ids: Ids) -> None:
        """The leaves of `ids` (``int64[n]``, any order, may repeat) changed. Ids outside the window are passed over."""
        self._check(leaves, origin)
        self._work_above(leaves, origin, ids)
        self._work_top()

    def refresh_range(self, leaves: Leaves, origin: int, start: int, stop: int) -> None:
        """The leaves of [start, stop) changed. Ids outside the window are passed over."""
        start, stop = max(start, self._first), min(stop, self._stop)
        if start < stop:
            self._check(leaves, origin)
            self._work_range(leaves, origin, start, stop, 1)
        self._work_top()

    def drop(self, leaves: Leaves, origin: int, first: int) -> None:
        """Moves the window's start up to `first`: ids below count as nothing and their leaves are never looked at again."""
        if first <= self._first:
            return
        self._first, self._stop = first, max(first, self._stop)
        if first < self._stop:
            self._check(leaves, origin)
            self._work_range(leaves, origin, first, first + 1, 1)  # the one node of each level that `first` cuts
        self._work_top()

    def _work_range(self, leaves: Leaves, origin: int, start: int, stop: int, level: int) -> None:
        """Works out, from `level` upwards, every node that covers an id of [start, stop), which is not empty and lies in the window."""
        raise NotImplementedError

    def _work_above(self, leaves: Leaves, origin: int, ids: Ids) -> None:
        """Works out every node above one of `ids`; ids outside the window are passed over."""
        raise NotImplementedError

    def _work_top(self) -> None:
        """Works out what the whole window comes to."""
        raise NotImplementedError

    def _check(self, leaves: Leaves, origin: int) -> None:
        """The kernels do not check bounds: a wrong window would be a crash."""
        if leaves.dtype.type not in self.LEAVES or not origin <= self._first or self._stop - origin > len(leaves):
            raise ValueError(
                f"leaves must be {' or '.join(kind.__name__ for kind in self.LEAVES)} and reach from {self._first} to {self._stop}, "
                f"got {leaves.dtype} from {origin} to {origin + len(leaves)}"
            )

    def _needed(self) -> int:
        """Live nodes of level 1."""
        return ((self._stop - 1) >> 6) - (self._first >> 6) + 1 if self._stop > self._first else 0

    def _allocate(self, needed: int) -> None:
        """New rings for `needed` nodes of level 1, of which every node is to be worked out."""
        sizes = _sizes(needed)
        longer = _sizes(max(needed, RESERVED)) if sizes[1] > MOST_COPIED else sizes
        for reserved in (longer, sizes):
            try:
                self._rings: tuple[npt.NDArray[Any], ...] = tuple(zeros(sum(reserved), kind) for kind, _ in self.EMPTY)
                break
            except MemoryError:
                if reserved is sizes:
                    raise
        self._reserved = reserved
        self._lay_out(sizes)

    def _lay_out(self, sizes: list[int]) -> None:
        self._masks = np.array(sizes, np.int64) - 1
        self._bases = np.concatenate([[0], np.cumsum(self._reserved)[:-1]]).astype(np.int64)[: len(sizes)]

    def _double(self, old_stop: int) -> None:
        """Longer rings; the nodes of [first, old_stop) move over."""
        old, bases, masks = self._rings, self._bases, self._masks
        sizes = _sizes(self._needed())
        if sizes[1] <= self._reserved[1]:
            self._lay_out(sizes)
        else:
            self._allocate(self._needed())
        for level in range(1, len(bases) if old_stop > self._first else 1):
            begin, end = self._first >> (6 * level), ((old_stop - 1) >> (6 * level)) + 1
            for nodes, before in zip(self._rings, old, strict=True):
                to, mask = int(self._bases[level]), int(self._masks[level])
                spread(before, int(bases[level]), int(masks[level]), nodes, to, mask, begin, end)


def _sizes(needed: int) -> list[int]:
    """Places of each level's ring for `needed` nodes of level 1 (0: as few as there can be), up to a level that never has more than 64."""
    sizes = [0, max(64, 1 << (needed - 1).bit_length() if needed else 0)]
    while sizes[1] >> (6 * (len(sizes) - 2)) > 32:  # a ring of 2^m nodes has at most 2^m / 64 + 1 parents
        sizes.append(max(64, sizes[1] >> (6 * (len(sizes) - 1)) << 1))
    return sizes
