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
