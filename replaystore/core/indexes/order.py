"""The oldest or the newest ids: over leaves and a sum tree, or straight over the links between the rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from replaystore.core.indexes.protocol import Ids, Leaves, Probabilities, Successors
from replaystore.core.indexes.treed import TreeIndex
from replaystore.core.jit import kernel
from replaystore.core.random import State
from replaystore.core.sumtree import SumTree


@kernel
def _walk(successor: Any, origin: int, start: int, end: int, ids: Any) -> int:
    done, step = 0, 1 if end >= start else -1
    for at in range(start, end, step):
        if done == ids.shape[0]:
            break
        if successor[at - origin] > 0:
            ids[done] = at
            done += 1
    return done


class _Ordered(TreeIndex[SumTree]):
    __slots__ = ()

    newest_first = False

    def __init__(self) -> None:
        super().__init__(SumTree())

    def draw(self, leaves: Leaves, origin: int, state: State, n: int) -> tuple[Ids, Probabilities]:
        """`n` different ids in order, ``int64[n]``; probabilities 1, ``float64[n]``. Takes no random numbers.

        Raises:
            ValueError: fewer than `n` are eligible.
        """
        self._check_enough(n)
        return self._tree.scan(leaves, origin, n, self.newest_first), np.ones(n)


class FifoIndex(_Ordered):
    """The oldest eligible ids, oldest first. About 0.14 to 0.28 bytes per step."""

    __slots__ = ()


class LifoIndex(_Ordered):
    """The newest eligible ids, newest first. About 0.14 to 0.28 bytes per step."""

    __slots__ = ()

    newest_first = True


class OldestAnchors:
    """The oldest anchors, oldest first, without an index: a walk over the successors from where the oldest was the last time.

    Costs a walk over what lies between the anchors that are drawn: nothing in a queue, where what is used up lies before them.
    """

    __slots__ = ("_from",)

    def __init__(self) -> None:
        self._from = 0

    def entered(self, ids: Ids) -> None:
        """`ids`, ``int64[n]``, became anchors: has to be told of all that do after the first draw."""
        if len(ids):
            self._from = min(self._from, int(ids.min()))

    def draw(self, successor: Successors, origin: int, first: int, stop: int, n: int) -> Ids:
        """The oldest anchors of [first, stop), at most `n`, ``int64[<= n]``: fewer when there are fewer.

        Args:
            successor: int32, above 0 for anchors; ``successor[i]`` belongs to id ``origin + i``.
            origin: id of the first element.
            first: oldest live id.
            stop: end of the live ids; like `first` never lower than in a call before.
            n: how many.
        """
        ids = np.empty(n, np.int64)
        done = _walk(successor, origin, min(max(first, self._from), stop), stop, ids)
        if n:
            self._from = int(ids[0]) if done else stop
        return ids[:done]


class NewestAnchors:
    """The newest anchors, newest first, without an index: a walk back over the successors from where the newest was the last time.

    Costs a walk over what lies between the anchors that are drawn.
    """

    __slots__ = ("_before",)

    def __init__(self) -> None:
        self._before = 1 << 63

    def entered(self, ids: Ids) -> None:
        """`ids`, ``int64[n]``, became anchors: has to be told of all that do after the first draw."""
        if len(ids):
            self._before = max(self._before, int(ids.max()) + 1)

    def draw(self, successor: Successors, origin: int, first: int, stop: int, n: int) -> Ids:
        """The newest anchors of [first, stop), at most `n`, ``int64[<= n]``: fewer when there are fewer. Arguments as above."""
        ids = np.empty(n, np.int64)
        done = _walk(successor, origin, max(min(stop, self._before), first) - 1, first - 1, ids)
        if n:
            self._before = int(ids[0]) + 1 if done else first
        return ids[:done]
