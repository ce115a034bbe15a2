"""Fitting: values as environments give them into a writer's buffers; what does not fit is named and refused."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from replaystore.errors import SchemaMismatch
from replaystore.schema.columns import Column, fit
from replaystore.schema.spaces import flatten
from replaystore.staging import Staging

Array = npt.NDArray[Any]

Target = tuple[tuple[type, ...], Any, tuple[int, ...]]
"""What goes into a column as it is: values of these types; of arrays, those of this very dtype and this shape."""

_EXACT: Mapping[str, tuple[type, ...]] = {
    "float32": (float, np.float32, np.float64),
    "float64": (float, np.float64, np.float32),
    "bool": (bool, np.bool_),
}
"""Types of scalars that a column takes as they are, without a look at their values; any other takes its own only."""

LISTED_BYTES = 1024
"""An array up to this size is faster turned into bytes, and these joined by the block, than assigned to a row of a buffer."""

_NESTED: Target = ((), None, ())
_USUAL = ("action", "reward", "observation")
_OWN = (*_USUAL, "terminated", "truncated")


class Fitting:
    """Knows of every column what goes into it as it is, and where that is.

    Attributes:
        usual: the `Target` of action, reward and observation in a row; one that nothing is of where there are nested columns.
        batched: by column, its buffer, and the dtype and shape of an array of all streams.
        own: names that arguments of their own stand for, and those of the columns below them.
    """

    def __init__(self, columns: Mapping[str, Column], staging: Staging) -> None:
        self._columns, self._buffers, self._others = columns, staging.buffers, staging.others
        self._targets = {name: _target(column) for name, column in columns.items()}
        self._whole = {name: _whole(column) for name, column in columns.items()}
        self.usual = tuple(part for name in _USUAL for part in self._targets.get(name, _NESTED))
        for name in ("action", "observation"):
            if name in columns and columns[name].shape and columns[name].row_bytes <= LISTED_BYTES:
                staging.listed[name] = [[] for _ in range(staging.streams)]
        self._staging = staging
        self.own = frozenset(_OWN) | {name for name in columns if name.split("/")[0] in _OWN}
        self.batched = {name: (self._buffers[name], np.dtype(c.dtype), (staging.streams, *c.shape)) for name, c in columns.items()}

    def lane(self, s: int) -> tuple[Any, Any, Any, Any, Any]:
        """Where a stream's actions, rewards and observations go, as far as each is one column: ``(capacity, *shape)``.

        Then the lists that actions and observations go to instead, as bytes, or None.
        """
        action, reward, observation = (self._buffers[name][:, s] if name in self._buffers else None for name in _USUAL)
        listed = self._staging.listed
        actions, observations = (listed[name][s] if name in listed else None for name in ("action", "observation"))
        return action, reward, observation, actions, observations

    def put(self, name: str, value: Any, s: int, slot: int) -> int:
        """Puts one value, or the parts of a nested one, into a slot of a stream; returns how many columns that were.

        Raises:
            SchemaMismatch: it does not fit.
        """
        target = self._targets.get(name)
        if target is None:
            parts = self.nested(name, value)
            for path, part in parts.items():
                self._buffers[path][slot, s] = part
            return len(parts)
        if name in self._staging.listed and self._staging.listed[name][s]:
            self._staging.settle(name, s)
        types, dtype, shape = target
        kind = type(value)
        if kind is int:
            least, most = self._whole[name]
            fits = least <= value <= most
        else:
            fits = kind in types and (not shape or (value.dtype is dtype and value.shape == shape))
        self._buffers[name][slot, s] = value if fits else fit(name, self._columns[name], value, None)
        return 1

    def nested(self, name: str, value: Any, rows: int | None = None) -> dict[str, Array]:
        """A value, nested or not, by column; of all streams, when `rows` says how many these are. SchemaMismatch as of `fit`."""
        column = self._columns.get(name)
        if column is not None and not isinstance(value, Mapping):
            return {name: fit(name, column, value, rows)}
        flat = flatten(name, value, self._columns)
        wanted = {path for path in self._columns if path == name or path.startswith(f"{name}/")}
        if flat.keys() != wanted:
            raise SchemaMismatch(f"{name!r} must have {', '.join(sorted(wanted))}; got {', '.join(sorted(flat))}")
        return {path: fit(path, self._columns[path], part, rows) for path, part in flat.items()}

    def extras(self, given: Mapping[str, Any], rows: int | None) -> dict[str, Array]:
        """Several values by column, likewise."""
        values: dict[str, Array] = {}
        for name, value in given.items():
            if name in self._columns:
                values[name] = fit(name, self._columns[name], value, rows)
            else:
                values.update(self.nested(name, value, rows))
        return values

    def left_out(self, given: Collection[str]) -> list[str]:
        """Writable columns that are not among the names `given`."""
        able = [name for name in self._others if self._columns[name].writable and name.split("/")[0] not in ("action", "reward")]
        return [name for name in able if not any(name == part or name.startswith(f"{part}/") for part in given)]

    def leave_open(self, given: Collection[str], s: int, slot: int) -> int:
        """Puts zeros into them; returns how many they are."""
        left = self.left_out(given)
        for name in left:
            self._buffers[name][slot, s] = 0
        return len(left)

    def not_extra(self, given: Collection[str]) -> SchemaMismatch:
        """The error that names what is among `given` and is no further column."""
        wrong = ", ".join(repr(name) for name in given if name in self.own)
        return SchemaMismatch(f"{wrong} cannot be given by keyword as a further column: it has an argument of its own")

    def incomplete(self, given: Collection[str]) -> SchemaMismatch:
        """The error that names the columns that are not among `given`."""
        missing = [name for name in self._others if not any(name == part or name.startswith(f"{part}/") for part in given)]
        return SchemaMismatch(f"column {', '.join(map(repr, missing))} was not given; pass it as a keyword argument")


def _target(column: Column) -> Target:
    dtype = np.dtype(column.dtype)
    return (np.ndarray,) if column.shape else _EXACT.get(column.dtype, (dtype.type,)), dtype, column.shape


def _whole(column: Column) -> tuple[int, int]:
    """The least and the highest `int` that goes into a column as it is; none into one of arrays, and no number that float64 rounds."""
    if not column.shape and column.dtype in ("float32", "float64"):
        return -(1 << 53), 1 << 53
    if not column.shape and column.dtype.removeprefix("u").startswith("int"):
        return int(np.iinfo(column.dtype).min), int(np.iinfo(column.dtype).max)
    return 0, -1
