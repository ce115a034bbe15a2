"""A 64-ary tree of sums that decay with age, over leaves that somebody else owns: a leaf above 0 counts 2 ** (−age / half-life).

A node (`replaystore.core.rings`) is a sum relative to the newest id below it that counts, and that id: 16 bytes, a quarter to half a byte
per step. So nodes stay as they are when time goes on, and however far back all that counts may lie, the newest of it counts 1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from replaystore.core.jit import kernel
from replaystore.core.random import State, next_unit
from replaystore.core.rings import Ids, Leaves, RingTree, keep_live, live_children, to_parents, top_level
from replaystore.core.sumtree_kernels import scan


@kernel
def _weight(age: int, rate: float) -> float:
    return np.exp2(-age * rate) if rate > 0.0 else 1.0


@kernel
def _add_up(sums: Any, newest: Any, base: int, mask: int, begin: int, end: int, rate: float) -> tuple[float, int]:
    """The sum of the nodes [begin, end) of one level and its newest id; 0 and −1 where nothing counts."""
    total, last, gap, factor = 0.0, -1, -1, 1.0
    for node in range(begin, end):
        at = base + (node & mask)
        if sums[at] > 0.0:
            if newest[at] - last != gap:  # mostly it is the same from node to node
                gap = newest[at] - last
                factor = _weight(gap, rate)
            total = total * factor + sums[at]
            last = newest[at]
    return total, last


@kernel
def _work_node(
    leaves: Any, origin: int, sums: Any, newest: Any, bases: Any, masks: Any, first: int, stop: int, rate: float, level: int, node: int
) -> None:
    low, high = live_children(first, stop, level, node)
    begin, last, total = node << 6, -1, 0.0
    if level == 1:
        fading, factor = 0.0, _weight(1, rate)
        for step in range(begin + low, begin + high):
            fading *= factor
            if leaves[step - origin] > 0:
                fading += 1.0
                last, total = step, fading
    else:
        total, last = _add_up(sums, newest, bases[level - 1], masks[level - 1], begin + low, begin + high, rate)
    place = bases[level] + (node & masks[level])
    sums[place], newest[place] = total, last


@kernel
def _work_range(
    leaves: Any, origin: int, sums: Any, newest: Any, bases: Any, masks: Any, first: int, stop: int, rate: float,
    start: int, end: int, level: int,
) -> None:  # fmt: skip
    for at_level in range(level, bases.shape[0]):
        for node in range(start >> (6 * at_level), ((end - 1) >> (6 * at_level)) + 1):
            _work_node(leaves, origin, sums, newest, bases, masks, first, stop, rate, at_level, node)


@kernel
def _work_above(
    leaves: Any, origin: int, sums: Any, newest: Any, bases: Any, masks: Any, first: int, stop: int, rate: float, ids: Any, scratch: Any
) -> None:
    count = keep_live(ids, first, stop, scratch)
    for level in range(1, bases.shape[0]):
        count, lowest, end = to_parents(scratch, count)
        if count >= end - lowest:
            begin = max(lowest << (6 * level), first)
            _work_range(leaves, origin, sums, newest, bases, masks, first, stop, rate, begin, min(end << (6 * level), stop), level)
            return
        for i in range(count):
            _work_node(leaves, origin, sums, newest, bases, masks, first, stop, rate, level, scratch[i])


@kernel
def _work_top(sums: Any, newest: Any, bases: Any, masks: Any, first: int, stop: int, rate: float) -> tuple[float, int]:
    total, last = 0.0, -1
    if stop > first:
        level = top_level(first, stop)
        low, high = first >> (6 * level), ((stop - 1) >> (6 * level)) + 1
        total, last = _add_up(sums, newest, bases[level], masks[level], low, high, rate)
    return total, last


@kernel
def _draw(
    leaves: Any, origin: int, sums: Any, newest: Any, bases: Any, masks: Any, first: int, stop: int, rate: float,
    total: float, last: int, state: Any, ids: Any,
) -> None:  # fmt: skip
    """Fills `ids` with independent draws. Down from the top, among the children of a node from the newest, which mostly is the one."""
    top = top_level(first, stop)
    for i in range(ids.shape[0]):
        target, reference = next_unit(state) * total, last
        low, high = first >> (6 * top), ((stop - 1) >> (6 * top)) + 1
        node = -1
        for level in range(top, 0, -1):
            if level < top:
                low, high = live_children(first, stop, level + 1, node)
                low, high = low + (node << 6), high + (node << 6)
            chosen, left, weight, of_chosen = -1, 0.0, 1.0, 1.0
            gap, factor = -1, 1.0
            for child in range(high - 1, low - 1, -1):
                place = bases[level] + (child & masks[level])
                if sums[place] > 0.0:
                    if reference - newest[place] != gap:
                        gap = reference - newest[place]
                        factor = _weight(gap, rate)
                    weight *= factor
                    reference = newest[place]
                    mass = weight * sums[place]
                    if not mass > 0.0:
                        break
                    chosen, left, of_chosen = child, target, weight
                    if target < mass:
                        break
                    target -= mass  # past the last one that has mass leads only rounding
            node, target = chosen, left / of_chosen
            reference = newest[bases[level] + (node & masks[level])]
        step, mass, factor = reference, 1.0, _weight(1, rate)
        ids[i] = reference
        oldest = max(node << 6, first)
        while step >= oldest and mass > 0.0:
            if leaves[step - origin] > 0:
                ids[i] = step
                if target < mass:
                    break
                target -= mass
            mass *= factor
            step -= 1


class DecayTree(RingTree):
    """Decaying sums over the live ids [first, stop). Leaves may be of any of several types: only their being above 0 counts."""

    __slots__ = ("_newest", "_rate", "_total")

    EMPTY = ((np.float64, 0.0), (np.int64, 0.0))
    LEAVES = (np.float32, np.int32, np.uint8)

    def __init__(self, half_life: float | None) -> None:
        """`half_life` in steps; None: nothing decays, and the draws are uniform."""
        super().__init__()
        self._rate = 0.0 if half_life is None else 1.0 / half_life
        self._total, self._newest = 0.0, -1

    @property
    def total(self) -> float:
        """The sum, where the newest id that counts counts 1; 0 when there is none."""
        return self._total

    def draw(self, leaves: Leaves, origin: int, state: State, n: int) -> Ids:
        """`n` independent draws, ``int64[n]``.

        Raises:
            ValueError: nothing counts.
        """
        if not self._total > 0.0:
            raise ValueError(f"every leaf of [{self._first}, {self._stop}) is 0: there is nothing to draw")
        self._check(leaves, origin)
        ids = np.empty(n, np.int64)
        _draw(leaves, origin, *self._arrays, self._first, self._stop, self._rate, self._total, self._newest, state, ids)
        return ids

    def shares(self, ids: Ids) -> npt.NDArray[np.float64]:
        """The probability of each of `ids` in a draw, ``float64[n]``; they count."""
        shares: npt.NDArray[np.float64] = np.exp2((ids - self._newest) * self._rate) / self._total
        return shares

    def newest(self, leaves: Leaves, origin: int, n: int) -> Ids:
        """The newest ids that count, newest first, ``int64[<= n]``: fewer where there are fewer."""
        self._check(leaves, origin)
        ids = np.empty(n, np.int64)
        return ids[: scan(leaves, origin, self._rings[0], self._bases, self._masks, self._first, self._stop, True, ids)]

    def oldest(self, leaves: Leaves, origin: int) -> Ids:
        """The oldest id that counts, ``int64[1]``, or none."""
        self._check(leaves, origin)
        ids = np.empty(1, np.int64)
        return ids[: scan(leaves, origin, self._rings[0], self._bases, self._masks, self._first, self._stop, False, ids)]

    @property
    def _arrays(self) -> tuple[Any, Any, Any, Any]:
        return self._rings[0], self._rings[1], self._bases, self._masks

    def _work_range(self, leaves: Leaves, origin: int, start: int, stop: int, level: int) -> None:
        _work_range(leaves, origin, *self._arrays, self._first, self._stop, self._rate, start, stop, level)

    def _work_above(self, leaves: Leaves, origin: int, ids: Ids) -> None:
        scratch = np.empty(len(ids), np.int64)
        _work_above(leaves, origin, *self._arrays, self._first, self._stop, self._rate, ids, scratch)

    def _work_top(self) -> None:
        self._total, self._newest = _work_top(*self._arrays, self._first, self._stop, self._rate)
