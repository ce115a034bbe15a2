"""The Hindsight view of drawn anchors: transitions, some of which get another goal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from replaystore.core.goals import EPISODE, FINAL, FUTURE, choose_items, draw_anchors, draw_goals
from replaystore.core.walk import Ids, Links
from replaystore.engine.rows import Rows
from replaystore.engine.views import transition
from replaystore.engine.views.gathering import Patch, Take
from replaystore.errors import InvalidArgument
from replaystore.sampling import MAX_ROWS_WALKED
from replaystore.schema.columns import Column
from replaystore.schema.views import Hindsight

Array = npt.NDArray[Any]

_STRATEGIES = {"future": FUTURE, "final": FINAL, "episode": EPISODE}


def check(view: Hindsight, columns: Mapping[str, Column], names: Mapping[str, str]) -> None:
    """InvalidArgument unless the table has both goals and they are alike.

    Args:
        view: with the names of the goals.
        columns: the table's.
        names: in the batch and in the table, of all columns.
    """
    for what, name in (("achieved", view.achieved), ("desired", view.desired)):
        if name not in names:
            raise InvalidArgument(f"{what}={name!r}: there is no such column; the table has {', '.join(names)}")
    one, other = columns[names[view.achieved]], columns[names[view.desired]]
    if (one.shape, one.dtype) != (other.shape, other.dtype):
        raise InvalidArgument(
            f"{view.achieved!r} is {one.dtype} {one.shape} but {view.desired!r} is {other.dtype} {other.shape}: "
            "a goal reached must be able to stand for one asked for"
        )


def expand(
    rows: Rows,
    every: Mapping[str, str],
    names: Mapping[str, str],
    view: Hindsight,
    anchors: Ids,
    info: dict[str, Array],
    rng: npt.NDArray[np.uint64],
) -> tuple[dict[str, Array], dict[str, Take]]:
    """See `replaystore.engine.views.transition.expand`; `every` has the names of all columns, `names` those to be read."""
    walk = transition.Walk(rows, view.transition, anchors, rng, backwards=True)
    goals = _goals(view, walk.links, anchors, rng)
    relabelled = np.flatnonzero(goals >= 0)
    info["relabelled"], info["goal_ids"] = goals >= 0, goals
    small, takes = transition.expand(rows, names, view.transition, anchors, walk, info)
    achieved, desired = rows.array(f"steps/{every[view.achieved]}"), rows.array(f"steps/{every[view.desired]}")
    rows_of_goals = goals[relabelled] - rows.origin
    if len(relabelled):
        stacked = rows_of_goals[:, None] if view.stacks(view.desired) else rows_of_goals
        for field in (f"{kind}/{view.desired}" for kind in ("data", "next", "window")):
            if field in takes:
                takes[field] = takes[field]._replace(patch=Patch(relabelled, achieved, stacked))
    path, taken, end = walk.found.path, walk.found.taken, walk.found.end
    reached = np.concatenate([path[:, 1:], end[:, None]], axis=1)  # one row after each step; right up to the last taken
    longest = np.arange(reached.shape[1]) + 1 >= taken[:, None]
    reached = np.where(longest, end[:, None], reached)
    takes[f"achieved/{view.achieved}"] = Take(achieved, reached - rows.origin, None)
    patch = Patch(relabelled, achieved, rows_of_goals) if len(relabelled) else None
    takes[f"desired/{view.desired}"] = Take(desired, anchors - rows.origin, None, patch)
    return small, takes


def _goals(view: Hindsight, links: Links, anchors: Ids, rng: npt.NDArray[np.uint64]) -> Ids:
    """Row whose achieved goal each item gets, −1 for none."""
    goals = choose_items(rng, view.ratio, len(anchors))
    if view.strategy == "random":
        chosen = np.flatnonzero(goals >= 0)
        goals[chosen] = draw_anchors(links, rng, len(chosen))
    elif not draw_goals(links, anchors, goals, _STRATEGIES[view.strategy], rng, MAX_ROWS_WALKED):
        raise InvalidArgument(
            f"batch_size={len(anchors)}: finding the ends of these items' episodes took looking at {MAX_ROWS_WALKED} rows, the most that a "
            "batch may: episodes are very long here; ask for fewer items, or use strategy='random'"
        )
    return goals
