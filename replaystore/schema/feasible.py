"""Whether a rate limiter can ever let anybody go on, given what retention keeps and the selector that is used by default."""

from __future__ import annotations

from typing import Any

from replaystore.errors import InvalidArgument
from replaystore.schema.limiters import Queue, RateLimiter, SampleToInsertRatio, Stack
from replaystore.schema.selectors import Fifo, Lifo

BOOKKEEPING_BYTES = 50
"""Per row, beside its columns: everything of ``meta/``, and of ``replay/`` what every table has."""

LEAF_BYTES = 4
"""Per row and selector that keeps priorities or passes."""


def check_feasible(limiter: RateLimiter, retention: Any, selector: Any, row_bytes: int) -> None:
    """Raises InvalidArgument, with the arithmetic, for a combination that must come to a halt for ever.

    Args:
        limiter: of the table.
        retention: its `Retention`.
        selector: the first of its selectors.
        row_bytes: bytes of a row in all its columns, bookkeeping counted in.
    """
    held, why = _most_rows(retention, row_bytes)
    least = limiter.min_size_to_sample
    if held is not None and held < 2:
        raise InvalidArgument(
            f"{why}: a step can be sampled only once the next row is there, so it must hold at least {2 * row_bytes} bytes"
        )
    if held is not None and least > held:
        raise InvalidArgument(f"min_size_to_sample={least} can never be reached: {why}")
    times = retention.max_times_sampled
    if isinstance(limiter, SampleToInsertRatio) and times is not None and times < limiter.samples_per_insert:
        raise InvalidArgument(
            f"samples_per_insert={limiter.samples_per_insert:g} asks for {limiter.samples_per_insert:g} samples of each step, but "
            f"max_times_sampled={times} allows {times}: use samples_per_insert of at most {times}, or a higher max_times_sampled"
        )
    if isinstance(limiter, Queue | Stack):
        _check_queue(limiter, retention, selector, held, why)


def _check_queue(limiter: Queue | Stack, retention: Any, selector: Any, held: int | None, why: str) -> None:
    name, size = type(limiter).__name__, limiter.size
    order = Fifo if isinstance(limiter, Queue) else Lifo
    if not isinstance(selector, order):
        raise InvalidArgument(f"rate_limiter={name}({size}) goes with selector={order.__name__}() as the first selector, got {selector!r}")
    if retention.max_times_sampled != 1:
        raise InvalidArgument(
            f"rate_limiter={name}({size}) needs retention=Retention(max_times_sampled=1), got max_times_sampled="
            f"{retention.max_times_sampled}: a step that stays when it was sampled takes its place for ever"
        )
    if retention.min_steps >= size:
        raise InvalidArgument(
            f"rate_limiter={name}({size}) holds inserts back while {size} anchors are there, and min_steps={retention.min_steps} keeps "
            f"{retention.min_steps} of them whatever is sampled: use min_steps of at most {size - 1}"
        )
    if held is not None and size >= held:
        raise InvalidArgument(
            f"rate_limiter={name}({size}) must be able to hold {size} anchors, which takes {size + 1} rows at least, but {why}"
        )


def _most_rows(retention: Any, row_bytes: int) -> tuple[int | None, str]:
    """Rows that retention keeps at most, and why; None without a bound."""
    by_bytes = None if retention.max_bytes is None else max(retention.max_bytes // row_bytes, retention.min_steps)
    if by_bytes is not None and (retention.max_steps is None or by_bytes < retention.max_steps):
        kept = f"max_bytes={retention.max_bytes} keeps {by_bytes} rows of {row_bytes} bytes each"
        return by_bytes, kept
    return retention.max_steps, f"retention keeps max_steps={retention.max_steps}"
