"""Blocks of steps to a server: bounded, in order, surviving restarts of the server without losing or doubling a step.

Every block is kept until the server said that it survives power loss. After a lost connection the blocks that were not acknowledged are
sent again; after a restart of the server, all that were not durable. The server drops rows that it has by (episode, step in episode).
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

import grpc

from replaystore.errors import DeadlineExceeded, InvalidArgument, NotReady, Overloaded, ReplayStoreError, StorageError
from replaystore.steps import StepBlock
from replaystore.v1 import data_pb2 as pb
from replaystore.wire.blocks import encode_block
from replaystore.wire.framing import prefix
from replaystore.wire.methods import MAX_MESSAGE_BYTES
from replaystore_client.connection import Backoff, Connection, ConnectionLost

MAX_ROWS_IN_FLIGHT = 16_384
"""Rows on their way: what a writer may be ahead of the table's rate limiter."""

MAX_BYTES_IN_FLIGHT = 32 << 20
MAX_BYTES_KEPT = 256 << 20
"""Acknowledged but not yet durable."""

_TRANSIENT = (ConnectionLost, NotReady, Overloaded, StorageError, DeadlineExceeded)
"""The block is kept and sent again, also after a full disk: space may come back, and inserts with it."""

_COMMIT = prefix(pb.AppendHeader(commit=True).SerializeToString(), b"", 0)


_forks = 0


def _forked() -> None:
    global _forks
    _forks += 1


if hasattr(os, "register_at_fork"):  # counted there: asking for the process's number takes a system call each time
    os.register_at_fork(after_in_child=_forked)


@dataclass(slots=True)
class _Sent:
    """A block that may have to be sent again."""

    sequence: int
    message: bytes
    rows: int
    next_step: int = -1
    """Durable once the watermark is here; known when it is acknowledged."""


