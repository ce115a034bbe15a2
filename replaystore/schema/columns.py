"""Columns: what one row of a table holds. The first axis of every stored array is the step; these are the others."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from replaystore.errors import InvalidArgument, SchemaMismatch

DTYPES = (
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64",
)  # fmt: skip
"""Fixed-size numeric types that every Zarr reader knows."""

MAX_ROW_BYTES = 1 << 28
"""A row of one column above this (256 MiB) is surely a mistake."""

MAX_COLUMNS = 256

_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]*")


def check_name(name: Any, what: str, *, nested: bool = False) -> str:
    """Returns `name` when it may become a Zarr node's name, else raises InvalidArgument.

    Letters, digits, ``_ . -``, beginning with a letter or digit, at most 128 characters; ``/`` separates the levels of nested
    columns. So no name leaves the store's folder, is hidden, or begins with ``__`` (which Zarr reserves).
    """
    parts = name.split("/") if nested and isinstance(name, str) else [name]
    fine = isinstance(name, str) and len(name) <= 128 and all(_PART.fullmatch(part) for part in parts)
    if not fine or any(part == "zarr.json" for part in parts):
        levels = " ('/' separates levels)" if nested else ""
        raise InvalidArgument(
            f"{what} name {name!r} must be at most 128 letters, digits, '_', '.' or '-', beginning with a letter or digit{levels}"
        )
    return str(name)


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table, stored as a Zarr array of shape ``(steps, *shape)``.

    Example: ``Column((84, 84), "uint8")``, ``Column((), "float32")``.
    """

    shape: tuple[int, ...] = ()
    """Shape of one row; ``()`` is a scalar."""

    dtype: str = "float32"
    """A NumPy name of a fixed-size number: bool, int8 … uint64, float16 … float64."""

    space: Mapping[str, Any] | None = field(default=None, compare=False, hash=False)
    """Where the column came from a Gymnasium space: its kind and bounds, e.g. ``{"kind": "Discrete", "n": 4}``."""

    writable: bool = False
    """Whether `update_columns` may change rows that are there: annotations, advantages, relabelled rewards. A writer may leave such a
    column out, but for actions and rewards: its rows begin as zeros."""

    def __post_init__(self) -> None:
        if not isinstance(self.writable, bool):
            raise InvalidArgument(f"writable={self.writable!r} must be True or False")
        shape = (self.shape,) if isinstance(self.shape, int) else self.shape
        try:
            whole = tuple(int(n) for n in shape)
        except (TypeError, ValueError, OverflowError):
            raise InvalidArgument(f"column shape {self.shape!r} must be a tuple of whole numbers") from None
        if any(n < 1 for n in whole) or len(whole) > 16:
            raise InvalidArgument(f"column shape {self.shape!r} must have at most 16 axes, each at least 1 long")
        try:
            name = np.dtype(self.dtype).name
        except (TypeError, ValueError, SyntaxError):  # all three, depending on what it is that is no dtype
            name = str(self.dtype)
        if name not in DTYPES:
            raise InvalidArgument(f"column dtype {self.dtype!r} is not storable; use one of {', '.join(DTYPES)}")
        object.__setattr__(self, "shape", whole)
        object.__setattr__(self, "dtype", name)
        if self.row_bytes > MAX_ROW_BYTES:
            raise InvalidArgument(f"a row of shape {whole} {name} has {self.row_bytes} bytes; at most {MAX_ROW_BYTES} are allowed")

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    def to_json(self) -> dict[str, Any]:
        """The column as a JSON object."""
        data: dict[str, Any] = {"shape": list(self.shape), "dtype": self.dtype}
        if self.space is not None:
            data["space"] = dict(self.space)
        if self.writable:
            data["writable"] = True
        return data

    @classmethod
    def from_json(cls, data: Any) -> Column:
        """The column that `data`, made by `to_json`, describes."""
        if not isinstance(data, dict) or not isinstance(data.get("shape"), list):
            raise InvalidArgument(f"column {data!r} must be an object with shape and dtype")
        space = data.get("space")
        if not isinstance(data.get("dtype"), str) or not (space is None or isinstance(space, dict)):
            raise InvalidArgument(f"column {data!r} must have a dtype that is a name, and a space that is an object or absent")
        return cls(tuple(data["shape"]), data["dtype"], space, data.get("writable", False))


