"""The local path's messages: an offer of a table's files, and recipes of batches that the client gathers from them itself."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from replaystore.errors import InvalidArgument
from replaystore.schema.columns import DTYPES
from replaystore.v1 import data_pb2 as pb
from replaystore.wire.samples import parse_message

MAX_NONCE_BYTES = 64


@dataclass(frozen=True, slots=True)
class FileColumn:
    """A column's files, as an offer describes them."""

    path: str
    """Folder below the table's: ``steps/observation``."""
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    """Of one row."""
    rows_per_chunk: int


class RecipeField(NamedTuple):
    """How one field is made."""

    name: str
    column: str
    """Folder of the column; empty: the ids themselves are the field."""
    rows: str
    """Array of step ids, or of runs of them, in the payload."""
    shape: tuple[int, ...] | None = None
    """Of the ids that runs stand for; None where they are no runs."""
    blank: str = ""
    patch: str = ""


@lru_cache(maxsize=256)
def encode_recipe(fields: tuple[RecipeField, ...]) -> bytes:
    """A LocalRecipe message; the same fields give the same bytes."""
    recipe = pb.LocalRecipe()
    for field in fields:
        # a shape without axes is one of one row
        shape = () if field.shape is None else field.shape or (1,)
        recipe.fields.add(name=field.name, column=field.column, rows=field.rows, shape=shape, blank=field.blank, patch=field.patch)
    return bytes(recipe.SerializeToString())


@lru_cache(maxsize=256)
def decode_recipe(encoded: bytes) -> tuple[RecipeField, ...]:
    """The fields of a LocalRecipe message."""
    recipe = parse_message(pb.LocalRecipe, encoded, "recipe")
    fields = []
    for field in recipe.fields:
        shape = tuple(field.shape) or None
        if shape is not None and (any(n < 0 for n in shape) or math.prod(shape) > 1 << 40):
            raise InvalidArgument(f"recipe: field {field.name!r} of shape {shape} cannot be")
        fields.append(RecipeField(field.name, field.column, field.rows, shape, field.blank, field.patch))
    return tuple(fields)


def add_columns(offer: Any, columns: Iterable[FileColumn]) -> None:
    """Puts columns into a LocalOffer."""
    for column in columns:
        offer.columns.add(path=column.path, dtype=column.dtype.name, shape=column.shape, rows_per_chunk=column.rows_per_chunk)


def columns_of(offer: Any) -> list[FileColumn]:
    """The columns of a LocalOffer, checked."""
    found = []
    for column in offer.columns:
        shape = tuple(column.shape)
        if column.dtype not in DTYPES or any(not 0 < n < 1 << 32 for n in shape) or not 0 < column.rows_per_chunk < 1 << 40:
            raise InvalidArgument(
                f"offer: column {column.path!r} {column.dtype[:40]!r} {shape}, {column.rows_per_chunk} rows per chunk, cannot be"
            )
        dtype = np.dtype(column.dtype)
        if math.prod(shape) * dtype.itemsize * column.rows_per_chunk > 1 << 40:
            raise InvalidArgument(f"offer: a chunk of column {column.path!r} would be larger than any file may be")
        found.append(FileColumn(column.path, dtype, shape, column.rows_per_chunk))
    return found
