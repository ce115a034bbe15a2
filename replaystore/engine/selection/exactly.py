"""Anchors that somebody names, for reading again what was drawn before."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from replaystore.engine.conditions import Facts
from replaystore.engine.rows import Rows
from replaystore.engine.selection.filtered import whole_episodes
from replaystore.errors import NotFound
from replaystore.schema.views import View

Ids = npt.NDArray[np.int64]


def check_anchors(rows: Rows, ids: Ids, view: View, facts: Facts) -> None:
    """NotFound for the first of `ids` that is no anchor of `rows`, or none that `view` can begin at. Used-up steps may be read again."""
    kept = (ids >= rows.first) & (ids < rows.stop)
    if not kept.all():
        _refuse(ids, ~kept, f"is not kept: rows {rows.first} to {rows.stop - 1} are")
    distance = np.abs(rows.array("replay/successor")[ids - rows.origin].astype(np.int64))
    good = (distance > 0) & (ids + distance < rows.stop)
    if not good.all():
        _refuse(ids, ~good, f"is no anchor: it was deleted, or no row of its stream follows it before step {rows.stop}")
    rule = view.anchors
    if rule.period > 1:
        place: npt.NDArray[Any] = rows.array("meta/step_in_episode")[ids - rows.origin]
        wrong = place % rule.period != 0
        if wrong.any():
            _refuse(ids, wrong, f"is step {place[wrong][0]} of its episode: {type(view).__name__} begins at multiples of {rule.period}")
    if rule.episode_start:
        wrong = ~np.isin(ids, whole_episodes(rows, facts))
        if wrong.any():
            _refuse(ids, wrong, f"is not the first step of a finished episode that is all there, as {type(view).__name__} needs")


def _refuse(ids: Ids, wrong: npt.NDArray[np.bool_], why: str) -> None:
    raise NotFound(f"step_ids: {ids[wrong][0]} {why}" + (f" (and {wrong.sum() - 1} more)" if wrong.sum() > 1 else ""))
