"""Successor links from previous links: what a crash may have lost is derived again from what it cannot lose.

What was removed shows in the links. The link of a used-up row is negative: it is no anchor, but walks pass through it. From and to a
deleted row there is no link at all.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from replaystore.core.jit import kernel

KEPT, DELETED, USED_UP = 0, 1, 2
"""Values of ``replay/removed``: as usual; deleted by a user; sampled as often as retention allows."""


@kernel
def _link(previous: Any, removed: Any, successor: Any, origin: int, first: int, start: int, stop: int) -> None:
    for step in range(start, stop):
        before = previous[step - origin]
        if first <= before < step and step - before < 2147483648:
            if removed[step - origin] == 1 or removed[before - origin] == 1:
                successor[before - origin] = 0
            elif removed[before - origin] == 2:
                successor[before - origin] = before - step
            else:
                successor[before - origin] = step - before


def rebuild_successors(
    previous: npt.NDArray[np.int64],
    removed: npt.NDArray[np.uint8],
    successor: npt.NDArray[np.int32],
    origin: int,
    first: int,
    start: int,
    stop: int,
) -> None:
    """Sets ``successor[i - origin]`` for the rows [start, stop) and whatever they follow; rows below `first` are not touched.

    Args:
        previous: id of the row before, −1 for an episode's first; element i is row ``origin + i``.
        removed: KEPT, DELETED or USED_UP, likewise.
        successor: distance to the next row, 0 for none, negative from a used-up row; changed in place.
        origin: row id of element 0.
        first: oldest row kept.
        start: first row to link; its own link and those of the rows after it are cleared first.
        stop: end of the rows.
    """
    successor[start - origin : stop - origin] = 0
    _link(previous, removed, successor, origin, first, start, stop)


def rebuild_successors_reference(previous: list[int], removed: list[int], first: int, stop: int) -> dict[int, int]:
    """The same in plain Python over rows [first, stop): row → distance."""
    links = dict.fromkeys(range(first, stop), 0)
    for step in range(first, stop):
        before = previous[step - first]
        if before >= first and DELETED not in (removed[step - first], removed[before - first]):
            links[before] = before - step if removed[before - first] == USED_UP else step - before
    return links


@kernel
def _link_runs(
    starts: Any, rows: Any, previous: Any, removed: Any, successor: Any, origin: int, first: int, start: int, entering: Any
) -> int:
    for run in range(len(starts)):
        at = starts[run] - origin
        for i in range(at, at + rows[run] - 1):
            successor[i] = 1
        successor[at + rows[run] - 1] = 0
    count = 0
    stop = start
    for run in range(len(starts)):
        stop += rows[run]
        before = previous[run]
        distance = starts[run] - before
        if before >= first and distance < 2147483648 and removed[before - origin] != 1:
            successor[before - origin] = distance
            if before < start:
                entering[count] = before
                count += 1
    for step in range(start, stop):
        if successor[step - origin] != 0:
            entering[count] = step
            count += 1
    return count


def link_runs(
    starts: npt.NDArray[np.int64],
    rows: npt.NDArray[np.int64],
    previous: npt.NDArray[np.int64],
    removed: npt.NDArray[np.uint8],
    successor: npt.NDArray[np.int32],
    origin: int,
    first: int,
    start: int,
) -> npt.NDArray[np.int64]:
    """Links rows just appended, and the rows that they follow, in place.

    Args:
        starts: first row id of each run, ``(runs,)``; the runs lie one after the other from `start` on.
        rows: how many rows each has.
        previous: row id before each run, −1 where an episode begins.
        removed, successor, origin, first: as of `rebuild_successors`; nothing is linked to rows below `first` or to deleted ones.
        start: first of the new rows.

    Returns:
        The rows that have got a successor, ``(n,)``: those that were there before in the order of the runs, then the new ones.
    """
    entering = np.empty(len(starts) + int(rows[0] if len(rows) == 1 else rows.sum()), np.int64)
    return entering[: _link_runs(starts, rows, previous, removed, successor, origin, first, start, entering)]


def link_runs_reference(
    starts: list[int], rows: list[int], previous: list[int], removed: dict[int, int], first: int, start: int
) -> tuple[dict[int, int], list[int]]:
    """The same in plain Python: the links set, and the rows that entered."""
    links: dict[int, int] = {}
    for begin, count in zip(starts, rows, strict=True):
        links |= dict.fromkeys(range(begin, begin + count), 1) | {begin + count - 1: 0}
    before = [row for row in previous if row >= first and removed[row] != DELETED]
    for begin, row in zip(starts, previous, strict=True):
        if row in before:
            links[row] = begin - row
    return links, [row for row in before if row < start] + [row for row in range(start, start + sum(rows)) if links[row]]


@kernel
def _delete(
    previous: Any, kind: Any, removed: Any, successor: Any, origin: int, first: int, stop: int, ids: Any, left: Any
) -> tuple[int, int, int]:
    deleted, steps, anchors = 0, 0, 0
    for step in ids:
        if step < first or step >= stop:
            continue
        at = step - origin
        if removed[at] == 1 or kind[at] > 1:
            continue
        if kind[at] == 0 and removed[at] == 0:
            steps += 1
        removed[at] = 1  # the mark first: links are derived from it
        deleted += 1
        if successor[at] > 0:
            left[anchors] = step
            anchors += 1
        successor[at] = 0
        before = previous[at]
        if first <= before < step:
            if successor[before - origin] > 0:
                left[anchors] = before
                anchors += 1
            successor[before - origin] = 0
    return deleted, steps, anchors


def delete_rows(
    previous: npt.NDArray[np.int64],
    kind: npt.NDArray[np.uint8],
    removed: npt.NDArray[np.uint8],
    successor: npt.NDArray[np.int32],
    origin: int,
    first: int,
    stop: int,
    ids: npt.NDArray[np.int64],
) -> tuple[int, int, npt.NDArray[np.int64]]:
    """Marks rows as DELETED and cuts the links from and to them, in place. Ids outside [first, stop) and lost rows are passed over.

    Returns:
        How many rows were marked that were not before; how many of them were steps that could be sampled, or could come to be; and which
        rows were anchors and are none any more, ``(n,)``.
    """
    left = np.empty(2 * len(ids), np.int64)
    deleted, steps, anchors = _delete(previous, kind, removed, successor, origin, first, stop, ids, left)
    return deleted, steps, left[:anchors]


@kernel
def _use_up(removed: Any, successor: Any, origin: int, ids: Any, left: Any) -> int:
    count = 0
    for step in ids:
        at = step - origin
        if removed[at] == 0 and successor[at] > 0:
            removed[at] = 2
            successor[at] = -successor[at]
            left[count] = step
            count += 1
    return count


def use_up_rows(
    removed: npt.NDArray[np.uint8], successor: npt.NDArray[np.int32], origin: int, ids: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Marks those of `ids` (all of them rows kept) that are anchors as USED_UP, in place; returns them."""
    left = np.empty(len(ids), np.int64)
    return left[: _use_up(removed, successor, origin, ids, left)]


@kernel
def spent_until(kind: Any, removed: Any, origin: int, start: int, stop: int) -> int:
    """The first row of [start, stop) that is a step and kept; `stop` when there is none."""
    row = start
    while row < stop and (kind[row - origin] != 0 or removed[row - origin] != 0):
        row += 1
    return row
