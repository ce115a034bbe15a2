"""What the leaves of a selector stand for: priorities under an exponent, raw priorities, or what is left of a pass."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from replaystore.core.indexes import (
    LEAST_MASS,
    MOST_MASS,
    FifoIndex,
    HeapIndex,
    Index,
    LifoIndex,
    ProportionalIndex,
    RankIndex,
    RecencyIndex,
)
from replaystore.core.indexes.prioritized import raw_priorities
from replaystore.engine.rows import Rows
from replaystore.schema.selectors import (
    KEEPS_PRIORITIES,
    Fifo,
    Lifo,
    MaxHeap,
    MinHeap,
    Prioritized,
    RankPrioritized,
    Recency,
    Selector,
    Uniform,
)

Array = npt.NDArray[Any]

DRAWN = np.float32(-0.0)
"""Leaf of an anchor that this pass had already: not above 0, and yet not the 0 of what is no anchor."""

TO_COME = np.float32(1.0)

DISTINCT = (Fifo, Lifo, MinHeap, MaxHeap)
"""Selectors whose batches hold no anchor twice."""

_BLOCK_ROWS = 1 << 20


_ONES = np.ones(1 << 12, np.float32)


def ones(n: int) -> npt.NDArray[np.float32]:
    """``float32[n]``, new; three times faster than ``np.ones`` for a batch of the usual size."""
    return _ONES[:n].copy() if n <= len(_ONES) else np.ones(n, np.float32)


def terms(selector: Selector) -> tuple[float, float]:
    """Alpha and epsilon under which a leaf is ``(priority + epsilon) ** alpha``.

    Selectors that only compare keep the priority as it is, but for 0, which would be no leaf: the smallest float32 stands for it.
    """
    return (selector.alpha, selector.epsilon) if isinstance(selector, Prioritized) else (1.0, LEAST_MASS)


def made_with(selector: Selector) -> tuple[float, float]:
    """The terms as the state page notes them, where zeros mean that nothing is known: without alpha any epsilon is as good."""
    alpha, epsilon = terms(selector)
    return float(alpha), float(epsilon) if alpha else 1.0


def masses_between(masses: Array, before: tuple[float, float], after: tuple[float, float], anchors: Array | None = None) -> Array:
    """Masses under some terms as masses under others, ``(n,)``, bounded like those of an update. What is no anchor stays 0.

    Args:
        masses: as they are.
        before: alpha and epsilon that they were made with.
        after: those that they are to be made with.
        anchors: bool ``(n,)``; without it whatever has a mass. The difference is anchors of priority 0, which an epsilon brings back.
    """
    with np.errstate(over="ignore"):  # beyond float64 is bounded below, like all that is beyond float32
        base = np.ones(masses.shape)
        if before[0] != 0:
            base = np.maximum(np.asarray(masses, np.float64) ** (1.0 / before[0]) - before[1], 0.0)
        base += after[1]
        bounded = np.clip(base ** after[0], LEAST_MASS, MOST_MASS)
    drawn = (masses > 0 if anchors is None else anchors) & ((base > 0) | (after[0] == 0))
    return np.where(drawn, bounded, 0.0).astype(masses.dtype)


def masses_under(masses: Array, before: Selector, after: Selector, anchors: Array | None = None) -> Array:
    """The same between two selectors that keep priorities."""
    return masses_between(masses, terms(before), terms(after), anchors)


def mend_pass(rows: Rows, path: str) -> None:
    """Makes the leaves of a pass what they must be, whatever a crash left: an anchor not known to be drawn is still to come."""
    leaves, successor = rows.live(path), rows.live("replay/successor")
    for start in range(0, len(leaves), _BLOCK_ROWS):
        part = slice(start, start + _BLOCK_ROWS)
        anchor = successor[part] > 0
        drawn = (leaves[part] == 0) & np.signbit(leaves[part])
        leaves[part] = np.where(anchor, np.where(drawn, DRAWN, TO_COME), np.float32(0))


def index_for(selector: Selector) -> Index:
    """The index that draws as `selector` does, over leaves of which those above 0 are eligible."""
    if isinstance(selector, Uniform):
        return ProportionalIndex(stratified=False)
    if isinstance(selector, Prioritized):
        return ProportionalIndex(selector.stratified)
    if isinstance(selector, Recency):
        return RecencyIndex(selector.half_life_steps, selector.newest)
    if isinstance(selector, RankPrioritized):
        return RankIndex(selector.alpha)
    if isinstance(selector, MinHeap | MaxHeap):
        return HeapIndex(isinstance(selector, MaxHeap))
    if isinstance(selector, Fifo | Lifo):
        return FifoIndex() if isinstance(selector, Fifo) else LifoIndex()
    raise TypeError(f"no index for {selector!r}")


def priorities_of(selector: Selector, masses: Array) -> npt.NDArray[np.float32]:
    """The raw priorities that have these masses, float32; 1 where priorities mean nothing."""
    alpha, epsilon = terms(selector)
    if not isinstance(selector, KEEPS_PRIORITIES) or alpha == 0:
        return np.ones(masses.shape, np.float32)
    return raw_priorities(np.asarray(masses, np.float64), alpha, epsilon)