STANDARD_COLUMNS: Mapping[str, Column] = {
    "reward": Column((), "float32"),
    "terminated": Column((), "bool"),
    "truncated": Column((), "bool"),
}
"""Columns that every table has unless its configuration names them otherwise; instead of ``reward`` there may be one for each agent."""


INFO_NAMES = (
    "step_ids", "probabilities", "weights", "priorities", "times_sampled", "ages", "policy_version", "discount", "steps_taken", "mask",
    "row_ids", "offsets", "relabelled", "goal_ids",
)  # fmt: skip
"""What a batch says of its items: no column may be called so."""


def check_columns(columns: Mapping[str, Column]) -> None:
    """InvalidArgument unless these columns can be those of one table."""
    if len(columns) > MAX_COLUMNS:
        raise InvalidArgument(f"{len(columns)} columns are too many; at most {MAX_COLUMNS} are allowed")
    for name, column in columns.items():
        first = name.split("/")[0]
        if any(other.startswith(f"{name}/") for other in columns):
            raise InvalidArgument(f"column {name!r} is also the group of nested columns below it; rename one")
        if first in INFO_NAMES:
            raise InvalidArgument(f"column {name!r}: batches have a {first!r} of their own; rename the column")
        if first == "next_observation":
            raise InvalidArgument(f"column {name!r}: batches call the observation of the row after so; a step needs only its own")
        if is_reward(name) and column.dtype not in ("float32", "float64"):
            raise InvalidArgument(f"column {name!r} must be float32 or float64, got {column.dtype}")
    for name in ("terminated", "truncated"):
        if columns[name].shape != () or columns[name].dtype != "bool":
            raise InvalidArgument(f"column {name!r} must be a scalar bool, got shape {columns[name].shape} {columns[name].dtype}")
        if columns[name].writable:
            raise InvalidArgument(f"column {name!r} cannot be writable: it says how episodes ended, which never changes")


def is_observation(name: str) -> bool:
    """Whether a column is the observation or a part of it."""
    return name == "observation" or name.startswith("observation/")


def is_reward(name: str) -> bool:
    """Whether a column holds rewards: ``reward``, or ``reward/AGENT``."""
    return name == "reward" or name.startswith("reward/")


def fit(name: str, column: Column, values: Any, rows: int | None) -> npt.NDArray[Any]:
    """`values` as a C-contiguous array of the column's dtype: ``(rows, *shape)``, or ``shape`` when `rows` is None.

    Only safe or same-kind casts are made (float64 → float32, int64 → int32 when every value fits), never float → int.

    Raises:
        SchemaMismatch: wrong shape, a cast that would lose, or an integer out of range.
    """
    want = column.shape if rows is None else (rows, *column.shape)
    dtype = np.dtype(column.dtype)
    array = np.asarray(values)
    if array.dtype == dtype and array.shape == want:
        return np.asarray(array, order="C")  # ascontiguousarray would make scalars one-dimensional
    if array.shape != want:
        raise SchemaMismatch(f"column {name!r} takes shape {want}, got {array.shape}")
    return cast_exactly(name, dtype, array)


def cast_exactly(name: str, dtype: np.dtype[Any], array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """`array` as `dtype`, C-contiguous; SchemaMismatch where that would change what the values mean."""
    if np.can_cast(array.dtype, dtype, "same_kind"):
        cast = array.astype(dtype, order="C")
        if array.dtype.kind in "iu" and dtype.kind in "iu" and not np.array_equal(cast, array):
            raise SchemaMismatch(f"column {name!r} is {dtype.name} and cannot hold every value of this {array.dtype.name} array")
        return cast
    whole = array.dtype.kind in "iub" and dtype.kind in "iub"
    if whole:
        cast = array.astype(dtype, order="C")
        if np.array_equal(cast, array):
            return cast
    raise SchemaMismatch(
        f"column {name!r} is {dtype.name}; {array.dtype.name} values do not fit it without loss: cast them yourself if that is meant"
    )
