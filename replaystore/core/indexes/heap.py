"""The ids of the largest or the smallest leaves."""

from __future__ import annotations

from replaystore.core.indexes.protocol import Ids, Leaves, Probabilities
from replaystore.core.random import State


class HeapIndex:
    """The `n` extreme ids in order, ties oldest first; probabilities 1."""

    def __init__(self, largest: bool) -> None:
        raise NotImplementedError

    @property
    def value(self) -> float:
        """The largest (or smallest) leaf above 0; 0 when there is none."""
        raise NotImplementedError

    @property
    def total(self) -> float:
        """What the probabilities are shares of: 0 if and only if nothing is eligible."""
        raise NotImplementedError

    @property
    def count(self) -> int:
        """How many ids are eligible."""
        raise NotImplementedError

    @property
    def nbytes(self) -> int:
        """Bytes of RAM of the index, the leaves not counted."""
        raise NotImplementedError

    def rebuild(self, leaves: Leaves, origin: int, first: int, stop: int) -> None:
        """Reads all leaves of the window [first, stop) afresh."""
        raise NotImplementedError

    def extend(self, leaves: Leaves, origin: int, first: int, stop: int) -> None:
        """Moves the window's end up to `stop` and its start to `first`; the new leaves are 0 or will be refreshed."""
        raise NotImplementedError

    def drop(self, leaves: Leaves, origin: int, first: int) -> None:
        """Ids below `first` are gone; their leaves are never touched again."""
        raise NotImplementedError

    def refresh(self, leaves: Leaves, origin: int, ids: Ids) -> None:
        """The leaves of `ids`, ``int64[n]``, changed. Ids outside the window are passed over."""
        raise NotImplementedError

    def draw(self, leaves: Leaves, origin: int, state: State, n: int) -> tuple[Ids, Probabilities]:
        """`n` ids, ``int64[n]``, and the probability of each, ``float64[n]``."""
        raise NotImplementedError
