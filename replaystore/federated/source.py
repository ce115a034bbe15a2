"""One source of a joined sampler: a table behind the verbs of a store, its sampler, and what is in flight from it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from replaystore.batch import Batch
from replaystore.errors import InvalidArgument, ReplayStoreError, SchemaMismatch
from replaystore.sampling import SampleRequest, derive_seed
from replaystore.schema.selectors import KEEPS_PRIORITIES, Prioritized, RankPrioritized, Recency, Uniform
from replaystore.steps import UpdateCounts

_RANDOM = (Uniform, Prioritized, RankPrioritized, Recency)
"""Selectors whose draws have probabilities to correct for."""
_GENERATION = 1 << 33
"""Index under which `derive_seed` gives the seed of a source's next sampler, after it was away."""

Schema = dict[str, tuple[tuple[int, ...], str]]


@dataclass(slots=True, eq=False)
class Piece:
    """Items of a batch that a source was asked for."""

    source: Source
    count: int
    batch: Batch | None = None


@dataclass(slots=True, eq=False)
class Source:
    """See the module. `open` may run in another thread than the rest, as long as only one of them has the source."""

    index: int
    name: str
    api: Any
    table: str
    request: SampleRequest
    timeout_s: float
    sampler: Any = None
    schema: Schema = field(default_factory=dict)
    random: bool = True
    keeps_priorities: bool = True
    candidates: int = 0
    mass: float = 0.0
    smallest: float = 0.0
    """The least probability of any of its anchors, as of the newest reply; only with weights normalised by table."""
    idle: int = 0
    """Batches planned while nothing was in flight from it: nothing new is heard of it."""
    in_flight: deque[Piece] = field(default_factory=deque)
    seeds: int = 0
    past: UpdateCounts = field(default_factory=lambda: UpdateCounts(0, 0, 0))
    undelivered: int = 0
    first: Piece | None = None
    """One item that it came back with, for the next batch."""
    _selector_name: str | None = None

    def open(self) -> None:
        """Looks at the table and makes a sampler, which asks for nothing yet."""
        config = self.api.describe(self.table).config
        chosen = self.request.columns
        self.schema = {
            name: (tuple(column.shape), column.dtype)
            for name, column in sorted(config.columns.items())
            if chosen is None or any(name == wanted or name.startswith(f"{wanted}/") for wanted in chosen)
        }
        wanted = self.request.selector
        self._selector_name = wanted if isinstance(wanted, str) else next(iter(config.selectors)) if wanted is None else None
        if self._selector_name is not None and self._selector_name not in config.selectors:
            raise InvalidArgument(
                f"selector: table {self.table!r} of {self.name!r} has no {self._selector_name!r}; it has {', '.join(config.selectors)}"
            )
        selector = config.selectors[self._selector_name] if self._selector_name is not None else wanted
        self.random, self.keeps_priorities = isinstance(selector, _RANDOM), isinstance(selector, KEEPS_PRIORITIES)
        self.measure()
        request, seed = self.request, self.request.seed
        if seed is not None:
            seed = derive_seed(seed, self.index)
            seed = derive_seed(seed, _GENERATION + self.seeds) if self.seeds else seed
            self.seeds += 1
        self.sampler = self.api.sampler(
            self.table, request.batch_size, view=request.view, beta=request.beta, seed=seed, selector=request.selector,
            columns=request.columns, where=request.where, normalise=request.normalise, prefetch=0, timeout_s=self.timeout_s,
        )  # fmt: skip

    def measure(self) -> None:
        """Learns candidates and mass from the table's figures, until a reply says it better."""
        stats = self.api.stats(self.table)
        self.candidates, self.idle = stats.anchors, 0
        self.mass = stats.total_priority.get(self._selector_name, float(stats.anchors))

    def ask(self, count: int) -> Piece:
        """Puts `count` items in flight."""
        piece = Piece(self, count)
        self.sampler.ask(count)
        self.in_flight.append(piece)
        return piece

    def receive(self) -> None:
        """Waits for a piece in flight; when that fails, all stay in flight.

        Usually it is the oldest, but a sampler puts a request that the limiter refused behind the others.
        """
        batch: Batch = next(self.sampler)
        piece = next((piece for piece in self.in_flight if piece.count == len(batch)), None)
        if piece is None:
            asked = [piece.count for piece in self.in_flight]
            raise ReplayStoreError(f"source {self.name!r}: a batch of {len(batch)} came, batches of {asked} were asked for")
        self.in_flight.remove(piece)
        piece.batch = batch
        self.learn(batch)

    def learn(self, batch: Batch) -> None:
        """Notes what a reply says of the whole table."""
        self.candidates, self.mass, self.idle = batch.candidates or self.candidates, batch.mass or self.mass, 0
        if self.request.normalise == "table" and self.random:  # asked with beta 1, so a weight is least P / P
            self.smallest = float((batch.probabilities * batch.weights).min())

    @property
    def updates(self) -> UpdateCounts:
        """What became of its priority updates, those of earlier samplers counted in."""
        return self.past if self.sampler is None else add_counts(self.past, self.sampler.updates)

    def take_sampler(self) -> Any:
        """Parts with the sampler, for somebody to close it; what was in flight is gone."""
        sampler, self.sampler = self.sampler, None
        self.in_flight.clear()
        return sampler

    def close_sampler(self, sampler: Any) -> None:
        """Closes it and counts what became of its updates."""
        try:
            sampler.close()
        finally:
            self.past = add_counts(self.past, sampler.updates)


def add_counts(one: UpdateCounts, other: UpdateCounts) -> UpdateCounts:
    """Their sums."""
    return UpdateCounts(one.applied + other.applied, one.gone + other.gone, one.rejected + other.rejected)


def check_same_columns(first: Source, other: Source) -> None:
    """SchemaMismatch, naming the first column that differs, unless both deliver the same."""
    for name in sorted(first.schema.keys() | other.schema.keys()):
        here, there = first.schema.get(name), other.schema.get(name)
        if here != there:
            raise SchemaMismatch(
                f"column {name!r} is {_text(here)} in {first.name!r} ({first.table}) and {_text(there)} in {other.name!r} ({other.table}): "
                "sources that are sampled together need the same columns; choose those they share with columns=[…]"
            )


def _text(column: tuple[tuple[int, ...], str] | None) -> str:
    return "missing" if column is None else f"{column[1]}{list(column[0])}"
