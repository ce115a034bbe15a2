"""The few file operations that durability hangs on, with errors that name the file and the remedy."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from replaystore.errors import Corruption, DiskFull, Locked, NotFound, PermissionDenied, StorageError
from replaystore.storage import calls

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


@contextlib.contextmanager
def storage_errors(path: str | Path, doing: str) -> Iterator[None]:
    """Turns an OSError inside into the StorageError that says which file and what to do."""
    try:
        yield
    except OSError as error:
        raise explain(error, path, doing) from error


def explain(error: OSError, path: str | Path, doing: str) -> StorageError | PermissionDenied:
    """The error to raise for a failed system call."""
    if error.errno in _NO_SPACE:
        return DiskFull(f"no space left while {doing} {path}: free some space, then go on; sampling is not affected")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return PermissionDenied(
            f"not allowed while {doing} {path} ({error.strerror}): check owner and mode, or open the store with mode='r'"
        )
    return StorageError(f"{error.strerror or error} while {doing} {path}")


def replace_file(path: Path, data: bytes, *, durable: bool, whole: bool = True) -> None:
    """Replaces a file's content by one rename: readers see the old or the new, never a part.

    Args:
        path: the file.
        data: its new content.
        durable: whether the new content survives power loss.
        whole: whether it is the old or the new after power loss too. False is for files that are written again at every opening.
    """
    temporary = path.with_name(f"{path.name}.partial")
    with storage_errors(path, "replacing"):
        fd = calls.open_file(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            calls.pwrite_all(fd, memoryview(data), 0)
            if durable or whole:
                calls.sync_data(fd)
        finally:
            os.close(fd)
        calls.rename(temporary, path)
        if durable:
            calls.sync_folder(path.parent)


def read_json(path: Path) -> Any:
    """A JSON file's content; NotFound or Corruption name the file."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise NotFound(f"{path} does not exist") from None
    except OSError as error:
        raise explain(error, path, "reading") from error
    try:
        return json.loads(data)
    except ValueError as error:
        raise Corruption(f"{path} is not valid JSON ({error}): restore it from a snapshot, or run 'replaystore repair'") from None


class FileLock:
    """An exclusive lock on a store, held as long as the process lives. The kernel drops it on any kind of death, so it is never stale."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with storage_errors(path, "locking"):
            self._fd = calls.open_file(path, os.O_RDWR | os.O_CREAT)
        try:
            calls.before("flock", path)
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(self._fd, 64, 0).decode(errors="replace").strip() or "another process"
            os.close(self._fd)
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise Locked(
                    f"{path.parent.parent} is open for writing in {holder}: stop that one, connect to it, or open with mode='r'"
                ) from None
            raise StorageError(f"{path} cannot be locked ({error.strerror}): a store must lie on a file system with locks") from error
        try:
            with storage_errors(path, "writing"):  # always 32 characters: nothing of a longer number stays
                calls.pwrite_all(self._fd, memoryview(f"process {os.getpid()}".ljust(31).encode() + b"\n"), 0)
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Lets the next one in."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
