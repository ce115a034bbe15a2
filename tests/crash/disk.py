"""A model of a disk below a folder: what is on it for sure, and what may or may not be when the power goes.

Fed by the hook in `replaystore.storage.calls`, before each call. It assumes little of the file system: any 512-byte page of a file that was
written since the file's last sync is old, new, or anything in between; the length likewise; names made, moved and removed since a folder's
last sync are there up to some point, folder by folder, whatever became of the files' content. Mapped files are read before each
call: any of their states since their last sync may have reached the disk, page by page.
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PAGE_BYTES = 512


@dataclass(eq=False)
class File:
    """A file's content now, and its pages' past since the last sync."""

    durable: bytes = b""
    now: bytearray = field(default_factory=bytearray)
    past: dict[int, list[bytes]] = field(default_factory=dict)
    """By page number: contents since the last sync, the newest last."""

    def write(self, offset_bytes: int, data: bytes) -> None:
        """New bytes; the file grows where they need it."""
        stop = offset_bytes + len(data)
        if stop > len(self.now):
            self.now.extend(bytes(stop - len(self.now)))
        self.now[offset_bytes:stop] = data
        for page in range(offset_bytes // PAGE_BYTES, -(-stop // PAGE_BYTES)):
            self.past.setdefault(page, []).append(bytes(self.now[page * PAGE_BYTES : (page + 1) * PAGE_BYTES]))

    def sync(self) -> None:
        """Everything is on the disk."""
        if self.past or len(self.durable) != len(self.now):
            self.durable = bytes(self.now)
            self.past.clear()

    def after_power_loss(self, chance: random.Random, new: float) -> bytes:
        """Some content that may be found; each page is as new as can be with the probability `new`."""
        sizes = [len(self.durable), len(self.now)]
        size = sizes[chance.random() < new] if chance.random() < 0.8 else chance.randint(min(sizes), max(sizes))
        found = bytearray(self.durable[:size]).ljust(size, b"\0")
        for page, contents in self.past.items():
            start = page * PAGE_BYTES
            if start < size and chance.random() < new:
                newest = chance.random() < 0.7
                content = contents[-1] if newest else chance.choice(contents)
                found[start : start + len(content)] = content
        return bytes(found[:size])


@dataclass(eq=False)
class Folder:
    """Names in a folder now, and what happened to them since its last sync."""

    durable: dict[str, Any] = field(default_factory=dict)
    now: dict[str, Any] = field(default_factory=dict)
    past: list[dict[str, Any]] = field(default_factory=list)
    """Changes since the last sync, in order: by name the file or folder, or None."""

    def apply(self, change: dict[str, Any]) -> None:
        """Names appear (or, with None, go), all of one change at once."""
        self.past.append(change)
        _apply(self.now, change)

    def sync(self) -> None:
        """All names are on the disk."""
        self.durable = dict(self.now)
        self.past.clear()

    def after_power_loss(self, chance: random.Random, new: float) -> dict[str, Any]:
        """Some names that may be found."""
        names = dict(self.durable)
        until = len(self.past) if chance.random() < new else chance.randint(0, len(self.past))
        for change in self.past[:until]:
            _apply(names, change)
        return names


def _apply(names: dict[str, Any], change: dict[str, Any]) -> None:
    for name, node in change.items():
        if node is None:
            names.pop(name, None)
        else:
            names[name] = node


class Disk:
    """The model; `see` is what the hook calls before each system call."""

    def __init__(self, root: Path, mapped: tuple[str, ...]) -> None:
        self.root = root
        self.top = Folder()
        self._mapped = mapped
        """Parts of paths of files that are changed through mappings."""
        self._maps: dict[str, File] = {}

    # -- finding

    def _parts(self, path: Path | str) -> tuple[str, ...] | None:
        try:
            return Path(path).relative_to(self.root).parts
        except ValueError:
            return None

    def _folder(self, parts: tuple[str, ...]) -> Folder:
        node = self.top
        for part in parts:
            node = node.now[part]
        return node

    def _file(self, path: Path | str) -> File | None:
        parts = self._parts(path)
        if not parts:
            return None
        node: Any = self.top
        for part in parts:
            if not isinstance(node, Folder) or part not in node.now:
                return None
            node = node.now[part]
        return node if isinstance(node, File) else None

    def _of(self, fd: int) -> File | None:
        return self._file(os.readlink(f"/proc/self/fd/{fd}"))

    # -- seeing

    def look_at_mapped(self) -> None:
        """Notes what was changed through mappings."""
        for path, file in self._maps.items():
            if file.now:
                with open(path, "rb", buffering=0) as opened:
                    content = opened.read()
                if content != file.now:
                    for start in range(0, len(content), PAGE_BYTES):
                        page = content[start : start + PAGE_BYTES]
                        if file.now[start : start + PAGE_BYTES] != page:
                            file.write(start, page)

    def see(self, name: str, *details: Any) -> None:
        """Follows one system call that is about to be made and to succeed."""
        action = getattr(self, f"_see_{name}", None)
        if action is not None:
            action(*details)

    def _see_open(self, path: Path, flags: int) -> None:
        parts = self._parts(path)
        if not parts or not flags & os.O_CREAT:
            return
        folder = self._folder(parts[:-1])
        if parts[-1] not in folder.now or flags & os.O_TRUNC:
            made = File()
            folder.apply({parts[-1]: made})
            if any(part in str(path) for part in self._mapped) and not path.name.startswith("zarr.json"):
                self._maps[str(path)] = made

    def _see_mkdir(self, path: Path) -> None:
        parts = self._parts(path)
        if parts:
            self._folder(parts[:-1]).apply({parts[-1]: Folder()})

    def _see_fallocate(self, fd: int, size_bytes: int) -> None:
        file = self._of(fd)
        if file is not None and len(file.now) < size_bytes:
            file.write(len(file.now), bytes(size_bytes - len(file.now)))

    def _see_pwrite(self, fd: int, data: memoryview, offset_bytes: int) -> None:
        file = self._of(fd)
        if file is not None:
            file.write(offset_bytes, bytes(data))

    def _see_fdatasync(self, fd: int) -> None:
        file = self._of(fd)
        if file is not None:
            file.sync()

    def _see_msync(self, path: Path) -> None:
        file = self._file(path)
        if file is not None:
            file.sync()

    def _see_fsync(self, path: Path) -> None:
        parts = self._parts(path)
        if parts is not None:
            self._folder(parts).sync()

    def _see_rename(self, source: Path, target: Path) -> None:
        before, after = self._parts(source), self._parts(target)
        assert before
        assert after
        from_folder, to_folder = self._folder(before[:-1]), self._folder(after[:-1])
        node = from_folder.now[before[-1]]
        assert from_folder is to_folder, "the script moves nothing between folders"
        from_folder.apply({before[-1]: None, after[-1]: node})

    def _see_unlink(self, path: Path) -> None:
        parts = self._parts(path)
        if parts:
            self._folder(parts[:-1]).apply({parts[-1]: None})
            self._maps.pop(str(path), None)

    def _see_rmtree(self, path: Path) -> None:
        parts = self._parts(path)
        if parts and parts[-1] in self._folder(parts[:-1]).now:
            self._folder(parts[:-1]).apply({parts[-1]: None})

    # -- images

    def build(self, target: Path) -> None:
        """What is found after the process was killed: everything that it did."""
        _write(self.top, target, lambda file: bytes(file.now), lambda folder: folder.now)

    def build_after_power_loss(self, target: Path, chance: random.Random) -> None:
        """One of the many things that may be found after the power went."""
        new = chance.choice((0.0, 0.1, 0.5, 0.5, 0.9, 1.0))
        names = chance.choice((new, 0.0, 0.5, 1.0))
        _write(self.top, target, lambda file: file.after_power_loss(chance, new), lambda folder: folder.after_power_loss(chance, names))


def _write(folder: Folder, path: Path | str, content: Any, names: Any) -> None:
    os.mkdir(path)
    for name, node in names(folder).items():
        there = f"{path}/{name}"
        if isinstance(node, Folder):
            _write(node, there, content, names)
        else:
            _write_file(there, content(node))


def _write_file(path: str, data: bytes) -> None:
    """With holes where there are only zeros: images are many and mostly zeros."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    try:
        os.ftruncate(fd, len(data))
        last = len(data.rstrip(b"\0"))
        if last:
            os.pwrite(fd, data[:last], 0)
    finally:
        os.close(fd)
