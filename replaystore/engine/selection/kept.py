"""Selectors with leaves on disk, over all anchors of a table: priorities, or what is left of a pass."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from replaystore.core.indexes import LEAST_MASS, HeapIndex, Index, PassIndex, PrioritizedIndex, sanitise
from replaystore.engine.rows import Rows
from replaystore.engine.selection.masses import (
    DISTINCT,
    DRAWN,
    TO_COME,
    index_for,
    made_with,
    masses_between,
    mend_pass,
    priorities_of,
    terms,
)
from replaystore.schema.selectors import Prioritized, RankPrioritized, Selector
from replaystore.steps import UpdateCounts
from replaystore.storage.layout import priority_path
from replaystore.storage.residency import will_need
from replaystore.storage.state_page import StatePage

Array = npt.NDArray[Any]
Ids = npt.NDArray[np.int64]
SUCCESSOR = "replay/successor"


class RawPriorities(PrioritizedIndex):
    """Leaves that are raw priorities, under an index that only compares them."""

    __slots__ = ()

    def __init__(self, index: Index) -> None:
        super().__init__(1.0, LEAST_MASS)
        self._tree = index  # type: ignore[assignment]

    def draw(self, leaves: npt.NDArray[np.float32], origin: int, state: Any, n: int) -> tuple[Ids, npt.NDArray[np.float64]]:
        """As the index draws."""
        return self.index.draw(leaves, origin, state, n)

    @property
    def index(self) -> Index:
        """What compares."""
        return self._tree  # type: ignore[return-value]


class KeptPriorities:
    """Prioritized, RankPrioritized, MinHeap, MaxHeap. What is remembered beside the leaves, the highest mass, lives in the state page."""

    def __init__(self, place: int, name: str, selector: Selector, state: StatePage, rows: Rows, *, mend: bool) -> None:
        """Builds the index from the leaves; with `mend`, leaves that cannot be right are put right first."""
        self.selector, self.path = selector, priority_path(name)
        self.even = isinstance(selector, DISTINCT)
        self._place, self._max_mass, self._made_with = place, state.max_mass, state.made_with
        alpha, epsilon = terms(selector)
        if isinstance(selector, Prioritized):
            self.index = PrioritizedIndex(alpha, epsilon, selector.stratified)
        else:
            self.index = RawPriorities(index_for(selector))
        self._least: HeapIndex | None = None
        self._rebuild(rows, mend=mend)

    def _rebuild(self, rows: Rows, *, mend: bool) -> None:
        index, place = self.index, self._place
        stored = float(self._max_mass[place])
        if np.isfinite(stored) and stored > 0:
            index.max_mass = stored
        leaves = rows.array(self.path)
        will_need(rows.live(self.path))
        if mend:
            sanitise(leaves, rows.origin, rows.first, rows.stop, rows.array(SUCCESSOR), index.max_mass)
            if rows.stop > rows.first:  # after power loss the leaves may be newer than what was remembered of them
                index.max_mass = max(index.max_mass, float(rows.live(self.path).max()))
                self._max_mass[place] = index.max_mass
        stood, stands = tuple(self._made_with[place].tolist()), made_with(self.selector)
        if any(stood) and stood != stands:  # being altered, or killed while it was
            after = terms(self.selector)
            live = rows.live(self.path)
            live[...] = masses_between(live, stood, after, rows.live(SUCCESSOR) > 0)
            index.max_mass = self._max_mass[place] = masses_between(np.array([index.max_mass]), stood, after)[0]
        self._made_with[place] = stands
        index.rebuild(leaves, rows.origin, rows.first, rows.stop)

    def altered(self, name: str, selector: Selector, state: StatePage, rows: Rows) -> KeptPriorities:
        """The same under other parameters."""
        self._max_mass[self._place] = self.index.max_mass
        return KeptPriorities(self._place, name, selector, state, rows, mend=False)

    # -- what happens to steps

    def enter(self, rows: Rows, ids: Ids) -> None:
        """`ids` come in at the highest mass seen."""
        leaves = rows.array(self.path)
        self.index.extend(leaves, rows.origin, rows.first, rows.stop)
        self.index.enter(leaves, rows.origin, ids)
        self._max_mass[self._place] = self.index.max_mass
        if self._least is not None:
            self._least.extend(leaves, rows.origin, rows.first, rows.stop)
            self._least.refresh(leaves, rows.origin, ids)

    def leave(self, rows: Rows, ids: Ids) -> None:
        """`ids` are no anchors any more."""
        leaves = rows.array(self.path)
        leaves[ids - rows.origin] = 0
        self._refresh(leaves, rows.origin, ids)

    def drop(self, rows: Rows, first: int) -> None:
        """Steps below `first` are no more."""
        leaves = rows.array(self.path)
        self.index.drop(leaves, rows.origin, first)
        if self._least is not None:
            self._least.drop(leaves, rows.origin, first)

    def update(self, rows: Rows, ids: Ids, priorities: npt.NDArray[np.float64]) -> UpdateCounts:
        """Sets priorities; touches nothing but the leaves of anchors that are there."""
        leaves = rows.array(self.path)
        counts = self.index.update(leaves, rows.origin, rows.array(SUCCESSOR), rows.first, rows.stop, ids, priorities)
        self._max_mass[self._place] = self.index.max_mass
        if self._least is not None:
            self._least.refresh(leaves, rows.origin, ids)
        return UpdateCounts(*counts)

    def _refresh(self, leaves: npt.NDArray[np.float32], origin: int, ids: Ids) -> None:
        self.index.refresh(leaves, origin, ids)
        if self._least is not None:
            self._least.refresh(leaves, origin, ids)

    # -- drawing

    def lacks(self, anchors: int, n: int) -> bool:
        """Whether `n` cannot be drawn now."""
        return n > anchors if self.even else not self.index.total > 0

    def mass(self, anchors: int) -> float:
        """Sum of what is drawn in proportion to."""
        return float(self.index.total) if isinstance(self.selector, Prioritized) else float(anchors)

    def draw(self, rows: Rows, anchors: int, rng: Array, n: int) -> tuple[Ids, npt.NDArray[np.float64]]:
        """`n` anchors and the probability of each."""
        return self.index.draw(rows.array(self.path), rows.origin, rng, n)

    def priorities(self, rows: Rows, ids: Ids) -> npt.NDArray[np.float32]:
        """Raw priorities as they are now."""
        return self.index.priorities(rows.array(self.path)[ids - rows.origin])

    def least(self, rows: Rows, anchors: int, n: int) -> float:
        """The smallest probability that any anchor has."""
        if isinstance(self.selector, RankPrioritized):
            return float(self.index.index.least)  # type: ignore[attr-defined]
        if self._least is None:
            self._least = HeapIndex(largest=False)
            self._least.rebuild(rows.array(self.path), rows.origin, rows.first, rows.stop)
        return self._least.value / self.index.total

    @property
    def nbytes(self) -> int:
        """RAM of the indexes."""
        return self.index.nbytes + (0 if self._least is None else self._least.nbytes)

    @property
    def highest(self) -> float:
        """Highest priority seen."""
        return float(self.index.priorities(np.array([self.index.max_mass]))[0])


class KeptPass:
    """WithoutReplacement. Everything that it remembers is in its leaves."""

    even = True

    def __init__(self, name: str, selector: Selector, rows: Rows, *, mend: bool) -> None:
        self.selector, self.path = selector, priority_path(name)
        self.index = PassIndex()
        will_need(rows.live(self.path))
        if mend:
            mend_pass(rows, self.path)
        self.rebuild(rows)

    def rebuild(self, rows: Rows) -> None:
        """Reads the leaves afresh."""
        self.index.rebuild(rows.array(self.path), rows.origin, rows.first, rows.stop)

    def enter(self, rows: Rows, ids: Ids) -> None:
        """`ids` belong to the pass that is going on."""
        leaves = rows.array(self.path)
        self.index.extend(leaves, rows.origin, rows.first, rows.stop)
        self._set(rows, ids, TO_COME)

    def leave(self, rows: Rows, ids: Ids) -> None:
        """`ids` are no anchors any more."""
        self._set(rows, ids, np.float32(0))

    def drop(self, rows: Rows, first: int) -> None:
        """Steps below `first` are no more."""
        self.index.drop(rows.array(self.path), rows.origin, first)

    def drawn(self, rows: Rows, ids: Ids) -> None:
        """`ids` were drawn by an index over a part of the anchors."""
        self._set(rows, ids, DRAWN)

    def _set(self, rows: Rows, ids: Ids, value: np.float32) -> None:
        leaves = rows.array(self.path)
        leaves[ids - rows.origin] = value
        self.index.refresh(leaves, rows.origin, ids)

    def lacks(self, anchors: int, n: int) -> bool:
        """Whether `n` cannot be drawn now."""
        return not anchors

    def mass(self, anchors: int) -> float:
        """Every anchor counts alike."""
        return float(anchors)

    def draw(self, rows: Rows, anchors: int, rng: Array, n: int) -> tuple[Ids, npt.NDArray[np.float64]]:
        """`n` anchors and the probability of each."""
        return self.index.draw(rows.array(self.path), rows.origin, rows.array(SUCCESSOR), rng, n, anchors)

    def priorities(self, rows: Rows, ids: Ids) -> npt.NDArray[np.float32]:
        """All 1."""
        return priorities_of(self.selector, ids)

    def least(self, rows: Rows, anchors: int, n: int) -> float:
        """All alike."""
        return 1.0 / anchors

    @property
    def nbytes(self) -> int:
        """RAM of the index."""
        return self.index.nbytes
