"""Batches out of mapped columns, by recipe."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from replaystore.errors import InvalidArgument
from replaystore.mapping.buffers import BufferPool
from replaystore.mapping.columns import ColumnFiles, MappedColumn, MappedTable
from replaystore.wire.local import RecipeField, decode_recipe
from replaystore.wire.methods import MAX_MESSAGE_BYTES
from replaystore.wire.samples import split_batches

Array = npt.NDArray[Any]
Ids = npt.NDArray[np.int64]
Later = Callable[[], dict[str, Array]]
"""Gathers one batch."""

_INT64 = np.dtype(np.int64)
_MOST_IDS = 1 << 40
_TOGETHER_BYTES = 1 << 20
"""What is more is gathered batch by batch, when each is asked for: into memory that the one before has left, and that caches still hold."""


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
            InvalidArgument: the recipe names rows or arrays that cannot be, or more than a message may bring.
        """
        return _Message(self._table, self._buffers, recipe, arrays, first, stop, 1).whole()

    def batches(self, recipe: bytes, arrays: Mapping[str, Array], first: int, stop: int, batches: int) -> list[dict[str, Array] | Later]:
        """The fields of each of several batches that follow each other, or what gathers them, where they are large.

        Whatever can be wrong is found out now: a `Later` raises only when its files had to be mapped again. To be called before any later
        message is gathered.

        Args:
            recipe, arrays, first, stop: see `fields`.
            batches: how many.
        """
        message = _Message(self._table, self._buffers, recipe, arrays, first, stop, batches)
        if batches == 1 or message.gathered_bytes <= _TOGETHER_BYTES:
            return [*split_batches(message.whole(), batches)]
        return message.later()


