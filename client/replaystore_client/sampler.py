"""Sampling over the network: one stream, several requests in flight, priority updates riding along, reconnecting by itself."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Self

import grpc
import numpy as np
import numpy.typing as npt

from replaystore.batch import Batch, RewardFunction, check_reward_function
from replaystore.errors import InvalidArgument, NotReady, ReplayStoreError
from replaystore.sample_log import Log, Noting
from replaystore.sampling import SampleRequest, derive_seed
from replaystore.schedules import Beta, beta_at
from replaystore.schema.record import check_number
from replaystore.steps import UpdateCounts
from replaystore.v1 import data_pb2 as pb
from replaystore.wire.samples import (
    Updates,
    decode_sample_reply,
    encode_query,
    encode_sample_request,
    encode_update,
    raise_reply_error,
)
from replaystore_client.connection import Backoff, Connection, ConnectionLost
from replaystore_client.watchdog import LATE_S, watch

_WAIT_AT_SERVER_S = 3600.0
_CLOSING_S = 5.0
_KEPT_QUERIES = 64


class SampleStream:
    """Requests out, replies in, in the same order. After a lost connection what is unanswered is sent again. For one thread at a time."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._unanswered: deque[bytes] = deque()
        self._call: Any = None
        self._requests: SimpleQueue[bytes | None] = SimpleQueue()
        self._pid = os.getpid()
        self._broken = False
        self.late_after = float("inf")
        """Time (monotonic) after which the watchdog breaks a hanging call."""

    @property
    def unanswered(self) -> int:
        """Requests in flight."""
        return len(self._unanswered)

    def send(self, message: bytes) -> None:
        """Puts a request at the end."""
        if os.getpid() != self._pid:
            raise InvalidArgument("this sampler was opened before a fork: open one in the child process")
        self._unanswered.append(message)
        if self._call is not None:
            self._requests.put(message)

    def receive(self, timeout_s: float) -> tuple[Any, dict[str, npt.NDArray[Any]]]:
        """The next reply: its SampleReplyHeader and the fields.

        Raises:
            DeadlineExceeded: no connection for `timeout_s`; the requests stay in flight. Call again.
            ReplayStoreError: the server ended the stream; the requests in flight are gone.
        """
        deadline = time.monotonic() + timeout_s
        backoff = Backoff()
        while True:
            self._open()
            self._broken = False
            self.late_after = deadline + LATE_S
            try:
                header, fields = decode_sample_reply(next(self._call))
            except StopIteration:
                failure: ReplayStoreError = self._connection.lost("the server ended the stream")
            except grpc.RpcError as error:
                failure = self._connection.silent(timeout_s) if self._broken else self._connection.translate(error)
            else:
                if not header.HasField("waiting"):
                    self._unanswered.popleft()
                return header, fields
            finally:
                self.late_after = float("inf")
            self._drop_call()
            pause = backoff.pause_s()
            if not isinstance(failure, ConnectionLost):
                self._unanswered.clear()
                raise failure from None
            if time.monotonic() + pause >= deadline:
                raise failure from None
            time.sleep(pause)

    def _open(self) -> None:
        if self._call is None:
            requests: SimpleQueue[bytes | None] = SimpleQueue()
            for message in self._unanswered:
                requests.put(message)
            self._requests = requests
            self._call = self._connection.open_stream("Sample", iter(requests.get, None))
            watch(self)

    def break_call(self) -> None:
        """Ends the call from another thread; `receive` takes it for a lost connection."""
        call = self._call
        if call is not None:
            self._broken = True
            call.cancel()

    def _drop_call(self) -> None:
        call, self._call = self._call, None
        self._requests.put(None)  # lets gRPC's thread that reads the requests go
        if call is not None and os.getpid() == self._pid:
            call.cancel()

    def close(self) -> None:
        """Ends the stream; what is in flight is gone."""
        self._unanswered.clear()
        self._drop_call()


@dataclass(frozen=True, slots=True)
class _Ask:
    """A request in flight."""

    number: int
    size: int
    beta: float
    seed: int | None
    message: bytes
    carried: list[Updates]


class Sampler:
    """An endless iterator of batches: ``for batch in sampler: …; sampler.update_priorities(batch.step_ids, errors)``.

    `prefetch` requests are in flight, replies keep their order, none is dropped. With a seed, batch i is drawn with
    `derive_seed(seed, i)`, so the same store and calls give the same batches. For one thread at a time.
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
        self._count = 0
        self._in_flight: deque[_Ask] = deque()
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
        """
        if self._closed:
            raise InvalidArgument("this sampler is closed")
        while self._stream.unanswered < self._prefetch:
            self.ask()
        if not self._in_flight:
            raise InvalidArgument("nothing was asked for: call ask first, as prefetch is 0")
        started = time.monotonic()
        while True:
            header, fields = self._stream.receive(max(0.0, self._timeout_s - (time.monotonic() - started)))
            asked = self._in_flight[0]
            if header.request != asked.number:
                self._stream.close()
                self._in_flight.clear()
                raise ReplayStoreError(f"{self._connection.address} answered request {header.request}, it was to answer {asked.number}")
            if header.HasField("waiting"):
                if time.monotonic() - started >= self._timeout_s:
                    raise NotReady(header.waiting)
                continue
            self._in_flight.popleft()
            if asked.carried:
                self._count_updates(header.updates)
            if header.HasField("error") and header.error.kind == NotReady.__name__:
                again = replace(asked, message=self._message(asked), carried=[])  # its updates were applied; by now there may be newer ones
                self._in_flight.append(again)
                self._stream.send(again.message)
            raise_reply_error(header)
            batch = Batch(fields, self._request.view, header.candidates, header.mass, header.next_step)
            if self._noting:
                drawn = replace(self._request, batch_size=asked.size, beta=asked.beta, seed=asked.seed)
                self._noting.note(self._table, drawn, asked.number - 1, batch)
            return batch if self._reward_fn is None else batch.relabel(self._reward_fn)

    def ask(self, batch_size: int | None = None) -> None:
        """Puts a request in flight besides those of `prefetch`, for a batch of another size if one is given."""
        if self._closed:
            raise InvalidArgument("this sampler is closed")
        number = self._count + 1
        seed = None if self._request.seed is None else derive_seed(self._request.seed, self._count)
        size = self._request.batch_size if batch_size is None else batch_size
        beta = self.beta
        asked = _Ask(number, size, beta, seed, b"", self._updates)
        asked = replace(asked, message=self._message(asked, _merge(asked.carried)))
        self._updates = []
        self._stream.send(asked.message)
        self._in_flight.append(asked)
        self._count += 1

    def _message(self, asked: _Ask, updates: Updates | None = None) -> bytes:
        query = self._queries.get(asked.size)
        if query is None:
            if len(self._queries) > _KEPT_QUERIES:
                self._queries.clear()
            query = self._queries[asked.size] = encode_query(self._table, replace(self._request, batch_size=asked.size))
        notice_s = min(1.0, max(self._timeout_s, 0.08) / 4)
        return encode_sample_request(asked.number, query, asked.beta, asked.seed, _WAIT_AT_SERVER_S, notice_s, updates)

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
        """Delivers the priority updates that were not yet, and ends the stream."""
        if self._closed:
            return
        self._closed = True
        self._stream.close()
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
