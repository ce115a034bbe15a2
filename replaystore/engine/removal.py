"""Which rows a deletion means: steps or episodes by number, or those that a Filter lets pass."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from replaystore.core.episodes import OpenEpisode
from replaystore.core.jit import kernel
from replaystore.core.links import DELETED
from replaystore.engine.checking.invariants import STEP
from replaystore.engine.conditions import Facts, finished_that_pass, passes, rows_back
from replaystore.engine.rows import Rows
from replaystore.schema.filters import Filter

Ids = npt.NDArray[np.int64]


def steps_that_pass(rows: Rows, where: Filter, facts: Facts) -> Ids:
    """The steps that meet every condition and are not deleted yet, ``(n,)``."""
    return rows.first + np.flatnonzero(passes(rows, where, facts) & (rows.live("meta/kind") == STEP) & _there(rows))


def episodes_that_pass(rows: Rows, where: Filter, facts: Facts) -> Ids:
    """The rows of the finished episodes all of whose kept steps meet every condition, ``(n,)``."""
    mask = passes(rows, where, facts) | (rows.live("meta/kind") != STEP)
    lasts = finished_that_pass(rows, where, facts.episodes)
    whole = np.zeros(len(mask), np.bool_)
    arrays = rows.array("meta/previous"), rows.array("meta/episode")
    _mark_whole(*arrays, rows.origin, rows.first, rows.stop, lasts, mask, whole)
    return rows.first + np.flatnonzero(whole & _there(rows))


def rows_of_episodes(rows: Rows, wanted: Ids, open_episodes: Mapping[int, OpenEpisode], facts: Facts) -> tuple[Ids, int]:
    """The rows kept of episodes by number, finished or going on, ``(n,)``; and of how many episodes nothing is left."""
    wanted = np.unique(wanted)
    lasts, ended = facts.episodes("last_step"), facts.episodes("episode")
    kept = slice(int(np.searchsorted(lasts, rows.first)), None)
    going = [open_episodes[number].last_step for number in wanted.tolist() if number in open_episodes]
    tails = np.concatenate([np.array(going, np.int64), lasts[kept][np.isin(ended[kept], wanted)]])
    found = rows_back(rows, tails)
    found = found[_there(rows)[found - rows.first]]
    return found, len(wanted) - len(np.unique(rows.array("meta/episode")[found - rows.origin]))


def _there(rows: Rows) -> npt.NDArray[np.bool_]:
    there: npt.NDArray[np.bool_] = rows.live("replay/removed") != DELETED
    return there


@kernel
def _mark_whole(previous: Any, episode: Any, origin: int, first: int, stop: int, lasts: Any, mask: Any, whole: Any) -> None:
    """Sets ``whole[row - first]`` for the rows of those episodes, ended by `lasts`, that are in the mask with every row kept."""
    for last in lasts:
        for marking in range(2):
            row, good = last, True
            while first <= row < stop and episode[row - origin] == episode[last - origin]:
                if marking == 1:
                    whole[row - first] = True
                elif not mask[row - first]:
                    good = False
                    break
                if previous[row - origin] >= row:
                    break
                row = previous[row - origin]
            if not good:
                break
