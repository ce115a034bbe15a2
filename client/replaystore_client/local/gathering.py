"""Batches out of mapped columns, by recipe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from replaystore.errors import InvalidArgument
from replaystore.mapping.buffers import BufferPool
from replaystore.mapping.columns import MappedColumn, MappedTable
from replaystore.wire.local import RecipeField, decode_recipe

Array = npt.NDArray[Any]
Ids = npt.NDArray[np.int64]


class Gathering:
    """Gathers the fields of batches of one table. Not for several threads at once."""

    def __init__(self, table: MappedTable) -> None:
        self._table = table
        self._buffers = BufferPool()

    def fields(self, recipe: bytes, arrays: Mapping[str, Array], first: int, stop: int) -> dict[str, Array]:
        """The fields of a batch.

        Args:
            recipe: a LocalRecipe.
            arrays: of the payload.
            first: the table's oldest row when the batch was drawn,
            stop: and the end of its rows.

        Raises:
            NotFound: a file is gone: the table has dropped the rows.
            Corruption, StorageError: a file is not as it should be.
            InvalidArgument: the recipe names rows or arrays that cannot be.
        """
        made: dict[str, Array] = {}
        used: set[str] = set()
        rows: dict[str, _Rows] = {}
        for field in decode_recipe(recipe):
            key = field.rows
            named = rows.get(key)
            if named is None:
                used.add(key)
                named = rows[key] = _Rows(_take(arrays, key), field.shape)
                if field.column:
                    named.check(first, stop)
            made[field.name] = self._field(field, named, arrays, used, first) if field.column else named.ids()
        for name, array in arrays.items():
            if name not in used:
                made[name] = array
        return made

    def _field(self, field: RecipeField, rows: _Rows, arrays: Mapping[str, Array], used: set[str], first: int) -> Array:
        column = self._table.column(field.column, first, rows.stop)
        out = self._buffers.take((*rows.shape, *column.files.shape), column.files.dtype)
        rows.copy(column, out)
        if field.patch:
            places, values = f"places/{field.patch}", f"values/{field.patch}"
            used |= {places, values}
            out.reshape(-1, *column.files.shape)[_take(arrays, places)] = _take(arrays, values)
        if field.blank:
            used.add(field.blank)
            out[_take(arrays, field.blank)] = 0
        return out


class _Rows:
    """Step ids, one by one or as runs."""

    def __init__(self, array: Array, shape: tuple[int, ...] | None) -> None:
        if array.dtype != np.int64 or (shape is not None and array.shape[1:] != (2,)):
            raise InvalidArgument(f"payload: step ids cannot be {array.dtype.name} {array.shape}")
        self._array = array
        self._runs = shape is not None
        self.shape = array.shape if shape is None else shape
        self.stop = 0
        self._at: dict[int, Ids] = {}
        if shape is not None:
            counts = np.abs(array[:, 1])
            if int(counts.sum()) != int(np.prod(shape, dtype=np.int64)) or (len(counts) and int(counts.max()) >= 1 << 40):
                raise InvalidArgument(f"payload: {len(array)} runs of {int(counts.sum())} step ids do not make {shape}")

    def check(self, first: int, stop: int) -> None:
        """InvalidArgument for ids that are not in [first, stop): there is nothing mapped where they would be."""
        if not self._array.size:
            return
        if self._runs:
            begins, counts = self._array[:, 0], self._array[:, 1]
            lowest, self.stop = int(begins.min()), int((begins + np.maximum(counts, 1)).max())
        else:
            lowest, self.stop = int(self._array.min()), int(self._array.max()) + 1
        if lowest < first or self.stop > stop:
            raise InvalidArgument(f"payload: step ids from {lowest} to {self.stop - 1}, but the table has those from {first} to {stop - 1}")

    def ids(self) -> Ids:
        """All of them, in their shape."""
        if not self._runs:
            return self._array
        begins, counts = self._array[self._array[:, 1] != 0].T
        if len(counts) and (counts == counts[0]).all() and counts[0] > 0:
            return np.asarray(begins[:, None] + np.arange(counts[0]), np.int64).reshape(self.shape)
        sizes = np.abs(counts)
        within = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        return np.asarray(np.repeat(begins, sizes) + within * np.repeat(counts > 0, sizes), np.int64).reshape(self.shape)

    def copy(self, column: MappedColumn, out: Array) -> None:
        """These rows of a column."""
        at = self._at.get(column.origin)
        if at is None:
            at = self._at[column.origin] = self.ids() - column.origin
        # "clip" skips the bounds check that makes the default three times slower; `check` was asked
        np.take(column.array, at, axis=0, out=out, mode="clip")


def _take(arrays: Mapping[str, Array], name: str) -> Array:
    array = arrays.get(name)
    if array is None:
        raise InvalidArgument(f"payload: field {name!r} is missing, though the recipe needs it")
    return array
