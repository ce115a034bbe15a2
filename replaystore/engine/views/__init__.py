"""What drawn anchors expand to: a module for each kind of view, and the gathering that all share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from replaystore.engine.rows import Rows
from replaystore.engine.views import hindsight, stretches, transition
from replaystore.engine.views.gathering import GatheredSample, Plan, choose_columns
from replaystore.errors import InvalidArgument
from replaystore.schema.columns import Column
from replaystore.schema.views import Episode, Hindsight, Sequence, Transition, View

Array = npt.NDArray[Any]


def plan_for(columns: Mapping[str, Column], view: View, wanted: Iterable[str] | None) -> Plan:
    """What a request for `view` and the columns `wanted` comes to, whatever is drawn.

    Raises:
        InvalidArgument: the table lacks what the view or the columns name.
    """
    chosen = choose_columns(columns, wanted, view.agent)
    named = choose_columns(columns, None, view.agent)
    if isinstance(view, Hindsight):
        hindsight.check(view, columns, named)
    if isinstance(view, Sequence):
        for name in view.state_columns:
            if not any(column == name or column.startswith(f"{name}/") for column in named):
                raise InvalidArgument(f"state_columns: there is no column {name!r}; the table has {', '.join(named)}")
    chooses = isinstance(view, Hindsight) or (isinstance(view, Transition) and isinstance(view.n_step, tuple))
    return Plan(chosen, named, view.anchors, chooses=chooses, fixed=not isinstance(view, Episode))


def prepare(
    rows: Rows,
    plan: Plan,
    view: View,
    ids: npt.NDArray[np.int64],
    info: dict[str, Array],
    rng: npt.NDArray[np.uint64],
    close: Callable[[], None],
) -> GatheredSample:
    """Decides, under the table's lock, which rows each item of a batch is made of.

    Args:
        rows: the table at this moment.
        plan: of the request.
        view: its.
        ids: the anchors drawn, ``(n,)``.
        info: the fields that the draw itself gave, by name without ``info/``; the view adds its own.
        rng: random numbers for views that choose something per item, ``uint64[4]``, moves on.
        close: unpins the rows.

    Raises:
        InvalidArgument: the items are made of more rows than a batch may have. Nothing was unpinned.
    """
    names = plan.names
    if isinstance(view, Transition):
        walk = transition.Walk(rows, view, ids, rng)
        small, takes = transition.expand(rows, names, view, ids, walk, info)
    elif isinstance(view, Hindsight):
        small, takes = hindsight.expand(rows, plan.every, names, view, ids, info, rng)
    else:
        small, takes = stretches.expand(rows, names, view, ids, info)
    return GatheredSample(small, takes, close, plan, rows.ahead)
