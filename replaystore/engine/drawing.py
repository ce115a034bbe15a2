"""Drawing anchors and preparing what they expand to: the part of sampling that happens under the table's lock."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from replaystore.core.draws import count_draws
from replaystore.core.random import seed_state
from replaystore.engine.conditions import Facts
from replaystore.engine.pins import Pins
from replaystore.engine.rows import Rows
from replaystore.engine.selection.exactly import check_anchors
from replaystore.engine.selection.explaining import why_nothing
from replaystore.engine.selection.masses import ones
from replaystore.engine.selectors import Choice, Selectors
from replaystore.engine.views import plan_for, prepare
from replaystore.engine.views.gathering import GatheredSample, Plan
from replaystore.errors import InvalidArgument
from replaystore.sampling import Field, SampleRequest, check_as_of, derive_seed, ids_of
from replaystore.schema.columns import Column
from replaystore.schema.views import View
from replaystore.storage.table_files import TableFiles

Array = npt.NDArray[Any]
Ids = npt.NDArray[np.int64]
Seeds = Sequence[int | None]
Betas = Sequence[float]

VIEW_STREAM = 1 << 32
"""Index under which `derive_seed` gives the seed of a view's own choices: no batch of a sampler has it."""


MOST_PLANS = 256
"""Kinds of requests remembered per table: clients may ask for any."""


class DrawnSample:
    """A `PreparedSample` that knows what it was drawn from."""

    __slots__ = ("batches", "candidates", "first_step", "gathered", "mass", "next_step")

    def __init__(self, gathered: GatheredSample, candidates: int, mass: float, rows: Rows, batches: int = 1) -> None:
        self.gathered = gathered
        self.candidates, self.mass = candidates, mass
        self.first_step, self.next_step = rows.first, rows.stop
        self.batches = batches
        """How many lie one after the other along the first axis of every field."""

    @property
    def fields(self) -> tuple[Field, ...]:
        """The arrays of the batch."""
        return self.gathered.fields

    def fill(self, out: Mapping[str, Array]) -> None:
        """Gathers every field into ``out[field.name]``."""
        self.gathered.fill(out)

    def close(self) -> None:
        """Unpins."""
        self.gathered.close()


