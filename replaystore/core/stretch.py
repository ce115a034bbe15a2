"""Steps in a row: the rows of sequences and of whole episodes, with the frames before them and the row after."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from replaystore.core.jit import kernel
from replaystore.core.walk import DELETED, Counts, Ids, Links

Mask = npt.NDArray[np.bool_]

_ONE = np.uint64(1)  # unsigned, because numba tests signed indices for being negative


@kernel
def walk(
    successor: Any, kind: Any, terminated: Any, previous: Any, removed: Any, origin: int, first: int, stop: int,
    anchor: int, back: int, limit: int, edge: bool, window: Any, blank: Any, steps: Any, row_ids: Any,
) -> tuple[int, int]:  # fmt: skip
    """`back` frames, up to `limit` steps, the row after, then the anchor, blank. Gives the steps taken and the row after."""
    known = removed.shape[0] > 0
    before, missing = anchor, False
    for position in range(back - 1, -1, -1):
        if not missing:
            step = previous[before - origin]
            missing = step < first or (known and removed[step - origin] == DELETED)
            if not missing:
                before = step
        window[position] = before - origin
        blank[position] = missing and not edge
    step = anchor
    following = step + abs(successor[step - origin])
    count = 0
    while True:
        row_ids[count] = step
        count += 1
        if following == step + 1:  # most rows follow each other: counting on does not wait for what says so
            at, most, run = np.uint64(step - origin), min(limit - count, stop - 1 - following), 0
            while run < most and not terminated[at] and kind[at + _ONE] == 0 and successor[at + _ONE] == 1:
                at += _ONE
                run += 1
            piece = row_ids[count : count + run]
            for position in range(run):
                piece[position] = following + position
            count += run
            step += run
            following += run
        if count == limit or terminated[step - origin] or kind[following - origin] != 0:
            break
        distance = abs(successor[following - origin])
        if distance == 0 or following + distance >= stop:
            break
        step = following
        following = step + distance
    ahead, hidden = window[back:], blank[back:]
    for position in range(count):  # apart from the walk, which waits for what it reads
        steps[position] = ahead[position] = row_ids[position] - origin
        hidden[position] = False
    ahead[count] = following - origin
    hidden[count] = False
    for position in range(count, limit):
        ahead[position + 1] = steps[position] = anchor - origin
        hidden[position + 1] = True
        row_ids[position] = -1
    return count, following


@kernel
def _stretches(
    successor: Any, kind: Any, terminated: Any, previous: Any, removed: Any, origin: int, first: int, stop: int,
    anchors: Any, back: int, edge: bool, window: Any, blank: Any, steps: Any, row_ids: Any, taken: Any, end: Any,
) -> None:  # fmt: skip
    for item in range(anchors.shape[0]):
        count, following = walk(
            successor, kind, terminated, previous, removed, origin, first, stop, anchors[item], back, steps.shape[1], edge,
            window[item], blank[item], steps[item], row_ids[item],
        )  # fmt: skip
        taken[item], end[item] = count, following - origin


@kernel
def _packed(
    successor: Any, kind: Any, terminated: Any, previous: Any, removed: Any, origin: int, first: int, stop: int,
    anchors: Any, back: int, edge: bool, offsets: Any, window: Any, blank: Any, steps: Any, row_ids: Any, end: Any,
) -> None:  # fmt: skip
    for item in range(anchors.shape[0]):
        here, there = offsets[item], offsets[item + 1]
        begin = here + item * (back + 1)
        close = begin + there - here + back + 1
        _, following = walk(
            successor, kind, terminated, previous, removed, origin, first, stop, anchors[item], back, there - here, edge,
            window[begin:close], blank[begin:close], steps[here:there], row_ids[here:there],
        )  # fmt: skip
        end[item] = following - origin


@kernel
def _lengths(successor: Any, kind: Any, terminated: Any, origin: int, stop: int, anchors: Any, limit: int, most: int, taken: Any) -> int:
    total = 0
    for item in range(anchors.shape[0]):
        step = anchors[item]
        following = step + abs(successor[step - origin])
        count = 1
        while count < limit and not terminated[step - origin] and kind[following - origin] == 0:
            distance = abs(successor[following - origin])
            if distance == 0 or following + distance >= stop or total + count >= most:
                break
            step = following
            following = step + distance
            count += 1
        taken[item] = count
        total += count
        if total >= most:
            return item + 1
    return anchors.shape[0]  # type: ignore[no-any-return]


class Stretches(NamedTuple):
    """The rows of a batch; all but `row_ids` as indices of the columns, ids less the origin. P is ``(n, length)``, packed ``(total,)``."""

    window: Ids
    """``(n, back + length + 1)``: the rows before, the steps, the row after the last of them; where blank, some row to read. Packed: of
    each item its ``back + steps + 1`` rows, one item after the other."""
    blank: Mask
    """Which places of the window stand for nothing."""
    steps: Ids
    """``P``: the steps; where there is none, some row to read."""
    row_ids: Ids
    """``P``: their ids, -1 where there is none."""
    taken: Counts
    """``(n,)``: how many steps, at least 1; fewer than `length` where the episode, or what is known of it, ends."""
    end: Ids
    """``(n,)``: the row after the last step."""


def stretches(links: Links, anchors: Ids, length: int, back: int, edge: bool) -> Stretches:
    """Up to `length` steps in a row from each anchor, what is before them and what is after.

    Args:
        links: the rows.
        anchors: ``(n,)`` ids of steps that have a successor.
        length: how many steps at most.
        back: how many rows before the anchor.
        edge: whether rows missing there are the oldest one there is; else they are blank.
    """
    n = len(anchors)
    shape = (n, back + length + 1)
    found = Stretches(
        np.empty(shape, np.int64), np.empty(shape, np.bool_), np.empty((n, length), np.int64), np.empty((n, length), np.int64),
        np.empty(n, np.int32), np.empty(n, np.int64),
    )  # fmt: skip
    _stretches(*step_arrays(links), anchors, back, edge, *found)
    return found


def packed(links: Links, anchors: Ids, taken: Counts, back: int, edge: bool) -> Stretches:
    """The same one after the other: of item i ``taken[i]`` steps, which must be there (`lengths`), and ``back + 1`` rows more."""
    n = len(anchors)
    offsets = offsets_of(taken)
    total = int(offsets[-1])
    window, blank = np.empty(total + n * (back + 1), np.int64), np.empty(total + n * (back + 1), np.bool_)
    steps, row_ids, end = np.empty(total, np.int64), np.empty(total, np.int64), np.empty(n, np.int64)
    _packed(*step_arrays(links), anchors, back, edge, offsets, window, blank, steps, row_ids, end)
    return Stretches(window, blank, steps, row_ids, taken, end)


def offsets_of(taken: Counts) -> Ids:
    """``(n + 1,)``: where each item begins, and where the last one ends."""
    offsets = np.zeros(len(taken) + 1, np.int64)
    np.cumsum(taken, out=offsets[1:])
    return offsets


def lengths(links: Links, anchors: Ids, limit: int, most: int) -> Counts | None:
    """How many steps there are from each anchor to its episode's end, `limit` at most: ``(n,)``; None when together more than `most`."""
    taken = np.zeros(len(anchors), np.int32)
    _lengths(links.successor, links.kind, links.terminated, links.origin, links.stop, anchors, limit, most + 1, taken)
    return taken if int(taken.sum(dtype=np.int64)) <= most else None


def step_arrays(links: Links) -> tuple[Any, Any, Any, Any, Any, int, int, int]:
    """What `walk` takes first."""
    return (
        links.successor, links.kind, links.terminated, links.previous, links.removed, links.origin, links.first, links.stop,
    )  # fmt: skip
