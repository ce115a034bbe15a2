"""Row numbers as runs: rows that follow each other, or one row again and again. Fewer bytes to send, and longer pieces to copy."""

from __future__ import annotations

from typing import Any

from replaystore.core.jit import kernel


@kernel
def find_runs(rows: Any, shift: int, runs: Any) -> int:
    """Runs of `rows`, int64 ``(n,)``, into `runs`, int64 ``(most, 2)``: first row plus `shift`, and how many; how often it is repeated, negative.

    Returns:
        How many there are, -1 when they are more than there is room for.
    """
    n, most, count, place = rows.shape[0], runs.shape[0], 0, 0
    while place < n:
        if count == most:
            return -1
        first = rows[place]
        stop = place + 1
        if stop < n and rows[stop] == first:
            while stop < n and rows[stop] == first:
                stop += 1
            runs[count, 1] = place - stop
        else:
            while stop < n and rows[stop] == first + (stop - place):
                stop += 1
            runs[count, 1] = stop - place
        runs[count, 0] = first + shift
        count += 1
        place = stop
    return count


@kernel
def copy_runs(source: Any, row_bytes: int, origin: int, runs: Any, out: Any) -> None:
    """Copies the rows that `runs` name, less `origin`, one after the other.

    Args:
        source: uint8, rows of `row_bytes` bytes each.
        row_bytes: of one row.
        origin: number of the first row of `source`.
        runs: int64 ``(n, 2)``, see `find_runs`.
        out: uint8, as long as all the rows.
    """
    to = 0
    for run in range(runs.shape[0]):
        start, count = (runs[run, 0] - origin) * row_bytes, runs[run, 1]
        if count >= 0:
            size = count * row_bytes
            out[to : to + size] = source[start : start + size]
            to += size
        else:
            for _ in range(-count):
                out[to : to + row_bytes] = source[start : start + row_bytes]
                to += row_bytes


@kernel
def expand_runs(runs: Any, out: Any) -> None:
    """The row numbers themselves, int64."""
    to = 0
    for run in range(runs.shape[0]):
        first, count = runs[run, 0], runs[run, 1]
        if count >= 0:
            for place in range(count):
                out[to + place] = first + place
            to += count
        else:
            out[to : to - count] = first
            to -= count