class Drawing:
    """Callers hold the table's lock. Knows nothing of limiters and of who waits."""

    def __init__(self, columns: Mapping[str, Column], selectors: Selectors, files: TableFiles, pins: Pins) -> None:
        self._columns, self._selectors, self._files, self._pins = columns, selectors, files, pins
        self.counted: Callable[[Rows, Ids, npt.NDArray[np.uint32]], None] | None = None
        """Called with every batch drawn: the rows as they were, the ids, and how often each was drawn by now."""
        self._now = 0.0
        self._plans: dict[Any, Plan] = {}
        self._last: tuple[View | None, tuple[str, ...] | None, Plan | None] = None, None, None

    def facts(self) -> Facts:
        """What conditions are measured by, at this moment."""
        files = self._files
        count = files.next_episode
        return Facts(self.now(), files.state["version_count"] - 1, lambda name: files.episodes.rows(f"episodes/{name}", 0, count))

    def now(self) -> float:
        """Seconds since 1970, never less than the time before, nor than the newest row's insertion: a clock set back stands still."""
        self._now = max(self._now, time.time())
        files = self._files
        if files.state["first_step"] < files.next_step:
            self._now = max(self._now, float(files.steps.columns["meta/insert_time"].array[files.next_step - 1 - files.steps.origin]))
        return self._now

    def check(self, request: SampleRequest) -> Plan:
        """What all batches of a request have in common; InvalidArgument for a selector or columns that the table lacks. Needs no lock."""
        plan = self._plan(request)
        self._choice(request, plan)
        return plan

    def _plan(self, request: SampleRequest) -> Plan:
        view, columns, last = self._last
        if last is not None and request.view is view and request.columns == columns:  # most ask for the same again: not even hashed
            return last
        key = request.view, request.columns
        found = self._plans.get(key)
        if found is None:
            self._selectors.choose(request.selector, request.where, request.view.anchors)  # of two mistakes this one is told first
            found = plan_for(self._columns, request.view, request.columns)
            if len(self._plans) >= MOST_PLANS:
                self._plans = {}
            self._plans[key] = found
        self._last = request.view, request.columns, found
        return found

    def _choice(self, request: SampleRequest, plan: Plan) -> Choice:
        return self._selectors.choose(request.selector, request.where, plan.rule)

    def prepare(self, request: SampleRequest, plan: Plan, rows: Rows, anchors: int, seeds: Seeds, betas: Betas) -> DrawnSample | None:
        """Draws anchors, counts and pins them; None when there are not enough to draw. The caller closes the result.

        Fewer batches than asked for come out when what a filter lets through is used up between two of them.

        Args:
            request: of one batch; its own seed and beta do not count.
            plan: what `check` gave for it.
            rows: the table.
            anchors: how many it has.
            seeds: of each batch, or None for the table's own random numbers.
            betas: of each batch.
        """
        if not anchors:
            return None
        choice, n = self._choice(request, plan), request.batch_size
        drawn: list[tuple[Ids, Array]] = []
        weights: list[Array] = []
        for seed, beta in zip(seeds, betas, strict=True):
            chooser = self._selectors.ready(choice, rows, self.facts)
            if chooser.lacks(anchors, n):
                if drawn:  # steps have grown too old meanwhile: those before are drawn, and counted
                    break
                return None
            candidates = anchors if choice.everything else chooser.candidates  # type: ignore[union-attr]
            mass = chooser.mass(anchors)
            rng = self._files.state.rng if seed is None else seed_state(seed)
            least = chooser.least(rows, anchors, n) if request.normalise == "table" and beta and not chooser.even else None
            drawn.append(self._selectors.draw(choice, chooser, rows, anchors, rng, n))
            if not chooser.even:
                weights.append(importance_weights(drawn[-1][1], beta, least))
        ids, probabilities = drawn[0] if len(drawn) == 1 else (np.concatenate(part) for part in zip(*drawn, strict=True))
        rows.ahead.walk(rows, ids, request.view.rows)
        info: dict[str, Array] = {
            "probabilities": probabilities,
            "priorities": chooser.priorities(rows, ids),
            "weights": ones(len(ids)) if not weights else weights[0] if len(weights) == 1 else np.concatenate(weights),
            "times_sampled": count_draws(rows.array("replay/times_sampled"), rows.origin, ids, n),
            "step_ids": ids,
            "ages": rows.stop - ids,
        }
        rng = self._files.state.rng
        if plan.chooses and seeds[0] is not None:
            rng = seed_state(derive_seed(seeds[0], VIEW_STREAM))
        gathered = self._expand(request, plan, rows, ids, info, rng)
        if self.counted is not None:
            self.counted(rows, ids, info["times_sampled"])
        return DrawnSample(gathered, candidates, mass, rows, len(drawn))

    def prepare_at(self, request: SampleRequest, rows: Rows, wanted: Any, as_of: int | None) -> DrawnSample:
        """Expands exactly these anchors, in this order. Nothing is counted; probabilities are 0 and weights 1.

        Args:
            request: selector (for priorities), view, columns and seed count, without one 0; the rest does not.
            rows: the table.
            wanted: ``(batch_size,)`` step ids.
            as_of: rows from this id on are not seen, as if they had not been written yet.

        Raises:
            InvalidArgument: `wanted` are no ids, or not as many as the batch has items.
            NotFound: one of them is no anchor that is kept, or none that the view can begin at; names the first such.
        """
        step_ids = ids_of(wanted)
        if len(step_ids) != request.batch_size:
            raise InvalidArgument(f"step_ids: {len(step_ids)} ids for batch_size={request.batch_size}")
        check_as_of(as_of)
        if as_of is not None:
            rows = replace(rows, stop=min(rows.stop, max(rows.first, as_of)))
        check_anchors(rows, step_ids, request.view, self.facts())
        plan = self._plan(request)
        info: dict[str, Array] = {
            "probabilities": np.zeros(len(step_ids)),
            "priorities": self._selectors.priorities(self._choice(request, plan).selector, rows, step_ids),
            "weights": ones(len(step_ids)),
            "times_sampled": rows.array("replay/times_sampled")[step_ids - rows.origin],
            "step_ids": step_ids,
            "ages": rows.stop - step_ids,
        }
        rng = seed_state(derive_seed(request.seed or 0, VIEW_STREAM))
        return DrawnSample(self._expand(request, plan, rows, step_ids, info, rng), 0, 0.0, rows)

    def _expand(self, request: SampleRequest, plan: Plan, rows: Rows, ids: Ids, info: dict[str, Array], rng: Array) -> GatheredSample:
        token = self._pins.acquire()
        try:
            return prepare(rows, plan, request.view, ids, info, rng, lambda: self._pins.release(token))
        except BaseException:
            self._pins.release(token)
            raise

    def why_not(self, request: SampleRequest, rows: Rows, anchors: int) -> str | None:
        """What a request that the limiter lets through has not enough of, or None."""
        if not anchors:
            return None
        choice = self._choice(request, self._plan(request))
        chooser = self._selectors.ready(choice, rows, self.facts)
        if not chooser.lacks(anchors, request.batch_size):
            return None
        return why_nothing(request, choice, chooser, rows, anchors, self.facts())


def importance_weights(probabilities: Array, beta: float, least: float | None) -> npt.NDArray[np.float32]:
    """(1 / (N · P)) ** beta, divided by the batch's largest, or by that of probability `least` (Schaul et al. 2016, section 3.4)."""
    if beta == 0:
        return ones(len(probabilities))
    weights: Array = ((np.minimum.reduce(probabilities) if least is None else least) / probabilities) ** beta
    return weights.astype(np.float32)
