"""A batch that its client gathers, described: the ids of its rows, as runs where there are any, and what is small of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from replaystore.core.runs import find_runs
from replaystore.sampling import Field
from replaystore.wire.layout import Layout, plan
from replaystore.wire.local import RecipeField, encode_recipe

if TYPE_CHECKING:
    from replaystore.engine.views.gathering import GatheredSample, Patch

Array = npt.NDArray[Any]
Ids = npt.NDArray[np.int64]

_FEWEST_IDS = 1024
_IDS_PER_RUN = 8
"""Runs are sent where there are no more than one for so many ids."""

_MAX_LAYOUTS = 256

_SAME_RUNS = 64
"""Numbers of runs are rounded up to multiples, so that few layouts differ."""


class Described:
    """A batch as small arrays and a recipe."""

    def __init__(self, gathered: GatheredSample, layouts: dict[tuple[Any, ...], Layout], gathered_bytes: int) -> None:
        self._layouts = layouts
        self.gathered_bytes = gathered_bytes
        """What its client is to gather."""
        self._arrays: dict[str, Array] = {}
        self._fields: list[RecipeField] = []
        self._rows: dict[int, tuple[str, tuple[int, ...] | None]] = {}
        self._blanks: dict[int, str] = {}
        self._patches = 0
        for name, array in gathered.small.items():
            if name == "info/row_ids":
                self._add_ids(name, array)
            else:
                self._arrays[name] = array

    def _add_ids(self, name: str, ids: Ids) -> None:
        """A field of ids: shorter as runs, where it has them."""
        runs = _runs(ids, 0)
        if runs is None:
            self._arrays[name] = ids
        else:
            self._arrays[f"rows/{name}"] = runs
            self._fields.append(RecipeField(name, "", f"rows/{name}", ids.shape))

    def add(self, name: str, column: str, origin: int, take: Any) -> None:
        """A field that is gathered from `column`, whose first row mapped is `origin`."""
        key = id(take.at)  # columns of one table have one origin
        if key not in self._rows:
            self._rows[key] = self._ids(take.at, origin, take.pieces)
        rows, shape = self._rows[key]
        blank = "" if take.blank is None else self._blank(take.blank)
        patch = "" if take.patch is None else self._patch(take.patch, take.at, take.source.shape[1:])
        self._fields.append(RecipeField(name, column, rows, shape, blank, patch))

    def _ids(self, at: Ids, origin: int, pieces: Ids | None) -> tuple[str, tuple[int, ...] | None]:
        name = f"rows/{len(self._rows)}"
        runs = _runs(at, origin) if pieces is None else _same_runs(pieces, at.shape[1], origin)
        if runs is not None:
            self._arrays[name] = runs
            return name, at.shape
        self._arrays[name] = np.add(at, origin, dtype=np.int64)
        return name, None

    def _blank(self, blank: npt.NDArray[np.bool_]) -> str:
        name = self._blanks.get(id(blank))
        if name is None:
            name = self._blanks[id(blank)] = f"blank/{len(self._blanks)}"
            self._arrays[name] = blank
        return name

    def _patch(self, patch: Patch, at: Ids, row: tuple[int, ...]) -> str:
        number = str(self._patches)
        self._patches += 1
        places = np.arange(at.size).reshape(at.shape)[patch.places]
        values = np.broadcast_to(patch.source[patch.at], (*places.shape, *row))
        self._arrays[f"places/{number}"] = places.reshape(-1)
        self._arrays[f"values/{number}"] = values.reshape(-1, *row)
        return number

    @property
    def recipe(self) -> bytes:
        """A LocalRecipe, encoded."""
        return encode_recipe(tuple(self._fields))

    @property
    def layout(self) -> Layout:
        """Where the arrays go in a message."""
        key = tuple((name, array.dtype.num, array.shape) for name, array in self._arrays.items())
        layout = self._layouts.get(key)
        if layout is None:
            if len(self._layouts) >= _MAX_LAYOUTS:
                self._layouts.clear()
            layout = self._layouts[key] = plan(tuple(Field(name, array.dtype, array.shape) for name, array in self._arrays.items()))
        return layout

    def fill(self, out: Mapping[str, Array]) -> None:
        """Writes them."""
        for name, array in self._arrays.items():
            out[name][...] = array


def _runs(rows: Ids, origin: int) -> Ids | None:
    """Rows as runs, ``(runs, 2)``, where that is much shorter."""
    if rows.size < _FEWEST_IDS:
        return None
    most = rows.size // _IDS_PER_RUN
    runs = np.empty((most + _SAME_RUNS, 2), np.int64)
    found = find_runs(np.ascontiguousarray(rows, np.int64).reshape(-1), origin, runs[:most])
    if found < 0:
        return None
    padded = -(-found // _SAME_RUNS) * _SAME_RUNS
    runs[found:padded] = runs[0, 0], 0
    return runs[:padded]


def _same_runs(firsts: Ids, count: int, origin: int) -> Ids | None:
    """The same of rows that are known to be runs of `count` each."""
    if firsts.size * count < _FEWEST_IDS or count < _IDS_PER_RUN:
        return None
    runs = np.empty((-(-len(firsts) // _SAME_RUNS) * _SAME_RUNS, 2), np.int64)
    np.add(firsts, origin, out=runs[: len(firsts), 0])
    runs[:, 1] = count
    runs[len(firsts) :] = runs[0, 0], 0
    return runs
