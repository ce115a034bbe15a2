"""Which rows meet a Filter: for deletion by predicate and for indexes over a part of a table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from replaystore.core.jit import kernel
from replaystore.engine.rows import Rows
from replaystore.schema.filters import Filter
from replaystore.steps import TERMINATED, TRUNCATED

Array = npt.NDArray[Any]
Ids = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Facts:
    """What conditions are measured by, beside the rows. The table's lock is held while they are used."""

    now: float
    """Seconds since 1970."""
    highest_version: int
    """The highest policy version among the rows ever inserted, -1 when none is known."""
    episodes: Callable[[str], Array]
    """By name below ``episodes/``: a view of all finished episodes, ``(episodes,)``."""


def passes(rows: Rows, where: Filter, facts: Facts) -> Mask:
    """Whether each row of [first, stop) meets every condition, ``(stop - first,)``. Closing rows are judged like steps."""
    mask = np.zeros(rows.stop - rows.first, np.bool_)
    if where.about_episodes:
        lasts = finished_that_pass(rows, where, facts.episodes)
        _mark_back(rows.array("meta/previous"), rows.array("meta/episode"), rows.origin, rows.first, rows.stop, lasts, mask)
    else:
        mask[:] = True
    _keep(rows, where, facts, np.arange(0), mask)
    return mask


def passes_at(rows: Rows, ids: Ids, where: Filter, facts: Facts) -> Mask:
    """Whether each of the rows `ids`, all in [first, stop), meets the conditions that are not on its episode, ``(len(ids),)``."""
    mask = np.ones(len(ids), np.bool_)
    _keep(rows, where, facts, ids, mask)
    return mask


def episodes_pass(where: Filter, returns: Array, lengths: Array, endings: Array) -> Mask:
    """Whether finished episodes meet the conditions on episodes.

    Args:
        where: its other conditions are not looked at.
        returns: ``(n,)`` sums of rewards.
        lengths: ``(n,)`` steps.
        endings: ``(n,)`` 1 terminated, 2 truncated.
    """
    mask = np.ones(len(returns), np.bool_)
    for values, low, high in ((returns, where.min_return, where.max_return), (lengths, where.min_length, where.max_length)):
        if low is not None:
            mask &= values >= low
        if high is not None:
            mask &= values <= high
    if where.ended is not None:
        mask &= endings == (TERMINATED if where.ended == "terminated" else TRUNCATED)
    return mask


def finished_that_pass(rows: Rows, where: Filter, episodes: Callable[[str], Array]) -> Ids:
    """The closing rows, in [first, stop), of the finished episodes that meet the conditions on episodes."""
    lasts = episodes("last_step")  # in the order of the ends, so it grows
    kept = slice(int(np.searchsorted(lasts, rows.first)), int(np.searchsorted(lasts, rows.stop)))
    good = episodes_pass(where, episodes("return")[kept], episodes("length")[kept], episodes("ending")[kept])
    found: Ids = lasts[kept][good]
    return found


def rows_back(rows: Rows, lasts: Ids) -> Ids:
    """The rows kept of the episodes whose newest rows are `lasts`, each of them counted in; ascending."""
    mask = np.zeros(rows.stop - rows.first, np.bool_)
    _mark_back(rows.array("meta/previous"), rows.array("meta/episode"), rows.origin, rows.first, rows.stop, lasts, mask)
    return rows.first + np.flatnonzero(mask)


def _keep(rows: Rows, where: Filter, facts: Facts, ids: Ids, mask: Mask) -> None:
    """See `_meet`."""
    least, most = -(2**63), 2**63 - 1
    span = (rows.first, rows.stop - 1)
    if where.max_age_steps is not None:
        span = (max(span[0], rows.stop - where.max_age_steps), span[1])
    if where.min_age_steps is not None:
        span = (span[0], rows.stop - where.min_age_steps)
    times = (
        -np.inf if where.max_age_s is None else facts.now - where.max_age_s,
        np.inf if where.min_age_s is None else facts.now - where.min_age_s,
    )
    low, high = least, most
    if where.max_age_versions is not None or where.min_age_versions is not None:
        low = 0 if where.max_age_versions is None else max(0, facts.highest_version - where.max_age_versions)
        high = most if where.min_age_versions is None else facts.highest_version - where.min_age_versions
    if where.min_policy_version is not None:
        low = max(low, where.min_policy_version)
    if where.max_policy_version is not None:
        high = min(high, where.max_policy_version)
    actors = np.array(where.actors or (), np.int64)
    arrays = rows.array("meta/insert_time"), rows.array("meta/policy_version"), rows.array("meta/actor")
    _meet(*arrays, *span, *times, low, high, actors, ids, rows.origin, rows.first, mask)


@kernel
def _meet(
    times: Any, versions: Any, actors: Any, low_id: int, high_id: int, low_time: float, high_time: float, low_version: int,
    high_version: int, wanted: Any, ids: Any, origin: int, first: int, mask: Any,
) -> None:  # fmt: skip
    """Clears ``mask[i]`` where row ``ids[i]``, or row ``first + i`` without ids, does not meet the bounds. `wanted` ascends."""
    any_time = low_time == -np.inf and high_time == np.inf
    any_version = low_version == -9223372036854775808 and high_version == 9223372036854775807
    for place in range(len(mask)):
        if not mask[place]:
            continue
        row = ids[place] if len(ids) else first + place
        good = low_id <= row <= high_id
        if good and not any_time:
            good = low_time <= times[row - origin] <= high_time
        if good and not any_version:
            good = low_version <= versions[row - origin] <= high_version
        if good and len(wanted):
            place_of = np.searchsorted(wanted, actors[row - origin])
            good = place_of < len(wanted) and wanted[place_of] == actors[row - origin]
        mask[place] = good


@kernel
def _mark_back(previous: Any, episode: Any, origin: int, first: int, stop: int, lasts: Any, mask: Any) -> None:
    """Sets ``mask[row - first]`` for the rows of the episodes that lead up to `lasts`, as far as they are kept."""
    for last in lasts:
        row = last
        while first <= row < stop and episode[row - origin] == episode[last - origin]:
            mask[row - first] = True
            before = previous[row - origin]
            if before >= row:
                break
            row = before
