"""The ids of the largest or the smallest leaves."""

from __future__ import annotations

import numpy as np

from replaystore.core.extremum import ExtremumTree
from replaystore.core.indexes.protocol import Ids, Leaves, Probabilities
from replaystore.core.indexes.treed import TreeIndex
from replaystore.core.random import State


class HeapIndex(TreeIndex[ExtremumTree]):
    """The most extreme ids in order, among equals the oldest first. About 0.08 to 0.16 bytes per step."""

    __slots__ = ()

    def __init__(self, largest: bool) -> None:
        super().__init__(ExtremumTree(largest))

    @property
    def value(self) -> float:
        """The largest, or smallest, leaf above 0; 0 when there is none."""
        return self._tree.value

    def draw(self, leaves: Leaves, origin: int, state: State, n: int) -> tuple[Ids, Probabilities]:
        """`n` different ids in order, ``int64[n]``; probabilities 1, ``float64[n]``. Takes no random numbers.

        Raises:
            ValueError: fewer than `n` are eligible.
        """
        self._check_enough(n)
        return self._tree.take(leaves, origin, n), np.ones(n)
