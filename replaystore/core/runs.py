"""Row numbers as runs: rows that follow each other, or one row again and again. Far fewer bytes to send."""

from __future__ import annotations

from typing import Any

from replaystore.core.jit import kernel


@kernel
def find_runs(rows: Any, shift: int, runs: Any) -> int:
    """Runs of `rows`, int64 ``(n,)``, into `runs`, int64 ``(most, 2)``: first row plus `shift`, and how many, or how often it is repeated,
    negative.

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
