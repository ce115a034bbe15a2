"""What retention drops, and when: decisions over the rows of one moment. `Population` carries them out."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from replaystore.core.links import spent_until
from replaystore.engine.rows import Rows
from replaystore.schema.table_config import Retention

Ids = npt.NDArray[np.int64]

CONTEXT_ROWS = 1024
"""Rows before the oldest step left that stay when they are used up or deleted: its frame stacks reach back into them."""


def oldest_kept(rows: Rows, retention: Retention, row_bytes: int, now: float) -> int:
    """Where the table is to begin by number, bytes and age of its rows.

    Args:
        rows: as they are.
        retention: what bounds them.
        row_bytes: bytes of one row in all its columns.
        now: seconds since 1970.
    """
    first = rows.first
    if retention.max_steps is not None:
        first = max(first, rows.stop - retention.max_steps)
    others = first
    if retention.max_bytes is not None:
        others = max(others, rows.stop - retention.max_bytes // row_bytes)
    if retention.max_age_s is not None and rows.stop > rows.first:
        times = rows.live("meta/insert_time")  # never falls
        if times[0] < now - retention.max_age_s:
            others = max(others, rows.first + int(np.searchsorted(times, now - retention.max_age_s)))
    return max(first, min(others, rows.stop - retention.min_steps))


def head_kept(rows: Rows, retention: Retention, start: int, open_episodes: Any) -> tuple[int, int]:
    """Where the table is to begin when what nobody can sample any more goes from its head.

    Args:
        rows: as they are.
        retention: bounds what goes.
        start: rows below are known to be spent.
        open_episodes: by number, with the `last_step` of each: it may become an anchor.

    Returns:
        The new first row, and the end of the spent rows, for the next call.
    """
    kind, removed, successor = rows.array("meta/kind"), rows.array("replay/removed"), rows.array("replay/successor")
    row = max(start, rows.first)
    while (row := int(spent_until(kind, removed, rows.origin, row, rows.stop))) < rows.stop and successor[row - rows.origin] == 0:
        state = open_episodes.get(int(rows.array("meta/episode")[row - rows.origin]))
        if state is not None and state.last_step == row:
            break
        row += 1  # the row after it was deleted, or its writer gave up: it will never be an anchor
    return max(rows.first, min(row - CONTEXT_ROWS, rows.stop - retention.min_steps)), row


def used_up(ids: Ids, counts: npt.NDArray[np.uint32], retention: Retention, anchors: int) -> Ids:
    """Which of the anchors `ids`, drawn `counts` times by now, have been sampled as often as they may, ``(n,)``: the oldest, where
    `min_steps` keeps some of them."""
    if retention.max_times_sampled is None:
        return ids[:0]
    due: Ids = np.unique(ids[counts >= retention.max_times_sampled])
    return due[: max(0, anchors - retention.min_steps)]
