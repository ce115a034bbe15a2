"""Chunk files of a copy: hard links to files that never change any more, new files for everything else. Knows nothing of tables.

A chunk file of an immutable array is sealed once all its rows are written: nobody writes into it again, and retention only unlinks it. So
a second name for it is a copy that costs nothing and that the original cannot spoil.
"""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from replaystore.errors import AlreadyExists, Locked
from replaystore.storage import calls
from replaystore.storage.files import explain, storage_errors
from replaystore.storage.layout import ArrayLayout

Array = npt.NDArray[Any]

_NO_LINKS = (errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


class ChunkWriter:
    """Writes rows in ascending order into new chunk files of one array; each has its full size, zeros where nothing was written.

    A file is on stable storage once the next one is begun, the last one after `close`.
    """

    def __init__(self, folder: Path, layout: ArrayLayout) -> None:
        self._layout = layout
        self._folder = folder / layout.path
        self._fd, self._chunk = -1, -1
        self.nbytes = 0
        """Bytes of rows written."""
        self.files = 0

    def write(self, start: int, rows: Array) -> None:
        """Writes `rows`, ``(n, *shape)`` of the array's dtype, at row ids from `start` on."""
        layout = self._layout
        data = np.ascontiguousarray(rows).reshape(-1).view(np.uint8).data
        position, stop = start, start + len(rows)
        while position < stop:
            chunk = position // layout.rows_per_chunk
            end = min(stop, (chunk + 1) * layout.rows_per_chunk)
            if chunk != self._chunk:
                self._begin(chunk)
            part = data[(position - start) * layout.row_bytes : (end - start) * layout.row_bytes]
            with storage_errors(self._folder, "writing into"):
                calls.pwrite_all(self._fd, part, (position - chunk * layout.rows_per_chunk) * layout.row_bytes)
            position = end
        self.nbytes += len(data)

    def _begin(self, chunk: int) -> None:
        self.close()
        path = self._folder / self._layout.chunk_name(chunk)
        with storage_errors(path, "creating"):
            self._fd = calls.open_file(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
            calls.preallocate(self._fd, self._layout.chunk_bytes)
        self._chunk = chunk
        self.files += 1

    def close(self) -> None:
        """Waits until what was written is on stable storage."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            try:
                with storage_errors(self._folder, "syncing"):
                    calls.sync_data(fd)
            finally:
                os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class Linker:
    """Hard links, as far as the file system has them."""

    def __init__(self) -> None:
        self.files = 0
        self.nbytes = 0
        self.obstacle: str | None = None
        """Why there are no links to be had; None as long as there are."""

    def link(self, source: Path, target: Path) -> bool:
        """Gives `source` a second name; False when the file has to be copied instead."""
        if self.obstacle is not None:
            return False
        try:
            calls.link(source, target)
        except FileNotFoundError:
            return False  # its last name is gone, as in a store read beside its server; the rows are still mapped
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise explain(error, target, "linking") from error
            self.obstacle = error.strerror or str(error)
            return False
        self.files += 1
        self.nbytes += os.stat(target).st_size
        return True


class Staging:
    """A folder that appears under its name complete, by one rename, or not at all.

    Until then it is ``.NAME.partial`` beside it. What a killed process left there is cleared by the next one; flock tells whether it lives.
    """

    def __init__(self, target: Path) -> None:
        """Begins; AlreadyExists when there is something at `target`, Locked when another process is making it."""
        self.target = target
        self.folder = target.with_name(f".{target.name}.partial")
        _check_free(target)
        with storage_errors(self.folder, "creating"):
            calls.make_folders(self.folder)
            self._fd = calls.open_file(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            self._claim()
            with storage_errors(self.folder, "clearing"):
                for leftover in self.folder.iterdir():
                    calls.remove_tree(leftover) if leftover.is_dir() else calls.unlink(leftover)
        except BaseException:
            os.close(self._fd)
            raise

    def _claim(self) -> None:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            mine = os.path.samestat(os.fstat(self._fd), os.stat(self.folder))
        except (BlockingIOError, FileNotFoundError):
            mine = False
        if not mine:
            raise Locked(f"{self.target} is being made by somebody else: wait for that, or choose another name")

    def finish(self) -> None:
        """Makes it durable and gives it its name."""
        with storage_errors(self.folder, "syncing"):
            for parent, _, _ in os.walk(self.folder):
                calls.sync_folder(Path(parent))
        _check_free(self.target)
        with storage_errors(self.target, "creating"):
            calls.rename(self.folder, self.target)
            calls.sync_folder(self.target.parent)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is not None:
            calls.remove_tree(self.folder)
        os.close(self._fd)


def _check_free(target: Path) -> None:
    if target.exists() or target.is_symlink():
        raise AlreadyExists(f"{target} exists: choose another name, or remove it first")
