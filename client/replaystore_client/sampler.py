"""Sampling over the network: several requests in flight, small batches several to a message, priority updates riding along."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from replaystore.batch import Batch, RewardFunction, check_reward_function
from replaystore.errors import InvalidArgument, NotReady, ReplayStoreError
from replaystore.sample_log import Log, Noting
from replaystore.sampling import SampleRequest, derive_seed
from replaystore.schedules import Beta, beta_at
from replaystore.schema.record import check_number
from replaystore.schema.views import Sequence, Transition
from replaystore.steps import UpdateCounts
from replaystore.v1 import data_pb2 as pb
from replaystore.wire.samples import (
    Updates,
    encode_query,
    encode_sample_request,
    encode_update,
    raise_reply_error,
)
from replaystore_client.connection import Connection
from replaystore_client.local.gathering import Later
from replaystore_client.local.path import Gone, Mode
from replaystore_client.stream import SampleStream

_WAIT_AT_SERVER_S = 3600.0
_CLOSING_S = 5.0
_KEPT_QUERIES = 64
_KEEP_S = 60.0
"""The server keeps the files of batches that are in flight for so long; a learner may stand still for longer, and then gets others."""
_TOGETHER_BYTES = 1 << 20
"""No more batches are asked for at once than this: larger messages save nothing, and what they hold stays as long as one batch of it."""
_TOGETHER_NAMED = 4
"""But by the local path so many, however large: messages only name their rows, and each batch is gathered when its turn comes."""


@dataclass(slots=True)
class _Ask:
    """A request in flight, for one batch or several."""

    number: int
    """Of its first batch, counted from 1."""
    size: int
    betas: list[float]
    seeds: list[int]
    """Of each batch, or empty."""
    carried: list[Updates]
    done: int = 0
    """Batches that are there, or failed."""

    @property
    def left(self) -> int:
        """Batches still to come."""
        return len(self.betas) - self.done

    def seed(self, index: int) -> int | None:
        """Of one of its batches."""
        return self.seeds[index] if self.seeds else None

    def one(self, index: int) -> _Ask:
        """The same for one of its batches alone, without updates: these were applied, and by now there may be newer ones."""
        return _Ask(self.number + index, self.size, self.betas[index : index + 1], self.seeds[index : index + 1], [])


class _Later(NamedTuple):
    """A batch that has come as the names of its rows."""

    make: Later
    known: tuple[int, float, int]
    """Candidates, mass, next step."""


class Sampler:
    """An endless iterator of batches: ``for batch in sampler: …; sampler.update_priorities(batch.step_ids, errors)``.

    `prefetch` batches are in flight, in order, none is dropped; small ones travel several to a message and share its memory. With a seed,
    batch i is drawn with `derive_seed(seed, i)`, so the same store and calls give the same batches. For one thread at a time.
    """

    def __init__(
        self,
        connection: Connection,
        table: str,
        request: SampleRequest,
        prefetch: int,
        timeout_s: float,
        beta: Beta | None = None,
        log: Log | None = None,
        reward_fn: RewardFunction | None = None,
        local: Mode = None,
    ) -> None:
        check_number("prefetch", prefetch, 0, 1024, whole=True)
        check_reward_function(request.view, reward_fn)
        self._connection, self._table = connection, table
        self._prefetch, self._timeout_s = prefetch, timeout_s
        self._beta: Beta = request.beta if beta is None else beta
        self._reward_fn = reward_fn
        self._noting = Noting(log)
        self._request = self._noting.prepared(request)
        self._queries = {request.batch_size: encode_query(table, request)}
        self._stream = SampleStream(connection)
        self._local = self._stream.local(table, local, _KEEP_S)
        self._count = 0
        self._in_flight: deque[_Ask] = deque()
        self._asked = 0
        """Batches of the requests in flight that are still to come."""
        self._here: deque[tuple[Batch | _Later, _Ask, int]] = deque()
        """Batches that have come, with their requests and places in these."""
        self._batch_bytes = 0
        """Of one batch, once that is known."""
        self._alone = False
        """Whether the server answers no requests for several."""
        self._updates: list[Updates] = []
        self._applied = self._gone = self._rejected = 0
        self._closed = False

    @property
    def beta(self) -> float:
        """Exponent of the importance weights of the next request; may be set at any time, to a number or a schedule."""
        return beta_at(self._beta, self._count)

    @beta.setter
    def beta(self, beta: Beta) -> None:
        beta_at(beta, self._count)
        self._beta = beta

    @property
    def path(self) -> str:
        """How batches come by now: ``"local"``, their rows read from the table's files, or ``"wire"``."""
        return self._local.path

    @property
    def path_reason(self) -> str:
        """Why by wire; empty when they do not."""
        return self._local.reason

    @property
    def updates(self) -> UpdateCounts:
        """What became of all priority updates that are answered so far."""
        return UpdateCounts(self._applied, self._gone, self._rejected)

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        """The next batch.

        Raises:
            NotReady: the table's rate limiter blocked for `timeout_s`; the text says why. The requests stay in line: call again.
            DeadlineExceeded: the server could not be reached for `timeout_s`. Call again.
            Overloaded: it had no room for `timeout_s`. Likewise.
        """
        if self._closed:
            raise InvalidArgument("this sampler is closed")
        self._stream.check()
        together = self._together
        while self._asked + len(self._here) <= self._prefetch - together:
            self._send(together, self._request.batch_size)
        batch: Batch | None = None
        while batch is None:
            if not self._here:
                self._receive()
            came, asked, index = self._here.popleft()
            batch = came if isinstance(came, Batch) else self._gather(came, asked, index)
        if self._noting:
            drawn = replace(self._request, batch_size=asked.size, beta=asked.betas[index], seed=asked.seed(index))
            self._noting.note(self._table, drawn, asked.number - 1 + index, batch)
        return batch if self._reward_fn is None else batch.relabel(self._reward_fn)

    def _receive(self) -> None:
        """Waits for the next batches."""
        if not self._in_flight:
            raise InvalidArgument("nothing was asked for: call ask first, as prefetch is 0")
        started = time.monotonic()
        while not self._here:
            try:
                header, fields = self._stream.receive(max(0.0, self._timeout_s - (time.monotonic() - started)))
            except ReplayStoreError:
                if not self._stream.unanswered:
                    self._forget()
                raise
            asked = self._in_flight[0]
            if header.request != asked.number:
                self._stream.close()
                self._forget()
                raise ReplayStoreError(f"{self._connection.address} answered request {header.request}, it was to answer {asked.number}")
            if not header.HasField("waiting"):
                self._take(asked, header, fields)
            elif time.monotonic() - started >= self._timeout_s:
                raise NotReady(header.waiting)

    def _take(self, asked: _Ask, header: Any, fields: dict[str, npt.NDArray[Any]]) -> None:
        """What a reply means for the request that it answers, in part or wholly."""
        failed = header.HasField("error")
        if not header.batches and len(asked.betas) > 1 and not failed:
            self._ask_singly()  # a server of an older version has taken the place of the one that it was
            return
        batches = min(header.batches, asked.left) or (asked.left if failed else 1)
        if asked.carried:
            self._count_updates(header.updates)
            asked.carried = []
        first = asked.done
        asked.done += batches
        self._asked -= batches
        if asked.left:
            self._stream.answered(self._message(asked))
        else:
            self._in_flight.popleft()
            self._stream.answered()
        if failed:
            if header.error.kind == NotReady.__name__:
                for index in range(first, asked.done):
                    self._put(asked.one(index))
            self._local.failed(asked.number)
            raise_reply_error(header)
        parts: list[dict[str, npt.NDArray[Any]] | Later] = []
        try:
            parts = self._local.batches(header, fields, batches)
        except Gone:
            self._draw_again(asked, first, asked.done)
            return
        finally:
            if not parts or isinstance(parts[0], dict):
                self._gathered(asked)
        self._arrived(asked, first, header, parts)
        if not self._batch_bytes and isinstance(parts[0], dict) and header.batches and asked.size == self._request.batch_size:
            self._batch_bytes = max(1, sum(array.nbytes for array in parts[0].values()))

    def _arrived(self, asked: _Ask, first: int, header: Any, parts: list[dict[str, npt.NDArray[Any]] | Later]) -> None:
        known = header.candidates, header.mass, header.next_step
        for index, part in enumerate(parts, first):
            came = Batch(part, self._request.view, *known) if isinstance(part, dict) else _Later(part, known)
            self._here.append((came, asked, index))

    def _gather(self, later: _Later, asked: _Ask, index: int) -> Batch | None:
        """A batch of several that came together; None when it was drawn again, which puts it first among those that are here."""
        try:
            return Batch(self._local.gather(later.make), self._request.view, *later.known)
        except Gone:
            behind, self._here = self._here, deque()
            try:
                self._draw_again(asked, index, index + 1)
            finally:
                self._here += behind
            return None
        finally:
            if not any(isinstance(came, _Later) for came, _, _ in self._here):
                self._gathered(asked)

    def _gathered(self, asked: _Ask) -> None:
        if not asked.left:
            self._local.gathered(asked.number)

    def _draw_again(self, asked: _Ask, first: int, stop: int) -> None:
        """Draws other batches in the places of those that left the disk before they were gathered: by wire, and in their turn."""
        stream = SampleStream(self._connection)
        try:
            for index in range(first, stop):
                stream.send(self._message(asked.one(index)))
                started = time.monotonic()
                while True:
                    header, fields = stream.receive(max(0.0, self._timeout_s - (time.monotonic() - started)))
                    if not header.HasField("waiting"):
                        break
                    if time.monotonic() - started >= self._timeout_s:
                        raise NotReady(header.waiting)
                stream.answered()
                raise_reply_error(header)
                self._arrived(asked, index, header, [fields])
        except ReplayStoreError:
            for left in range(first + len(self._here), stop):
                self._put(asked.one(left))
            raise
        finally:
            stream.close()

    @property
    def _together(self) -> int:
        """How many batches are asked for at once: with two messages in flight, one is made while the other is used. One until it is known
        how large they are."""
        if self._alone or not self._batch_bytes or not isinstance(self._request.view, (Transition, Sequence)):
            return 1
        least = _TOGETHER_NAMED if self._local.path == "local" else 1
        return max(1, min(self._prefetch // 2, max(least, _TOGETHER_BYTES // self._batch_bytes)))

    def _ask_singly(self) -> None:
        """Asks again for everything in flight, one batch per message; updates are applied twice, which changes nothing."""
        self._alone = True
        singles: list[_Ask] = []
        for asked in self._in_flight:
            ones = [asked.one(index) for index in range(asked.done, len(asked.betas))]
            ones[0].carried = asked.carried
            singles += ones
        self._in_flight = deque(singles)
        self._stream.send_again(self._message(asked) for asked in singles)

    def _forget(self) -> None:
        """Nothing is in flight any more."""
        self._in_flight.clear()
        self._asked = 0
        self._local.forget()

    def ask(self, batch_size: int | None = None) -> None:
        """Puts a request in flight besides those of `prefetch`, for a batch of another size if one is given."""
        if self._closed:
            raise InvalidArgument("this sampler is closed")
        self._send(1, self._request.batch_size if batch_size is None else batch_size)

    def _send(self, batches: int, size: int) -> None:
        """Puts a request for so many batches in flight, with the updates that wait."""
        first, seed = self._count, self._request.seed
        betas = [beta_at(self._beta, index) for index in range(first, first + batches)]
        seeds = [] if seed is None else [derive_seed(seed, index) for index in range(first, first + batches)]
        self._put(_Ask(first + 1, size, betas, seeds, self._updates))
        self._updates = []
        self._count += batches

    def _put(self, asked: _Ask) -> None:
        self._stream.send(self._message(asked, self._local.ask(asked.number)))
        self._in_flight.append(asked)
        self._asked += asked.left

    def _message(self, asked: _Ask, local: bytes = b"") -> bytes:
        """Asks for what is left of a request; by wire, unless `local` says otherwise."""
        query = self._queries.get(asked.size)
        if query is None:
            if len(self._queries) > _KEPT_QUERIES:
                self._queries.clear()
            query = self._queries[asked.size] = encode_query(self._table, replace(self._request, batch_size=asked.size))
        notice_s = min(1.0, max(self._timeout_s, 0.08) / 4)
        betas, seeds = asked.betas[asked.done :], asked.seeds[asked.done :]
        seed = seeds[0] if seeds and len(betas) == 1 else None
        updates = _merge(asked.carried)
        return encode_sample_request(
            asked.number, query, betas[0], seed, _WAIT_AT_SERVER_S, notice_s, updates, betas=betas, seeds=seeds, local=local
        )

    def _count_updates(self, counts: Any) -> None:
        self._applied += counts.applied
        self._gone += counts.gone
        self._rejected += counts.rejected

    def update_priorities(self, step_ids: Any, priorities: Any) -> None:
        """Sets priorities in the sampler's selector; rides on the next request and is applied before that one's draw. `updates` counts.

        Args:
            step_ids: ``(n,)`` integers, as in ``batch.step_ids``.
            priorities: ``(n,)`` numbers ≥ 0, such as absolute TD errors.
        """
        if self._closed:
            raise InvalidArgument("this sampler is closed")
        selector = self._request.selector if isinstance(self._request.selector, str) else None
        self._updates.append(Updates.of(step_ids, priorities, selector))

    def close(self) -> None:
        """Delivers the priority updates that were not yet, and ends the stream. After a fork the child's copy does nothing."""
        if self._closed:
            return
        self._closed = True
        if self._stream.inherited:
            return
        self._stream.close()
        self._here.clear()
        self._noting.close()
        # those of unanswered requests may or may not have been applied: setting a priority twice changes nothing
        updates = _merge([update for asked in self._in_flight for update in asked.carried] + self._updates)
        self._in_flight.clear()
        if updates is not None:
            reply = self._connection.unary("UpdatePriorities", encode_update(self._table, updates), _CLOSING_S)
            self._count_updates(pb.UpdateCounts.FromString(reply))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self.close()
            return
        try:  # the error on its way out matters more than another one from closing
            self.close()
        except ReplayStoreError as closing:
            if error is not None:
                error.add_note(f"closing the sampler failed as well: {closing}")


def _merge(updates: list[Updates]) -> Updates | None:
    """One update that does what all of them do one after the other."""
    if len(updates) < 2:
        return updates[0] if updates else None
    return Updates(
        np.concatenate([update.step_ids for update in updates]),
        np.concatenate([update.priorities for update in updates]),
        updates[0].selector,
    )
