"""A 64-ary sum tree over leaves that somebody else owns: a mapped column of float32, one per step id.

Only inner nodes are in memory (`replaystore.core.rings`): an eighth to a quarter of a byte per step. The ancestors of a changed leaf are
summed afresh from their 64 children, so rounding errors do not pile up. Knows nothing of priorities or anchors. The loops are in
`replaystore.core.sumtree_kernels` and `replaystore.core.descent`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from replaystore.core import sumtree_kernels as kernels
from replaystore.core.descent import draw
from replaystore.core.random import State
from replaystore.core.rings import Ids, Leaves, RingTree

__all__ = ["Ids", "Leaves", "SumTree"]


class SumTree(RingTree):
    """Sums over the leaves of the live ids [first, stop)."""

    __slots__ = ("_total",)

    EMPTY = ((np.float64, 0.0),)

    def __init__(self) -> None:
        super().__init__()
        self._total = 0.0

    @property
    def total(self) -> float:
        """Sum of all live leaves."""
        return self._total

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
        self._check_mass()
        self._check(leaves, origin)
        ids, masses = np.empty(n, np.int64), np.empty(n, np.float64)
        draw(leaves, origin, self._rings[0], self._bases, self._masks, self._first, self._stop, state, stratified, ids, masses)
        return ids, masses

    def find(self, leaves: Leaves, origin: int, targets: npt.NDArray[np.float64]) -> Ids:
        """The ids, ``int64[n]``, at the cumulative masses `targets`, ``float64[n]``: where the sum of the leaves so far first exceeds it.

        With leaves of 1.0, target k is the k-th id that has one. A target at or beyond the total finds the last id with mass.

        Raises:
            ValueError: every leaf is 0.
        """
        self._check_mass()
        self._check(leaves, origin)
        ids = np.empty(len(targets), np.int64)
        left = np.array(targets, np.float64)
        kernels.find(leaves, origin, self._rings[0], self._bases, self._masks, self._first, self._stop, ids, left)
        return ids

    def scan(self, leaves: Leaves, origin: int, n: int, newest_first: bool) -> Ids:
        """The first (or last) `n` ids with mass, in order, ``int64[<= n]``: fewer where there are fewer."""
        self._check(leaves, origin)
        ids = np.empty(n, np.int64)
        arrays = (self._rings[0], self._bases, self._masks)
        return ids[: kernels.scan(leaves, origin, *arrays, self._first, self._stop, newest_first, ids)]

    def fill(self, leaves: Leaves, origin: int, marks: npt.NDArray[Any]) -> None:
        """Sets every leaf of the window to 1 where `marks`, ``marks[i]`` for id ``origin + i``, is above 0, to 0 where it is not."""
        self._check(leaves, origin)
        if len(marks) < self._stop - origin:
            raise ValueError(f"marks must reach to {self._stop}, got {origin} to {origin + len(marks)}")
        if self._stop > self._first:
            kernels.fill(leaves, origin, marks, self._rings[0], self._bases, self._masks, self._first, self._stop)
            self._work_range(leaves, origin, self._first, self._stop, 2)
        self._work_top()

    def _check_mass(self) -> None:
        if not self._total > 0.0:
            raise ValueError(f"every leaf of [{self._first}, {self._stop}) is 0: there is nothing to draw")

    def _work_range(self, leaves: Leaves, origin: int, start: int, stop: int, level: int) -> None:
        kernels.sum_range(leaves, origin, self._rings[0], self._bases, self._masks, self._first, self._stop, start, stop, level)

    def _work_above(self, leaves: Leaves, origin: int, ids: Ids) -> None:
        scratch = np.empty(len(ids), np.int64)
        kernels.sum_above(leaves, origin, self._rings[0], self._bases, self._masks, self._first, self._stop, ids, scratch)

    def _work_top(self) -> None:
        self._total = float(kernels.sum_top(self._rings[0], self._bases, self._masks, self._first, self._stop))
