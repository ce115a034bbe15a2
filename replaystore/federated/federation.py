"""FederatedSampler: several stores and servers as one, which goes on when some of them go away."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from replaystore.errors import DeadlineExceeded, InvalidArgument, NotReady, Overloaded, ReplayStoreError, StorageError
from replaystore.federated.joining import JoinedBatch
from replaystore.federated.sampler import JoinedSampler, Row
from replaystore.federated.shares import Apportioner
from replaystore.federated.source import Source, check_same_columns

logger = logging.getLogger("replaystore")

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
_CLOSING_S = 1.0
_PASSING = (DeadlineExceeded, NotReady, Overloaded, StorageError)
"""What a source may be left out for from the beginning; anything else is a mistake in the call."""


@dataclass(frozen=True, slots=True)
class Missing:
    """A source that is left out for now."""

    since: float
    """Seconds since 1970."""
    why: str
    """The newest error."""


@dataclass(slots=True)
class _Absence:
    """A source that is away, and the thread that waits for it."""

    since: float
    error: ReplayStoreError
    ready: bool = False
    """The thread has ended; the source has a sampler, and one piece of one item that has come."""


class FederatedSampler(JoinedSampler):
    """One sampler over several stores or servers, alive as long as one of them is.

    ``FederatedSampler({"lab-a": (client, "pong"), "local": (store, "pong")}, 256, shares={"lab-a": 0.7, "local": 0.3})`` is an endless
    iterator of `JoinedBatch` with `update_priorities(batch, priorities)`; a context manager, for one thread at a time.

    In each batch a source has share · batch_size items, rounded so that its running total is never off by a whole item. Requests are in
    flight to all sources at once. A source that fails in any way, or keeps a batch waiting for `timeout_s`, is left out: the others take
    its share over, in the batches under way too; `missing` says since when and why, a warning is logged (``"replaystore"``), and a thread
    tries it again after pauses of 1 s to 60 s. When it is back it has its share again.
    """

    def __init__(
        self,
        sources: Mapping[str, tuple[Any, str]],
        batch_size: int,
        shares: Mapping[str, float] | str = "mass",
        **options: Any,
    ) -> None:
        """See the class.

        Args:
            sources: by name, an open store or a client (or anything with `describe`, `stats` and a `sampler` that has `ask`), and a table.
            batch_size: items per batch, of all sources together.
            shares: by source, numbers above 0; ``"mass"``: in proportion to what the sources' selectors draw in proportion to, as of each
                one's newest reply, so that all tables together are sampled as one would be (their selectors must be alike for that);
                ``"candidates"``: in proportion to how many steps could be drawn.
            options: ``view``, ``beta`` (a number or a schedule), ``seed``, ``selector``, ``columns``, ``where``, ``normalise``,
                ``prefetch=4``, ``timeout_s=10.0`` (how long a source may keep the others waiting) and ``reward_fn``, as for a `sampler`.

        Raises:
            SchemaMismatch: sources differ in the columns that are read; a source that was away at first is left out for that instead.
            ReplayStoreError: no source could be reached; the error of the last one.
        """
        pairs = sources.values() if isinstance(sources, Mapping) else ()
        if not pairs or not all(isinstance(pair, tuple) and len(pair) == 2 for pair in pairs):
            raise InvalidArgument(f"sources={sources!r} must be a mapping of names to (store or client, table)")
        self._away: dict[int, _Absence] = {}
        self._change = threading.Condition()
        self._ending = threading.Event()
        self._threads: list[threading.Thread] = []
        super().__init__(sources, batch_size, shares, **options)

    def _begin(self) -> None:
        here: list[Source] = []
        failed: list[tuple[Source, ReplayStoreError]] = []
        for source in self._sources:
            try:
                source.open()
            except _PASSING as error:
                failed.append((source, error))
            else:
                here.append(source)
                check_same_columns(here[0], source)
        if not here:
            raise failed[-1][1]
        self._set_active(here)
        for source, why in failed:
            self._leave_out(source, why, None)

    @property
    def missing(self) -> dict[str, Missing]:
        """The sources that are left out now, since when and why."""
        with self._change:
            return {self.source_names[index]: Missing(away.since, str(away.error)) for index, away in self._away.items()}

    @property
    def undelivered(self) -> dict[str, int]:
        """By source: how many priorities were to be set while it was away, and are lost."""
        return {source.name: source.undelivered for source in self._sources if source.undelivered}

    def __next__(self) -> JoinedBatch:
        """The next batch, of the sources that are there.

        Raises:
            ReplayStoreError: none is there; the error of the last one to fail. Called again, it waits `timeout_s` for one to come back.
        """
        if not self._closed:
            self._welcome()
        return super().__next__()

    # -- going away

    def _receive(self, source: Source) -> None:
        try:
            source.receive()
        except ReplayStoreError as error:
            self._lose(source, error)

    def _measure(self, source: Source) -> None:
        try:
            source.measure()
        except ReplayStoreError as error:
            self._lose(source, error)

    def _lose(self, source: Source, error: ReplayStoreError) -> None:
        """Goes on without a source: the others take over what it still owed."""
        others = [other for other in self._active if other is not source]
        self._leave_out(source, error, source.take_sampler())
        self._set_active(others)
        if not others:
            self._rows.clear()
            raise error
        for row in self._rows:
            owed = [piece for piece in row.pieces if piece.source is source and piece.batch is None]
            if owed:
                row.pieces = [piece for piece in row.pieces if piece not in owed]
                self._ask(row, zip(others, self._take_over(row, source, others, sum(piece.count for piece in owed)), strict=True))

    def _take_over(self, row: Row, lost: Source, others: list[Source], items: int) -> list[int]:
        """Gives a lost source's share of a row to the others, and says who is to bring how many of its items."""
        came = sum(piece.count for piece in row.pieces if piece.source is lost)
        del row.shares[lost.index]
        if came:
            row.shares[lost.index] = Fraction(came, self._batch_size)
        parts = [row.shares.pop(other.index, Fraction(0)) for other in others]
        left, whole = 1 - sum(row.shares.values()), sum(parts)  # what those that are gone brought is settled
        parts = [part / whole for part in parts] if whole else [Fraction(1, len(others))] * len(others)
        for other, part in zip(others, parts, strict=True):
            row.shares[other.index] = left * part
        return Apportioner(len(others)).deal(items, parts)

    def _leave_out(self, source: Source, error: ReplayStoreError, sampler: Any) -> None:
        logger.warning("source %r (table %r of %r) is left out: %s", source.name, source.table, source.api, error)
        with self._change:
            self._away[source.index] = _Absence(time.time(), error)
        thread = threading.Thread(target=self._wait_for, args=(source, sampler), name=f"replaystore-{source.name}", daemon=True)
        self._threads = [thread, *(old for old in self._threads if old.is_alive())]
        thread.start()

    # -- coming back

    def _wait_for(self, source: Source, old: Any) -> None:
        """Runs in a thread of its own, to which the source belongs until it is ready."""
        if old is not None:
            try:
                source.close_sampler(old)
            except ReplayStoreError as error:
                logger.warning("priority updates for source %r may be lost: %s", source.name, error)
        longest_s = FIRST_PAUSE_S
        while not self._ending.wait(longest_s * random.uniform(0.5, 1.0)):
            longest_s = min(2 * longest_s, LONGEST_PAUSE_S)
            try:
                source.open()
                check_same_columns(next((other for other in self._sources if other is not source and other.schema), source), source)
                piece = source.ask(1)
                source.receive()
            except ReplayStoreError as error:
                self._still_away(source, error)
                continue
            with self._change:
                source.first, self._away[source.index].ready = piece, True
                self._change.notify_all()
            return

    def _still_away(self, source: Source, error: ReplayStoreError) -> None:
        logger.debug("source %r is still away: %s", source.name, error)
        with self._change:
            self._away[source.index].error = error
        sampler = source.take_sampler()
        if sampler is not None:
            try:
                source.close_sampler(sampler)
            except ReplayStoreError:
                pass  # it had nothing to deliver

    def _welcome(self) -> None:
        """Takes sources in that are back; when there is no other, waits for one."""
        with self._change:
            if not self._active:
                self._change.wait_for(lambda: any(away.ready for away in self._away.values()), self._timeout_s)
            back = [index for index, away in self._away.items() if away.ready]
            for index in back:
                logger.info("source %r is back after %.0f s", self.source_names[index], time.time() - self._away.pop(index).since)
            if not back and not self._active:
                raise max(self._away.values(), key=lambda away: away.since).error
        if back:
            self._set_active([source for source in self._sources if source in self._active or source.index in back])

    def _ask(self, row: Row, counts: Iterable[tuple[Source, int]]) -> None:
        for source, count in counts:
            if count and source.first is not None:  # what it came back with is not thrown away
                row.pieces.append(source.first)
                source.first, count = None, count - 1
            super()._ask(row, [(source, count)])

    # -- the rest

    def _update(self, source: Source, ids: Any, values: Any) -> None:
        if source in self._active:
            super()._update(source, ids, values)
        else:
            source.undelivered += len(ids)

    def close(self) -> None:
        """As for other samplers; sources that are away are not waited for."""
        self._ending.set()
        with self._change:
            self._change.notify_all()
        try:
            super().close()
        finally:
            for thread in self._threads:
                thread.join(_CLOSING_S)
