"""Drawing anchors and preparing what they expand to: the part of sampling that happens under the table's lock."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from replaystore.core.draws import count_draws
from replaystore.core.random import seed_state
from replaystore.engine.pins import Pins
from replaystore.engine.rows import Rows
from replaystore.engine.selectors import Selectors
from replaystore.engine.views import prepare
from replaystore.engine.views.gathering import choose_columns
from replaystore.sampling import PreparedSample, SampleRequest, derive_seed
from replaystore.schema.columns import Column
from replaystore.storage.state_page import StatePage

Array = npt.NDArray[Any]

VIEW_STREAM = 1 << 32
"""Index under which `derive_seed` gives the seed of a view's own choices: no batch of a sampler has it."""


class Drawing:
    """Callers hold the table's lock. Knows nothing of limiters and of who waits."""

    def __init__(self, columns: Mapping[str, Column], selectors: Selectors, state: StatePage, pins: Pins) -> None:
        self._columns, self._selectors, self._state, self._pins = columns, selectors, state, pins

    def check(self, request: SampleRequest) -> None:
        """InvalidArgument for a selector or columns that the table does not have; needs no lock."""
        self._selectors.choose(request.selector)  # type: ignore[arg-type]
        choose_columns(self._columns, request.columns)

    def prepare(self, request: SampleRequest, rows: Rows, anchors: int) -> PreparedSample | None:
        """Draws anchors, counts and pins them; None when there is nothing to draw. The caller closes the result."""
        selector = self._selectors.choose(request.selector)  # type: ignore[arg-type]
        if not anchors or not self._selectors.can_draw(selector):
            return None
        rng = self._state.rng if request.seed is None else seed_state(request.seed)
        ids, info = self._selectors.draw(selector, rows, anchors, rng, request.batch_size)
        info["weights"] = importance_weights(info["probabilities"], anchors, request.beta)
        info["times_sampled"] = count_draws(rows.array("replay/times_sampled"), rows.origin, ids)
        info["step_ids"], info["ages"] = ids, rows.stop - ids
        return self._expand(request, rows, ids, info)

    def _expand(self, request: SampleRequest, rows: Rows, ids: npt.NDArray[np.int64], info: dict[str, Array]) -> PreparedSample:
        rng = self._state.rng if request.seed is None else seed_state(derive_seed(request.seed, VIEW_STREAM))
        token = self._pins.acquire()
        try:
            return prepare(rows, self._columns, request, ids, info, rng, lambda: self._pins.release(token))
        except BaseException:
            self._pins.release(token)
            raise


def importance_weights(probabilities: Array, anchors: int, beta: float) -> npt.NDArray[np.float32]:
    """(1 / (N · P)) ** beta, divided by the largest (Schaul et al. 2016, section 3.4)."""
    weights: Array = (anchors * probabilities) ** -beta
    return np.asarray(weights / weights.max(), np.float32)
