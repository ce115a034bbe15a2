"""What drawn anchors expand to: one module per view, and the gathering that all share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from replaystore.engine.rows import Rows
from replaystore.engine.views import transition
from replaystore.engine.views.gathering import GatheredSample
from replaystore.errors import InvalidArgument
from replaystore.sampling import SampleRequest
from replaystore.schema.columns import Column
from replaystore.schema.views import Transition

Array = npt.NDArray[Any]


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
        request: which view, which columns.
        ids: the anchors drawn, ``(n,)``.
        info: the fields that the draw itself gave, by name without ``info/``; the view adds its own.
        rng: random numbers for views that choose something per item, ``uint64[4]``, moves on.
        close: unpins the rows.
    """
    if isinstance(request.view, Transition):
        return transition.prepare(rows, columns, request, request.view, ids, info, rng, close)
    raise InvalidArgument(f"view {request.view!r} is not known here")
