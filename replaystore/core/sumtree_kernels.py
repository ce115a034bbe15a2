"""The loops of the sum tree. Knows arrays and numbers; `replaystore.core.sumtree` knows what they are for.

`replaystore.core.rings` says how nodes are laid out. Leaves are float32, inner nodes float64.

Each sum adds its 64 children in the same fixed order (8 lanes, then the lanes in pairs). `replaystore.core.reference` does the same in
plain Python.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from replaystore.core.jit import kernel
from replaystore.core.rings import keep_live, live_children, to_parents, top_level

_U1, _U2, _U3, _U4, _U5, _U6, _U7, _U8 = (np.uint64(n) for n in range(1, 9))
"""Unsigned, because numba tests signed indices for being negative."""


@kernel
def _lane(below: Any, at: int, low: int, high: int, lane: int) -> float:
    total = 0.0
    for child in range(lane, 64, 8):
        if low <= child < high:
            total += below[at + child]
    return total


@kernel
def sum_siblings(below: Any, at: int, low: int, high: int) -> float:
    """The sum of ``below[at + low : at + high]``, a part of the 64 siblings that start at `at` (which may be off the array)."""
    if low == 0 and high == 64:
        a = b = c = d = e = f = g = h = 0.0
        place = np.uint64(at)
        for _ in range(8):
            a += below[place]
            b += below[place + _U1]
            c += below[place + _U2]
            d += below[place + _U3]
            e += below[place + _U4]
            f += below[place + _U5]
            g += below[place + _U6]
            h += below[place + _U7]
            place += _U8
    else:
        a, b = _lane(below, at, low, high, 0), _lane(below, at, low, high, 1)
        c, d = _lane(below, at, low, high, 2), _lane(below, at, low, high, 3)
        e, f = _lane(below, at, low, high, 4), _lane(below, at, low, high, 5)
        g, h = _lane(below, at, low, high, 6), _lane(below, at, low, high, 7)
    return ((a + b) + (c + d)) + ((e + f) + (g + h))


@kernel
def _sum_node(leaves: Any, origin: int, nodes: Any, bases: Any, masks: Any, first: int, stop: int, level: int, node: int) -> None:
    begin = node << 6
    low, high = live_children(first, stop, level, node)
    if level == 1:
        total = sum_siblings(leaves, begin - origin, low, high)
    else:
        total = sum_siblings(nodes, bases[level - 1] + (begin & masks[level - 1]), low, high)
    nodes[bases[level] + (node & masks[level])] = total


@kernel
def sum_range(
    leaves: Any, origin: int, nodes: Any, bases: Any, masks: Any, first: int, stop: int, start: int, end: int, level: int
) -> None:
    """Sums afresh, from `level` upwards, every node that covers an id of [start, end), which is not empty and lies in the window."""
    for at_level in range(level, bases.shape[0]):
        for node in range(start >> (6 * at_level), ((end - 1) >> (6 * at_level)) + 1):
            _sum_node(leaves, origin, nodes, bases, masks, first, stop, at_level, node)


@kernel
def sum_above(leaves: Any, origin: int, nodes: Any, bases: Any, masks: Any, first: int, stop: int, ids: Any, scratch: Any) -> None:
    """Sums afresh every node above one of `ids`; ids outside the window are passed over. `scratch` is ``int64[len(ids)]``."""
    count = keep_live(ids, first, stop, scratch)
    for level in range(1, bases.shape[0]):
        count, lowest, end = to_parents(scratch, count)
        if count >= end - lowest:
            begin = max(lowest << (6 * level), first)
            sum_range(leaves, origin, nodes, bases, masks, first, stop, begin, min(end << (6 * level), stop), level)
            return
        for i in range(count):
            _sum_node(leaves, origin, nodes, bases, masks, first, stop, level, scratch[i])


@kernel
def sum_top(nodes: Any, bases: Any, masks: Any, first: int, stop: int) -> float:
    """The total mass of the window."""
    if stop <= first:
        return 0.0
    level = top_level(first, stop)
    total = 0.0
    for node in range(first >> (6 * level), ((stop - 1) >> (6 * level)) + 1):
        total += nodes[bases[level] + (node & masks[level])]
    return total


@kernel
def _descend(below: Any, at: int, low: int, high: int, target: float) -> tuple[int, float]:
    """Which of the siblings ``[low, high)`` from `at` the `target` falls on, and what is left of it there; never one without mass.

    Rounding can lead past the last one; then it is the last that has mass.
    """
    chosen = -1
    left = target
    for child in range(low, high):
        mass = below[np.uint64(at + child)]
        if mass > 0.0:
            chosen = child
            if target < mass:
                return child, target
            left = target
            target -= mass
    return chosen, left


@kernel
def find(leaves: Any, origin: int, nodes: Any, bases: Any, masks: Any, first: int, stop: int, ids: Any, left: Any) -> None:
    """Fills `ids` (``int64[n]``) with the ids at the cumulative masses `left`, ``float64[n]``, which is used up. The total is above 0.

    All go down together, level by level: the loads of different targets do not wait for each other.
    """
    n = ids.shape[0]
    top = top_level(first, stop)
    low, high = first >> (6 * top), ((stop - 1) >> (6 * top)) + 1
    for i in range(n):
        target = left[i]
        chosen = low
        for node in range(low, high):
            mass = nodes[bases[top] + (node & masks[top])]
            if mass > 0.0:
                chosen = node
                left[i] = target
                if target < mass:
                    break
                target -= mass
        ids[i] = chosen
    for level in range(top - 1, -1, -1):
        bits = 6 * level
        lowest, highest = first >> bits, ((stop - 1) >> bits) + 1
        for i in range(n):
            begin = ids[i] << 6
            low, high = max(lowest - begin, 0), min(highest - begin, 64)
            if level == 0:
                child, left[i] = _descend(leaves, begin - origin, low, high, left[i])
            else:
                child, left[i] = _descend(nodes, bases[level] + (begin & masks[level]), low, high, left[i])
            ids[i] = begin + child


@kernel
def scan(
    leaves: Any, origin: int, nodes: Any, bases: Any, masks: Any, first: int, stop: int, newest_first: bool, ids: Any
) -> int:  # fmt: skip
    """Fills `ids` with the first (or last) ids of the window that have mass, in order; returns how many there are, at most all.

    Nodes of sum 0 are passed over whole, at the highest level that they are empty at.
    """
    done = 0
    at = stop - 1 if newest_first else first
    while done < ids.shape[0] and first <= at < stop:
        level = 0
        while level + 1 < bases.shape[0] and not nodes[bases[level + 1] + ((at >> (6 * (level + 1))) & masks[level + 1])] > 0.0:
            level += 1
        if level > 0:
            node = at >> (6 * level)
            at = (node << (6 * level)) - 1 if newest_first else (node + 1) << (6 * level)
            continue
        end = (at >> 6 << 6) - 1 if newest_first else (at >> 6) + 1 << 6
        while at != end and first <= at < stop and done < ids.shape[0]:
            if leaves[at - origin] > 0.0:
                ids[done] = at
                done += 1
            at += -1 if newest_first else 1
    return done


@kernel
def fill(leaves: Any, origin: int, marks: Any, nodes: Any, bases: Any, masks: Any, first: int, stop: int) -> None:
    """Sets the leaves of the window to 1 where `marks` is above 0, else to 0, and sums level 1, in one walk."""
    for node in range(first >> 6, ((stop - 1) >> 6) + 1):
        count = 0
        for i in range(max(node << 6, first) - origin, min((node + 1) << 6, stop) - origin):
            mark = marks[i] > 0
            leaves[i] = mark
            count += mark
        nodes[bases[1] + (node & masks[1])] = count
