"""The system calls by which a store changes the disk, one function each: the one place where a test can stand between us and the disk.

`hook` is None but in tests, and then costs one comparison. A test sets it to see each call before it is made (name, then path or
descriptor, then details), to make it fail (by raising OSError), or to end the process there. Knows nothing of errors or formats.
"""

from __future__ import annotations

import mmap
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

hook: Callable[..., None] | None = None


def before(name: str, *details: Any) -> None:
    """Tells the hook of a call that is made elsewhere."""
    if hook is not None:
        hook(name, *details)


def open_file(path: Path, flags: int) -> int:
    """open(2); the descriptor is not inherited."""
    if hook is not None:
        hook("open", path, flags)
    return os.open(path, flags | os.O_CLOEXEC, 0o644)


def make_folders(path: Path) -> None:
    """mkdir(2) of `path` and of what is missing above it; fine when it is there."""
    if path.is_dir():
        return
    if path.parent != path:
        make_folders(path.parent)
    if hook is not None:
        hook("mkdir", path)
    path.mkdir(exist_ok=True)


def preallocate(fd: int, size_bytes: int) -> None:
    """Gives the file its full size and its blocks, so that a full disk is an error now and not a SIGBUS later."""
    if hook is not None:
        hook("fallocate", fd, size_bytes)
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(fd, 0, size_bytes)
        return
    block = bytes(1 << 20)  # platforms without fallocate: zeros do the same, more slowly
    for offset in range(0, size_bytes, len(block)):
        os.pwrite(fd, block[: size_bytes - offset], offset)


def pwrite_all(fd: int, data: memoryview, offset_bytes: int) -> None:
    """pwrite(2) of all of `data` (C-contiguous, of any shape), however few bytes a call takes."""
    if hook is not None:
        hook("pwrite", fd, data.cast("B"), offset_bytes)
    done = os.pwrite(fd, data, offset_bytes)
    if done < data.nbytes:
        data = data.cast("B")
        while done < len(data):
            done += os.pwrite(fd, data[done:], offset_bytes + done)


def sync_data(fd: int) -> None:
    """fdatasync(2), or the nearest thing the platform has."""
    if hook is not None:
        hook("fdatasync", fd)
    getattr(os, "fdatasync", os.fsync)(fd)


def sync_folder(path: Path) -> None:
    """fsync(2) of a folder: makes creations, renames and removals in it durable."""
    if hook is not None:
        hook("fsync", path)
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_map(path: Path, mapped: mmap.mmap) -> None:
    """msync(2) of all of a mapped file."""
    if hook is not None:
        hook("msync", path)
    mapped.flush()


def rename(source: Path, target: Path) -> None:
    """rename(2)."""
    if hook is not None:
        hook("rename", source, target)
    os.replace(source, target)


def link(source: Path, target: Path) -> None:
    """link(2): a second name for a file."""
    if hook is not None:
        hook("link", source, target)
    os.link(source, target)


def unlink(path: Path) -> None:
    """unlink(2); fine when there is nothing."""
    if hook is not None:
        hook("unlink", path)
    path.unlink(missing_ok=True)


def remove_tree(path: Path) -> None:
    """Removes a folder and all below it as far as that is possible."""
    if hook is not None:
        hook("rmtree", path)
    shutil.rmtree(path, ignore_errors=True)
