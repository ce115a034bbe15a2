"""Selectors without leaves, over all anchors of a table: the successors say who is one."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from replaystore.core.indexes import NewestAnchors, OldestAnchors, RecencyIndex, UniformIndex
from replaystore.engine.rows import Rows
from replaystore.engine.selection.masses import ones
from replaystore.schema.selectors import Fifo, FreeSelector, Lifo, Recency

Array = npt.NDArray[Any]
Ids = npt.NDArray[np.int64]
Probabilities = npt.NDArray[np.float64]
SUCCESSOR = "replay/successor"


class _Whole:
    even = True

    @property
    def nbytes(self) -> int:
        """RAM of the index."""
        return 0

    def enter(self, rows: Rows, ids: Ids) -> None:
        """`ids` became anchors."""

    def leave(self, rows: Rows, ids: Ids) -> None:
        """`ids` are no anchors any more."""

    def drop(self, rows: Rows, first: int) -> None:
        """Steps below `first` are no more."""

    def lacks(self, anchors: int, n: int) -> bool:
        """Whether `n` cannot be drawn now."""
        return not anchors

    def mass(self, anchors: int) -> float:
        """Every anchor counts alike."""
        return float(anchors)

    def priorities(self, rows: Rows, ids: Ids) -> npt.NDArray[np.float32]:
        """All 1."""
        return ones(len(ids))

    def least(self, rows: Rows, anchors: int, n: int) -> float:
        """The smallest probability that any anchor has."""
        return 1.0 / anchors


class AllAlike(_Whole):
    """Uniform."""

    def draw(self, rows: Rows, anchors: int, rng: Array, n: int) -> tuple[Ids, Probabilities]:
        """`n` anchors and the probability of each."""
        ids = UniformIndex.draw(rows.array(SUCCESSOR), rows.origin, rows.first, rows.stop, anchors, rng, n)
        probabilities = np.empty(n)
        probabilities.fill(1.0 / anchors)
        return ids, probabilities


class InOrder(_Whole):
    """Fifo and Lifo."""

    def __init__(self, selector: Fifo | Lifo) -> None:
        self._ends: OldestAnchors | NewestAnchors = OldestAnchors() if isinstance(selector, Fifo) else NewestAnchors()

    def enter(self, rows: Rows, ids: Ids) -> None:
        """`ids` became anchors."""
        self._ends.entered(ids)

    def lacks(self, anchors: int, n: int) -> bool:
        """Whether there are fewer than `n`."""
        return n > anchors

    def draw(self, rows: Rows, anchors: int, rng: Array, n: int) -> tuple[Ids, Probabilities]:
        """`n` different anchors, in order; probabilities 1."""
        ids = self._ends.draw(rows.array(SUCCESSOR), rows.origin, rows.first, rows.stop, n)
        return ids, np.ones(len(ids))


class ByRecency(_Whole):
    """Recency."""

    even = False

    def __init__(self, selector: Recency, rows: Rows) -> None:
        self._index = RecencyIndex(selector.half_life_steps, selector.newest)
        self._index.rebuild(rows.array(SUCCESSOR), rows.origin, rows.first, rows.stop)

    def enter(self, rows: Rows, ids: Ids) -> None:
        """`ids` became anchors."""
        self._index.extend(rows.array(SUCCESSOR), rows.origin, rows.first, rows.stop)
        self.leave(rows, ids)

    def leave(self, rows: Rows, ids: Ids) -> None:
        """The successors of `ids` changed."""
        self._index.refresh(rows.array(SUCCESSOR), rows.origin, ids)

    def drop(self, rows: Rows, first: int) -> None:
        """Steps below `first` are no more."""
        self._index.drop(rows.array(SUCCESSOR), rows.origin, first)

    def draw(self, rows: Rows, anchors: int, rng: Array, n: int) -> tuple[Ids, Probabilities]:
        """`n` anchors and the probability of each."""
        return self._index.draw(rows.array(SUCCESSOR), rows.origin, rng, n)

    def least(self, rows: Rows, anchors: int, n: int) -> float:
        """The smallest probability that any anchor has: the oldest's."""
        return self._index.least(rows.array(SUCCESSOR), rows.origin, n)

    @property
    def nbytes(self) -> int:
        """RAM of the index."""
        return self._index.nbytes


def over_all(selector: FreeSelector, rows: Rows) -> AllAlike | InOrder | ByRecency:
    """Draws as `selector` does from all anchors."""
    if isinstance(selector, Recency):
        return ByRecency(selector, rows)
    return InOrder(selector) if isinstance(selector, Fifo | Lifo) else AllAlike()
