"""CRC32C of the durable rows of every chunk file whose rows never change, so that silent damage can be found later.

A checksum covers a chunk's rows from its first one to the newest durable one and grows with them: every durable byte is read once for it,
from the page cache. All are kept in one small file, replaced by one rename. Opening needs none of it; only `verify` and `repair` read it.
"""

from __future__ import annotations

import json
import os
import struct
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from crc32c import crc32c

from replaystore.storage.files import replace_file, storage_errors
from replaystore.storage.layout import FORMAT_VERSION, PRIVATE_FOLDER, ArrayLayout

FILE_NAME = "checksums"
PIECE_BYTES = 4 << 20
"""Read at a time: stays in the processor's cache between the copy and the checksum."""

SAVE_INTERVAL_S = 30.0

Entries: TypeAlias = dict[str, dict[int, tuple[int, int]]]
"""By array path and chunk: the checksum, and how many of the chunk's rows it covers."""

_HEADER = struct.Struct("<8sIII")  # magic, format version, CRC32C of all that follows, bytes of the index
_MAGIC = b"RPLSCRCS"


def read_checksums(table_folder: Path) -> Entries | None:
    """What the file says; None when there is none, or none that can be read."""
    path = table_folder / PRIVATE_FOLDER / FILE_NAME
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    if len(data) < _HEADER.size:
        return None
    magic, version, crc, length = _HEADER.unpack_from(data)
    body = data[_HEADER.size :]
    if magic != _MAGIC or version > FORMAT_VERSION or crc32c(body) != crc:
        return None
    if length > len(body) or (len(body) - length) % 8:
        return None
    numbers = np.frombuffer(body, "<u4", offset=length).reshape(-1, 2)
    try:
        index = json.loads(body[:length])
    except ValueError:
        return None
    entries: Entries = {}
    position = 0
    for name, chunks in index.items():
        pairs = numbers[position : position + len(chunks)].tolist()
        entries[name] = {chunk: (pair[0], pair[1]) for chunk, pair in zip(chunks, pairs, strict=True)}
        position += len(chunks)
    return entries


def write_checksums(table_folder: Path, entries: Entries) -> None:
    """Replaces the file, durably."""
    index = json.dumps({name: list(chunks) for name, chunks in entries.items()}).encode()
    index += b" " * (-len(index) % 4)
    pairs = [pair for chunks in entries.values() for pair in chunks.values()]
    body = index + np.array(pairs, "<u4").tobytes()
    data = _HEADER.pack(_MAGIC, FORMAT_VERSION, crc32c(body), len(index)) + body
    replace_file(table_folder / PRIVATE_FOLDER / FILE_NAME, data, durable=True)


def crc_of_file(path: Path, start_bytes: int, stop_bytes: int, crc: int, piece: npt.NDArray[np.uint8]) -> int:
    """Continues `crc` with a file's bytes [start_bytes, stop_bytes), read through `piece`.

    Raises:
        FileNotFoundError: there is no file.
        EOFError: the file is shorter.
    """
    view = piece.data
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(fd, start_bytes, stop_bytes - start_bytes, os.POSIX_FADV_SEQUENTIAL)
        position = start_bytes
        while position < stop_bytes:
            count = os.preadv(fd, [view[: min(len(view), stop_bytes - position)]], position)
            if not count:
                raise EOFError(f"{path} ends after {position} bytes")
            crc = crc32c(view[:count], crc)
            position += count
    finally:
        os.close(fd)
    return int(crc)


class Checksums:
    """Of one table that is open for writing. One caller at a time; needs no lock of the table."""

    def __init__(self, table_folder: Path, layouts: Iterable[ArrayLayout]) -> None:
        self._folder = table_folder
        self._layouts = [layout for layout in layouts if not layout.live]
        self._entries: Entries | None = None
        self._covered: dict[str, int] = {}  # by path: rows below need no look any more
        self._changed = False
        self._saved_s = time.monotonic()

    def extend(self, first_step: int, next_step: int, episodes: int, most_bytes: int | None = None) -> None:
        """Covers the durable rows [first_step, next_step), and `episodes` of ``episodes/``, with at most `most_bytes` read in this call."""
        entries = self._load()
        left = most_bytes
        piece = np.empty(PIECE_BYTES, np.uint8)  # not kept: there may be many tables
        for layout in self._layouts:
            first, stop = (0, episodes) if layout.path.startswith("episodes/") else (first_step, next_step)
            size = layout.rows_per_chunk
            of_array = entries.setdefault(layout.path, {})
            for chunk in [chunk for chunk in of_array if chunk < first // size]:
                del of_array[chunk]
            position = max(first // size * size, self._covered.get(layout.path, 0))
            while position < stop and (left is None or left > 0):
                chunk = position // size
                rows = min(size, stop - chunk * size)
                read = self._cover(layout, chunk, rows, of_array, piece)
                left = None if left is None else left - read
                position = chunk * size + rows
            self._covered[layout.path] = position

    def _cover(self, layout: ArrayLayout, chunk: int, rows: int, of_array: dict[int, tuple[int, int]], piece: npt.NDArray[np.uint8]) -> int:
        crc, covered = of_array.get(chunk, (0, 0))
        if covered == rows:
            return 0
        if covered > rows:  # of rows that a recovery has cut off since
            crc, covered = 0, 0
        path = self._folder / layout.path / layout.chunk_name(chunk)
        with storage_errors(path, "reading"):
            try:
                crc = crc_of_file(path, covered * layout.row_bytes, rows * layout.row_bytes, crc, piece)
            except (FileNotFoundError, EOFError):
                return 0  # gone with retention, or damaged: then others say so
        of_array[chunk] = (crc, rows)
        self._changed = True
        return (rows - covered) * layout.row_bytes

    def _load(self) -> Entries:
        if self._entries is None:
            self._entries = read_checksums(self._folder) or {}
        return self._entries

    def save(self, *, now: bool) -> None:
        """Writes the file when anything changed; without `now`, only now and then."""
        if self._changed and (now or time.monotonic() - self._saved_s >= SAVE_INTERVAL_S):
            write_checksums(self._folder, self._load())
            self._changed = False
            self._saved_s = time.monotonic()
