"""The embedded sampler: an endless iterator of batches, like the client's."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from replaystore.batch import Batch, RewardFunction, check_reward_function
from replaystore.engine.table import Table
from replaystore.errors import InvalidArgument
from replaystore.sample_log import Log, Noting
from replaystore.sampling import MAX_BATCH_SIZE, SampleRequest, derive_seed
from replaystore.schedules import Beta, beta_at
from replaystore.schema.record import check_number
from replaystore.steps import UpdateCounts


class EmbeddedSampler:
    """``for batch in sampler: ...; sampler.update_priorities(batch.step_ids, errors)``.

    With a seed, batch i is drawn with `derive_seed(seed, i)`, so the same store and calls give the same batches.
    """

    def __init__(
        self,
        table: Table,
        request: SampleRequest,
        timeout_s: float,
        prefetch: int = 4,
        beta: Beta | None = None,
        log: Log | None = None,
        reward_fn: RewardFunction | None = None,
    ) -> None:
        check_number("prefetch", prefetch, 0, 1024, whole=True)
        check_reward_function(request.view, reward_fn)
        self._table, self._timeout_s, self._asks = table, timeout_s, prefetch > 0
        self._beta: Beta = request.beta if beta is None else beta
        self._reward_fn = reward_fn
        self._noting = Noting(log)
        self._request = self._noting.prepared(request)
        self._count = 0
        self._in_line: deque[int] = deque()
        self._updates = UpdateCounts(0, 0, 0)
        self._closed = False

    @property
    def beta(self) -> float:
        """Exponent of the importance weights of the next batch; may be set at any time, to a number or a schedule."""
        return beta_at(self._beta, self._count)

    @beta.setter
    def beta(self, beta: Beta) -> None:
        self._request = replace(self._request, beta=beta_at(beta, self._count))
        self._beta = beta

    def __iter__(self) -> Iterator[Batch]:
        return self

    def ask(self, batch_size: int | None = None) -> None:
        """Puts a batch in line, of another size if one is given. With ``prefetch=0`` only batches that are asked for are drawn."""
        if self._closed:
            raise InvalidArgument("this sampler is closed")
        size = self._request.batch_size if batch_size is None else batch_size
        check_number("batch_size", size, 1, MAX_BATCH_SIZE, whole=True)
        self._in_line.append(size)

    def __next__(self) -> Batch:
        if self._closed:
            raise InvalidArgument("this sampler is closed")
        if not self._in_line:
            if not self._asks:
                raise InvalidArgument("nothing was asked for: call ask first, as prefetch is 0")
            self.ask()
        request, index, size, beta = self._request, self._count, self._in_line[0], self.beta
        if request.seed is not None or (size, beta) != (request.batch_size, request.beta):
            seed = None if request.seed is None else derive_seed(request.seed, index)
            request = replace(request, batch_size=size, seed=seed, beta=beta)
        batch = self._table.sample(request, self._timeout_s)
        self._in_line.popleft()
        self._count += 1
        self._noting.note(self._table.name, request, index, batch)
        return batch if self._reward_fn is None else batch.relabel(self._reward_fn)

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
        self._noting.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
