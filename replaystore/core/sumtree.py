"""A 64-ary sum tree over leaves that somebody else owns: a mapped column of float32, one per step id.

Only inner nodes are in memory: an eighth to a quarter of a byte per step. They are addressed by absolute id, in rings, so the window of
live ids slides for ever and nothing moves when it does. The ancestors of a changed leaf are summed afresh from their 64 children, so
rounding errors do not pile up. Knows nothing of priorities or anchors. The loops are in `replaystore.core.sumtree_kernels`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from replaystore.core import sumtree_kernels as kernels
from replaystore.core.random import State

Ids = npt.NDArray[np.int64]
Leaves = npt.NDArray[np.float32]


class SumTree:
    """Sums over the leaves of the live ids [first, stop).

    In every method ``leaves[i]`` belongs to id ``origin + i``; `origin` may differ from call to call, and `leaves` must reach from
    `first` to `stop`. Leaves are finite and not negative (`replaystore.core.indexes.sanitise`). Not safe for several threads at once.
    """

    __slots__ = ("_bases", "_first", "_masks", "_nodes", "_stop", "_total")

    def __init__(self) -> None:
        self._first = self._stop = 0
        self._allocate(0)

    @property
    def total(self) -> float:
        """Sum of all live leaves."""
        return self._total

    @property
    def nbytes(self) -> int:
        """Bytes of RAM of the inner nodes."""
        return self._nodes.nbytes

    def rebuild(self, leaves: Leaves, origin: int, first: int, stop: int) -> None:
        """Sums everything afresh, for the window [first, stop)."""
        self._first, self._stop = first, max(first, stop)
        self._allocate(self._needed())
        self.refresh_range(leaves, origin, first, stop)

    def extend(self, leaves: Leaves, origin: int, first: int, stop: int) -> None:
        """Moves the window's end up to `stop` and its start to `first`. The new leaves are 0, or will be refreshed.

        Where the rings are too short they double, which copies the inner nodes: a few milliseconds per 10^8 steps.
        """
        if first > self._first:
            self.drop(leaves, origin, first)
        if stop <= self._stop:
            return
        old_stop, self._stop = self._stop, stop
        levels = len(self._bases)
        if self._needed() > self._masks[1] + 1:
            self._double(old_stop)
        kernels.clear_new(self._nodes, self._bases, self._masks, self._first, old_stop, stop)
        if len(self._bases) > levels and old_stop > self._first:
            self._sum(leaves, origin, self._first, stop, levels)
        self._sum_top()

    def refresh(self, leaves: Leaves, origin: int, ids: Ids) -> None:
        """The leaves of `ids` (``(n,)``, any order, may repeat) changed. Ids outside the window are passed over."""
        self._check(leaves, origin)
        scratch = np.empty(len(ids), np.int64)
        kernels.sum_above(leaves, origin, self._nodes, self._bases, self._masks, self._first, self._stop, ids, scratch)
        self._sum_top()

    def refresh_range(self, leaves: Leaves, origin: int, start: int, stop: int) -> None:
        """The leaves of [start, stop) changed. Ids outside the window are passed over."""
        start, stop = max(start, self._first), min(stop, self._stop)
        if start < stop:
            self._sum(leaves, origin, start, stop, 1)
        self._sum_top()

    def drop(self, leaves: Leaves, origin: int, first: int) -> None:
        """Moves the window's start up to `first`: ids below count as 0 and their leaves are never looked at again."""
        if first <= self._first:
            return
        self._first, self._stop = first, max(first, self._stop)
        if first < self._stop:
            self._sum(leaves, origin, first, first + 1, 1)  # the one node of each level that `first` cuts
        self._sum_top()

    def draw(self, leaves: Leaves, origin: int, state: State, n: int, stratified: bool = True) -> tuple[Ids, npt.NDArray[np.float64]]:
        """`n` ids, each with probability leaf / total, and their leaves; a leaf of 0 is never drawn.

        Args:
            leaves: float32, ``leaves[i]`` belongs to id ``origin + i``.
            origin: id of the first element.
            state: random numbers, ``uint64[4]``, moves on.
            n: how many.
            stratified: one draw from each n-th of the total mass, in order (Schaul et al. 2016, appendix B.2.1), else independent ones.
                Either way the expected number of draws of a leaf is exactly ``n · leaf / total``.

        Returns:
            ids ``int64[n]`` and masses ``float64[n]``.

        Raises:
            ValueError: every leaf is 0.
        """
        if not self._total > 0.0:
            raise ValueError(f"every leaf of [{self._first}, {self._stop}) is 0: there is nothing to draw")
        self._check(leaves, origin)
        ids, masses = np.empty(n, np.int64), np.empty(n, np.float64)
        kernels.draw(leaves, origin, self._nodes, self._bases, self._masks, self._first, self._stop, state, stratified, ids, masses)
        kernels.take_masses(leaves, origin, ids, masses)
        return ids, masses

    def _sum(self, leaves: Leaves, origin: int, start: int, stop: int, level: int) -> None:
        self._check(leaves, origin)
        kernels.sum_range(leaves, origin, self._nodes, self._bases, self._masks, self._first, self._stop, start, stop, level)

    def _sum_top(self) -> None:
        self._total = float(kernels.sum_top(self._nodes, self._bases, self._masks, self._first, self._stop))

    def _check(self, leaves: Leaves, origin: int) -> None:
        """The kernels do not check bounds: a wrong window would be a crash."""
        if leaves.dtype != np.float32 or not origin <= self._first or self._stop - origin > len(leaves):
            raise ValueError(
                f"leaves must be float32 and reach from {self._first} to {self._stop}, "
                f"got {leaves.dtype} from {origin} to {origin + len(leaves)}"
            )

    def _needed(self) -> int:
        """Live nodes of level 1."""
        return ((self._stop - 1) >> 6) - (self._first >> 6) + 1 if self._stop > self._first else 0

    def _allocate(self, needed: int) -> None:
        """Rings for `needed` nodes of level 1 (0: as few as there can be), up to a level that never has more than 64."""
        sizes = [0, max(64, 1 << (needed - 1).bit_length() if needed else 0)]
        while sizes[1] >> (6 * (len(sizes) - 2)) > 32:  # a ring of 2^m nodes has at most 2^m / 64 + 1 parents
            sizes.append(max(64, sizes[1] >> (6 * (len(sizes) - 1)) << 1))
        self._masks = np.array(sizes, np.int64) - 1
        self._bases = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)
        self._nodes = np.zeros(sum(sizes), np.float64)
        self._total = 0.0

    def _double(self, old_stop: int) -> None:
        """Longer rings; the nodes of [first, old_stop) move over."""
        nodes, bases, masks = self._nodes, self._bases, self._masks
        self._allocate(self._needed())
        for level in range(1, len(bases) if old_stop > self._first else 1):
            begin, end = self._first >> (6 * level), ((old_stop - 1) >> (6 * level)) + 1
            while begin < end:  # stretches that are contiguous in the old ring; the new one is a multiple of it
                stretch = min(end - begin, int(masks[level]) + 1 - (begin & int(masks[level])))
                source, target = (
                    int(bases[level]) + (begin & int(masks[level])),
                    int(self._bases[level]) + (begin & int(self._masks[level])),
                )
                self._nodes[target : target + stretch] = nodes[source : source + stretch]
                begin += stretch
