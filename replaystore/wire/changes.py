"""Changes of rows that are there, deletion and write-back, to and from messages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from replaystore.errors import InvalidArgument
from replaystore.sampling import ids_of
from replaystore.schema.filters import FILTERS, Filter, check_choice
from replaystore.schema.record import from_json
from replaystore.v1 import data_pb2 as pb
from replaystore.wire.framing import split
from replaystore.wire.layout import arrays_of, encode_arrays, take
from replaystore.wire.samples import json_of, parse_json, parse_message

Array = npt.NDArray[Any]
Ids = npt.NDArray[np.int64]

_STEPS, _EPISODES = "delete/step_ids", "delete/episodes"
_IDS, _VALUES = "update/step_ids", "values/"


@dataclass(frozen=True, slots=True)
class Deletion:
    """What to delete: steps or whole episodes, by number or by conditions."""

    table: str
    episodes: bool
    """Whether numbers and conditions mean episodes."""
    numbers: Ids | None
    where: Filter | None


def encode_delete(table: str, *, episodes: bool, numbers: Any = None, where: Filter | None = None) -> bytes:
    """A DeleteRequest message.

    Raises:
        InvalidArgument: neither numbers nor conditions, or both.
    """
    name = "episodes" if episodes else "step_ids"
    check_choice(name, numbers, where)
    header = pb.DeleteHeader(table=table, filter_json="" if where is None else json_of(where))
    given = np.empty(0, np.int64) if numbers is None else ids_of(numbers, name)
    return encode_arrays(header.SerializeToString(), {_EPISODES if episodes else _STEPS: given})


def decode_delete(message: bytes) -> Deletion:
    """The inverse of `encode_delete`."""
    parts = split(message)
    header = parse_message(pb.DeleteHeader, parts.header, "header")
    arrays = arrays_of(parts) if parts.layout else {}
    where = from_json(parse_json(header.filter_json, "filter_json"), FILTERS, "filter") if header.filter_json else None
    if len(arrays) > 1 or not arrays.keys() <= {_STEPS, _EPISODES}:
        raise InvalidArgument(f"payload: {', '.join(sorted(arrays))} must be one of {_STEPS} and {_EPISODES}")
    name = next(iter(arrays), _STEPS)
    numbers = take(arrays, name, "int64") if arrays else np.empty(0, np.int64)
    if where is not None and len(numbers):
        raise InvalidArgument(f"payload: {name} must be empty where filter_json says what is to be deleted")
    return Deletion(header.table, name == _EPISODES, numbers if where is None else None, where)


def encode_columns(table: str, step_ids: Any, values: Mapping[str, Any]) -> bytes:
    """An UpdateColumnsRequest message; the server says what does not fit the table."""
    ids = ids_of(step_ids)
    if not isinstance(values, Mapping) or not values:
        raise InvalidArgument("values must be a mapping of column names to arrays, at least one")
    arrays = {f"{_VALUES}{name}": np.asarray(array) for name, array in values.items()}
    for name, array in arrays.items():
        if array.dtype.kind not in "biuf":
            raise InvalidArgument(f"values: column {name.removeprefix(_VALUES)!r} holds {array.dtype}; it must hold numbers or booleans")
    return encode_arrays(pb.UpdateColumnsHeader(table=table).SerializeToString(), {_IDS: ids, **arrays})


def decode_columns(message: bytes) -> tuple[str, Ids, dict[str, Array]]:
    """Table, step ids and values by column."""
    parts = split(message)
    header = parse_message(pb.UpdateColumnsHeader, parts.header, "header")
    arrays = arrays_of(parts) if parts.layout else {}
    ids = take(arrays, _IDS, "int64")
    unknown = [name for name in arrays if name != _IDS and not name.startswith(_VALUES)]
    if unknown:
        raise InvalidArgument(f"payload: field {unknown[0]!r} is not known here; columns are {_VALUES}NAME")
    return header.table, ids, {name.removeprefix(_VALUES): array for name, array in arrays.items() if name != _IDS}
