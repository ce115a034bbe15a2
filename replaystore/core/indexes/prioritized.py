"""Proportional prioritized draws: masses from priorities, new anchors at the highest mass seen."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from replaystore.core.indexes.protocol import Ids, Leaves, Probabilities, Successors
from replaystore.core.jit import kernel
from replaystore.core.random import State
from replaystore.core.sumtree import SumTree

LEAST_MASS, MOST_MASS = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)
"""Masses are kept within float32's normal range: a tiny priority stays drawable, a huge one finite."""

_SAFE_ALPHA = 0.13
"""From here on no mass becomes too large a priority for float64."""


@kernel
def _enter(leaves: Any, origin: int, ids: Any, first: int, stop: int, mass: float) -> None:
    for i in range(ids.shape[0]):
        if first <= ids[i] < stop:
            leaves[ids[i] - origin] = mass


@kernel
def _update(
    leaves: Any, origin: int, successor: Any, first: int, stop: int, ids: Any, priorities: Any, alpha: float, epsilon: float, applied: Any
) -> tuple[int, int, float]:
    count = rejected = 0
    highest = 0.0
    for i in range(ids.shape[0]):
        step, priority = ids[i], priorities[i]
        if not 0.0 <= priority < np.inf:
            rejected += 1
        elif first <= step < stop and successor[step - origin] > 0:
            base = priority + epsilon
            mass = base**alpha
            if base > 0.0 or alpha == 0.0:
                mass = min(max(mass, LEAST_MASS), MOST_MASS)
            leaves[step - origin] = mass
            highest = max(highest, mass)
            applied[count] = step
            count += 1
    return count, rejected, highest


@kernel
def _sanitise(leaves: Any, origin: int, start: int, stop: int, successor: Any, mass: float) -> int:
    changed = 0
    for step in range(start, stop):
        leaf = leaves[step - origin]
        if successor[step - origin] <= 0:
            right = np.float32(0.0)
        elif 0.0 < leaf < np.inf:
            right = leaf
        else:
            right = np.float32(mass)
        if leaf != right:
            leaves[step - origin] = right
            changed += 1
    return changed


def sanitise(leaves: Leaves, origin: int, start: int, stop: int, successor: Successors, max_mass: float) -> int:
    """Makes the leaves of [start, stop) what they must be, whatever a crash left there; returns how many it changed.

    An anchor whose leaf is 0, negative or not finite gets `max_mass`, as if it were new; what is no anchor gets 0.
    """
    return int(_sanitise(leaves, origin, start, stop, successor, max_mass)) if stop > start else 0


