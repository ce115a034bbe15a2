"""Steps in a row: the rows of sequences and of whole episodes, with the frames before them and the row after."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from replaystore.core.jit import kernel
from replaystore.core.walk import DELETED, Counts, Ids, Links

Mask = npt.NDArray[np.bool_]


@kernel
def _walk(
    successor: Any, kind: Any, terminated: Any, previous: Any, removed: Any, origin: int, first: int, stop: int,
    anchor: int, back: int, limit: int, edge: bool, window: Any, blank: Any,
) -> int:  # fmt: skip
    """Fills one window: `back` frames before the anchor, up to `limit` steps, the row after them, then the anchor, blank."""
    known = removed.shape[0] > 0
    window[back] = anchor
    blank[back] = False
    before, missing = anchor, False
    for position in range(back - 1, -1, -1):
        if not missing:
            step = previous[before - origin]
            missing = step < first or (known and removed[step - origin] == DELETED)
            if not missing:
                before = step
        window[position] = before
        blank[position] = missing and not edge
    step = anchor
    following = step + abs(successor[step - origin])
    count = 1
    while count < limit and not terminated[step - origin] and kind[following - origin] == 0:
        distance = abs(successor[following - origin])
        if distance == 0 or following + distance >= stop:
            break
        step = following
        following = step + distance
        window[back + count] = step
        blank[back + count] = False
        count += 1
    window[back + count] = following
    blank[back + count] = False
    for position in range(back + count + 1, window.shape[0]):
        window[position] = anchor
        blank[position] = True
    return count


@kernel
def _stretches(
    successor: Any, kind: Any, terminated: Any, previous: Any, removed: Any, origin: int, first: int, stop: int,
    anchors: Any, back: int, edge: bool, window: Any, blank: Any, taken: Any,
) -> None:  # fmt: skip
    limit = window.shape[1] - back - 1
    for item in range(anchors.shape[0]):
        taken[item] = _walk(
            successor, kind, terminated, previous, removed, origin, first, stop, anchors[item], back, limit, edge, window[item], blank[item]
        )


@kernel
def _packed(
    successor: Any, kind: Any, terminated: Any, previous: Any, removed: Any, origin: int, first: int, stop: int,
    anchors: Any, back: int, edge: bool, offsets: Any, window: Any, blank: Any,
) -> None:  # fmt: skip
    for item in range(anchors.shape[0]):
        length = offsets[item + 1] - offsets[item]
        begin = offsets[item] + item * (back + 1)
        end = begin + length + back + 1
        _walk(
            successor, kind, terminated, previous, removed, origin, first, stop,
            anchors[item], back, length, edge, window[begin:end], blank[begin:end],
        )  # fmt: skip


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


def stretches(links: Links, anchors: Ids, length: int, back: int, edge: bool) -> tuple[Ids, Mask, Counts]:
    """Up to `length` steps in a row from each anchor, what is before them and what is after.

    Args:
        links: the rows.
        anchors: ``(n,)`` ids of steps that have a successor.
        length: how many steps at most.
        back: how many rows before the anchor.
        edge: whether rows missing there are the oldest one there is; else they are blank.

    Returns:
        window: ``(n, back + length + 1)`` ids: the rows before, the steps, the row after the last of them; where blank, some id to read.
        blank: which places stand for nothing.
        taken: ``(n,)`` how many steps, at least 1; fewer than `length` where the episode, or what is known of it, ends.
    """
    shape = (len(anchors), back + length + 1)
    window, blank, taken = np.empty(shape, np.int64), np.empty(shape, np.bool_), np.empty(len(anchors), np.int32)
    _stretches(*_arrays(links), anchors, back, edge, window, blank, taken)
    return window, blank, taken


def packed(links: Links, anchors: Ids, offsets: Ids, back: int, edge: bool) -> tuple[Ids, Mask]:
    """The same one after the other: of item i ``offsets[i + 1] - offsets[i]`` steps, which must be there, and ``back + 1`` rows more.

    Returns:
        window, blank: ``(offsets[-1] + n · (back + 1),)``.
    """
    total = int(offsets[-1]) + len(anchors) * (back + 1)
    window, blank = np.empty(total, np.int64), np.empty(total, np.bool_)
    _packed(*_arrays(links), anchors, back, edge, offsets, window, blank)
    return window, blank


def lengths(links: Links, anchors: Ids, limit: int, most: int) -> Counts | None:
    """How many steps there are from each anchor to its episode's end, `limit` at most: ``(n,)``; None when together more than `most`."""
    taken = np.zeros(len(anchors), np.int32)
    _lengths(links.successor, links.kind, links.terminated, links.origin, links.stop, anchors, limit, most + 1, taken)
    return taken if int(taken.sum(dtype=np.int64)) <= most else None


def _arrays(links: Links) -> tuple[Any, Any, Any, Any, Any, int, int, int]:
    return (
        links.successor, links.kind, links.terminated, links.previous, links.removed, links.origin, links.first, links.stop,
    )  # fmt: skip
