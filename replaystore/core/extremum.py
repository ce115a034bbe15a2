"""A 64-ary tournament tree over leaves that somebody else owns: the largest, or the smallest, leaf above 0, and the next ones in order.

Inner nodes (`replaystore.core.rings`) are float32: a sixteenth to an eighth of a byte per step. A leaf's key is the leaf, or minus the leaf
where the smallest is wanted, and −inf where the leaf is 0; a node is the largest key below it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from replaystore.core.jit import kernel
from replaystore.core.rings import Ids, Leaves, RingTree, keep_live, live_children, to_parents, top_level

_NONE: Any = np.float32(-np.inf)


@kernel
def _key(leaf: float, sign: float) -> Any:
    return np.float32(sign * leaf) if leaf > 0.0 else _NONE


@kernel
def _work_node(
    leaves: Any, origin: int, nodes: Any, bases: Any, masks: Any, first: int, stop: int, sign: float, level: int, node: int
) -> None:  # fmt: skip
    low, high = live_children(first, stop, level, node)
    best = _NONE
    if level == 1:
        at = (node << 6) - origin
        for child in range(low, high):
            best = max(best, _key(leaves[at + child], sign))
    else:
        at = bases[level - 1] + ((node << 6) & masks[level - 1])
        for child in range(low, high):
            best = max(best, nodes[at + child])
    nodes[bases[level] + (node & masks[level])] = best


@kernel
def _work_range(
    leaves: Any, origin: int, nodes: Any, bases: Any, masks: Any, first: int, stop: int, sign: float, start: int, end: int, level: int
) -> None:
    for at_level in range(level, bases.shape[0]):
        for node in range(start >> (6 * at_level), ((end - 1) >> (6 * at_level)) + 1):
            _work_node(leaves, origin, nodes, bases, masks, first, stop, sign, at_level, node)


@kernel
def _work_above(
    leaves: Any, origin: int, nodes: Any, bases: Any, masks: Any, first: int, stop: int, sign: float, ids: Any, scratch: Any
) -> None:  # fmt: skip
    count = keep_live(ids, first, stop, scratch)
    for level in range(1, bases.shape[0]):
        count, lowest, end = to_parents(scratch, count)
        if count >= end - lowest:
            begin = max(lowest << (6 * level), first)
            _work_range(leaves, origin, nodes, bases, masks, first, stop, sign, begin, min(end << (6 * level), stop), level)
            return
        for i in range(count):
            _work_node(leaves, origin, nodes, bases, masks, first, stop, sign, level, scratch[i])


@kernel
def _top_range(first: int, stop: int) -> tuple[int, int, int]:
    level = top_level(first, stop)
    return level, first >> (6 * level), ((stop - 1) >> (6 * level)) + 1


@kernel
def _work_top(nodes: Any, bases: Any, masks: Any, first: int, stop: int) -> float:
    best = _NONE
    if stop > first:
        level, low, high = _top_range(first, stop)
        for node in range(low, high):
            best = max(best, nodes[bases[level] + (node & masks[level])])
    return float(best)


@kernel
def _best_of(
    leaves: Any, origin: int, nodes: Any, bases: Any, masks: Any, sign: float, level: int, low: int, high: int, key: float, after: int
) -> tuple[Any, int]:
    """The first of the nodes [low, high) of `level` with the largest key among those that come after (`key`, node `after`) in order.

    The first that has `key` itself ends the search: nothing comes in between.
    """
    best, chosen = _NONE, -1
    for node in range(low, high):
        value = _key(leaves[node - origin], sign) if level == 0 else nodes[bases[level] + (node & masks[level])]
        if value > best and (value < key or (value == key and node > after)):
            best, chosen = value, node
            if value == key:
                break
    return best, chosen


@kernel
def _before(keys: Any, items: Any, i: int, j: int) -> bool:
    """Whether entry i comes before entry j: by key, then by the first id that its node covers."""
    if keys[i] != keys[j]:
        return keys[i] > keys[j]  # type: ignore[no-any-return]
    return items[i, 1] << (6 * items[i, 0]) < items[j, 1] << (6 * items[j, 0])  # type: ignore[no-any-return]


@kernel
def _swap(keys: Any, items: Any, i: int, j: int) -> None:
    keys[i], keys[j] = keys[j], keys[i]
    items[i, 0], items[j, 0] = items[j, 0], items[i, 0]
    items[i, 1], items[j, 1] = items[j, 1], items[i, 1]


@kernel
def _push(keys: Any, items: Any, size: int, key: float, level: int, node: int) -> int:
    keys[size], items[size, 0], items[size, 1] = key, level, node
    at = size
    while at > 0 and _before(keys, items, at, (at - 1) >> 1):
        _swap(keys, items, at, (at - 1) >> 1)
        at = (at - 1) >> 1
    return size + 1


@kernel
def _pop(keys: Any, items: Any, size: int) -> int:
    """Takes the first entry out; the rest are the first `size - 1`."""
    size -= 1
    _swap(keys, items, 0, size)
    at = 0
    while 2 * at + 1 < size:
        child = 2 * at + 1
        if child + 1 < size and _before(keys, items, child + 1, child):
            child += 1
        if not _before(keys, items, child, at):
            break
        _swap(keys, items, child, at)
        at = child
    return size


@kernel
def _take(
    leaves: Any, origin: int, nodes: Any, bases: Any, masks: Any, first: int, stop: int, sign: float, keys: Any, items: Any, ids: Any
) -> int:
    """Fills `ids` with the ids of the largest keys in order, returns how many. `keys` and `items`: room for levels · (n + 1).

    Best first. An entry (key, level, node) stands for its node and for those siblings that come after it, so a pop adds at most two: the
    next sibling and the best child.
    """
    if stop <= first:
        return 0
    top, top_low, top_high = _top_range(first, stop)
    key, node = _best_of(leaves, origin, nodes, bases, masks, sign, top, top_low, top_high, np.inf, -1)
    size = _push(keys, items, 0, key, top, node) if node >= 0 else 0
    done = 0
    while done < ids.shape[0] and size > 0:
        key, level, node = keys[0], items[0, 0], items[0, 1]
        size = _pop(keys, items, size)
        if level == 0:
            ids[done] = node
            done += 1
        else:
            low, high = live_children(first, stop, level, node)
            begin = node << 6
            best, child = _best_of(leaves, origin, nodes, bases, masks, sign, level - 1, begin + low, begin + high, key, -1)
            size = _push(keys, items, size, best, level - 1, child)
        low, high = top_low, top_high
        if level < top:
            low, high = live_children(first, stop, level + 1, node >> 6)
            low, high = low + (node >> 6 << 6), high + (node >> 6 << 6)
        best, sibling = _best_of(leaves, origin, nodes, bases, masks, sign, level, low, high, key, node)
        if sibling >= 0:
            size = _push(keys, items, size, best, level, sibling)
    return done


class ExtremumTree(RingTree):
    """The extreme leaves above 0 of the live ids [first, stop)."""

    __slots__ = ("_sign", "_top")

    EMPTY = ((np.float32, -np.inf),)

    def __init__(self, largest: bool) -> None:
        super().__init__()
        self._sign = 1.0 if largest else -1.0
        self._top = -np.inf

    @property
    def value(self) -> float:
        """The largest, or smallest, leaf above 0; 0 when there is none."""
        return self._sign * self._top if self._top > -np.inf else 0.0

    def take(self, leaves: Leaves, origin: int, n: int) -> Ids:
        """The ids of the `n` most extreme leaves in order, among equals the oldest first, ``int64[<= n]``: fewer where there are fewer."""
        self._check(leaves, origin)
        ids, room = np.empty(n, np.int64), len(self._bases) * (n + 1)
        keys, items = np.empty(room, np.float32), np.empty((room, 2), np.int64)
        return ids[: _take(leaves, origin, *self._arrays, self._first, self._stop, self._sign, keys, items, ids)]

    @property
    def _arrays(self) -> tuple[Any, Any, Any]:
        return self._rings[0], self._bases, self._masks

    def _work_range(self, leaves: Leaves, origin: int, start: int, stop: int, level: int) -> None:
        _work_range(leaves, origin, *self._arrays, self._first, self._stop, self._sign, start, stop, level)

    def _work_above(self, leaves: Leaves, origin: int, ids: Ids) -> None:
        _work_above(leaves, origin, *self._arrays, self._first, self._stop, self._sign, ids, np.empty(len(ids), np.int64))

    def _work_top(self) -> None:
        self._top = float(_work_top(*self._arrays, self._first, self._stop))
