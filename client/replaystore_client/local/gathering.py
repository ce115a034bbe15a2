"""Batches out of mapped columns, by recipe."""

from __future__ import annotations

import math
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

_INT64 = np.dtype(np.int64)
_MOST_IDS = 1 << 40


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
                named = rows[key] = _Rows(_take(arrays, key), field.shape, self._buffers)
            if field.column and not named.stop:
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

    __slots__ = ("_array", "_at", "_buffers", "_counts", "shape", "stop")

    def __init__(self, array: Array, shape: tuple[int, ...] | None, buffers: BufferPool) -> None:
        if array.dtype != np.int64 or (shape is not None and array.shape[1:] != (2,)):
            raise InvalidArgument(f"payload: step ids cannot be {array.dtype.name} {array.shape}")
        self._buffers = buffers
        self._at: dict[int, Ids] = {}
        self._counts: Ids | None = None
        self.stop = 0
        if shape is None:
            self._array, self.shape = array, array.shape
            return
        used = array[array[:, 1] != 0]
        self._array, self._counts, self.shape = used[:, 0], used[:, 1], shape
        sizes = np.abs(self._counts)
        total = int(sizes.sum()) if len(sizes) and int(sizes.max()) < _MOST_IDS else 0
        if total != math.prod(shape):
            raise InvalidArgument(f"payload: {len(array)} runs of {total} step ids do not make {shape}")

    def check(self, first: int, stop: int) -> None:
        """InvalidArgument for ids that are not in [first, stop): there is nothing mapped where they would be."""
        if not self._array.size:
            return
        last = self._array if self._counts is None else self._array + np.maximum(self._counts - 1, 0)
        lowest, self.stop = int(self._array.min()), max(int(last.max()), int(self._array.max())) + 1  # a sum may have overflowed
        if lowest < max(first, 0) or self.stop > stop:
            raise InvalidArgument(f"payload: step ids from {lowest} to {self.stop - 1}, but the table has those from {first} to {stop - 1}")

    def ids(self, origin: int = 0) -> Ids:
        """All of them, less `origin`, in their shape."""
        found: Ids = self._buffers.take(self.shape, _INT64)
        if self._counts is None:
            np.subtract(self._array, origin, out=found)
            return found
        counts = self._counts
        if len(counts) and counts[0] > 0 and (counts == counts[0]).all():
            np.add((self._array - origin)[:, None], np.arange(counts[0]), out=found.reshape(len(counts), -1))
            return found
        sizes = np.abs(counts)
        within = np.arange(found.size) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        within *= np.repeat(counts > 0, sizes)
        np.add(np.repeat(self._array - origin, sizes), within, out=found.reshape(-1))
        return found

    def copy(self, column: MappedColumn, out: Array) -> None:
        """These rows of a column."""
        at = self._at.get(column.origin)
        if at is None:
            at = self._at[column.origin] = self.ids(column.origin)
        column.array.take(at, 0, out, "clip")  # which skips the bounds check that makes the default three times slower


def _take(arrays: Mapping[str, Array], name: str) -> Array:
    array = arrays.get(name)
    if array is None:
        raise InvalidArgument(f"payload: field {name!r} is missing, though the recipe needs it")
    return array
