"""Uniform draws over the anchors, straight from the links between the rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from replaystore.core.indexes.protocol import Ids, Successors
from replaystore.core.jit import kernel
from replaystore.core.random import State, next_below

TRIES_PER_DRAW = 16
"""A table is mostly anchors, so rejection needs one or two tries; beyond this many (and `ROWS_PER_TRY`) the anchors are enumerated."""

ROWS_PER_TRY = 32
"""A try is a cache miss and costs about as much as walking over this many rows: trying never costs more than enumerating."""


@kernel
def _try(successor: Any, origin: int, first: int, stop: int, state: Any, ids: Any, tries: int) -> int:
    done = 0
    while done < ids.shape[0] and tries > 0:
        step = first + next_below(state, stop - first)
        tries -= 1
        if successor[step - origin] > 0:
            ids[done] = step
            done += 1
    return done


@kernel
def _draw_ranks(state: Any, below: int, ranks: Any) -> None:
    for i in range(ranks.shape[0]):
        ranks[i] = next_below(state, below)


@kernel
def _ids_of_ranks(successor: Any, origin: int, first: int, ranks: Any, order: Any, ids: Any) -> None:
    step, seen = first - 1, -1
    for i in order:  # by rank, ascending
        while seen < ranks[i]:
            step += 1
            if successor[step - origin] > 0:
                seen += 1
        ids[i] = step


class UniformIndex:
    """Every anchor with the same probability. Keeps nothing: the links between the rows say what is an anchor."""

    @staticmethod
    def draw(successor: Successors, origin: int, first: int, stop: int, anchors: int, state: State, n: int) -> Ids:
        """`n` independent draws, ``int64[n]``, exactly uniform over the anchors of [first, stop).

        Rows are drawn until one is an anchor; where anchors are rare, they are counted and looked up by rank, which gives the same
        distribution. So the cost is bounded by a walk over the rows.

        Args:
            successor: ``int32``, above 0 for anchors.
            origin: id of the first element.
            first: oldest live id.
            stop: end of the live ids.
            anchors: how many anchors there are.
            state: random numbers, ``uint64[4]``, moves on.
            n: how many.

        Raises:
            ValueError: there is no anchor.
        """
        ids = np.empty(n, np.int64)
        done = 0
        if anchors > 0 and stop > first:
            done = _try(successor, origin, first, stop, state, ids, TRIES_PER_DRAW * n + (stop - first) // ROWS_PER_TRY)
            if done == n:
                return ids
        found = int(np.count_nonzero(successor[first - origin : stop - origin] > 0)) if stop > first else 0
        if not found:
            raise ValueError(f"no row of [{first}, {stop}) is an anchor: there is nothing to draw")
        ranks = np.empty(n - done, np.int64)
        _draw_ranks(state, found, ranks)
        _ids_of_ranks(successor, origin, first, ranks, np.argsort(ranks), ids[done:])
        return ids
