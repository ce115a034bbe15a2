"""The embedded sampler: an endless iterator of batches, like the client's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from replaystore.batch import Batch
from replaystore.engine.table import Table
from replaystore.errors import InvalidArgument
from replaystore.sampling import SampleRequest, derive_seed
from replaystore.steps import UpdateCounts


class EmbeddedSampler:
    """``for batch in sampler: ...; sampler.update_priorities(batch.step_ids, errors)``.

    With a seed, batch i is drawn with `derive_seed(seed, i)`, so the same store and calls give the same batches.
    """

    def __init__(self, table: Table, request: SampleRequest, timeout_s: float) -> None:
        self._table, self._request, self._timeout_s = table, request, timeout_s
        self._count = 0
        self._updates = UpdateCounts(0, 0, 0)
        self._closed = False

    @property
    def beta(self) -> float:
        """Exponent of the importance weights of the batches to come; may be set at any time."""
        return self._request.beta

    @beta.setter
    def beta(self, beta: float) -> None:
        self._request = replace(self._request, beta=beta)

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        if self._closed:
            raise InvalidArgument("this sampler is closed")
        request = self._request
        if request.seed is not None:
            request = replace(request, seed=derive_seed(request.seed, self._count))
        batch = self._table.sample(request, self._timeout_s)
        self._count += 1
        return batch

    @property
    def updates(self) -> UpdateCounts:
        """What became of all priority updates so far."""
        return self._updates

    def update_priorities(self, step_ids: Any, priorities: Any) -> None:
        """Sets priorities in the sampler's selector, before the next batch is drawn. `updates` counts what became of them."""
        selector = self._request.selector if isinstance(self._request.selector, str) else None
        new, old = self._table.update_priorities(step_ids, priorities, selector), self._updates
        self._updates = UpdateCounts(old.applied + new.applied, old.gone + new.gone, old.rejected + new.rejected)

    def close(self) -> None:
        """Ends the iteration."""
        self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
