"""Steps in a row whose rows lie in a row: most sequences are one piece of the columns.

`replaystore.core.stretch` finds the same step by step, each waiting for what the one before says. Here each item's piece is looked over
as a whole first, which has many reads under way at once; what is not one piece is left to the other.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from replaystore.core.jit import kernel
from replaystore.core.stretch import Stretches, step_arrays, walk
from replaystore.core.walk import Ids, Links

RUN_BYTES = (1, 2, 4, 8)
"""Rows of so many bytes are copied by the piece; wider ones as fast row by row."""

BLOCK = 256
"""Rows looked over at once."""

_WORDS = {size: np.dtype(f"u{size}") for size in RUN_BYTES}


@kernel
def _broken(links: Any, kinds: Any, ended: Any) -> bool:
    """Whether one of these rows is not followed by the next, is no step, or one of `ended` ends its episode. In loops without ways out."""
    found = False
    for i in range(links.shape[0]):
        found |= (links[i] != 1) & (links[i] != -1)  # -1: used up, which walks pass through
    for i in range(kinds.shape[0]):
        found |= kinds[i] != 0
    for i in range(ended.shape[0]):
        found |= ended[i]
    return found


@kernel
def _touch(successor: Any, kind: Any, terminated: Any, origin: int, stop: int, anchors: Any, length: int) -> int:
    """Reads a row of every 64 bytes that `_find` looks at, the more of them at once as nothing is done with them."""
    seen = 0
    for item in range(anchors.shape[0]):
        at = anchors[item] - origin
        end = min(at + min(length, BLOCK), stop - origin)
        for row in range(at, end, 16):
            seen += successor[np.uint64(row)]
        for row in range(at, end, 64):
            seen += kind[np.uint64(row)] + terminated[np.uint64(row)]
    return seen


@kernel
def _find(successor: Any, kind: Any, terminated: Any, origin: int, stop: int, anchors: Any, length: int, straight: Any) -> int:
    seen = _touch(successor, kind, terminated, origin, stop, anchors, length)
    for item in range(anchors.shape[0]):
        at, good, begin = anchors[item] - origin, anchors[item] + length < stop, 0
        while good and begin < length:
            end = min(begin + BLOCK, length)
            good = not _broken(
                successor[at + begin : at + end],
                kind[at + max(begin, 1) : at + end],
                terminated[at + begin : at + min(end, length - 1)],
            )
            begin = end
        straight[item] = good
    return seen


@kernel
def _fill(
    successor: Any, kind: Any, terminated: Any, previous: Any, removed: Any, origin: int, first: int, stop: int,
    anchors: Any, straight: Any, window: Any, blank: Any, row_ids: Any, taken: Any, end: Any,
) -> int:  # fmt: skip
    length = row_ids.shape[1]
    scratch = np.empty(length, np.int64)
    short = 0
    for item in range(anchors.shape[0]):
        rows, ids, anchor = window[item], row_ids[item], anchors[item]
        if straight[item]:
            for i in range(length):
                ids[i] = anchor + i
            for i in range(length + 1):
                rows[i] = anchor - origin + i
            taken[item], end[item] = length, anchor - origin + length
        else:
            count, following = walk(
                successor, kind, terminated, previous, removed, origin, first, stop, anchor, 0, length, True,
                rows, blank[item], scratch, ids,
            )  # fmt: skip
            taken[item], end[item] = count, following - origin
            short += count < length
    return short


@kernel
def _steps(window: Any, taken: Any, steps: Any) -> None:
    for item in range(steps.shape[0]):
        rows, into = window[item], steps[item]
        for i in range(steps.shape[1]):
            into[i] = rows[i] if i < taken[item] else rows[0]


@kernel
def _copy(source: Any, firsts: Any, out: Any) -> None:
    length = out.shape[1]
    for item in range(firsts.shape[0]):
        rows, into = source[firsts[item] : firsts[item] + length], out[item]
        for i in range(length):
            into[i] = rows[i]


def stretches(links: Links, anchors: Ids, length: int) -> tuple[Stretches, bool]:
    """What `replaystore.core.stretch.stretches` gives without rows before the anchors, and whether each item is one piece.

    ``steps`` and ``row_ids`` may be one array.
    """
    n = len(anchors)
    straight = np.empty(n, np.bool_)
    _find(links.successor, links.kind, links.terminated, links.origin, links.stop, anchors, length, straight)
    window, blank, row_ids = np.empty((n, length + 1), np.int64), np.zeros((n, length + 1), np.bool_), np.empty((n, length), np.int64)
    taken, end = np.empty(n, np.int32), np.empty(n, np.int64)
    short = _fill(*step_arrays(links), anchors, straight, window, blank, row_ids, taken, end)
    steps = row_ids
    if short or links.origin:
        steps = np.empty((n, length), np.int64)
        _steps(window, taken, steps)
    return Stretches(window, blank, steps, row_ids, taken, end), bool(straight.all())


def copy_pieces(source: npt.NDArray[Any], firsts: Ids, out: npt.NDArray[Any]) -> None:
    """``out[i, j] = source[firsts[i] + j]``, of rows of `RUN_BYTES`; both C-contiguous and of one dtype, `source` mapped as far as that."""
    word = _WORDS[source.strides[0]]
    _copy(source.reshape(-1).view(word), firsts, out.reshape(-1).view(word).reshape(out.shape[:2]))
