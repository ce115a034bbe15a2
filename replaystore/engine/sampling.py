"""The sampling half of a table: what a limiter lets through is drawn under the lock, and gathered outside it."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from replaystore.batch import Batch
from replaystore.engine.drawing import Betas, Drawing, DrawnSample, Seeds
from replaystore.engine.limiting import Limiting
from replaystore.engine.population import Population, anchors_needed
from replaystore.engine.selectors import Selectors
from replaystore.mapping.buffers import BufferPool
from replaystore.sampling import MAX_BATCH_SIZE, MAX_ROWS_WALKED, SampleRequest, priorities_of
from replaystore.schema.table_config import TableConfig
from replaystore.schema.views import Sequence, Transition
from replaystore.steps import UpdateCounts
from replaystore.storage.table_files import TableFiles
from replaystore.turns import Ticket, WaitQueue, wait_turn


class Sampling:
    """What `Table` inherits. Never blocks, but for `sample`."""

    name: str
    config: TableConfig
    inserting: WaitQueue
    sampling: WaitQueue
    _lock: threading.RLock
    _files: TableFiles
    _selectors: Selectors
    _population: Population
    _drawing: Drawing
    _limiting: Limiting
    _buffers: BufferPool

    def _check_open(self) -> None:
        raise NotImplementedError

    @property
    def newest_version(self) -> int:
        """The highest policy version ever inserted; −1: none."""
        return self._files.state["version_count"] - 1

    def sample(self, request: SampleRequest, timeout_s: float) -> Batch:
        """A batch; waits while the rate limiter holds sampling back.

        Raises:
            NotReady: it did so for `timeout_s`; the text says which bound, by how much and who has to act.
        """
        why = lambda: self.why_blocked("sample", request.batch_size, request)  # noqa: E731
        return self._filled(wait_turn(self.sampling, lambda ticket: self.try_prepare(request, ticket), timeout_s, why), request)

    def sample_at(self, request: SampleRequest, step_ids: Any, as_of: int | None = None) -> Batch:
        """The batch that exactly these anchors expand to, as they stood when `as_of` was the next step id; see `prepare_at`."""
        return self._filled(self.prepare_at(request, step_ids, as_of), request)

    def _filled(self, prepared: DrawnSample, request: SampleRequest) -> Batch:
        try:
            out = prepared.gathered.arrays(self._buffers.take)
        finally:
            prepared.close()
        return Batch(out, request.view, prepared.candidates, prepared.mass, prepared.next_step)

    def try_prepare(self, request: SampleRequest, ticket: Ticket | None = None) -> DrawnSample | None:
        """Draws anchors and pins them, or returns None when the rate limiter blocks or somebody else is first."""
        return self._try_prepare(request, (request.seed,), (request.beta,), ticket)

    def can_group(self, request: SampleRequest) -> bool:
        """Whether several batches may be drawn at once: items of one shape, nothing chosen but anchors, no step used up by a draw."""
        view = request.view
        fixed = isinstance(view, Sequence) or (isinstance(view, Transition) and not isinstance(view.n_step, tuple))
        return fixed and self._population.retention.max_times_sampled is None

    def try_prepare_group(self, request: SampleRequest, seeds: Seeds, betas: Betas, ticket: Ticket | None = None) -> DrawnSample | None:
        """Draws several batches as single calls of `try_prepare` one after the other would, none coming in between.

        Args:
            request: of each; its own seed and beta do not count.
            seeds: of each batch, or None for the table's own stream of random numbers. At least one, as many as `betas`.
            betas: of each batch.
            ticket: a place in `sampling`, or None.

        Returns:
            As many batches as the limiter lets through now, at most those asked for, at least one, one after the other along the first
            axis of every field; ``.batches`` says how many. One where `can_group` says no, or where others wait in line. None when the
            limiter blocks or somebody else is first.
        """
        return self._try_prepare(request, seeds, betas, ticket)

    def _try_prepare(self, request: SampleRequest, seeds: Seeds, betas: Betas, ticket: Ticket | None) -> DrawnSample | None:
        n = request.batch_size
        plan = self._drawing.check(request)
        with self._lock:
            self._check_open()
            self._limiting.check_sample(n)
            if not self.sampling.may_try(ticket) or not self._limiting.may_sample(n):
                return None
            batches = 1 if len(seeds) == 1 else self._limiting.let_through(n, self._most(request, len(seeds), ticket))
            rows, anchors = self._population.rows(), self._population.anchors
            prepared = self._drawing.prepare(request, plan, rows, anchors, seeds[:batches], betas[:batches])
            self._limiting.wanted = 1
            if prepared is None:
                self._limiting.wanted = anchors_needed(request, self.config.selectors)
                if ticket is not None:
                    self.sampling.step_aside(ticket)  # what others want may well be there
                    self._limiting.starve(ticket)
            else:
                self._files.state["sampled_items"] += n * prepared.batches
        self.inserting.notify()
        return prepared

    def _most(self, request: SampleRequest, wanted: int, ticket: Ticket | None) -> int:
        """How many batches may be drawn at once as far as the limiter has no say."""
        if not self.can_group(request) or len(self.sampling) > (ticket is not None):
            return 1
        n = request.batch_size
        return max(1, min(wanted, MAX_BATCH_SIZE // n, MAX_ROWS_WALKED // (n * request.view.rows)))

    def prepare_at(self, request: SampleRequest, step_ids: Any, as_of: int | None = None) -> DrawnSample:
        """Pins exactly these anchors, in this order, and asks no limiter; see `Drawing.prepare_at`."""
        self._drawing.check(request)
        with self._lock:
            self._check_open()
            return self._drawing.prepare_at(request, self._population.rows(), step_ids, as_of)

    def update_priorities(self, step_ids: Any, priorities: Any, selector: str | None = None) -> UpdateCounts:
        """Sets priorities; the table adds epsilon and raises to alpha. Evicted or unknown ids are counted, nothing else is touched.

        Args:
            step_ids: ``(n,)`` integers.
            priorities: ``(n,)`` numbers ≥ 0, such as absolute TD errors; NaN, infinite and negative ones are rejected one by one.
            selector: which of the table's selectors; None is the first.
        """
        ids, values = priorities_of(step_ids, priorities)
        name = self._selectors.choose_prioritized(selector)
        with self._lock:
            self._check_open()
            counts = self._selectors.update(name, self._population.rows(), ids, values.astype(np.float64, copy=False))
        self.sampling.notify()
        return counts

    def _blocked_sample(self) -> str | None:
        n = self._limiting.asked if len(self.sampling) else 1
        if self._population.anchors and self._limiting.may_sample(n):
            return None
        return self.why_blocked("sample", n)

    def why_blocked(self, action: str, n: int = 1, request: SampleRequest | None = None) -> str:
        """One sentence: what stands in the way of inserting or of sampling `n` items, by how much, and who has to act."""
        with self._lock:
            text = self._limiting.explain(action, n)
            if action == "insert" and self._limiting.may_insert() and len(self.inserting):
                text = f"{len(self.inserting)} appends asked earlier, and go first. {text}"
            if action == "sample" and not self._population.anchors and self._population.steps:
                text = (
                    "no step can be sampled yet: a step becomes an anchor when its stream's next row arrives; writers must go on. " + text
                )
            elif action == "sample" and self._limiting.may_sample(n):
                why = None if request is None else self._drawing.why_not(request, self._population.rows(), self._population.anchors)
                if why is not None and not self._limiting.may_insert():
                    text = f"writers are held back too, until other steps are sampled: {self._limiting.explain('insert', n)}"
                text = f"{why or f'{len(self.sampling)} samplers asked earlier'}. {text}"
            return f"table {self.name!r}: {text}"