class PrioritizedIndex:
    """P(i) ∝ (priority_i + epsilon) ** alpha; new anchors enter at the highest mass seen (Schaul et al. 2016, section 3.3, algorithm 1).

    The leaves, ``float32``, hold the masses ``(priority + epsilon) ** alpha`` and are the caller's.
    """

    __slots__ = ("_first", "_stop", "_tree", "alpha", "epsilon", "max_mass", "stratified")

    def __init__(self, alpha: float, epsilon: float, stratified: bool = True) -> None:
        self.alpha, self.epsilon, self.stratified = float(alpha), float(epsilon), stratified
        self.max_mass = _bounded(1.0 + self.epsilon, self.alpha)
        """What new anchors get: the highest mass ever set, at first that of priority 1."""
        self._tree = SumTree()
        self._first = self._stop = 0

    @property
    def total(self) -> float:
        """Sum of the masses."""
        return self._tree.total

    @property
    def nbytes(self) -> int:
        """Bytes of RAM of the index, the leaves not counted."""
        return self._tree.nbytes

    def rebuild(self, leaves: Leaves, origin: int, first: int, stop: int) -> None:
        """Reads all leaves of the window [first, stop) afresh."""
        self._first, self._stop = first, max(first, stop)
        self._tree.rebuild(leaves, origin, first, stop)

    def extend(self, leaves: Leaves, origin: int, first: int, stop: int) -> None:
        """Moves the window's end up to `stop` (and its start to `first`); the new leaves are 0 until their ids enter."""
        self._first, self._stop = max(first, self._first), max(stop, self._stop)
        self._tree.extend(leaves, origin, first, stop)

    def drop(self, leaves: Leaves, origin: int, first: int) -> None:
        """Ids below `first` are gone; their leaves are never touched again."""
        self._first, self._stop = max(first, self._first), max(first, self._stop)
        self._tree.drop(leaves, origin, first)

    def refresh(self, leaves: Leaves, origin: int, ids: Ids) -> None:
        """The leaves of `ids`, ``(n,)``, were changed by the caller: set to 0, say, because they are no anchors any more."""
        self._tree.refresh(leaves, origin, np.ascontiguousarray(ids, np.int64))

    def enter(self, leaves: Leaves, origin: int, ids: Ids) -> None:
        """`ids`, ``(n,)``, became anchors: they get the highest mass. Ids outside the window are passed over."""
        ids = np.ascontiguousarray(ids, np.int64)
        _enter(leaves, origin, ids, self._first, self._stop, self.max_mass)
        self._tree.refresh(leaves, origin, ids)

    def update(
        self,
        leaves: Leaves,
        origin: int,
        successor: Successors,
        first: int,
        stop: int,
        ids: Ids,
        priorities: npt.NDArray[np.floating[Any]],
    ) -> tuple[int, int, int]:
        """Sets priorities. Of an id given several times the last valid value stays.

        Args:
            leaves: float32 masses.
            origin: id of the columns' first element.
            successor: int32, above 0 for anchors.
            first: oldest live id.
            stop: end of the live ids.
            ids: ``(n,)``.
            priorities: ``(n,)``, such as absolute TD errors.

        Returns:
            How many were applied; how many are gone (outside [first, stop), or no anchors); how many were rejected, being NaN, infinite or
            negative. Nothing is touched for the latter two.
        """
        ids, values = np.ascontiguousarray(ids, np.int64), np.ascontiguousarray(priorities, np.float64)
        if ids.ndim != 1 or ids.shape != values.shape:
            raise ValueError(f"ids and priorities must be one-dimensional and of one length, got {ids.shape} and {values.shape}")
        applied = np.empty(len(ids), np.int64)
        count, rejected, highest = _update(
            leaves, origin, successor, max(first, self._first), min(stop, self._stop), ids, values, self.alpha, self.epsilon, applied
        )
        if count:
            self.max_mass = max(self.max_mass, float(np.float32(highest)))
            self._tree.refresh(leaves, origin, applied[:count])
        return count, len(ids) - count - rejected, rejected

    def priorities(self, masses: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """The priorities that have these masses, float32: ``mass ** (1 / alpha) − epsilon``, at least 0; 1 when alpha is 0."""
        values = np.asarray(masses, np.float64)
        if self.alpha == 0.0:
            return np.ones(values.shape, np.float32)
        return raw_priorities(values, self.alpha, self.epsilon)

    def draw(self, leaves: Leaves, origin: int, state: State, n: int) -> tuple[Ids, Probabilities]:
        """`n` draws, stratified or independent: ids ``int64[n]`` and their probabilities, mass / total, ``float64[n]``.

        Raises:
            ValueError: every mass is 0.
        """
        ids, masses = self._tree.draw(leaves, origin, state, n, self.stratified)
        masses /= self._tree.total
        return ids, masses


def raw_priorities(masses: npt.NDArray[np.float64], alpha: float, epsilon: float) -> npt.NDArray[np.float32]:
    """``mass ** (1 / alpha) − epsilon``, within float32 and at least 0; `alpha` is not 0."""
    if alpha >= _SAFE_ALPHA:
        raw = masses ** (1.0 / alpha)
    else:
        with np.errstate(over="ignore"):  # beyond float32 is as large as it gets
            raw = masses ** (1.0 / alpha)
    raw = np.maximum(raw - epsilon, 0.0)
    return np.minimum(raw, MOST_MASS).astype(np.float32)


def _bounded(base: float, alpha: float) -> float:
    with np.errstate(over="ignore"):
        return float(np.float32(np.clip(np.float64(base) ** alpha, LEAST_MASS, MOST_MASS)))
