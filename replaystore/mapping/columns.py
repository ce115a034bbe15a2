"""A table's columns, mapped for reading only as their rows are asked for, by a process that the table does not belong to."""

from __future__ import annotations

import contextlib
import math
import mmap
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from replaystore.errors import Corruption, NotFound, StorageError
from replaystore.mapping.addresses import AddressRange

Array = npt.NDArray[Any]

_RESERVED_BYTES = 1 << 36
_MOST_BYTES = 1 << 46
"""Of a process's addresses, half."""
_FOLDER = _FILE = 0
if sys.platform != "win32":  # a client imports this everywhere
    _FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    _FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class ColumnFiles:
    """Where a column's rows are: chunk files of `rows_per_chunk` rows of `shape` and `dtype` in the folder `path` below the table's."""

    path: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    rows_per_chunk: int

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return math.prod(self.shape) * self.dtype.itemsize


def open_folder(path: str, parent: int | None = None) -> int:
    """A descriptor of a folder; `path` is relative to `parent` where that is given, and no part of it may then be a symbolic link.

    Raises:
        OSError: there is none, or it is a link.
    """
    if parent is None:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    folder = os.dup(parent)
    for name in path.split("/"):
        if name in ("", ".", ".."):
            os.close(folder)
            raise NotFound(f"{path!r} is no path below a store")
        try:
            below = os.open(name, _FOLDER, dir_fd=folder)
        finally:
            os.close(folder)
        folder = below
    return folder


class MappedColumn:
    """One column: element i of `array` is row ``origin + i``; only rows that `reach` was asked for may be touched."""

    def __init__(self, table: int, files: ColumnFiles) -> None:
        self.files = files
        self._folder = open_folder(files.path, table)
        self._range: AddressRange | None = None
        self._chunks = range(0)
        self.origin = 0
        self.array: Array = np.empty((0, *files.shape), files.dtype)

    def reach(self, first: int, stop: int) -> None:
        """Maps the files of rows [first, stop), and lets go of those before them.

        Raises:
            NotFound: a file is gone: its rows were dropped meanwhile.
            Corruption: a file has another size than it should: reading it could kill the process.
        """
        size = self.files.rows_per_chunk
        wanted = range(first // size, -(-stop // size))
        here = self._chunks
        if self._range is None or wanted.start > here.stop or wanted.start < here.start or not self._fits(wanted.stop):
            self._begin(wanted)
            here = self._chunks
        for chunk in range(here.start, min(wanted.start, here.stop)):
            self._addresses().detach(self._offset(chunk), size * self.files.row_bytes)
        self._chunks = range(max(here.start, wanted.start), max(here.stop, wanted.start))
        for chunk in range(self._chunks.stop, wanted.stop):
            self._attach(chunk)
            self._chunks = range(self._chunks.start, chunk + 1)

    @property
    def rows(self) -> range:
        """Those that are mapped."""
        size = self.files.rows_per_chunk
        return range(self._chunks.start * size, self._chunks.stop * size)

    def _addresses(self) -> AddressRange:
        assert self._range is not None
        return self._range

    def _offset(self, chunk: int) -> int:
        return (chunk * self.files.rows_per_chunk - self.origin) * self.files.row_bytes

    def _fits(self, chunks: int) -> bool:
        return chunks * self.files.rows_per_chunk - self.origin <= len(self.array)

    def _begin(self, wanted: range) -> None:
        """A reservation that begins with the chunk `wanted` begins with, with nothing mapped."""
        size, row_bytes = self.files.rows_per_chunk, self.files.row_bytes
        chunks = max(_RESERVED_BYTES // (size * row_bytes), 4 * (wanted.stop - wanted.start), 8)
        if chunks * size * row_bytes > _MOST_BYTES:
            raise StorageError(f"{self.files.path}: rows {wanted.start * size} to {wanted.stop * size} are more than can be mapped at once")
        self._let_go()
        self._range = AddressRange(chunks * size * row_bytes)
        self._chunks, self.origin = range(wanted.start, wanted.start), wanted.start * size
        self.array = self._range.array((chunks * size, *self.files.shape), self.files.dtype)

    def _attach(self, chunk: int) -> None:
        name = ".".join(["c", str(chunk), *("0" for _ in self.files.shape)])
        where = f"{self.files.path}/{name}"
        expected = self.files.rows_per_chunk * self.files.row_bytes
        try:
            fd = os.open(name, _FILE, dir_fd=self._folder)
        except FileNotFoundError:
            raise NotFound(f"{where} is gone: the table has dropped its rows") from None
        except OSError as error:
            raise StorageError(f"{where} cannot be opened: {error.strerror}") from None
        try:
            found = os.fstat(fd).st_size
            if found != expected:
                raise Corruption(f"{where} has {found} bytes instead of {expected}: something outside replaystore changed it")
            self._addresses().attach(self._offset(chunk), expected, fd, writable=False)
        finally:
            os.close(fd)
        if hasattr(mmap, "MADV_RANDOM"):  # the default reads far more around each row than is wanted
            self._addresses().advise(self._offset(chunk), expected, mmap.MADV_RANDOM)

    def _let_go(self) -> None:
        self.array = np.empty((0, *self.files.shape), self.files.dtype)
        if self._range is not None:
            self._range.close()
            self._range = None
        self._chunks = range(0)

    def close(self) -> None:
        """Unmaps everything. No view of `array` may be left."""
        self._let_go()
        if self._folder >= 0:
            os.close(self._folder)
            self._folder = -1


class MappedTable:
    """The columns of one table, each opened when it is first asked for. Not for several threads at once."""

    def __init__(self, folder: int, columns: Iterable[ColumnFiles]) -> None:
        """Takes `folder`, a descriptor of the table's folder, over."""
        self._folder = folder
        self._files = {files.path: files for files in columns}
        self._columns: dict[str, MappedColumn] = {}

    def files(self, path: str) -> ColumnFiles:
        """What a column consists of; NotFound when there is none."""
        files = self._files.get(path)
        if files is None:
            raise NotFound(f"there is no column {path!r}; the table has {', '.join(self._files)}")
        return files

    def column(self, path: str, first: int, stop: int) -> MappedColumn:
        """A column whose rows [first, stop) may be read, and by then no rows before them.

        Raises:
            NotFound: there is no such column, or a file is gone.
            Corruption, StorageError: a file is not as it should be, or so many rows cannot be mapped.
        """
        column = self._columns.get(path)
        if column is None:
            files = self.files(path)
            try:
                column = self._columns[path] = MappedColumn(self._folder, files)
            except FileNotFoundError:
                raise NotFound(f"{path} is gone: the table was dropped") from None
            except OSError as error:
                raise StorageError(f"{path} cannot be opened: {error.strerror}") from None
        mapped = column.rows
        size = column.files.rows_per_chunk
        if stop > mapped.stop or first < mapped.start or first >= mapped.start + size:
            column.reach(first, stop)
        return column

    def close(self) -> None:
        """Unmaps everything."""
        for column in self._columns.values():
            column.close()
        self._columns.clear()
        if self._folder >= 0:
            os.close(self._folder)
            self._folder = -1

    def __del__(self) -> None:
        with contextlib.suppress(Exception):  # the interpreter may be on its way out
            self.close()
