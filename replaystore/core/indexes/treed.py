"""What the indexes over a tree share: the tree, and a tally of what is eligible."""

from __future__ import annotations

from typing import Generic, TypeVar

import numpy as np

from replaystore.core.indexes.protocol import Ids, Leaves
from replaystore.core.indexes.tally import Tally
from replaystore.core.rings import RingTree

Tree = TypeVar("Tree", bound=RingTree)


class TreeIndex(Generic[Tree]):
    """Keeps tree and tally in step; `draw` is in the subclass."""

    __slots__ = ("_tally", "_tree")

    def __init__(self, tree: Tree) -> None:
        self._tree, self._tally = tree, Tally()

    @property
    def total(self) -> float:
        """What the probabilities are shares of: 0 if and only if nothing is eligible."""
        return float(self._tally.count)

    @property
    def count(self) -> int:
        """How many ids are eligible."""
        return self._tally.count

    @property
    def nbytes(self) -> int:
        """Bytes of RAM of the index, the leaves not counted."""
        return self._tree.nbytes + self._tally.nbytes

    def rebuild(self, leaves: Leaves, origin: int, first: int, stop: int) -> None:
        """Reads all leaves of the window [first, stop) afresh."""
        self._tree.rebuild(leaves, origin, first, stop)
        self._tally.rebuild(leaves, origin, first, stop)

    def extend(self, leaves: Leaves, origin: int, first: int, stop: int) -> None:
        """Moves the window's end up to `stop` and its start to `first`; the new leaves are 0 or will be refreshed."""
        self._tree.extend(leaves, origin, first, stop)
        self._tally.extend(leaves, origin, first, stop)

    def drop(self, leaves: Leaves, origin: int, first: int) -> None:
        """Ids below `first` are gone; their leaves are never touched again."""
        self._tree.drop(leaves, origin, first)
        self._tally.drop(leaves, origin, first)

    def refresh(self, leaves: Leaves, origin: int, ids: Ids) -> None:
        """The leaves of `ids`, ``int64[n]``, changed: entered, updated or left (0). Ids outside the window are passed over."""
        ids = np.ascontiguousarray(ids, np.int64)
        self._tree.refresh(leaves, origin, ids)
        self._tally.refresh(leaves, origin, ids)

    def _check_enough(self, n: int) -> None:
        if n > self.count:
            raise ValueError(f"{n} different ids cannot be drawn: {self.count} are eligible")
