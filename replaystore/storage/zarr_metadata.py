"""The zarr.json documents of a table, and how they are published so that readers see one moment.

Readers open a group with its inline consolidated metadata: one file, replaced by one rename, is one consistent set of lengths. Array
documents are written first and groups last, so that every array is at least as long as the group says.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from replaystore.storage.files import replace_file
from replaystore.storage.layout import PRIVATE_FOLDER, ArrayLayout

Documents: TypeAlias = dict[str, dict[str, Any]]

ATTRIBUTES_FILE = "attributes.json"
"""A second copy of the table's attributes, in its private folder."""


def array_document(layout: ArrayLayout, rows: int, dimension: str) -> dict[str, Any]:
    """The zarr.json of an array of `rows` rows along `dimension`. Every dimension is named: xarray refuses groups where one is not."""
    name = layout.path.split("/", 1)[1].replace("/", "_")
    codec: dict[str, Any] = {"name": "bytes"}
    if layout.dtype.itemsize > 1:
        codec["configuration"] = {"endian": "little"}
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [rows, *layout.shape],
        "data_type": layout.dtype.name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [layout.rows_per_chunk, *layout.shape]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
        "fill_value": False if layout.dtype.kind == "b" else (0.0 if layout.dtype.kind == "f" else 0),
        "codecs": [codec],
        "attributes": {},
        "dimension_names": [dimension, *(f"{name}_{axis}" for axis in range(len(layout.shape)))],
        "storage_transformers": [],
    }


def group_document(attributes: Mapping[str, Any], members: Mapping[str, Mapping[str, Any]] | None = None) -> dict[str, Any]:
    """The zarr.json of a group; with `members` (documents by relative path) it carries them as inline consolidated metadata."""
    document: dict[str, Any] = {"zarr_format": 3, "node_type": "group", "attributes": dict(attributes)}
    if members is not None:
        document["consolidated_metadata"] = {"kind": "inline", "must_understand": False, "metadata": dict(members)}
    return document


def table_documents(
    step_layouts: Iterable[ArrayLayout], episode_layouts: Iterable[ArrayLayout], attributes: Mapping[str, Any]
) -> tuple[Documents, Documents]:
    """Every zarr.json of a table, by path below it; ``""`` is the table's own. Lengths are those in `attributes`.

    Returns:
        The documents as they are in the files, in the order of writing: arrays, groups, the table. And those that go inline: all groups
        and arrays, groups without what is below them.
    """
    arrays = {layout.path: array_document(layout, attributes["next_step"], "step") for layout in step_layouts}
    arrays |= {layout.path: array_document(layout, attributes["episodes"], "episode") for layout in episode_layouts}
    window = {key: attributes[key] for key in ("first_step", "next_step")}
    groups: dict[str, dict[str, Any]] = {}
    for path in sorted(arrays):
        parts = path.split("/")[:-1]
        for depth in range(1, len(parts) + 1):
            groups.setdefault("/".join(parts[:depth]), window if parts[0] != "episodes" else {})
    members = {**{path: group_document(found) for path, found in groups.items()}, **arrays}
    files: Documents = dict(arrays)
    for path in sorted(groups, reverse=True):
        below = {name[len(path) + 1 :]: document for name, document in members.items() if name.startswith(f"{path}/")}
        files[path] = group_document(groups[path], below)
    files[""] = group_document(attributes, dict(sorted(members.items())))
    return files, members


def publish(
    folder: Path,
    step_layouts: Iterable[ArrayLayout],
    episode_layouts: Iterable[ArrayLayout],
    attributes: Mapping[str, Any],
    *,
    durable: bool,
) -> Documents:
    """Writes every zarr.json of a table: lengths are ``attributes["next_step"]`` and ``attributes["episodes"]``.

    Returns:
        The documents by path below the store, the table's own among them, for `publish_root`.
    """
    files, members = table_documents(step_layouts, episode_layouts, attributes)
    for path, document in files.items():
        _write(folder / path if path else folder, document, durable=durable, whole=not path)
    if durable:  # what cannot be told from the rows, kept where no other program writes; `repair` reads it
        replace_file(folder / PRIVATE_FOLDER / ATTRIBUTES_FILE, json.dumps(dict(attributes)).encode(), durable=True)
    return {folder.name: group_document(attributes), **{f"{folder.name}/{path}": members[path] for path in sorted(members)}}


def publish_root(folder: Path, tables: Mapping[str, Documents], *, durable: bool) -> None:
    """Writes the store's zarr.json with the metadata of all tables inline: xarray looks there first, and one read is one moment."""
    members = {path: document for name in sorted(tables) for path, document in tables[name].items()}
    attributes = {"replaystore": "a store of experience-replay tables, one group each", "tables": sorted(tables)}
    _write(folder, group_document(attributes, members), durable=durable)


def _write(folder: Path, document: Mapping[str, Any], *, durable: bool, whole: bool = True) -> None:
    replace_file(folder / "zarr.json", json.dumps(document).encode(), durable=durable, whole=whole)
