"""Draws in proportion to the leaves, with replacement."""

from __future__ import annotations

from replaystore.core.indexes.protocol import Ids, Leaves, Probabilities
from replaystore.core.indexes.treed import TreeIndex
from replaystore.core.random import State
from replaystore.core.sumtree import SumTree


class ProportionalIndex(TreeIndex[SumTree]):
    """P(i) ∝ leaf. With leaves of 1.0: uniform over them. About 0.14 to 0.28 bytes per step."""

    __slots__ = ("stratified",)

    def __init__(self, stratified: bool = True) -> None:
        super().__init__(SumTree())
        self.stratified = stratified
        """One draw from each n-th of the mass, or independent draws; the probabilities are the same."""

    @property
    def total(self) -> float:
        """Sum of the leaves."""
        return self._tree.total

    def draw(self, leaves: Leaves, origin: int, state: State, n: int) -> tuple[Ids, Probabilities]:
        """`n` ids, ``int64[n]``, and their probabilities, leaf / total, ``float64[n]``.

        Raises:
            ValueError: nothing is eligible.
        """
        ids, masses = self._tree.draw(leaves, origin, state, n, self.stratified)
        masses /= self._tree.total
        return ids, masses
