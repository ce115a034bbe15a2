"""What all indexes have in common: they choose among the ids of a window by leaves that somebody else owns.

``leaves[i]`` belongs to id ``origin + i``; `origin` may differ from call to call. An id of the window [first, stop) is eligible if its leaf
is above 0. Leaves are float32, finite and not negative, and reach from `first` to `stop`. Indexes know nothing of episodes, views or files.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from replaystore.core.random import State
from replaystore.core.sumtree import Ids, Leaves

Successors = npt.NDArray[np.int32]
Probabilities = npt.NDArray[np.float64]
__all__ = ["Ids", "Index", "Leaves", "Probabilities", "Successors"]


class Index(Protocol):
    """An index over the leaves of a sliding window. Not safe for several threads at once."""

    @property
    def total(self) -> float:
        """What the probabilities are shares of: 0 if and only if nothing is eligible."""

    @property
    def count(self) -> int:
        """How many ids are eligible."""

    @property
    def nbytes(self) -> int:
        """Bytes of RAM of the index, the leaves not counted."""

    def rebuild(self, leaves: Leaves, origin: int, first: int, stop: int) -> None:
        """Reads all leaves of the window [first, stop) afresh."""

    def extend(self, leaves: Leaves, origin: int, first: int, stop: int) -> None:
        """Moves the window's end up to `stop` and its start to `first`; the new leaves are 0 or will be refreshed."""

    def drop(self, leaves: Leaves, origin: int, first: int) -> None:
        """Ids below `first` are gone; their leaves are never touched again."""

    def refresh(self, leaves: Leaves, origin: int, ids: Ids) -> None:
        """The leaves of `ids`, ``int64[n]``, changed: entered, updated or left (0). Ids outside the window are passed over."""

    def draw(self, leaves: Leaves, origin: int, state: State, n: int) -> tuple[Ids, Probabilities]:
        """`n` ids, ``int64[n]``, and the probability of each, ``float64[n]``.

        Raises:
            ValueError: nothing is eligible; or, where a draw holds no id twice, fewer than `n` are.
        """
