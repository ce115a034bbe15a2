"""What drawn anchors expand to: a module for each kind of view, and the gathering that all share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from replaystore.engine.rows import Rows
from replaystore.engine.views import hindsight, stretches, transition
from replaystore.engine.views.gathering import GatheredSample, choose_columns
from replaystore.errors import InvalidArgument
from replaystore.sampling import SampleRequest
from replaystore.schema.columns import Column
from replaystore.schema.views import Hindsight, Sequence, Transition

Array = npt.NDArray[Any]


def check(columns: Mapping[str, Column], request: SampleRequest) -> None:
    """InvalidArgument when the table lacks what the request's view or its columns name; needs no lock."""
    view = request.view
    choose_columns(columns, request.columns, view.agent)
    named = choose_columns(columns, None, view.agent)
    if isinstance(view, Hindsight):
        hindsight.check(view, columns, named)
    if isinstance(view, Sequence):
        for name in view.state_columns:
            if not any(column == name or column.startswith(f"{name}/") for column in named):
                raise InvalidArgument(f"state_columns: there is no column {name!r}; the table has {', '.join(named)}")


def prepare(
    rows: Rows,
    columns: Mapping[str, Column],
    request: SampleRequest,
    ids: npt.NDArray[np.int64],
    info: dict[str, Array],
    rng: npt.NDArray[np.uint64],
    close: Callable[[], None],
) -> GatheredSample:
    """Decides, under the table's lock, which rows each item of a batch is made of.

    Args:
        rows: the table at this moment.
        columns: the table's columns.
        request: which view, which columns; it was checked.
        ids: the anchors drawn, ``(n,)``.
        info: the fields that the draw itself gave, by name without ``info/``; the view adds its own.
        rng: random numbers for views that choose something per item, ``uint64[4]``, moves on.
        close: unpins the rows.

    Raises:
        InvalidArgument: the items are made of more rows than a batch may have. Nothing was unpinned.
    """
    view = request.view
    names = choose_columns(columns, request.columns, view.agent)
    if isinstance(view, Transition):
        walk = transition.Walk(rows, view, ids, rng)
        small, takes = transition.expand(rows, names, view, ids, walk, info)
    elif isinstance(view, Hindsight):
        every = choose_columns(columns, None, view.agent)
        small, takes = hindsight.expand(rows, every, names, view, ids, info, rng)
    else:
        small, takes = stretches.expand(rows, names, view, ids, info)
    return GatheredSample(small, takes, close)
