"""One Sample stream: raw requests out, replies in, in the same order, over as many calls as it takes."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterable
from queue import SimpleQueue
from typing import Any

import grpc
import numpy.typing as npt

from replaystore.errors import InvalidArgument, Overloaded, ReplayStoreError
from replaystore.wire.memory import expect_large
from replaystore.wire.samples import decode_sample_reply
from replaystore_client.connection import Backoff, Connection
from replaystore_client.local import LocalPath
from replaystore_client.local.path import Mode
from replaystore_client.watchdog import LATE_S, watch

_MOST_TABLES = 8
"""Whose files one stream keeps mapped: single calls may be about any, also about tables that were dropped long ago."""


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
        self._local: dict[str, LocalPath] = {}

    def local(self, table: str, mode: Mode, keep_s: float) -> LocalPath:
        """What this stream knows of the local path to a table; closed with the stream."""
        path = self._local.pop(table, None) or LocalPath(table, mode, keep_s)
        self._local[table] = path
        if len(self._local) > _MOST_TABLES:
            self._local.pop(next(iter(self._local))).close()  # asked for longest ago
        return path

    @property
    def unanswered(self) -> int:
        """Requests in flight."""
        return len(self._unanswered)

    @property
    def inherited(self) -> bool:
        """Whether another process opened it, from which this one was forked."""
        return os.getpid() != self._pid

    def check(self) -> None:
        """InvalidArgument in another process than that which opened it."""
        if self.inherited:
            raise InvalidArgument("this sampler was opened before a fork: open one in the child process")

    def send(self, message: bytes) -> None:
        """Puts a request at the end."""
        self.check()
        self._unanswered.append(message)
        if self._call is not None:
            self._requests.put(message)

    def answered(self, rest: bytes | None = None) -> None:
        """The first request has its answer, or a part of it; `rest` asks for what is missing, should the connection be lost."""
        if rest is None:
            self._unanswered.popleft()
        else:
            self._unanswered[0] = rest

    def send_again(self, messages: Iterable[bytes]) -> None:
        """Forgets what is in flight and asks for `messages` over a new call."""
        self._drop_call()
        self._unanswered = deque(messages)

    def receive(self, timeout_s: float) -> tuple[Any, dict[str, npt.NDArray[Any]]]:
        """The next reply to the first request: its SampleReplyHeader and the fields. The request stays in flight until `answered`.

        Raises:
            DeadlineExceeded: no connection for `timeout_s`; the requests stay in flight. Call again.
            Overloaded: the server had no room for `timeout_s`; likewise.
            ReplayStoreError: the server ended the stream; the requests in flight are gone.
        """
        deadline = time.monotonic() + timeout_s
        backoff = Backoff()
        while True:
            self._open()
            self._broken = False
            self.late_after = deadline + LATE_S
            try:
                message = next(self._call)
                expect_large(len(message))
                header, fields = decode_sample_reply(message)
            except StopIteration:
                failure: ReplayStoreError = self._connection.lost("the server ended the stream")
            except grpc.RpcError as error:
                failure = self._connection.silent(timeout_s) if self._broken else self._connection.translate(error)
            else:
                return header, fields
            finally:
                self.late_after = float("inf")
            self._drop_call()
            pause = backoff.after(failure)
            if pause is None:
                self._unanswered.clear()
                raise failure from None
            if time.monotonic() + pause >= deadline:
                if isinstance(failure, Overloaded):  # whoever calls again at once shall not come sooner for it
                    time.sleep(max(0.0, deadline - time.monotonic()))
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
        for path in self._local.values():
            path.close()
        self._local.clear()
