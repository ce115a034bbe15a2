"""Samplers over several sources: exact shares of every batch, requests in flight to all of them, updates routed home."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from types import TracebackType
from typing import Any, Self

import numpy as np

from replaystore.batch import RewardFunction, check_reward_function
from replaystore.errors import InvalidArgument, ReplayStoreError
from replaystore.federated.joining import JoinedBatch, Part, join
from replaystore.federated.shares import Apportioner, exact_shares, measured_shares
from replaystore.federated.source import Piece, Source, add_counts, check_same_columns
from replaystore.sampling import SampleRequest, ids_of
from replaystore.schedules import Beta, beta_at
from replaystore.schema.filters import Filter
from replaystore.schema.mixture import Mixture, check_shares
from replaystore.schema.record import check_number
from replaystore.schema.selectors import FreeSelector
from replaystore.schema.views import Transition, View
from replaystore.steps import UpdateCounts

MEASURED = ("mass", "candidates")
MEASURE_EVERY = 16
"""Batches after which a source that was asked for nothing is looked at again."""


@dataclass(slots=True)
class Row:
    """A batch on its way."""

    pieces: list[Piece]
    shares: dict[int, Fraction]
    """By source."""


class JoinedSampler:
    """What samplers over several sources have in common. Any error of a source is the sampler's; what is in flight stays there."""

    def __init__(
        self,
        sources: Mapping[str, tuple[Any, str]],
        batch_size: int,
        shares: Mapping[str, float] | str,
        *,
        view: View | None = None,
        beta: Beta = 0.0,
        seed: int | None = None,
        selector: str | FreeSelector | None = None,
        columns: Any = None,
        where: Filter | None = None,
        normalise: str = "batch",
        prefetch: int = 4,
        timeout_s: float = 10.0,
        reward_fn: RewardFunction | None = None,
    ) -> None:
        columns = (columns,) if isinstance(columns, str) else columns
        request = SampleRequest(batch_size, view or Transition(), selector, beta_at(beta, 0), seed, columns, where, normalise)
        check_reward_function(request.view, reward_fn)
        check_number("prefetch", prefetch, 1, 1024, whole=True)
        self._measured = shares if isinstance(shares, str) else None
        self._given = [Fraction(1)] * len(sources)
        if self._measured is None:
            self._given = _given_shares(sources, shares)
        elif self._measured not in MEASURED:
            raise InvalidArgument(f"shares={shares!r} must be a mapping of sources to numbers, 'mass' or 'candidates'")
        asked = SampleRequest(  # weights are made here; with beta 1 a source tells its least probability by them
            batch_size, request.view, selector, float(normalise == "table"), seed, request.columns, where, normalise
        )
        self._sources = [Source(index, name, api, table, asked, timeout_s) for index, (name, (api, table)) in enumerate(sources.items())]
        self.source_names = tuple(sources)
        self._batch_size, self._beta, self._normalise, self._reward_fn = batch_size, beta, normalise, reward_fn
        self._prefetch, self._timeout_s = prefetch, timeout_s
        self._count = 0
        self._rows: deque[Row] = deque()
        self._active: list[Source] = []
        self._dealer = Apportioner(0)
        self._closed = False
        self._begin()

    def _begin(self) -> None:
        for source in self._sources:
            source.open()
            check_same_columns(self._sources[0], source)
        self._set_active(list(self._sources))

    def _set_active(self, sources: list[Source]) -> None:
        self._active, self._dealer = sources, Apportioner(len(sources))

    # -- batches

    @property
    def beta(self) -> float:
        """Exponent of the importance weights of the next batch; may be set at any time, to a number or a schedule."""
        return beta_at(self._beta, self._count)

    @beta.setter
    def beta(self, beta: Beta) -> None:
        beta_at(beta, self._count)
        self._beta = beta

    def __iter__(self) -> Iterator[JoinedBatch]:
        return self

    def __next__(self) -> JoinedBatch:
        if self._closed:
            raise InvalidArgument("this sampler is closed")
        while len(self._rows) < self._prefetch:
            self._plan()
        row = self._rows[0]
        while (piece := next((piece for piece in row.pieces if piece.batch is None), None)) is not None:
            self._receive(piece.source)
        self._rows.popleft()
        batch = self._join(row)
        self._count += 1
        return batch if self._reward_fn is None else batch.relabel(self._reward_fn)

    def _receive(self, source: Source) -> None:
        source.receive()

    def _shares(self) -> list[Fraction]:
        """Of the active sources, now."""
        if self._measured is None:
            parts = [self._given[source.index] for source in self._active]
            return [part / sum(parts) for part in parts]
        for source in list(self._active):
            if source.idle >= MEASURE_EVERY:
                self._measure(source)
        return measured_shares([source.mass if self._measured == "mass" else float(source.candidates) for source in self._active])

    def _measure(self, source: Source) -> None:
        source.measure()

    def _plan(self) -> None:
        """Asks the sources for one more batch."""
        shares = self._shares()
        counts = self._dealer.deal(self._batch_size, shares)
        row = Row([], {source.index: share for source, share in zip(self._active, shares, strict=True)})
        self._rows.append(row)
        self._ask(row, zip(list(self._active), counts, strict=True))

    def _ask(self, row: Row, counts: Iterable[tuple[Source, int]]) -> None:
        for source, count in counts:
            if count:
                row.pieces.append(source.ask(count))
            elif not source.in_flight:
                source.idle += 1

    def _join(self, row: Row) -> JoinedBatch:
        parts = [
            Part(piece.source.index, float(row.shares[piece.source.index]), piece.batch, piece.source.random)
            for piece in sorted(row.pieces, key=lambda piece: piece.source.index)
            if piece.batch is not None
        ]
        smallest = None
        if self._normalise == "table":
            known = [source for source in self._sources if source.smallest and source.index in row.shares]
            smallest = {source.index: float(row.shares[source.index]) * source.smallest for source in known}
        return join(parts, self.source_names, self.beta, smallest)

    # -- priorities

    @property
    def updates(self) -> UpdateCounts:
        """What became of all priority updates that are answered so far."""
        total = UpdateCounts(0, 0, 0)
        for source in self._sources:
            total = add_counts(total, source.updates)
        return total

    @property
    def updates_by_source(self) -> dict[str, UpdateCounts]:
        """The same for each source."""
        return {source.name: source.updates for source in self._sources}

    def update_priorities(self, batch: JoinedBatch | Any, priorities: Any, sources: Any = None) -> None:
        """Sets priorities in the sources that the steps came from; each table's ids mean something in that table only.

        Sources whose selector keeps no priorities are passed over.

        Args:
            batch: a batch of this sampler; or step ids ``(n,)``, and then `sources` as well.
            priorities: ``(n,)`` numbers ≥ 0, such as absolute TD errors.
            sources: with ids, ``batch.sources`` of the same items.
        """
        if self._closed:
            raise InvalidArgument("this sampler is closed")
        if isinstance(batch, JoinedBatch):
            ids, sources = batch.step_ids, batch.sources
        elif sources is None:
            raise InvalidArgument("step ids alone do not say which table they are of: pass the batch, or sources=batch.sources")
        else:
            ids, sources = ids_of(batch), ids_of(sources, "sources")
        values = np.asarray(priorities)
        if ids.ndim != 1 or values.shape != ids.shape or sources.shape != ids.shape:
            raise InvalidArgument(
                f"ids, priorities and sources must be one-dimensional and of one length; got {ids.shape}, {values.shape}, {sources.shape}"
            )
        outside = (sources < 0) | (sources >= len(self._sources))
        if outside.any():
            raise InvalidArgument(f"sources={sources[outside][0]} must be from 0 to {len(self._sources) - 1}, an index into source_names")
        if not any(source.keeps_priorities for source in self._sources):
            raise InvalidArgument("no source has a selector that keeps priorities: create the tables with selector=Prioritized(...)")
        for source in self._sources:
            mine = sources == source.index
            if source.keeps_priorities and mine.any():
                self._update(source, ids[mine], values[mine])

    def _update(self, source: Source, ids: Any, values: Any) -> None:
        source.sampler.update_priorities(ids, values)

    # -- life

    def close(self) -> None:
        """Closes the samplers of all sources, which delivers their priority updates; raises the first error of these."""
        if self._closed:
            return
        self._closed = True
        errors = []
        for source in self._sources:
            sampler = source.take_sampler()
            if sampler is not None:
                try:
                    source.close_sampler(sampler)
                except ReplayStoreError as error:
                    errors.append(error)
        if errors:
            raise errors[0]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self.close()
            return
        try:
            self.close()
        except ReplayStoreError as closing:
            if error is not None:
                error.add_note(f"closing the sampler failed as well: {closing}")


