"""Single draws: a message and its answer over a stream that is kept for the next one. Thread-safe; after a fork it begins anew."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy.typing as npt

from replaystore.batch import Batch
from replaystore.sampling import SampleRequest
from replaystore.wire.samples import raise_reply_error
from replaystore_client.connection import Connection
from replaystore_client.local.path import Gone
from replaystore_client.stream import SampleStream

Fields = dict[str, npt.NDArray[Any]]

_IDLE_STREAMS = 4
_KEEP_S = 1.0
"""A single call gathers at once; the server keeps the files for so long, or until the next call."""


class SingleDraws:
    """The idle streams of one client; as many calls at a time as there are threads that make them."""

    def __init__(self, connection: Connection, local: bool | None) -> None:
        """`local`: as `Client` takes it."""
        self._connection, self._local = connection, local
        self._lock = threading.Lock()
        self._idle: list[SampleStream] = []
        self._pid = connection.pid

    def ask(self, name: str, request: SampleRequest, message: Callable[[bytes], bytes], limit: float) -> Batch:
        """Sends what `message` makes of a question for the local path (``b""``: for all bytes), and reads the batch within `limit` s.

        Raises:
            ReplayStoreError: what the server answered instead.
            DeadlineExceeded: the server could not be reached.
        """
        stream = self._borrow()
        try:
            local = stream.local(name, self._local, _KEEP_S)
            header, fields = _answer(stream, message(local.ask(1)), limit)
            try:
                fields = local.fields(header, fields)
            except Gone:
                header, fields = _answer(stream, message(b""), limit)
            local.gathered(1)
        except BaseException:
            stream.close()
            raise
        self._give_back(stream)
        raise_reply_error(header)
        return Batch(fields, request.view, header.candidates, header.mass, header.next_step)

    def close(self) -> None:
        """Ends the idle streams."""
        self._renew()
        with self._lock:
            idle, self._idle = self._idle, []
        for stream in idle:
            stream.close()

    def _renew(self) -> None:
        if self._pid != self._connection.pid:  # after a fork
            self._lock, self._idle, self._pid = threading.Lock(), [], self._connection.pid

    def _borrow(self) -> SampleStream:
        self._renew()
        with self._lock:
            return self._idle.pop() if self._idle else SampleStream(self._connection)

    def _give_back(self, stream: SampleStream) -> None:
        with self._lock:
            if len(self._idle) < _IDLE_STREAMS:
                self._idle.append(stream)
                return
        stream.close()


def _answer(stream: SampleStream, message: bytes, limit: float) -> tuple[Any, Fields]:
    stream.send(message)
    header, fields = stream.receive(max(limit, 1.0))
    stream.answered()
    return header, fields
