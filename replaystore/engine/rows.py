"""A table's rows at one moment."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from replaystore.storage.residency import Part, Residency

Array = npt.NDArray[Any]
Ids = npt.NDArray[np.int64]


class Ahead:
    """What sampling from a table needs of the disk, asked for before it is read: `replaystore.storage.residency`."""

    __slots__ = ("_taken", "_walked", "begun", "block_bytes", "paths")

    def __init__(self, paths: Iterable[str] = ()) -> None:
        self.paths = tuple(paths)
        """Columns that are read of every step drawn, whatever the view."""
        self.begun: Callable[[Rows], None] | None = None
        """Called once, at the first draw, under the table's lock."""
        self.block_bytes = mmap.PAGESIZE
        """What is read around each step of a column at least; more while all of these columns are coming into memory anyway."""
        self._walked, self._taken = Residency(), Residency()

    def read_around(self, block_bytes: int) -> None:
        """Sets `block_bytes`, from any thread."""
        self.block_bytes = block_bytes

    def walk(self, rows: Rows, ids: Ids, steps: int) -> None:
        """Before the small fields of the steps `ids`, and of up to `steps` rows after each, are read."""
        if self.begun is not None:
            begun, self.begun = self.begun, None
            begun(rows)

        def parts() -> list[Part]:
            here = ids - rows.origin
            places = np.concatenate([here, np.minimum(here + steps, rows.stop - 1 - rows.origin)])
            return [(rows.array(path), places) for path in self.paths]

        self._walked.ahead(parts, self.block_bytes)

    def take(self, takes: Mapping[str, Any]) -> None:
        """Before rows are gathered; of each take the array comes first, then which of its elements."""
        self._taken.ahead(lambda: [(take[0], take[1]) for take in takes.values()])


@dataclass(frozen=True, slots=True)
class Rows:
    """Mapped arrays. Element i of each is row ``origin + i``; only rows [first, stop) may be touched."""

    array: Callable[[str], Array]
    """By path below the table, for example ``steps/observation``."""
    origin: int
    first: int
    stop: int
    ahead: Ahead = field(default_factory=Ahead)

    def live(self, path: str) -> Array:
        """A view of the rows [first, stop) of one column."""
        return self.array(path)[self.first - self.origin : self.stop - self.origin]
