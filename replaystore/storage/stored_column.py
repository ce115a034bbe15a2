"""One column as chunk files: written in place, mapped next to each other, synced and dropped as whole files."""

from __future__ import annotations

import contextlib
import itertools
import mmap
import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from replaystore.errors import Corruption, StorageError
from replaystore.storage import calls
from replaystore.storage.address_range import AddressRange, Change, Reservation
from replaystore.storage.files import explain, storage_errors
from replaystore.storage.layout import ArrayLayout

Array = npt.NDArray[Any]

SCANNED_BYTES = 16
"""Columns of narrower rows are walked over from end to end (filters, indexes, recovery): there the kernel reads ahead."""

NEVER_SCANNED = ("replay/times_sampled",)

LEAST_MADE_AHEAD = 1 << 16
"""Rows per chunk from which on the next file is made ahead. Narrow columns need theirs all at the same row: half a millisecond each."""


class StoredColumn:
    """One Zarr array's chunk files, as one mapped array."""

    def __init__(self, folder: Path, layout: ArrayLayout, mode: str) -> None:
        self.layout = layout
        self.folder = folder / layout.path
        self._place = str(self.folder)
        self.array: Array = np.empty((0, *layout.shape), layout.dtype)
        self._mode = mode
        self._range: AddressRange | None = None
        self._origin = 0
        self._files: dict[int, int] = {}  # chunk → open descriptor, of chunks that may still be written or synced
        self._dirty: set[int] = set()
        self._attached: dict[int, tuple[int, int]] = {}  # chunk → device and inode of the file that is mapped; ascending
        self._folder_dirty = False
        self._made: tuple[int, int] | None = None  # a chunk, and the descriptor of its file: made before it is needed, not mapped yet
        self._making = threading.Lock()
        self._inspected = 0
        self.scattered = hasattr(mmap, "MADV_RANDOM") and (layout.row_bytes > SCANNED_BYTES or layout.path in NEVER_SCANNED)
        """Whether rows are read here and there: reading a page must not read those around it. Who reads in order says so beforehand
        (`replaystore.storage.residency.will_need`)."""

    # -- mapping

    def reserve(self, origin: int, rows: int, chunks: Iterable[int]) -> Reservation:
        """Reserves addresses for rows from `origin` on and maps `chunks` there. Nothing uses them before `move`."""
        addresses = AddressRange(rows * self.layout.row_bytes)
        try:
            return Reservation(origin, rows, addresses, {chunk: self._attach(chunk, addresses, origin) for chunk in chunks})
        except BaseException:
            addresses.close()
            raise

    def move(self, reservation: Reservation) -> AddressRange | None:
        """From here on the column is where `reservation` is; returns the addresses that it leaves, to be closed later."""
        left = self._range
        self._range, self._origin, self._attached = reservation.addresses, reservation.origin, reservation.attached
        self.array = self._range.array((reservation.rows, *self.layout.shape), self.layout.dtype)
        return left

    def _attach(self, chunk: int, addresses: AddressRange, origin: int) -> tuple[int, int]:
        layout = self.layout
        path = self.folder / layout.chunk_name(chunk)
        fd = self._files.get(chunk, -1)
        owned = fd < 0
        if owned:
            with storage_errors(path, "opening"):
                fd = calls.open_file(path, os.O_RDONLY if self._mode == "r" else os.O_RDWR)
        try:
            found = os.fstat(fd)
            if found.st_size != layout.chunk_bytes:
                raise Corruption(
                    f"{path} has {found.st_size} bytes instead of {layout.chunk_bytes}: something outside replaystore changed it; "
                    "restore the file"
                )
            offset = (chunk * layout.rows_per_chunk - origin) * layout.row_bytes
            private = self._mode == "r" and layout.live
            addresses.attach(offset, found.st_size, fd, writable=layout.live, private=private)
            if self.scattered:
                addresses.advise(offset, found.st_size, mmap.MADV_RANDOM)
        finally:
            if owned:
                os.close(fd)
        return found.st_dev, found.st_ino

    def whole_until(self, start: int, stop: int) -> int:
        """Rows [start, it) have chunk files of the right size; at most `stop`."""
        size = self.layout.rows_per_chunk
        for chunk in range(start // size, -(-stop // size)):
            try:
                found = os.stat(self.folder / self.layout.chunk_name(chunk)).st_size
            except FileNotFoundError:
                found = -1
            if found != self.layout.chunk_bytes:
                return max(start, chunk * size)
        return stop

    def whole_from(self, start: int, stop: int) -> int:
        """Rows [it, stop) have chunk files; at least `start`."""
        size = self.layout.rows_per_chunk
        for chunk in range((stop - 1) // size, start // size - 1, -1):
            if not (self.folder / self.layout.chunk_name(chunk)).exists():
                return min(stop, (chunk + 1) * size)
        return start

    # -- writing

    def prepare(self, start: int, stop: int) -> None:
        """Makes sure that rows [start, stop) have their files, at full size and mapped. Rows below `start` have them."""
        size = self.layout.rows_per_chunk
        for chunk in range(start // size, -(-stop // size)):
            if chunk not in self._attached:
                self._create(chunk)

    def _create(self, chunk: int) -> None:
        assert self._range is not None
        path = self.folder / self.layout.chunk_name(chunk)
        with self._making, storage_errors(path, "creating"):
            fd = self._take_made(chunk)
            if fd < 0:
                if path.exists():
                    calls.unlink(path)  # left from before a crash; its bytes are nobody's
                fd = calls.open_file(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
            try:
                if os.fstat(fd).st_size != self.layout.chunk_bytes:
                    calls.preallocate(fd, self.layout.chunk_bytes)
                self._attached[chunk] = self._attach_new(chunk, fd)
            except BaseException:
                self._files.pop(chunk, None)
                os.close(fd)
                path.unlink(missing_ok=True)  # a chunk file of the wrong size is an error in every reader
                raise
        self._dirty.add(chunk)
        self._folder_dirty = True

    def _take_made(self, chunk: int) -> int:
        """The descriptor of the chunk's file if it was made ahead, and is still there; else -1. Within `_making`."""
        made, self._made = self._made, None
        if made is None:
            return -1
        with contextlib.suppress(OSError):
            if made[0] == chunk and os.path.samestat(os.fstat(made[1]), os.stat(self.folder / self.layout.chunk_name(chunk))):
                return made[1]
        os.close(made[1])
        return -1

    def due_ahead(self, stop: int, grown: int) -> Callable[[], None] | None:
        """A call that makes the next chunk's file, if `grown` rows more are likely to need it soon; for outside the lock."""
        size = self.layout.rows_per_chunk
        chunk = (stop - 1) // size + 1
        if not grown or size < LEAST_MADE_AHEAD or chunk * size - stop > grown or chunk in self._attached or self._made is not None:
            return None
        return lambda: self._make_ahead(chunk)

    def _make_ahead(self, chunk: int) -> None:
        """Nothing is lost where this fails: who inserts makes the file, and hears of it if that fails too."""
        path = self.folder / self.layout.chunk_name(chunk)
        with self._making, contextlib.suppress(OSError):
            if chunk in self._attached or self._made is not None or self._range is None or path.exists():
                return
            fd = calls.open_file(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
            try:
                calls.preallocate(fd, self.layout.chunk_bytes)
            except BaseException:
                os.close(fd)
                path.unlink(missing_ok=True)
                raise
            self._made = chunk, fd

    def remove_made(self) -> None:
        """Takes a file away that was made ahead and not needed. Where that fails, the next opening does."""
        with self._making, contextlib.suppress(OSError):
            made, self._made = self._made, None
            if made is not None:
                os.close(made[1])
                calls.unlink(self.folder / self.layout.chunk_name(made[0]))

    def _attach_new(self, chunk: int, fd: int) -> tuple[int, int]:
        assert self._range is not None
        stale = self._files.get(chunk, -1)
        if stale >= 0:
            os.close(stale)
        self._files[chunk] = fd
        return self._attach(chunk, self._range, self._origin)

    def write(self, start: int, rows: Array) -> None:
        """Writes ``rows`` (C-contiguous, of the column's dtype) at row ids from `start` on. `prepare` came before."""
        layout = self.layout
        chunk, first = divmod(start, layout.rows_per_chunk)
        fd = self._files.get(chunk, -1)
        if fd >= 0 and first + len(rows) <= layout.rows_per_chunk:  # nearly always
            calls.pwrite_all(fd, rows.data, first * layout.row_bytes)
            self._dirty.add(chunk)
            return
        data = rows.data.cast("B")
        position = start
        stop = start + len(rows)
        while position < stop:
            chunk = position // layout.rows_per_chunk
            end = min(stop, (chunk + 1) * layout.rows_per_chunk)
            fd = self._files.get(chunk, -1)
            if fd < 0:
                fd = self._open(chunk)
                self._check_alone(chunk, fd)
            part = data[(position - start) * layout.row_bytes : (end - start) * layout.row_bytes]
            calls.pwrite_all(fd, part, (position - chunk * layout.rows_per_chunk) * layout.row_bytes)
            self._dirty.add(chunk)
            position = end

    def _open(self, chunk: int) -> int:
        path = self.folder / self.layout.chunk_name(chunk)
        fd = calls.open_file(path, os.O_RDWR)
        found = os.fstat(fd)
        if (found.st_dev, found.st_ino) != self._attached.get(chunk):
            os.close(fd)
            raise self._change(chunk, "replaced").error
        self._files[chunk] = fd
        return fd

    def touch(self, ids: npt.NDArray[np.int64]) -> None:
        """Rows `ids` of a live column were changed through the mapping: the next `take_dirty` syncs their files."""
        for chunk in np.unique(ids // self.layout.rows_per_chunk).tolist():
            if chunk not in self._dirty and chunk in self._attached:
                with storage_errors(self.folder / self.layout.chunk_name(chunk), "opening"):
                    if chunk not in self._files:
                        self._open(chunk)
                self._dirty.add(chunk)

    def _check_alone(self, chunk: int, fd: int) -> None:
        """Snapshots share full files, and rows are added to the last one only: this never strikes, unless somebody else makes links."""
        names = os.fstat(fd).st_nlink
        if names > 1:
            path = self.folder / self.layout.chunk_name(chunk)
            raise StorageError(
                f"{path} has {names} names (hard links): new rows would appear under the others too. Give the store a file of its own: "
                f"cp {path} {path}.copy && mv {path}.copy {path}, with the store closed"
            )

    def clear_from(self, start: int) -> None:
        """Zeros rows from `start` to the end of their chunk, the last: what a crash left behind the last good row."""
        chunk = start // self.layout.rows_per_chunk
        if chunk in self._attached:
            end = (chunk + 1) * self.layout.rows_per_chunk
            self.array[start - self._origin : end - self._origin] = 0

    # -- what others do to the files

    def inspect(self, most: int) -> Change | None:
        """Looks at the newest chunk's file and at `most` others, the next ones at each call. Needs no lock."""
        chunks = list(self._attached)
        places = range(self._inspected, self._inspected + min(most, len(chunks)))
        self._inspected = places.stop
        for chunk in (*chunks[-1:], *(chunks[place % len(chunks)] for place in places)):
            change = self._inspect(chunk)
            if change is not None:
                return change
        return None

    def _inspect(self, chunk: int) -> Change | None:
        mapped = self._attached.get(chunk)
        if mapped is None:
            return None
        try:
            found = os.stat(f"{self._place}/{self.layout.chunk_name(chunk)}")  # hundreds per commit: a Path takes longer than the call
        except OSError:
            gone = self._attached.get(chunk) == mapped  # else retention took it away meanwhile
            return self._change(chunk, "removed") if gone else None
        if (found.st_dev, found.st_ino) != mapped:
            return self._change(chunk, "replaced")
        if found.st_size != self.layout.chunk_bytes:
            return self._change(chunk, f"set to {found.st_size} bytes", still_served=found.st_size > self.layout.chunk_bytes)
        return None

    def _change(self, chunk: int, how: str, *, still_served: bool = True) -> Change:
        first = chunk * self.layout.rows_per_chunk
        rows = f"its rows {first} to {first + self.layout.rows_per_chunk - 1}"
        fate = f"{rows} are still served as they were until the store is closed" if still_served else f"{rows} are lost"
        path = self.folder / self.layout.chunk_name(chunk)
        text = f"{path} was {how} by something outside replaystore: {fate}; restore the file from a snapshot, or run 'replaystore repair'"
        return Change(Corruption(text), still_served)

    # -- syncing and dropping

    def sweep(self, first: int, stop: int) -> None:
        """Removes chunk files that hold no row of [first, stop)."""
        size = self.layout.rows_per_chunk
        wanted = range(first // size, -(-stop // size))
        for path in self.folder.glob("c.*"):
            number = path.name.split(".")[1]
            if number.isdigit() and int(number) not in wanted and path.name == self.layout.chunk_name(int(number)):
                with storage_errors(path, "removing"):
                    calls.unlink(path)

    def mark_unsynced(self, start: int, stop: int) -> None:
        """Rows [start, stop) were written by a process that may not have synced them: the next `take_dirty` does."""
        size = self.layout.rows_per_chunk
        if start >= stop:
            return
        for chunk in range(start // size, -(-stop // size)):
            if chunk in self._attached:
                with storage_errors(self.folder / self.layout.chunk_name(chunk), "opening"):
                    if chunk not in self._files:
                        self._open(chunk)
                self._dirty.add(chunk)
        self._folder_dirty = True

    def take_dirty(self) -> list[Callable[[], None]]:
        """What has to be synced to make everything written so far durable; marks it clean. The calls need no lock.

        Descriptors of full chunks are closed by their call; the newest chunk's stays open.
        """
        newest = next(reversed(self._attached), -1)
        due: list[Callable[[], None]] = []
        for chunk in sorted(self._dirty):
            fd = self._files.get(chunk, -1)
            if fd >= 0:
                due.append(self._sync_call(fd, chunk, close=chunk != newest))
                if chunk != newest:
                    del self._files[chunk]
        for chunk in [chunk for chunk in self._files if chunk != newest]:
            os.close(self._files.pop(chunk))
        self._dirty.clear()
        if self._folder_dirty:
            self._folder_dirty = False
            due.append(self._sync_folder)
        return due

    def _sync_folder(self) -> None:
        with storage_errors(self.folder, "syncing"):
            calls.sync_folder(self.folder)

    def _sync_call(self, fd: int, chunk: int, *, close: bool) -> Callable[[], None]:
        path = self.folder / self.layout.chunk_name(chunk)

        def call() -> None:
            try:
                calls.sync_data(fd)
            except OSError as error:
                raise explain(error, path, "syncing") from error
            finally:
                if close:
                    os.close(fd)
            change = self._inspect(chunk)
            if change is not None:  # what was synced is not what the next opening would find
                raise change.error

        return call

    def sync_live(self) -> None:
        """Waits until a live column's mapped rows are on stable storage."""
        if self._range is not None:
            for chunk in sorted(self._attached):
                offset = (chunk * self.layout.rows_per_chunk - self._origin) * self.layout.row_bytes
                path = self.folder / self.layout.chunk_name(chunk)
                with storage_errors(path, "syncing"):
                    calls.before("msync", path)
                    self._range.sync(offset, self.layout.chunk_bytes)

    def droppable(self, first: int) -> list[int]:
        """Chunks all of whose rows are below `first`."""
        return list(itertools.takewhile(lambda chunk: (chunk + 1) * self.layout.rows_per_chunk <= first, self._attached))

    def forget(self, chunks: Iterable[int]) -> Callable[[], None]:
        """Takes `chunks` out of the bookkeeping; the returned call unmaps and unlinks them, once nobody reads them any more."""
        chunks = list(chunks)
        reservation, origin = self._range, self._origin
        for chunk in chunks:
            self._attached.pop(chunk, None)
            self._dirty.discard(chunk)
            fd = self._files.pop(chunk, -1)
            if fd >= 0:
                os.close(fd)

        def call() -> None:
            for chunk in chunks:
                if reservation is not None and reservation is self._range:
                    offset = (chunk * self.layout.rows_per_chunk - origin) * self.layout.row_bytes
                    reservation.detach(offset, self.layout.chunk_bytes)
                path = self.folder / self.layout.chunk_name(chunk)
                with storage_errors(path, "removing"):
                    calls.unlink(path)

        return call

    @property
    def mapped(self) -> list[int]:
        """The chunks that are mapped, in order."""
        return sorted(self._attached)

    @property
    def chunks(self) -> int:
        """Number of chunk files."""
        return len(self._attached)

    def close(self) -> None:
        """Closes files and gives the addresses back."""
        with self._making:
            made, self._made = self._made, None
            if made is not None:
                os.close(made[1])  # the file stays: whoever opens next may have made it anew already
            addresses, self._range = self._range, None
        for fd in self._files.values():
            os.close(fd)
        self._files.clear()
        self.array = np.empty((0, *self.layout.shape), self.layout.dtype)
        if addresses is not None:
            addresses.close()
