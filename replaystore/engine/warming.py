"""Bringing the narrow columns of a large table into memory, behind its first draws.

Every draw reads some bytes of these columns at random steps, under the table's lock. Page by page that takes as many waits for the disk,
and each page of the draws' counts costs a fault on its first change; read from end to end it is a matter of seconds. Wide columns are
read as they are drawn (`replaystore.storage.residency`); what the page cache has of them is mapped, so that draws need no fault for it.
"""

from __future__ import annotations

import mmap
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy.typing as npt

from replaystore.storage.residency import populate, resident_share, will_need

Array = npt.NDArray[Any]

PIECE_BYTES = 4 << 20
MOST_BYTES_PER_S = 1 << 30
REST = 0.25
"""Share of the time at work that is then left to others."""

LEAST_CACHED = 0.75
"""Share of a piece of a wide column in memory from which on the rest of it is read too."""

LEAST_ROWS = 1 << 22
"""A table of fewer rows is in memory soon enough by itself."""

BLOCK_BYTES = 1 << 16
"""Read around each step drawn meanwhile: on disks that count reads it costs little more than a page, and the next draws have it."""

MOST_OF_MEMORY = 0.5
"""Share of the memory that is available which may be filled."""


def available_bytes() -> int:
    """Memory that can be had without swapping; 0 where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:")), 0)


Piece = tuple[Array, Callable[[], None]]
Columns = Iterable[tuple[str, int]]


class Warming:
    """A thread for a while."""

    def __init__(self, piece: Callable[[str, int, int], Piece], read_around: Callable[[int], None] = lambda block_bytes: None) -> None:
        """Both are called from any thread.

        Args:
            piece: gives, of a column's path, the rows of [start, stop) that are kept, and a call that lets them go.
            read_around: hears how many bytes draws are to read around each step: more while all of these columns are coming in.
        """
        self._piece, self._read_around = piece, read_around
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._beginning = threading.Lock()

    def begin(self, first: int, stop: int, read: Columns, written: Iterable[str], wide: Columns = ()) -> bool:
        """Begins if the table is large; returns whether it did and there is memory for all of `read`.

        Args:
            first, stop: the rows that there are now.
            read: paths and bytes per row of the columns, in the order in which they are to come.
            written: those of them that draws change.
            wide: columns of which only what is in memory already, or most of which is, comes into the page table.
        """
        read = tuple(read)
        fits = (stop - first) * sum(row_bytes for _, row_bytes in read) <= available_bytes() * MOST_OF_MEMORY
        with self._beginning:
            if stop - first < LEAST_ROWS or self._stopped.is_set():
                return False
            if fits:
                self._read_around(BLOCK_BYTES)
            self._thread = threading.Thread(
                target=self._work, args=(first, stop, read, frozenset(written), tuple(wide)), name="replaystore-warming", daemon=True
            )
            self._thread.start()
        return fits

    def _work(self, first: int, stop: int, read: Columns, written: frozenset[str], wide: Columns) -> None:
        try:
            come = self._read(first, stop, read, written)
        finally:
            self._read_around(mmap.PAGESIZE)  # from now on what is missing has gone for lack of memory
        if come:
            self._map(first, stop, wide)

    def _read(self, first: int, stop: int, read: Columns, written: frozenset[str]) -> bool:
        """Whether it was not stopped."""
        left = int(available_bytes() * MOST_OF_MEMORY)
        for path, row_bytes in read:
            left -= (stop - first) * row_bytes
            if left < 0:
                break
            size = max(1, PIECE_BYTES // row_bytes)
            for start in range(first, stop, size):
                begun = time.monotonic()
                self._use(path, start + size, min(start + 2 * size, stop), will_need)
                went = self._use(path, start, min(start + size, stop), lambda rows, path=path: populate(rows, write=path in written))  # type: ignore[misc]
                took_s = time.monotonic() - begun
                if self._stopped.wait(max(took_s * REST, PIECE_BYTES / MOST_BYTES_PER_S - took_s)) or not went:
                    return False
        return True

    def _map(self, first: int, stop: int, wide: Columns) -> None:
        for path, row_bytes in wide:
            size = max(1, PIECE_BYTES // row_bytes)
            for start in range(first, stop, size):
                begun = time.monotonic()
                self._use(path, start, min(start + size, stop), _map_cached)
                if self._stopped.wait((time.monotonic() - begun) * REST):
                    return

    def _use(self, path: str, start: int, stop: int, call: Callable[[Array], Any]) -> Any:
        rows, release = self._piece(path, start, stop)
        try:
            return call(rows)
        finally:
            release()

    def stop(self) -> None:
        """Ends it, and waits until it has."""
        with self._beginning:  # a draw may be about to begin it
            self._stopped.set()
        if self._thread is not None:
            self._thread.join()


def _map_cached(rows: Array) -> None:
    if resident_share(rows) >= LEAST_CACHED:
        will_need(rows)
        populate(rows)
