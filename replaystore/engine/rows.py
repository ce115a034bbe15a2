"""A table's rows at one moment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Rows:
    """Mapped arrays. Element i of each is row ``origin + i``; only rows [first, stop) may be touched."""

    array: Callable[[str], Array]
    """By path below the table, for example ``steps/observation``."""
    origin: int
    first: int
    stop: int

    def live(self, path: str) -> Array:
        """A view of the rows [first, stop) of one column."""
        return self.array(path)[self.first - self.origin : self.stop - self.origin]
