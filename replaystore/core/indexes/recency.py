"""Draws that favour what is new: an exponential half-life in steps, and the newest in every batch (Zhang & Sutton 2017)."""

from __future__ import annotations

import numpy as np

from replaystore.core.decay import DecayTree
from replaystore.core.indexes.protocol import Ids, Leaves, Probabilities
from replaystore.core.indexes.treed import TreeIndex
from replaystore.core.random import State


class RecencyIndex(TreeIndex[DecayTree]):
    """The `newest` newest eligible ids, then independent draws of P(i) ∝ 2 ** (−(stop − 1 − i) / half_life). 0.27 to 0.53 bytes per step.

    Only a leaf's being above 0 counts, so leaves may be int32 or uint8 too: the column ``replay/successor`` itself.
    """

    __slots__ = ("newest",)

    def __init__(self, half_life: float | None, newest: int = 0) -> None:
        """`half_life` in steps, above 0; None: every eligible id as likely as any other."""
        super().__init__(DecayTree(half_life))
        self.newest = newest
        """How many of the newest a batch begins with, newest first; fewer where a batch is smaller, or fewer are eligible."""

    def draw(self, leaves: Leaves, origin: int, state: State, n: int) -> tuple[Ids, Probabilities]:
        """`n` ids, ``int64[n]``, and for each the mean share of the batch that is this id's, ``float64[n]``.

        With k newest and n − k draws of probability p that is ([it is one of the k newest] + (n − k) p) / n.

        Raises:
            ValueError: nothing is eligible.
        """
        ids = np.empty(n, np.int64)
        newest = self._tree.newest(leaves, origin, min(self.newest, n))
        k = len(newest)
        ids[:k] = newest
        ids[k:] = self._tree.draw(leaves, origin, state, n - k)
        probabilities = self._tree.shares(ids)
        if k:
            probabilities *= n - k
            probabilities += ids >= newest[-1]
            probabilities /= n
        return ids, probabilities

    def least(self, leaves: Leaves, origin: int, n: int) -> float:
        """The smallest probability that `draw` of `n` could give an id: the oldest's, or 1 / n where only the newest are taken."""
        k = min(self.newest, n, self.count)
        if k == n or k == self.count:
            p = float(self._tree.shares(self._tree.oldest(leaves, origin))[0]) if k < n else 0.0
            return (1.0 + (n - k) * p) / n
        return float(self._tree.shares(self._tree.oldest(leaves, origin))[0]) * (n - k) / n
