"""Rows named now and gathered later: what every view comes down to.

Small fields (rewards, flags, what is known of each item) are read at once; the columns that weigh something are only named, with the
rows to take, and gathered by `fill` straight into wherever the batch is to lie: an array, or a message on its way out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from replaystore.errors import InvalidArgument
from replaystore.sampling import Field
from replaystore.schema.columns import Column

Array = npt.NDArray[Any]
Ids = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Take:
    """Rows to gather into a field."""

    source: Array
    index: Ids
    blank: npt.NDArray[np.bool_] | None
    """Where True, zeros instead (frames before an episode's start)."""


class GatheredSample:
    """A `PreparedSample`."""

    __slots__ = ("_close", "_small", "_takes", "fields")

    def __init__(self, small: Mapping[str, Array], takes: Mapping[str, Take], close: Callable[[], None]) -> None:
        self._small, self._takes, self._close = small, takes, close
        fields = [Field(name, take.source.dtype, (*take.index.shape, *take.source.shape[1:])) for name, take in takes.items()]
        fields += [Field(name, array.dtype, array.shape) for name, array in small.items()]
        self.fields = tuple(fields)

    def fill(self, out: Mapping[str, Array]) -> None:
        """Gathers every field into ``out[field.name]``."""
        for name, take in self._takes.items():
            # "clip" skips the bounds check that makes the default three times slower; every index is known to be inside
            np.take(take.source, take.index, axis=0, out=out[name], mode="clip")
            if take.blank is not None:
                out[name][take.blank] = 0
        for name, array in self._small.items():
            out[name][...] = array

    def close(self) -> None:
        """Lets the rows go."""
        self._close()


def choose_columns(columns: Mapping[str, Column], wanted: Iterable[str] | None) -> list[str]:
    """The columns that a request asks for; a name stands for all nested below it."""
    if wanted is None:
        return list(columns)
    chosen: list[str] = []
    for name in wanted:
        found = [column for column in columns if column == name or column.startswith(f"{name}/")]
        if not found:
            raise InvalidArgument(f"columns: there is no column {name!r}; the table has {', '.join(columns)}")
        chosen += [column for column in found if column not in chosen]
    return chosen
