"""A plain dataset of the finished episodes of a table: rows of an episode next to each other, nothing of replay in it.

``data/COLUMN`` has a row per step, ``meta/episode_ends`` the end of each episode in it; ``meta/final_NAME`` the observations after the last
steps, ``meta/episode_NAME`` what is known of each episode. The same chunk files are described twice, as Zarr v3 and as Zarr v2.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from replaystore.core.links import DELETED
from replaystore.engine.checking.invariants import CLOSING
from replaystore.engine.copies.moment import Moment
from replaystore.engine.table import Table
from replaystore.errors import InvalidArgument
from replaystore.status import SnapshotReport
from replaystore.storage.copying import ChunkWriter, Staging
from replaystore.storage.files import replace_file
from replaystore.storage.layout import ArrayLayout
from replaystore.storage.zarr_metadata import array_document, group_document

Array = npt.NDArray[Any]
Ids = npt.NDArray[np.int64]

CHUNK_BYTES = 16 << 20
"""Chunk files grow towards this."""

MAX_CHUNK_ROWS = 1 << 16

EPISODE_FIELDS = ("length", "return", "ending", "actor", "policy_version", "seed", "start_time", "end_time")


class PlainLayout(ArrayLayout):
    """Chunk files named as Zarr v2 names them, which v3 can be told of: ``7.0.0``."""

    def chunk_name(self, chunk: int) -> str:
        """File name of a chunk."""
        return ".".join([str(chunk), *("0" for _ in self.shape)])


@dataclass(frozen=True, slots=True)
class _Source:
    """An array of the dataset and where its rows come from."""

    layout: PlainLayout
    rows: int
    blocks: Iterator[Array]
    dimension: str


def export_episodes(table: Table, out: Path, *, closing_rows: bool = False) -> SnapshotReport:
    """Writes the finished episodes that `table` holds from their first step on, in the order of their ends, into the new folder `out`.

    Args:
        table: goes on meanwhile.
        out: must not exist; it appears complete or not at all.
        closing_rows: keeps the row after each last step, which has the final observation and zeros.

    Raises:
        AlreadyExists: `out`.
        InvalidArgument: two columns would get the same name.
    """
    started = time.monotonic()
    moment = table.capture()
    try:
        with Staging(out) as staging:
            copied, rows, episodes = _write(moment, staging.folder, closing_rows)
            staging.finish()
    finally:
        moment.close()
    left_out = moment.next_step - moment.first_step - rows - (0 if closing_rows else episodes)
    return SnapshotReport(str(out.absolute()), "", 0, rows, episodes, 0, copied, left_out, time.monotonic() - started, "")


def _write(moment: Moment, folder: Path, closing_rows: bool) -> tuple[int, int, int]:
    """Returns bytes written, rows and episodes."""
    whole = np.flatnonzero(moment.episode_rows("first_step") >= moment.first_step)
    whole = whole[moment.take("replay/removed", moment.episode_rows("last_step")[whole].astype(np.int64)) != DELETED]
    while True:
        lengths = moment.episode_rows("length")[whole] + int(closing_rows)
        ends = np.cumsum(lengths, dtype=np.int64)
        ids = _ids_in_order(moment, moment.episode_rows("episode")[whole], lengths, ends)
        lost = np.flatnonzero(ids < 0)
        if not len(lost):
            break
        whole = np.delete(whole, np.unique(np.searchsorted(ends, lost, side="right")))  # lost to damage, or deleted
    last = moment.episode_rows("last_step")[whole].astype(np.int64)
    copied = 0
    documents: dict[str, tuple[PlainLayout, int, str]] = {}
    for source in _sources(moment, whole, ids, ends, last):
        (folder / source.layout.path).mkdir(parents=True)
        with ChunkWriter(folder, source.layout) as writer:
            start = 0
            for block in source.blocks:
                writer.write(start, block)
                start += len(block)
        copied += writer.nbytes
        documents[source.layout.path] = (source.layout, source.rows, source.dimension)
    _describe(folder, documents, {"table": moment.name, "table_config": moment.config.to_json(), "closing_rows": closing_rows})
    return copied, len(ids), len(whole)


def _ids_in_order(moment: Moment, numbers: Ids, lengths: Ids, ends: Ids) -> Ids:
    """The table's step ids of the dataset's rows, ``(rows,)``, where episode `numbers` have so many `lengths` and `ends`; -1: lost."""
    ids = np.full(int(ends[-1]) if len(ends) else 0, -1)
    order = np.argsort(numbers)
    for start in range(moment.first_step, moment.next_step, MAX_CHUNK_ROWS) if len(numbers) else ():
        stop = min(start + MAX_CHUNK_ROWS, moment.next_step)
        episode = moment.rows("meta/episode", start, stop)
        position = moment.rows("meta/step_in_episode", start, stop)
        place = order[np.minimum(np.searchsorted(numbers, episode, sorter=order), len(numbers) - 1)]
        belongs = (numbers[place] == episode) & (position < lengths[place]) & (moment.rows("meta/kind", start, stop) <= CLOSING)
        belongs &= moment.rows("replay/removed", start, stop) != DELETED
        place = place[belongs]
        ids[ends[place] - lengths[place] + position[belongs]] = start + np.flatnonzero(belongs)
    return ids


def _sources(moment: Moment, whole: Ids, ids: Ids, ends: Ids, last: Ids) -> Iterator[_Source]:
    names: dict[str, str] = {}
    for column, stored in moment.config.columns.items():
        name = column.replace("/", "_")
        if name in names:
            raise InvalidArgument(f"columns {names[name]!r} and {column!r} would both be data/{name}: a plain dataset has no nested groups")
        names[name] = column
        shape, dtype = stored.shape, np.dtype(stored.dtype)
        yield _taken(moment, f"data/{name}", f"steps/{column}", shape, dtype, ids, "step")
        if column == "observation" or column.startswith("observation/"):
            yield _taken(moment, f"meta/final_{name}", f"steps/{column}", shape, dtype, last, "episode")
    yield _whole("meta/episode_ends", ends)
    for field in EPISODE_FIELDS:
        yield _whole(f"meta/episode_{field}", moment.episode_rows(field)[whole])


def _taken(moment: Moment, path: str, source: str, shape: tuple[int, ...], dtype: np.dtype[Any], ids: Ids, dimension: str) -> _Source:
    layout = _layout(path, shape, dtype, len(ids))
    size = layout.rows_per_chunk
    return _Source(layout, len(ids), (moment.take(source, ids[at : at + size]) for at in range(0, len(ids), size)), dimension)


def _whole(path: str, values: Array) -> _Source:
    return _Source(_layout(path, (), values.dtype, len(values)), len(values), iter([values]), "episode")


def _layout(path: str, shape: tuple[int, ...], dtype: np.dtype[Any], rows: int) -> PlainLayout:
    row = PlainLayout(path, shape, dtype, 1)
    return PlainLayout(path, shape, dtype, max(1, min(rows, CHUNK_BYTES // row.row_bytes, MAX_CHUNK_ROWS)))


def _describe(folder: Path, arrays: dict[str, tuple[PlainLayout, int, str]], attributes: dict[str, Any]) -> None:
    """zarr.json for v3; .zarray, .zgroup, .zattrs and .zmetadata for v2."""
    version_3: dict[str, Any] = {}
    version_2: dict[str, Any] = {".zgroup": {"zarr_format": 2}, ".zattrs": attributes}
    for group in ("data", "meta"):
        version_3[group] = group_document({})
        version_2[f"{group}/.zgroup"] = {"zarr_format": 2}
    for path, (layout, rows, dimension) in arrays.items():
        document = array_document(layout, rows, dimension)
        document["chunk_key_encoding"] = {"name": "v2", "configuration": {"separator": "."}}
        version_3[path] = document
        version_2[f"{path}/.zarray"] = {
            "zarr_format": 2,
            "shape": document["shape"],
            "chunks": document["chunk_grid"]["configuration"]["chunk_shape"],
            "dtype": layout.dtype.newbyteorder("<").str,
            "compressor": None,
            "fill_value": document["fill_value"],
            "order": "C",
            "filters": None,
            "dimension_separator": ".",
        }
        version_2[f"{path}/.zattrs"] = {"_ARRAY_DIMENSIONS": document["dimension_names"]}
    for path, document in version_3.items():
        _save(folder / path / "zarr.json", document)
    _save(folder / "zarr.json", group_document(attributes, dict(sorted(version_3.items()))))
    for path, document in version_2.items():
        _save(folder / path, document)
    _save(folder / ".zmetadata", {"zarr_consolidated_format": 1, "metadata": dict(sorted(version_2.items()))})


def _save(path: Path, document: dict[str, Any]) -> None:
    replace_file(path, json.dumps(document).encode(), durable=True)
