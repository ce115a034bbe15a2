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
def _walk(successor: Any, origin: int, start: int, end: int, step: int, low: int, high: int, ids: Any) -> tuple[int, int, int]:
    """Fills `ids` with the anchors from `start` on, `step` (1 or −1) by step, up to `end`; jumps over [low, high), where there are none.

    Returns how many, and the longest stretch without any that it went over, jumps included.
    """
    done = longest_low = longest_high = 0
    at, begin = start, start
    while done < ids.shape[0]:
        if low <= at < high:
            at = high if step > 0 else low - 1
        over = (end - at) * step <= 0
        if over:
            at = end
        if over or successor[at - origin] > 0:
            below, above = (begin, at) if step > 0 else (at + 1, begin + 1)
            if above - below > longest_high - longest_low:
                longest_low, longest_high = below, above
            begin = at + step
            if over:
                break
            ids[done] = at
            done += 1
        at += step
    return done, longest_low, longest_high


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


class _Anchors:
    __slots__ = ("_edge", "_high", "_low")

    def __init__(self) -> None:
        self._low = self._high = 0
        """No anchor is in [low, high): the longest stretch that a walk went over."""

    def entered(self, ids: Ids) -> None:
        """`ids`, ``int64[n]``, became anchors: has to be told of all that do after the first draw."""
        if self._low == self._high or not len(ids) or ids.min() >= self._high:  # nearly always: they are newer
            return
        inside = ids[(ids >= self._low) & (ids < self._high)]
        if len(inside):  # the longer side stays
            lowest, highest = int(inside.min()), int(inside.max())
            if lowest - self._low > self._high - highest:
                self._high = lowest
            else:
                self._low = highest + 1

    def _walk(self, successor: Successors, origin: int, start: int, end: int, n: int) -> Ids:
        ids, step = np.empty(n, np.int64), 1 if end >= start else -1
        done, low, high = _walk(successor, origin, start, end, step, self._low, self._high, ids)
        if high - low >= self._high - self._low:
            self._low, self._high = low, high
        return ids[:done]


class OldestAnchors(_Anchors):
    """The oldest anchors, oldest first, without an index: a walk over the successors, which remembers where there was nothing.

    That is what lies before the oldest anchor, as in a queue whose rows are used up, and the longest stretch between anchors.
    """

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__()
        self._edge = 0
        """No anchor is below it."""

    def entered(self, ids: Ids) -> None:
        """`ids`, ``int64[n]``, became anchors: has to be told of all that do after the first draw."""
        super().entered(ids)
        if len(ids):
            self._edge = min(self._edge, int(ids.min()))

    def draw(self, successor: Successors, origin: int, first: int, stop: int, n: int) -> Ids:
        """The oldest anchors of [first, stop), at most `n`, ``int64[<= n]``: fewer when there are fewer.

        Args:
            successor: int32, above 0 for anchors; ``successor[i]`` belongs to id ``origin + i``.
            origin: id of the first element.
            first: oldest live id.
            stop: end of the live ids; like `first` never lower than in a call before.
            n: how many.
        """
        ids = self._walk(successor, origin, min(max(first, self._edge), stop), stop, n)
        if n:
            self._edge = int(ids[0]) if len(ids) else stop
        return ids


class NewestAnchors(_Anchors):
    """The newest anchors, newest first, without an index: a walk back over the successors, which remembers where there was nothing.

    That is what lies above the newest anchor, as in a stack whose rows are used up, and the longest stretch between anchors.
    """

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__()
        self._edge = 1 << 63
        """No anchor is at or above it."""

    def entered(self, ids: Ids) -> None:
        """`ids`, ``int64[n]``, became anchors: has to be told of all that do after the first draw."""
        super().entered(ids)
        if len(ids):
            self._edge = max(self._edge, int(ids.max()) + 1)

    def draw(self, successor: Successors, origin: int, first: int, stop: int, n: int) -> Ids:
        """The newest anchors of [first, stop), at most `n`, ``int64[<= n]``: fewer when there are fewer. Arguments as above."""
        ids = self._walk(successor, origin, max(min(stop, self._edge), first) - 1, first - 1, n)
        if n:
            self._edge = int(ids[0]) + 1 if len(ids) else first
        return ids
