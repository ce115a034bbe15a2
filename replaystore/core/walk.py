"""Along a stream: the rows an n-step transition takes, and the frames before a step."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from replaystore.core.jit import kernel

Ids = npt.NDArray[np.int64]


@kernel
def _forward(successor: Any, kind: Any, terminated: Any, origin: int, anchors: Any, path: Any, taken: Any, end: Any) -> None:
    n_step = path.shape[1]
    for item in range(anchors.shape[0]):
        step = anchors[item]
        following = step + successor[step - origin]
        count = 1
        path[item, 0] = step
        while count < n_step and not terminated[step - origin] and kind[following - origin] == 0 and successor[following - origin] > 0:
            step = following
            following = step + successor[step - origin]
            path[item, count] = step
            count += 1
        for position in range(count, n_step):
            path[item, position] = step
        taken[item] = count
        end[item] = following


@kernel
def _backward(previous: Any, origin: int, first: int, ids: Any, window: Any) -> None:
    length = window.shape[1]
    for item in range(ids.shape[0]):
        step = ids[item]
        window[item, length - 1] = step
        for position in range(length - 2, -1, -1):
            if step >= first:
                step = previous[step - origin]
            if step < first:
                step = -1
            window[item, position] = step


@kernel
def _pad(window: Any) -> None:
    for item in range(window.shape[0]):
        for position in range(window.shape[1] - 2, -1, -1):
            if window[item, position] < 0:
                window[item, position] = window[item, position + 1]


def forward(
    successor: npt.NDArray[np.int32], kind: npt.NDArray[np.uint8], terminated: npt.NDArray[np.bool_], origin: int, anchors: Ids, n_step: int
) -> tuple[Ids, npt.NDArray[np.int32], Ids]:
    """The steps of n-step transitions.

    Args:
        successor, kind, terminated: mapped columns; element i is row ``origin + i``.
        origin: row id of element 0.
        anchors: ``(n,)`` ids of steps that have a successor.
        n_step: how many steps at most.

    Returns:
        path: ``(n, n_step)`` ids of the steps taken, the last one repeated to the end of the row.
        taken: ``(n,)`` how many, at least 1. Fewer than `n_step` after a terminated step, at the closing row, or where the stream
            ends for now.
        end: ``(n,)`` id of the row after the last step taken.
    """
    n = len(anchors)
    path, taken, end = np.empty((n, n_step), np.int64), np.empty(n, np.int32), np.empty(n, np.int64)
    _forward(successor, kind, terminated, origin, anchors, path, taken, end)
    return path, taken, end


def backward(previous: npt.NDArray[np.int64], origin: int, first: int, ids: Ids, length: int) -> Ids:
    """The `length` rows up to each of `ids`: ``(n, length)``, oldest first; −1 before the episode's start and below `first`."""
    window = np.empty((len(ids), length), np.int64)
    _backward(previous, origin, first, ids, window)
    return window


def pad_edge(window: Ids) -> None:
    """Replaces −1 in each row by its oldest real id, in place."""
    _pad(window)
