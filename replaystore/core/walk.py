"""Along a stream: the rows an n-step transition takes, and the frames before a step. `stretch.py` walks further, `goals.py` to an end.

A step that is used up has a negative successor: no anchor, but walks pass through. A deleted row ends a walk in either direction.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from replaystore.core.jit import kernel
from replaystore.core.random import State, next_below

Ids = npt.NDArray[np.int64]
Counts = npt.NDArray[np.int32]

DELETED = 1
"""In ``replay/removed``."""


class Links(NamedTuple):
    """What walks look at: mapped columns, element i being row ``origin + i``. Rows outside [first, stop) do not exist."""

    successor: npt.NDArray[np.int32]
    """Distance to the row after it; 0 none, negative when the step is used up."""
    previous: npt.NDArray[np.int64]
    """Id of the row before it in the episode, -1 none."""
    kind: npt.NDArray[np.uint8]
    """0 a step, else a row that is none."""
    terminated: npt.NDArray[np.bool_]
    removed: npt.NDArray[np.uint8]
    """`DELETED` or not; empty when nothing ever was."""
    origin: int
    first: int
    stop: int


@kernel
def _forward(
    successor: Any, kind: Any, terminated: Any, origin: int, stop: int, anchors: Any, limits: Any, path: Any, taken: Any, end: Any
) -> None:
    same = limits.shape[0] == 1
    for item in range(anchors.shape[0]):
        limit = limits[0] if same else limits[item]
        step = anchors[item]
        following = step + abs(successor[step - origin])
        count = 1
        path[item, 0] = step
        while count < limit and not terminated[step - origin] and kind[following - origin] == 0:
            distance = abs(successor[following - origin])
            if distance == 0 or following + distance >= stop:
                break
            step = following
            following = step + distance
            path[item, count] = step
            count += 1
        for position in range(count, path.shape[1]):
            path[item, position] = step
        taken[item] = count
        end[item] = following


@kernel
def _transitions(
    successor: Any, kind: Any, terminated: Any, truncated: Any, versions: Any, origin: int, stop: int,
    anchors: Any, limits: Any, powers: Any, path: Any, taken: Any, numbers: Any, flags: Any, discount: Any,
) -> None:  # fmt: skip
    _forward(successor, kind, terminated, origin, stop, anchors, limits, path, taken, numbers[0])
    longest = path.shape[1] - 1
    for item in range(anchors.shape[0]):
        here, following, last = anchors[item] - origin, numbers[0, item] - origin, path[item, longest] - origin
        numbers[1, item], numbers[2, item], numbers[3, item] = here, following, versions[here]
        ended = terminated[last]
        flags[0, item] = ended
        flags[1, item] = truncated[last] or (kind[following] == 1 and truncated[following])
        discount[item] = 0.0 if ended else powers[taken[item]]


@kernel
def _backward(previous: Any, removed: Any, origin: int, first: int, ids: Any, window: Any) -> None:
    length = window.shape[1]
    known = removed.shape[0] > 0
    for item in range(ids.shape[0]):
        step = ids[item]
        window[item, length - 1] = step
        for position in range(length - 2, -1, -1):
            if step >= first:
                step = previous[step - origin]
            if step < first or (known and removed[step - origin] == DELETED):
                step = -1
            window[item, position] = step


@kernel
def _pad(window: Any) -> None:
    for item in range(window.shape[0]):
        for position in range(window.shape[1] - 2, -1, -1):
            if window[item, position] < 0:
                window[item, position] = window[item, position + 1]


@kernel
def _draw_limits(state: Any, low: int, high: int, limits: Any) -> None:
    for item in range(limits.shape[0]):
        limits[item] = low + next_below(state, high - low + 1)


def forward(links: Links, anchors: Ids, limits: Ids, longest: int) -> tuple[Ids, Counts, Ids]:
    """The steps of n-step transitions.

    Args:
        links: the rows.
        anchors: ``(n,)`` ids of steps that have a successor.
        limits: ``(n,)`` or, for all alike, ``(1,)``: how many steps at most.
        longest: at least every limit.

    Returns:
        path: ``(n, longest)`` ids of the steps taken, the last one repeated to the end of the row.
        taken: ``(n,)`` how many, at least 1. Fewer than its limit after a terminated step, at the closing row, or where the stream
            ends for now.
        end: ``(n,)`` id of the row after the last step taken.
    """
    n = len(anchors)
    path, taken, end = np.empty((n, longest), np.int64), np.empty(n, np.int32), np.empty(n, np.int64)
    _forward(links.successor, links.kind, links.terminated, links.origin, links.stop, anchors, limits, path, taken, end)
    return path, taken, end


class Transitions(NamedTuple):
    """The rows of n-step transitions, and what is known of them."""

    path: Ids
    """``(n, longest)`` the steps taken, the last one repeated."""
    taken: Counts
    """``(n,)`` how many, at least 1."""
    end: Ids
    """``(n,)`` the row after the last step."""
    here: Ids
    """``(n,)`` index of the anchor in the columns."""
    following: Ids
    """``(n,)`` index of `end`."""
    versions: Ids
    """``(n,)`` the anchors' policy versions."""
    terminated: npt.NDArray[np.bool_]
    """``(n,)`` of the last step taken."""
    truncated: npt.NDArray[np.bool_]
    """``(n,)`` the same; an interrupted episode says so in its closing row only."""
    discount: npt.NDArray[np.float32]
    """``(n,)`` ``powers[taken]``, 0 where terminated."""


def transitions(
    links: Links,
    truncated: npt.NDArray[np.bool_],
    versions: Ids,
    anchors: Ids,
    limits: Ids,
    longest: int,
    powers: npt.NDArray[np.float64],
) -> Transitions:
    """The same with all that is small of each transition, in one go.

    Args:
        links: the rows.
        truncated: mapped column.
        versions: mapped column, policy versions.
        anchors, limits, longest: see `forward`.
        powers: of the discount, ``(longest + 1,)``.
    """
    n = len(anchors)
    path, taken = np.empty((n, longest), np.int64), np.empty(n, np.int32)
    numbers, flags, discount = np.empty((4, n), np.int64), np.empty((2, n), np.bool_), np.empty(n, np.float32)
    _transitions(
        links.successor, links.kind, links.terminated, truncated, versions, links.origin, links.stop,
        anchors, limits, powers, path, taken, numbers, flags, discount,
    )  # fmt: skip
    return Transitions(path, taken, numbers[0], numbers[1], numbers[2], numbers[3], flags[0], flags[1], discount)


def backward(links: Links, ids: Ids, length: int) -> Ids:
    """The `length` rows up to each of `ids`: ``(n, length)``, oldest first; −1 before the episode's start, below `first` and deleted."""
    window = np.empty((len(ids), length), np.int64)
    _backward(links.previous, links.removed, links.origin, links.first, ids, window)
    return window


def pad_edge(window: Ids) -> None:
    """Replaces −1 in each row by its oldest real id, in place."""
    _pad(window)


def draw_limits(state: State, low: int, high: int, n: int) -> Ids:
    """``(n,)`` numbers of steps, each uniform from `low` to `high`; `state` moves on."""
    limits = np.empty(n, np.int64)
    _draw_limits(state, low, high, limits)
    return limits
