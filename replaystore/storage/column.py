"""Columns along one axis, each as chunk files (`replaystore.storage.stored_column`).

All columns of a `ColumnSet` share one axis and one `origin`: element i of every array is row ``origin + i``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt

from replaystore.storage.address_range import AddressRange, Change, Reservation
from replaystore.storage.files import explain
from replaystore.storage.layout import ArrayLayout
from replaystore.storage.residency import will_need
from replaystore.storage.stored_column import StoredColumn

RESERVED_BYTES = 1 << 38
"""Addresses reserved at most for the widest column (256 GiB of 128 TiB). When rows run past them, the column moves to a new reservation."""

MIN_WINDOW_CHUNKS = 8

READ_AHEAD_BYTES = 1 << 16
"""Rows of fewer bytes are not worth the call that has them read ahead."""

Array = npt.NDArray[Any]


class ColumnSet:
    """Columns along one axis."""

    def __init__(self, folder: Path, layouts: Iterable[ArrayLayout], mode: str) -> None:
        self.columns = {layout.path: StoredColumn(folder, layout, mode) for layout in layouts}
        self.layouts = [column.layout for column in self.columns.values()]
        self.origin = 0
        self._mode = mode
        self._capacity = 0
        self._prepared = 0
        self._moved: list[AddressRange] = []
        self._most_rows = max(layout.rows_per_chunk for layout in self.layouts)

    def open(self, first: int, stop: int) -> None:
        """Maps the chunk files of rows [first, stop), and no others any more."""
        wanted = {}
        for path, column in self.columns.items():
            size = column.layout.rows_per_chunk
            wanted[path] = list(range(first // size, -(-stop // size))) if stop > first else []
        for addresses in self._place(first, stop, wanted):
            addresses.close()

    def _place(self, first: int, stop: int, chunks: Mapping[str, list[int]]) -> list[AddressRange]:
        most = self._most_rows
        origin = first // most * most
        widest = max(layout.row_bytes for layout in self.layouts)
        live = stop - origin
        rows = max(RESERVED_BYTES // widest, 2 * live, MIN_WINDOW_CHUNKS * most)
        rows = min(rows, max(1 << 32, 4 * live))
        rows = -(-rows // most) * most
        reserved: list[Reservation] = []
        try:
            for path, column in self.columns.items():
                reserved.append(column.reserve(origin, rows, chunks[path]))
        except BaseException:
            for reservation in reserved:  # all columns move or none does: they share one origin
                reservation.addresses.close()
            raise
        moved = [column.move(there) for column, there in zip(self.columns.values(), reserved, strict=True)]
        left = [addresses for addresses in moved if addresses is not None]
        self.origin, self._capacity, self._prepared = origin, rows, stop
        return left

    def prepare(self, first: int, stop: int) -> list[AddressRange]:
        """Makes rows below `stop` writable. Returns reservations that were left, to be closed once nobody reads there any more."""
        if stop <= self._prepared:
            return []
        if stop - self.origin > self._capacity:
            chunks = {path: column.mapped for path, column in self.columns.items()}
            oldest = (column.layout.rows_per_chunk * chunks[path][0] for path, column in self.columns.items() if chunks[path])
            lowest = min(oldest, default=first)
            # kept here until the caller has them, for what follows may fail
            self._moved += self._place(min(first, lowest), self._prepared, chunks)
        for column in self.columns.values():
            column.prepare(self._prepared, stop)
        sizes = (column.layout.rows_per_chunk for column in self.columns.values())
        self._prepared = min(-(-stop // size) * size for size in sizes)
        left, self._moved = self._moved, []
        return left

    def write(self, start: int, arrays: Mapping[str, Array]) -> None:
        """Writes rows from `start` on, an array per path. An OSError becomes a StorageError that names the folder."""
        columns = self.columns
        path = ""
        try:
            for path, rows in arrays.items():
                columns[path].write(start, rows)
        except OSError as error:
            raise explain(error, columns[path].folder, "writing into") from error

    def whole_until(self, start: int, stop: int) -> int:
        """Rows [start, it) have all their chunk files; at most `stop`."""
        return min(column.whole_until(start, stop) for column in self.columns.values())

    def whole_from(self, start: int, stop: int) -> int:
        """Rows [it, stop) have all their chunk files; at least `start`."""
        return max(column.whole_from(start, stop) for column in self.columns.values()) if stop > start else start

    def sweep(self, first: int, stop: int) -> None:
        """See `StoredColumn.sweep`."""
        for column in self.columns.values():
            column.sweep(first, stop)

    def mark_unsynced(self, start: int, stop: int) -> None:
        """See `StoredColumn.mark_unsynced`."""
        for column in self.columns.values():
            column.mark_unsynced(start, stop)

    def inspect(self, most: int) -> Change | None:
        """The first change found in `most` chunk files of each column; see `StoredColumn.inspect`."""
        changes = (column.inspect(most) for column in self.columns.values())
        return next((change for change in changes if change is not None), None)

    def rows(self, path: str, start: int, stop: int) -> Array:
        """A view of rows [start, stop) of one column, to be read in order."""
        column = self.columns[path]
        rows = column.array[start - self.origin : stop - self.origin]
        if column.scattered and rows.nbytes >= READ_AHEAD_BYTES:
            will_need(rows)
        return rows

    def take_dirty(self) -> list[Callable[[], None]]:
        """See `StoredColumn.take_dirty`."""
        return [call for column in self.columns.values() for call in column.take_dirty()]

    def due_ahead(self, stop: int, grown: int) -> list[Callable[[], None]]:
        """See `StoredColumn.due_ahead`."""
        due = (column.due_ahead(stop, grown) for column in self.columns.values())
        return [call for call in due if call is not None]

    def remove_made(self) -> None:
        """See `StoredColumn.remove_made`."""
        for column in self.columns.values():
            column.remove_made()

    def has_before(self, first: int) -> bool:
        """Whether some chunk lies wholly below `first`."""
        return any(column.droppable(first) for column in self.columns.values())

    def sync_live(self) -> None:
        """Makes all live columns durable."""
        for column in self.columns.values():
            if column.layout.live:
                column.sync_live()

    def drop_before(self, first: int) -> list[Callable[[], None]]:
        """Forgets chunks wholly below `first`; the returned calls unmap and unlink them."""
        removals = []
        for column in self.columns.values():
            chunks = column.droppable(first)
            if chunks:
                removals.append(column.forget(chunks))
        return removals

    @property
    def nbytes(self) -> int:
        """Bytes of all chunk files."""
        return sum(column.chunks * column.layout.chunk_bytes for column in self.columns.values())

    def close(self) -> None:
        """Closes all columns."""
        for column in self.columns.values():
            column.close()
