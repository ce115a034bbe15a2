"""Sample log: which minibatches a run was given, so that the very same ones can be read again.

A file of records, each written with one call:

    u32 length of the body | u32 CRC-32 (zlib) of the body | u32 CRC-32 of these eight bytes | body

all little-endian, after the eight bytes ``RSLOG1\\r\\n``. A body begins with one byte, its kind:

    Q   a query: JSON {"table", "view", "columns", "selector", "where", "normalise"}; the queries of a file are numbered from 0
    B   a batch: u32 query, u32 n, u64 index in its sampler, i64 seed, i64 as_of, f64 beta, i64 candidates, f64 mass, i64 CRC-32 of its
        fields but the following, in the order of their names, or −1; then n numbers each: step_ids i64, probabilities f64, ages i64,
        priorities f32, weights f32, times_sampled u32

A process that dies leaves at most one record that is not whole, the last: readers end before it, and a writer that goes on cuts it off.
One process writes a log at a time.
"""

from __future__ import annotations

import json
import os
import secrets
import struct
import threading
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self, TypeAlias

import numpy as np
import numpy.typing as npt

from replaystore.batch import Batch, RewardFunction
from replaystore.errors import Corruption, InvalidArgument, NotFound, StorageError
from replaystore.sampling import SampleRequest
from replaystore.schema.record import from_json, to_json
from replaystore.schema.views import VIEWS, View

Array = npt.NDArray[Any]

MAGIC = b"RSLOG1\r\n"
_FRAME = struct.Struct("<II")
_CRC = struct.Struct("<I")
_FRAME_BYTES = _FRAME.size + _CRC.size
_BATCH = struct.Struct("<cIIQqqdqdq")
_ARRAYS = {
    "step_ids": "<i8",
    "probabilities": "<f8",
    "ages": "<i8",
    "priorities": "<f4",
    "weights": "<f4",
    "times_sampled": "<u4",
}


@dataclass(frozen=True, slots=True)
class LoggedBatch:
    """One batch of a log."""

    position: int
    """Among the batches of the file, from 0."""
    index: int
    """Among the batches of its sampler, from 0."""
    table: str
    view: View
    columns: tuple[str, ...] | None
    query: dict[str, Any]
    """As JSON: table, view, columns, selector, where, normalise."""
    seed: int
    as_of: int
    """The table's next step id when the batch was drawn."""
    beta: float
    candidates: int
    mass: float
    checksum: int
    """CRC-32 of everything in the batch that is not in `arrays`; -1: none was taken."""
    arrays: dict[str, Array]
    """step_ids, probabilities, ages, priorities, weights, times_sampled; ``(n,)`` each, as they were in the batch."""


