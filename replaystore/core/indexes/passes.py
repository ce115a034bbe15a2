"""Every anchor once per pass."""

from __future__ import annotations

from replaystore.core.indexes.protocol import Ids, Leaves, Probabilities, Successors
from replaystore.core.random import State


class PassIndex:
    """Leaves: 1.0 still to come in this pass, 0 drawn or no anchor. They are the only state."""

    def __init__(self) -> None:
        raise NotImplementedError

    @property
    def refills(self) -> int:
        """How many passes `draw` has begun: when it grew, every leaf of an anchor was set to 1 before some were drawn again."""
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

    def draw(self, leaves: Leaves, origin: int, successor: Successors, state: State, n: int, anchors: int) -> tuple[Ids, Probabilities]:
        """`n` ids, uniform among what is to come, whose leaves become 0; at a pass's end all anchors of the window get 1 again.

        `successor`: any array that is above 0 for the ids of a pass, ``successor[i]`` is id ``origin + i``. Probabilities: 1 / anchors.
        """
        raise NotImplementedError