class MixtureSampler(JoinedSampler):
    """The sampler of a `Mixture`: an endless iterator of `JoinedBatch` with `update_priorities(batch, priorities)`; a context manager.

    A table that is not ready holds the whole batch back: the shares are exact. With a seed the same tables and calls give the same batches.
    """

    def __init__(self, api: Any, mixture: Mixture, batch_size: int, log: Any = None, **options: Any) -> None:
        if log is not None:
            raise InvalidArgument("log= is for samplers of one table; a mixture's batches cannot be noted yet")
        super().__init__({name: (api, name) for name in mixture.shares}, batch_size, mixture.shares, **options)


def sample_mixture(api: Any, mixture: Mixture, batch_size: int, **options: Any) -> JoinedBatch:
    """One batch of a mixture: the first that its sampler would give."""
    with MixtureSampler(api, mixture, batch_size, prefetch=1, **options) as sampler:
        return next(sampler)


def _given_shares(sources: Mapping[str, tuple[Any, str]], shares: Any) -> list[Fraction]:
    check_shares(shares)
    if shares.keys() != sources.keys():
        raise InvalidArgument(f"shares are of {', '.join(sorted(shares))}, the sources are {', '.join(sorted(sources))}: name each once")
    return exact_shares(shares[name] for name in sources)