class SampleLog:
    """A file that batches are noted in: ``store.sampler(…, log="samples.log")`` makes one, or several samplers share one of these.

    An existing log is gone on with. Each batch is handed to the operating system before the sampler returns it: what a killed process was
    given is in the log; power loss may take the end of it. About 36 bytes per item; checksums take half a second per gigabyte of batches.
    """

    def __init__(self, path: str | Path, checksums: bool = True) -> None:
        """See the class.

        Args:
            path: a file, which is made when there is none.
            checksums: notes a checksum of what each batch held, by which `replay_log` finds what is no longer the same.

        Raises:
            InvalidArgument: `path` is a file of another kind.
            Corruption: it is a log with a damaged record in the middle.
            StorageError: it cannot be written.
        """
        self.path, self._checksums = Path(path), checksums
        self._lock = threading.Lock()
        self._queries: dict[str, int] = {}
        try:
            self._file: BinaryIO = open(self.path, "ab", buffering=0)  # noqa: SIM115 - held until close
            try:
                self._end = self._go_on()
            except BaseException:
                self._file.close()
                raise
        except OSError as error:
            raise StorageError(f"{self.path}: the sample log cannot be opened: {error.strerror or error}") from error

    def _go_on(self) -> int:
        """Learns what is in the file and cuts off a record that is not whole; where the next one goes."""
        if os.fstat(self._file.fileno()).st_size < len(MAGIC):
            with open(self.path, "rb") as file:
                begun = file.read(len(MAGIC))
            if not MAGIC.startswith(begun):
                raise InvalidArgument(f"{self.path} is no sample log: choose a file that does not exist yet")
            os.truncate(self.path, 0)
            self._file.write(MAGIC)
            return len(MAGIC)
        end = len(MAGIC)
        for end, body in _bodies(self.path):  # noqa: B007 - the last one counts
            if body[:1] == b"Q":
                self._queries.setdefault(body[1:].decode(), len(self._queries))
        os.truncate(self.path, end)
        return end

    def write(self, table: str, request: SampleRequest, index: int, batch: Batch) -> None:
        """Notes a batch that `request`, with the seed and the beta of this very batch, gave.

        Raises:
            InvalidArgument: the request has no seed, or the log is closed.
            StorageError: the file system failed.
        """
        if request.seed is None:
            raise InvalidArgument("a batch without a seed cannot be read again: draw it with one")
        query = _query_of(table, request)
        checksum = _checksum(batch.fields) if self._checksums else -1
        with self._lock:
            if self._file.closed:
                raise InvalidArgument(f"the sample log {self.path} is closed")
            records = b""
            number = self._queries.get(query)
            if number is None:
                number = len(self._queries)
                records = _framed(b"Q" + query.encode())
            head = _BATCH.pack(
                b"B", number, len(batch), index, request.seed, batch.next_step, request.beta, batch.candidates, batch.mass, checksum
            )
            arrays = [np.ascontiguousarray(batch[name], dtype).tobytes() for name, dtype in _ARRAYS.items()]
            self._append(records + _framed(b"".join((head, *arrays))))
            self._queries[query] = number

    def _append(self, data: bytes) -> None:
        try:
            written = self._file.write(data)
            if written != len(data):
                raise OSError(f"{written} of {len(data)} bytes were taken")
        except OSError as error:
            try:
                os.truncate(self.path, self._end)
            except OSError:
                pass
            raise StorageError(f"{self.path}: the sample log cannot be written: {error.strerror or error}") from error
        self._end += len(data)

    def close(self) -> None:
        """Closes the file; safe to call twice."""
        with self._lock:
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @staticmethod
    def read(path: str | Path) -> Iterator[LoggedBatch]:
        """What is noted in the file, in order; a record that is not whole at its end is left out.

        Raises:
            NotFound: there is no such file.
            InvalidArgument: it is no sample log.
            Corruption: a record before the last is damaged.
        """
        queries: list[dict[str, Any]] = []
        views: list[View] = []
        position = 0
        for _, body in _bodies(Path(path)):
            if body[:1] == b"Q":
                queries.append(json.loads(body[1:]))
                views.append(from_json(queries[-1]["view"], VIEWS, "view"))
            elif body[:1] == b"B":
                yield _batch_of(body, position, queries, views)
                position += 1


Log: TypeAlias = SampleLog | str | Path


class Noting:
    """A sampler's side of its log, if it has one."""

    def __init__(self, log: Log | None) -> None:
        self._log = log if log is None or isinstance(log, SampleLog) else SampleLog(log)
        self._own = self._log is not log

    def __bool__(self) -> bool:
        return self._log is not None

    def prepared(self, request: SampleRequest) -> SampleRequest:
        """The sampler's request; with a log it always has a seed."""
        return request if self._log is None or request.seed is not None else replace(request, seed=secrets.randbits(63))

    def note(self, table: str, request: SampleRequest, index: int, batch: Batch) -> None:
        """Writes a batch down."""
        if self._log is not None:
            self._log.write(table, request, index, batch)

    def close(self) -> None:
        """Closes a log that was opened for this sampler."""
        if self._log is not None and self._own:
            self._log.close()


