"""Draws from the sum tree: the ids of `replaystore.core.sumtree_kernels.find`, found with fewer additions.

That one takes the masses off a target one after the other, and its roundings are part of the result. Here masses are summed up in eights,
and targets that fall on the same node one after the other go on where the one before stopped. The sums differ by roundings, whose bound is
kept: where a target comes closer to the border of a child than that, it is looked for again as there.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from replaystore.core.jit import kernel
from replaystore.core.random import next_unit
from replaystore.core.rings import top_level
from replaystore.core.sumtree_kernels import find, sum_top

ROUNDING = 2.0**-44
"""Of a target, by which two ways of taking up to 64 masses off it can differ: 130 roundings of 2**-53 each, and some to spare."""

_U1, _U2, _U3, _U4, _U5, _U6, _U7 = (np.uint64(n) for n in range(1, 8))


@kernel
def _sum8(below: Any, at: Any) -> float:
    a, b = np.float64(below[at]) + below[at + _U1], np.float64(below[at + _U2]) + below[at + _U3]
    c, d = np.float64(below[at + _U4]) + below[at + _U5], np.float64(below[at + _U6]) + below[at + _U7]
    return (a + b) + (c + d)  # type: ignore[no-any-return]


@kernel
def _scan(below: Any, at: int, child: int, high: int, target: float, before: float) -> tuple[int, float, float]:
    """The sibling from `child` on that `target` falls on, and the mass up to it and after it; `before` is that before `child`."""
    while child < high and (child & 7) != 0:
        after = before + below[np.uint64(at + child)]
        if target < after:
            return child, before, after
        before = after
        child += 1
    while child + 8 <= high:
        after = before + _sum8(below, np.uint64(at + child))
        if target < after:
            break
        before = after
        child += 8
    while child < high:
        after = before + below[np.uint64(at + child)]
        if target < after:
            return child, before, after
        before = after
        child += 1
    return child, before, before


@kernel
def _scan_top(nodes: Any, at: int, mask: int, low: int, child: int, high: int, target: float, before: float) -> tuple[int, float, float]:
    while child < high:
        after = before + nodes[at + ((low + child) & mask)]
        if target < after:
            return child, before, after
        before = after
        child += 1
    return child, before, before


@kernel
def _again(
    leaves: Any, origin: int, nodes: Any, bases: Any, masks: Any, first: int, stop: int, ids: Any, targets: Any, uncertain: int
) -> None:
    some, left, count = np.empty(uncertain, np.int64), np.empty(uncertain), 0
    for i in range(ids.shape[0]):
        if ids[i] < 0:
            left[count] = targets[i]
            count += 1
    find(leaves, origin, nodes, bases, masks, first, stop, some, left)
    count = 0
    for i in range(ids.shape[0]):
        if ids[i] < 0:
            ids[i] = some[count]
            count += 1


@kernel
def find_fast(leaves: Any, origin: int, nodes: Any, bases: Any, masks: Any, first: int, stop: int, ids: Any, targets: Any) -> int:
    """The same ids as `find`, for which `targets` stay as they are; fastest where they ascend. Returns how many it left to that one."""
    n, top, uncertain = ids.shape[0], top_level(first, stop), 0
    left, slack = targets.copy(), np.zeros(n)
    ids[:] = 0
    for level in range(top, -1, -1):
        bits = 6 * level
        lowest, highest = first >> bits, ((stop - 1) >> bits) + 1
        parent, begin, at, child, high = -1, 0, 0, 0, 0
        mass, last = 0.0, 0.0
        for i in range(n):
            if ids[i] < 0:
                continue
            target = left[i]
            if ids[i] != parent or target < last:
                parent, mass = ids[i], 0.0
                begin = parent << 6
                child, high = max(lowest - begin, 0), min(highest - begin, 64)
                if level == top:
                    begin, child, high = lowest, 0, highest - lowest
                at = begin - origin if level == 0 else bases[level] + (begin & masks[level])
            last = target
            if level == top:
                child, mass, after = _scan_top(nodes, bases[level], masks[level], begin, child, high, target, mass)
            elif level == 0:
                child, mass, after = _scan(leaves, at, child, high, target, mass)
            else:
                child, mass, after = _scan(nodes, at, child, high, target, mass)
            slack[i] = 2 * slack[i] + target * ROUNDING
            left[i] = target - mass
            if child < high and (mass == 0.0 or left[i] > slack[i]) and after - target > slack[i]:
                ids[i] = begin + child
            else:
                ids[i] = -1
                uncertain += 1
    if uncertain:
        _again(leaves, origin, nodes, bases, masks, first, stop, ids, targets, uncertain)
    return uncertain


@kernel
def draw(
    leaves: Any, origin: int, nodes: Any, bases: Any, masks: Any, first: int, stop: int, state: Any, stratified: bool, ids: Any, masses: Any
) -> None:
    """Fills `ids` (``int64[n]``) with draws in proportion to the leaves, and `masses`, ``float64[n]``, with theirs. The total is not 0."""
    n = ids.shape[0]
    total = sum_top(nodes, bases, masks, first, stop)
    for i in range(n):
        target = next_unit(state) * total
        masses[i] = (i * total + target) / n if stratified else target
    find_fast(leaves, origin, nodes, bases, masks, first, stop, ids, masses)
    for i in range(n):
        masses[i] = leaves[ids[i] - origin]