class RemoteSink:
    """A `replaystore.writer.BlockSink` over the network. A thread of its own keeps the stream; `send` waits for nothing but room."""

    def __init__(self, connection: Connection, table: str) -> None:
        self._connection, self._table = connection, table
        self._changed = threading.Condition()
        self._unacknowledged: deque[_Sent] = deque()
        self._kept: deque[_Sent] = deque()
        self._rows_in_flight = self._bytes_in_flight = self._bytes_kept = 0
        self._sequence = 0
        self._instance = ""
        self._requests: SimpleQueue[bytes | None] | None = None
        self._blocked: str | None = None
        self._trouble: ReplayStoreError | None = None
        self._failure: ReplayStoreError | None = None
        self._commit_wanted = False
        self._closing = False
        self._call: Any = None
        self._forks = _forks
        self.applied_rows = self.duplicate_rows = 0
        """Rows that the server reported as new, and as known already."""
        self._thread = threading.Thread(target=self._run, name=f"replaystore-writer-{table}", daemon=True)
        self._thread.start()

    # -- called by the writer

    def send(self, block: StepBlock, timeout_s: float) -> None:
        """Takes the block over (its arrays are copied); waits for room."""
        self.poll()
        message = encode_block(block, self._sequence + 1)
        if len(message) > MAX_MESSAGE_BYTES:
            raise InvalidArgument(
                f"a block of {block.rows} rows has {len(message)} bytes, at most {MAX_MESSAGE_BYTES} are taken: open the writer with "
                "a smaller block_rows"
            )
        with self._changed:
            self._wait(lambda: self._has_room(block.rows, len(message)), timeout_s, "for room to send")
            self._sequence += 1
            sent = _Sent(self._sequence, message, block.rows)
            self._unacknowledged.append(sent)
            self._rows_in_flight += sent.rows
            self._bytes_in_flight += len(message)
            if self._requests is not None:
                self._requests.put(message)

    def flush(self, durable: bool, timeout_s: float) -> None:
        """Returns when everything sent is acknowledged; with `durable`, when it survives power loss."""
        self.poll()
        with self._changed:
            if durable and (self._kept or self._unacknowledged):
                self._ask_commit()
            pending = (lambda: not self._unacknowledged and not self._kept) if durable else (lambda: not self._unacknowledged)
            self._wait(pending, timeout_s, "until what was sent is durable" if durable else "for acknowledgements")

    def poll(self) -> None:
        """Raises what happened in the background."""
        failure = self._failure
        if failure is not None:
            raise type(failure)(str(failure))
        if _forks != self._forks:
            raise InvalidArgument("this writer was opened before a fork: open one in the child process")

    def close(self, timeout_s: float) -> None:
        """Flushes and ends the stream.

        Raises:
            NotReady, DeadlineExceeded, StorageError: what was not acknowledged is lost with this writer; the text says how much and why.
        """
        deadline = time.monotonic() + timeout_s
        try:
            self.flush(False, timeout_s)
        finally:
            if _forks == self._forks:
                with self._changed:
                    self._closing = True
                    if self._requests is not None:
                        self._requests.put(None)
                    self._changed.notify_all()
                self._thread.join(max(0.0, min(2.0, deadline - time.monotonic())))
                if self._call is not None:
                    self._call.cancel()
                self._thread.join(2.0)

    def _has_room(self, rows: int, size: int) -> bool:
        if self._bytes_kept + self._bytes_in_flight + size > MAX_BYTES_KEPT and (self._kept or self._unacknowledged):
            self._ask_commit()
            return False
        if not self._unacknowledged:
            return True
        return (
            self._blocked is None
            and self._rows_in_flight + rows <= MAX_ROWS_IN_FLIGHT
            and self._bytes_in_flight + size <= MAX_BYTES_IN_FLIGHT
        )

    def _wait(self, done: Callable[[], bool], timeout_s: float, what: str) -> None:
        """Waits, with the lock held, until `done()`; raises what went wrong meanwhile or, in the end, why it takes so long."""
        deadline = time.monotonic() + timeout_s
        while not done():
            if self._failure is not None:
                raise type(self._failure)(str(self._failure))
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise self._why(timeout_s, what)
            self._changed.wait(remaining)

    def _why(self, timeout_s: float, what: str) -> ReplayStoreError:
        waited = f"waited {timeout_s:g} s {what} ({self._rows_in_flight} rows are not acknowledged)"
        if self._blocked is not None:
            return NotReady(f"{waited}: {self._blocked}")
        if isinstance(self._trouble, Overloaded):
            return Overloaded(f"{waited}: {self._trouble}", self._trouble.retry_after_s)
        if self._trouble is not None:
            kind = DeadlineExceeded if isinstance(self._trouble, ConnectionLost) else type(self._trouble)
            return kind(f"{waited}: {self._trouble}")
        return DeadlineExceeded(f"{waited}: {self._connection.address} is connected but did not answer")

    def _ask_commit(self) -> None:
        if not self._commit_wanted and self._requests is not None:
            self._requests.put(_COMMIT)
        self._commit_wanted = True

    # -- in the background

    def _run(self) -> None:
        backoff = Backoff()
        while True:
            try:
                self._serve_stream()
                failure: ReplayStoreError = self._connection.lost("the server ended the stream")
            except grpc.RpcError as error:
                failure = self._connection.translate(error)
            except ReplayStoreError as error:
                failure = error
            except Exception as error:  # nobody would see it in this thread
                failure = ReplayStoreError(f"the writer's connection to {self._connection.address} failed: {error!r}")
            with self._changed:
                if self._requests is not None and not isinstance(failure, Overloaded):
                    backoff = Backoff()
                self._requests, self._blocked, self._trouble = None, None, failure
                if not isinstance(failure, _TRANSIENT):
                    self._failure = failure
                self._changed.notify_all()
                pause = backoff.after(failure) or backoff.pause_s()
                if self._failure is not None or self._changed.wait_for(lambda: self._closing, pause):
                    return

    def _serve_stream(self) -> None:
        """One connection, from its beginning to its end."""
        requests: SimpleQueue[bytes | None] = SimpleQueue()
        opening = pb.AppendHeader(table=self._table)
        requests.put(prefix(opening.SerializeToString(), b"", 0))
        call = self._call = self._connection.open_stream("Append", iter(requests.get, None))
        try:
            for message in call:
                reply = pb.AppendReply.FromString(message)
                which = reply.WhichOneof("reply")
                with self._changed:
                    if which == "ack":
                        self._acknowledged(reply.ack)
                    elif which == "durable":
                        self._forget(reply.durable.durable_step)
                    elif which == "blocked":
                        self._blocked = reply.blocked.why
                    elif which == "opened":
                        self._opened(reply.opened, requests)
                    self._changed.notify_all()
        finally:
            requests.put(None)  # lets gRPC's thread that reads the requests go
            call.cancel()

    def _opened(self, opened: Any, requests: SimpleQueue[bytes | None]) -> None:
        if opened.instance != self._instance:  # a server that was restarted may have lost what was not durable
            self._instance = opened.instance
            self._unacknowledged.extendleft(reversed(self._kept))
            self._rows_in_flight += sum(sent.rows for sent in self._kept)
            self._bytes_in_flight += self._bytes_kept
            self._bytes_kept = 0
            self._kept.clear()
        if not isinstance(self._trouble, Overloaded):  # which comes with the first block, as often as not
            self._trouble = None
        for sent in self._unacknowledged:
            requests.put(sent.message)
        if self._commit_wanted:
            requests.put(_COMMIT)
        if self._closing:
            requests.put(None)
        self._requests = requests

    def _acknowledged(self, ack: Any) -> None:
        self._blocked = self._trouble = None
        while self._unacknowledged and self._unacknowledged[0].sequence <= ack.sequence:
            sent = self._unacknowledged.popleft()
            self._rows_in_flight -= sent.rows
            self._bytes_in_flight -= len(sent.message)
            sent.next_step = ack.next_step
            self._kept.append(sent)
            self._bytes_kept += len(sent.message)
        self.applied_rows += ack.applied_rows
        self.duplicate_rows += ack.duplicate_rows
        self._forget(ack.durable_step)

    def _forget(self, durable_step: int) -> None:
        while self._kept and self._kept[0].next_step <= durable_step:
            self._bytes_kept -= len(self._kept.popleft().message)
        if not self._kept and not self._unacknowledged:
            self._commit_wanted = False
