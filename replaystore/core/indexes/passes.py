"""Every anchor once per pass, in random order."""

from __future__ import annotations

from typing import Any

import numpy as np

from replaystore.core.indexes.protocol import Ids, Leaves, Probabilities, Successors
from replaystore.core.jit import kernel
from replaystore.core.random import State, next_below
from replaystore.core.sumtree import SumTree


@kernel
def _distinct(state: Any, below: int, seen: Any, ranks: Any) -> None:
    """Fills `ranks` (float64, at most `below`) with different numbers of 0 … below − 1, every selection and every order alike.

    Floyd's selection (Bentley & Floyd 1987, "A sample of brilliance", CACM 30(9)), then Fisher and Yates' shuffle. `seen`: a hash set,
    int64, a power of two and at least twice as long as `ranks`, filled with −1.
    """
    n, mask = ranks.shape[0], seen.shape[0] - 1
    for i in range(n):
        newest = below - n + i
        rank = next_below(state, newest + 1)
        at = _place(seen, mask, rank)
        if seen[at] == rank:
            rank = newest
            at = _place(seen, mask, rank)
        seen[at] = rank
        other = next_below(state, i + 1)
        ranks[i] = ranks[other]
        ranks[other] = rank


@kernel
def _place(seen: Any, mask: int, rank: int) -> int:
    """Where `rank` is in the set, or would be."""
    at = (rank ^ (rank >> 15)) & mask
    while seen[at] >= 0 and seen[at] != rank:
        at = (at + 1) & mask
    return at


@kernel
def _whole_passes(state: Any, members: Any, seen: Any, ranks: Any, ids: Any) -> None:
    """Fills `ids` with passes over all `members`, one after the other."""
    count = members.shape[0]
    for begin in range(0, ids.shape[0], count):
        seen[:] = -1
        _distinct(state, count, seen, ranks)
        for i in range(count):
            ids[begin + i] = members[int(ranks[i])]


@kernel
def _take(leaves: Any, origin: int, ids: Any) -> None:
    for i in range(ids.shape[0]):
        leaves[ids[i] - origin] = -0.0


def _empty_set(items: int) -> Ids:
    return np.full(4 << items.bit_length(), -1)


class PassIndex:
    """Leaves: 1 is still to come in this pass, −0.0 drawn, 0 no anchor. They are the only state, so a pass goes on after a restart.

    A batch that a pass does not fill goes on with the next. 0.13 to 0.25 bytes per step.
    """

    __slots__ = ("_tree", "refills")

    def __init__(self) -> None:
        self._tree = SumTree()
        self.refills = 0
        """How many passes `draw` has begun: when it grew, all leaves were set anew."""

    @property
    def total(self) -> float:
        """How many are still to come in this pass; the next pass begins when there is none."""
        return self._tree.total

    @property
    def count(self) -> int:
        """The same, as an int."""
        return int(self._tree.total)

    @property
    def nbytes(self) -> int:
        """Bytes of RAM of the index, the leaves not counted."""
        return self._tree.nbytes

    def rebuild(self, leaves: Leaves, origin: int, first: int, stop: int) -> None:
        """Reads all leaves of the window [first, stop) afresh."""
        self._tree.rebuild(leaves, origin, first, stop)

    def extend(self, leaves: Leaves, origin: int, first: int, stop: int) -> None:
        """Moves the window's end up to `stop` and its start to `first`; the new leaves are 0 or will be refreshed."""
        self._tree.extend(leaves, origin, first, stop)

    def drop(self, leaves: Leaves, origin: int, first: int) -> None:
        """Ids below `first` are gone; their leaves are never touched again."""
        self._tree.drop(leaves, origin, first)

    def refresh(self, leaves: Leaves, origin: int, ids: Ids) -> None:
        """The leaves of `ids`, ``int64[n]``, changed: 1 for those that entered, 0 for those that left. Others are passed over."""
        self._tree.refresh(leaves, origin, np.ascontiguousarray(ids, np.int64))

    def draw(self, leaves: Leaves, origin: int, successor: Successors, state: State, n: int, anchors: int) -> tuple[Ids, Probabilities]:
        """`n` ids, all selections and orders of what is still to come alike; their leaves become −0.0.

        When nothing is left, all leaves of the window are set anew, which is a walk over it: 0.1 to 0.3 s per 10^8 steps.

        Args:
            leaves: float32, at most 1, changed.
            origin: id of the first element of both columns.
            successor: above 0 for what belongs in a pass; int32, or a mask of uint8.
            state: random numbers, ``uint64[4]``, moves on.
            n: how many.
            anchors: how many belong in a pass.

        Returns:
            ids ``int64[n]`` and probabilities ``float64[n]``: 1 / anchors, the mean share of a draw over whole passes.

        Raises:
            ValueError: nothing belongs in a pass.
        """
        ids, done = np.empty(n, np.int64), 0
        while done < n:
            if not self._tree.total:
                self._tree.fill(leaves, origin, successor)
                self.refills += 1
                if not self._tree.total:
                    raise ValueError("no row of the window is an anchor: there is nothing to draw")
                whole = (n - done - 1) // self.count  # passes that this batch begins and ends need no leaves
                if whole:
                    members, ranks = self._tree.scan(leaves, origin, self.count, False), np.empty(self.count)
                    _whole_passes(state, members, _empty_set(self.count), ranks, ids[done : done + whole * self.count])
                    self.refills += whole
                    done += whole * self.count
            ranks = np.empty(min(n - done, self.count))
            _distinct(state, self.count, _empty_set(len(ranks)), ranks)
            some = ids[done : done + len(ranks)] = self._tree.find(leaves, origin, ranks)
            _take(leaves, origin, some)
            self._tree.refresh(leaves, origin, some)
            done += len(ranks)
        return ids, np.full(n, 1.0 / anchors)