class _Message:
    """A recipe and its arrays, checked."""

    def __init__(
        self, table: MappedTable, buffers: BufferPool, recipe: bytes, arrays: Mapping[str, Array], first: int, stop: int, batches: int
    ) -> None:
        self._table, self._buffers, self._first, self._batches = table, buffers, first, batches
        self._fields = decode_recipe(recipe)
        self._rows: dict[str, _Rows] = {}
        self._patches: dict[str, tuple[Ids, Array]] = {}
        self._blanks: dict[str, Array] = {}
        used: set[str] = set()
        self.gathered_bytes = named_bytes = 0
        for field in self._fields:
            rows = self._rows.get(field.rows)
            if rows is None:
                used.add(field.rows)
                rows = self._rows[field.rows] = _Rows(_take(arrays, field.rows), field.shape, buffers)
                named_bytes += 8 * rows.size
            if not field.column:
                continue
            if not rows.stop:
                rows.check(first, stop)
            files = table.files(field.column)
            self.gathered_bytes += rows.size * files.row_bytes
            if field.patch:
                places, values = f"places/{field.patch}", f"values/{field.patch}"
                used |= {places, values}
                self._patches[field.patch] = _patch(_take(arrays, values), _take(arrays, places), rows.size, files)
            if field.blank:
                used.add(field.blank)
                blank = self._blanks[field.blank] = _take(arrays, field.blank)
                if blank.dtype != np.bool_ or blank.shape != rows.shape:
                    raise InvalidArgument(f"payload: {field.blank} cannot be {blank.dtype.name} {blank.shape} for rows {rows.shape}")
        for what, size in (("rows", self.gathered_bytes // batches), ("step ids", named_bytes)):
            if size > MAX_MESSAGE_BYTES:
                raise InvalidArgument(
                    f"recipe: {what} of {size} bytes; a message could not bring more than {MAX_MESSAGE_BYTES}: ask for fewer"
                )
        self._rest = {name: array for name, array in arrays.items() if name not in used}

    def whole(self) -> dict[str, Array]:
        """All fields."""
        return self._gather(None, self._rest)

    def later(self) -> list[dict[str, Array] | Later]:
        """What gathers each batch. The files are mapped."""
        for name, rows in self._rows.items():
            if not rows.shape or rows.shape[0] % self._batches:
                raise InvalidArgument(f"payload: {name} {rows.shape} does not hold {self._batches} batches one after the other")
        for field in self._fields:
            if field.column:
                self._column(field, self._rows[field.rows])
        return [partial(self._gather, index, rest) for index, rest in enumerate(split_batches(self._rest, self._batches))]

    def _gather(self, index: int | None, rest: dict[str, Array]) -> dict[str, Array]:
        """One of the batches, or all of them one after the other."""
        made: dict[str, Array] = {}
        for field in self._fields:
            rows = self._rows[field.rows]
            items = 0 if index is None else rows.shape[0] // self._batches
            part = slice(None) if index is None else slice(index * items, (index + 1) * items)
            if not field.column:
                made[field.name] = rows.ids() if index is None else rows.at(0)[part]  # the learner's own, to be written into
                continue
            column = self._column(field, rows)
            at = rows.at(column.origin)[part]
            out = made[field.name] = self._buffers.take((*at.shape, *column.files.shape), column.files.dtype)
            column.array.take(at, 0, out, "clip")  # which skips the bounds check that makes the default three times slower
            if field.patch:
                places, values = self._patches[field.patch]
                if index is not None:
                    here = places // at.size == index
                    places, values = places[here] - index * at.size, values[here]
                out.reshape(-1, *column.files.shape)[places] = values
            if field.blank:
                out[self._blanks[field.blank][part]] = 0
        return made | rest

    def _column(self, field: RecipeField, rows: _Rows) -> MappedColumn:
        return self._table.column(field.column, self._first, rows.stop)


class _Rows:
    """Step ids, one by one or as runs."""

    __slots__ = ("_array", "_at", "_buffers", "_counts", "shape", "size", "stop")

    def __init__(self, array: Array, shape: tuple[int, ...] | None, buffers: BufferPool) -> None:
        if array.dtype != np.int64 or (shape is not None and array.shape[1:] != (2,)):
            raise InvalidArgument(f"payload: step ids cannot be {array.dtype.name} {array.shape}")
        self._buffers = buffers
        self._at: dict[int, Ids] = {}
        self._counts: Ids | None = None
        self.stop = 0
        if shape is None:
            self._array, self.shape, self.size = array, array.shape, array.size
            return
        used = array[array[:, 1] != 0]
        self._array, self._counts, self.shape = used[:, 0], used[:, 1], shape
        sizes = np.abs(self._counts)
        # the least number has no absolute value
        total = int(sizes.sum()) if len(sizes) and int(sizes.min()) > 0 and int(sizes.max()) < _MOST_IDS else 0
        self.size = math.prod(shape)
        if total != self.size:
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

    def at(self, origin: int) -> Ids:
        """The same, made once."""
        at = self._at.get(origin)
        if at is None:
            at = self._at[origin] = self.ids(origin)
        return at


def _patch(values: Array, places: Array, size: int, files: ColumnFiles) -> tuple[Ids, Array]:
    """Places among `size` rows, and what is to be there; InvalidArgument where that cannot be."""
    if places.dtype != np.int64 or places.ndim != 1 or (len(places) and not 0 <= int(places.min()) <= int(places.max()) < size):
        raise InvalidArgument(f"payload: {places.dtype.name} {places.shape} cannot be places among {size} rows")
    if values.shape != (len(places), *files.shape) or values.dtype != files.dtype:
        raise InvalidArgument(
            f"payload: {values.dtype.name} {values.shape} cannot be the values of {len(places)} rows {files.dtype.name} {files.shape}"
        )
    return places, values


def _take(arrays: Mapping[str, Array], name: str) -> Array:
    array = arrays.get(name)
    if array is None:
        raise InvalidArgument(f"payload: field {name!r} is missing, though the recipe needs it")
    return array
