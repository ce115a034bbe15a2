"""Which Zarr arrays a table consists of, and how many rows go into a chunk file of each."""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

FORMAT_VERSION = 1

CHUNK_TARGET_BYTES = 64 << 20
"""Chunk files of wide columns grow towards this; one map each, and vm.max_map_count is 65530."""

UNBOUNDED_CHUNK_ROWS = 1 << 18
MAX_CHUNK_ROWS = 1 << 20
PRIVATE_FOLDER = "__replaystore"
"""Names beginning with two underscores are never Zarr nodes."""

_PAGE_BYTES = max(4096, mmap.PAGESIZE)


@dataclass(frozen=True, slots=True)
class ArrayLayout:
    """One Zarr array: ``(rows, *shape)`` of `dtype` below the table's group."""

    path: str
    """Below the table, for example ``steps/observation``."""
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    rows_per_chunk: int
    live: bool = False
    """Changed in place while the table lives (priorities, links, writable columns); otherwise rows never change once written."""
    row_bytes: int = field(init=False, repr=False, compare=False)
    """Bytes of one row."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "row_bytes", math.prod(self.shape) * self.dtype.itemsize)

    @property
    def derived(self) -> bool:
        """Whether it only says of the other arrays what can be found out again, or begun anew."""
        return self.path.startswith("replay/")

    @property
    def chunk_bytes(self) -> int:
        """Bytes of a chunk file, a multiple of the page size."""
        return self.row_bytes * self.rows_per_chunk

    def chunk_name(self, chunk: int) -> str:
        """File name of a chunk: Zarr's default key with '.' as separator, so that a column is one flat folder."""
        return f"c.{chunk}" + ".0" * len(self.shape)

    def chunk_of(self, name: str) -> int | None:
        """The chunk that a file of this name holds; None when it is no chunk's name."""
        number = name.split(".")[1] if name.startswith("c.") else ""
        return int(number) if number.isdecimal() and name == self.chunk_name(int(number)) else None


def rows_per_chunk(row_bytes: int, max_rows: int | None) -> int:
    """A power of two: whole pages, towards 64 MiB, at most about a sixteenth of what the table may hold."""
    whole_pages = _PAGE_BYTES // math.gcd(row_bytes, _PAGE_BYTES)
    most = UNBOUNDED_CHUNK_ROWS if max_rows is None else min(max(max_rows // 16, 1), MAX_CHUNK_ROWS)
    wanted = max(1, min(CHUNK_TARGET_BYTES // row_bytes, most))
    return max(whole_pages, 1 << (wanted.bit_length() - 1))


META_DTYPES: Mapping[str, str] = {
    "episode": "int64",  # the episode's number, drawn by its writer
    "step_in_episode": "int32",
    "previous": "int64",  # step id of the row before it in the episode, -1 for the first
    "kind": "uint8",  # 0 a step, 1 the closing row with the final observation
    "insert_time": "float64",  # seconds since 1970
    "actor": "int32",
    "policy_version": "int64",  # -1 unknown
}

EPISODE_DTYPES: Mapping[str, str] = {
    "episode": "int64",
    "first_step": "int64",
    "last_step": "int64",  # the closing row
    "length": "int64",  # steps, the closing row not counted
    "return": "float64",
    "ending": "uint8",  # 1 terminated, 2 truncated or interrupted
    "actor": "int32",
    "policy_version": "int64",  # at the episode's end
    "seed": "int64",  # -1 unknown
    "start_time": "float64",  # insertion of the first row, seconds since 1970
    "end_time": "float64",
}


def step_arrays(columns: Mapping[str, Any], selectors: Iterable[tuple[str, bool]], max_steps: int | None) -> list[ArrayLayout]:
    """The arrays along the step dimension.

    Args:
        columns: the table's columns by name (`replaystore.Column`).
        selectors: name and whether it keeps leaves.
        max_steps: the table's retention, None for all.
    """

    def make(path: str, shape: tuple[int, ...], dtype: str, live: bool = False) -> ArrayLayout:
        kind = np.dtype(dtype)
        return ArrayLayout(path, shape, kind, rows_per_chunk(math.prod(shape) * kind.itemsize, max_steps), live)

    arrays = [make(f"steps/{name}", column.shape, column.dtype, column.writable) for name, column in columns.items()]
    arrays += [make(f"meta/{name}", (), dtype) for name, dtype in META_DTYPES.items()]
    arrays += [make("replay/successor", (), "int32", True), make("replay/times_sampled", (), "uint32", True)]
    arrays += [make("replay/removed", (), "uint8", True)]
    arrays += [make(priority_path(name), (), "float32", True) for name, keeps_leaves in selectors if keeps_leaves]
    return arrays


def priority_path(selector: str) -> str:
    """Where a selector's leaves are: ``replay/priority`` for a table's only one, else ``replay/priority.NAME``."""
    return "replay/priority" if selector == "default" else f"replay/priority.{selector}"


def episode_arrays() -> list[ArrayLayout]:
    """The arrays along the episode dimension."""
    rows = max(8192, _PAGE_BYTES)  # whole pages for the narrowest column too
    return [ArrayLayout(f"episodes/{name}", (), np.dtype(dtype), rows) for name, dtype in EPISODE_DTYPES.items()]
