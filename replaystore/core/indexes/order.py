"""The oldest or the newest ids."""

from __future__ import annotations

from replaystore.core.indexes.protocol import Ids, Leaves, Probabilities, Successors
from replaystore.core.random import State


class FifoIndex:
    """The oldest `n` eligible ids, oldest first; probabilities 1."""

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


class LifoIndex:
    """The newest `n` eligible ids, newest first; probabilities 1."""

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


class OldestAnchors:
    """The oldest anchors, oldest first, without an index: a walk over the successors from the start, which remembers where it found the first."""

    def entered(self, ids: Ids) -> None:
        """`ids`, ``int64[n]``, became anchors."""
        raise NotImplementedError

    def draw(self, successor: Successors, origin: int, first: int, stop: int, n: int) -> Ids:
        """At most `n` ids, ``int64[<= n]``: fewer when there are fewer."""
        raise NotImplementedError


class NewestAnchors:
    """The newest anchors, newest first, without an index: a walk over the successors from the end, which remembers where it found the first."""

    def entered(self, ids: Ids) -> None:
        """`ids`, ``int64[n]``, became anchors."""
        raise NotImplementedError

    def draw(self, successor: Successors, origin: int, first: int, stop: int, n: int) -> Ids:
        """At most `n` ids, ``int64[<= n]``: fewer when there are fewer."""
        raise NotImplementedError
