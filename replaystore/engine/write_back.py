"""Writing into rows that are there already: columns declared ``writable``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from replaystore.core.links import DELETED
from replaystore.engine.checking.invariants import LOST
from replaystore.engine.rows import Rows
from replaystore.errors import InvalidArgument
from replaystore.schema.columns import Column, fit
from replaystore.steps import UpdateCounts
from replaystore.storage.table_files import TableFiles

Array = npt.NDArray[Any]
Ids = npt.NDArray[np.int64]


def fitted(columns: Mapping[str, Column], ids: Ids, values: Any) -> dict[str, Array]:
    """`values` by column, ``(len(ids), *shape)`` each and of its dtype.

    Raises:
        InvalidArgument: no such column, or one that is not writable.
        SchemaMismatch: shape or values do not fit.
    """
    if not isinstance(values, Mapping) or not values:
        raise InvalidArgument("values must be a mapping of column names to arrays, at least one")
    for name in values:
        if name not in columns:
            raise InvalidArgument(f"values: there is no column {name!r}; the table has {', '.join(columns)}")
        if not columns[name].writable:
            able = [other for other, column in columns.items() if column.writable]
            there = f"writable are {', '.join(able)}" if able else "none of this table is"
            raise InvalidArgument(
                f"values: column {name!r} was not declared writable ({there}): create the table with Column(..., writable=True) for it"
            )
    return {name: fit(name, columns[name], array, len(ids)) for name, array in values.items()}


def write(rows: Rows, files: TableFiles, ids: Ids, values: Mapping[str, Array]) -> UpdateCounts:
    """Writes the rows `ids` that are there and not deleted; where an id comes twice, its last value stays."""
    kept = (ids >= rows.first) & (ids < rows.stop)
    places = ids[kept] - rows.origin
    kept[kept] = (rows.array("replay/removed")[places] != DELETED) & (rows.array("meta/kind")[places] != LOST)
    there = ids[kept]
    if len(there):
        for name, array in values.items():
            rows.array(f"steps/{name}")[there - rows.origin] = array[kept]
            files.touch(f"steps/{name}", there)
    return UpdateCounts(len(there), len(ids) - len(there), 0)