def replay_log(api: Any, path: str | Path, table: str | None = None, reward_fn: RewardFunction | None = None) -> Iterator[Batch]:
    """The very minibatches of an earlier run, in order: bit by bit those that the samplers returned.

    The rows are read again, so they must still be kept; only what is not stored with them comes from the log. Whatever was appended, or
    given other priorities, since then makes no difference.

    Args:
        api: a `Store` or `Client` that has the tables.
        path: the log.
        table: reads from this one, whatever the log says: a snapshot, or a table under another name.
        reward_fn: as it was given to the sampler, for `Hindsight` views.

    Raises:
        NotFound: steps of a batch are no longer kept; names the batch and the first of them. Or the rows around them are not as they were:
            frames before them are evicted, or writable columns were changed.
    """
    for logged in SampleLog.read(path):
        name = logged.table if table is None else table
        try:
            again = api.sample_at(
                name, logged.arrays["step_ids"], view=logged.view, seed=logged.seed, columns=logged.columns, as_of=logged.as_of
            )
        except NotFound as error:
            raise NotFound(f"{path}: batch {logged.position} cannot be read again: {error}") from None
        if logged.checksum >= 0 and logged.checksum != _checksum(again.fields):
            raise NotFound(
                f"{path}: batch {logged.position} (steps {logged.arrays['step_ids'][:3].tolist()}… of {name!r}) cannot be read again: its "
                "steps are kept, but other rows that it showed are evicted, or columns were changed since"
            )
        fields = {**again.fields, **{f"info/{name}": array for name, array in logged.arrays.items()}}
        batch = Batch(fields, logged.view, logged.candidates, logged.mass, logged.as_of)
        yield batch if reward_fn is None else batch.relabel(reward_fn)


def _query_of(table: str, request: SampleRequest) -> str:
    selector, where = request.selector, request.where
    query = {
        "table": table,
        "view": to_json(request.view),
        "columns": None if request.columns is None else list(request.columns),
        "selector": selector if selector is None or isinstance(selector, str) else to_json(selector),
        "where": None if where is None else to_json(where),
        "normalise": request.normalise,
    }
    return json.dumps(query, separators=(",", ":"), sort_keys=True)


def _checksum(fields: Mapping[str, Array]) -> int:
    crc = 0
    for name in sorted(fields):
        if name.removeprefix("info/") not in _ARRAYS:
            crc = zlib.crc32(np.ascontiguousarray(fields[name]).reshape(-1).view(np.uint8).data, crc)
    return crc


def _framed(body: bytes) -> bytes:
    frame = _FRAME.pack(len(body), zlib.crc32(body))
    return b"".join((frame, _CRC.pack(zlib.crc32(frame)), body))


def _bodies(path: Path) -> Iterator[tuple[int, bytes]]:
    """The whole records of a file, each with where it ends."""
    try:
        file = open(path, "rb")  # noqa: SIM115 - closed by the with below
    except FileNotFoundError:
        raise NotFound(f"there is no sample log {path}") from None
    except OSError as error:
        raise StorageError(f"{path}: the sample log cannot be read: {error.strerror or error}") from error
    with file:
        size = os.fstat(file.fileno()).st_size
        if file.read(len(MAGIC)) != MAGIC:
            raise InvalidArgument(f"{path} is no sample log: it does not begin with {MAGIC!r}")
        end = len(MAGIC)
        while size - end >= _FRAME_BYTES:
            frame = file.read(_FRAME_BYTES)
            (length, crc), (frame_crc,) = _FRAME.unpack_from(frame), _CRC.unpack_from(frame, _FRAME.size)
            whole = zlib.crc32(frame[: _FRAME.size]) == frame_crc
            after = end + _FRAME_BYTES + length
            if whole and after > size:
                return  # torn
            body = file.read(length) if whole else b""
            if not whole or zlib.crc32(body) != crc or body[:1] not in (b"Q", b"B"):
                rest = file.read()
                if rest.count(0) == len(rest):  # torn too: after power loss a file may be longer than what reached the disk, with zeros
                    return
                raise Corruption(f"{path}: the record at byte {end} is damaged and others follow it; restore the file from a copy")
            end = after
            yield end, body


def _batch_of(body: bytes, position: int, queries: list[dict[str, Any]], views: list[View]) -> LoggedBatch:
    _, number, count, index, seed, as_of, beta, candidates, mass, checksum = _BATCH.unpack_from(body)
    arrays, at = {}, _BATCH.size
    for name, dtype in _ARRAYS.items():
        arrays[name] = np.frombuffer(body, dtype, count, at).astype(np.dtype(dtype).newbyteorder("="))
        at += arrays[name].nbytes
    query = queries[number]
    columns = None if query["columns"] is None else tuple(query["columns"])
    known = (position, index, query["table"], views[number], columns, query, seed, as_of)
    return LoggedBatch(*known, beta, candidates, mass, checksum, arrays)
