"""The journal: what was appended when, and a checksum of it. Never the data.

A journal file is a header, one checkpoint and then a record per batch. Each record is ``length, crc, kind, payload``; reading stops at
the first record that does not check. A new file begins whenever the old one has grown large: its checkpoint says everything that the
records before it did, so the old one can go.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crc32c import crc32c

from replaystore.errors import Corruption
from replaystore.storage import calls
from replaystore.storage.files import explain, storage_errors
from replaystore.storage.layout import FORMAT_VERSION

ROTATE_BYTES = 4 << 20
"""A journal file that has grown to this is replaced at the next commit."""

_HEADER = struct.Struct("<8sII")  # magic, format version, zero
_MAGIC = b"RPLSJRNL"
_FRAME = struct.Struct("<IIB")  # length of the payload, CRC32C of kind and payload, kind
_BATCH = struct.Struct("<qqqqII")  # sequence, first step, rows, episodes, crc, crc of writable columns
_SEED = struct.Struct("<qq")  # episode, seed
_CHECKPOINT_KIND, _BATCH_KIND = 1, 2
_MAX_RECORD_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class BatchRecord:
    """One appended batch."""

    sequence: int
    first_step: int
    rows: int
    episodes: int
    """Finished episodes of the table after it."""
    crc: int
    """CRC32C of the batch's bytes: every array of steps/ (writable columns excepted) and meta/ in the order of their paths, then those of
    its episodes rows."""
    writable_crc: int
    """Of its rows of the writable columns likewise, as inserted: true until they are durable, for nobody writes into them before."""
    seeds: tuple[tuple[int, int], ...] = ()
    """(episode, seed) of the episodes that begin in it with a known seed."""

    def pack(self) -> bytes:
        """The record's payload."""
        fixed = _BATCH.pack(self.sequence, self.first_step, self.rows, self.episodes, self.crc, self.writable_crc)
        return fixed + b"".join(_SEED.pack(*pair) for pair in self.seeds)

    @classmethod
    def unpack(cls, payload: bytes) -> BatchRecord:
        """The inverse of `pack`."""
        sequence, first_step, rows, episodes, crc, writable_crc = _BATCH.unpack_from(payload)
        seeds = tuple((episode, seed) for episode, seed in _SEED.iter_unpack(payload[_BATCH.size :]))
        return cls(sequence, first_step, rows, episodes, crc, writable_crc, seeds)


@dataclass(frozen=True, slots=True)
class Recovered:
    """What the journal says after a restart."""

    checkpoint: dict[str, Any]
    batches: list[BatchRecord]

    @property
    def end(self) -> tuple[int, int, int]:
        """Sequence, next step and finished episodes after the last batch."""
        if self.batches:
            last = self.batches[-1]
            return last.sequence, last.first_step + last.rows, last.episodes
        return int(self.checkpoint["sequence"]), int(self.checkpoint["next_step"]), int(self.checkpoint["episodes"])


class Journal:
    """Appends records; `recover` reads them back."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._fd = -1
        self._number = 0
        self._size_bytes = 0

    @property
    def is_large(self) -> bool:
        """Whether it is time for a new file."""
        return self._size_bytes >= ROTATE_BYTES

    def start(self, checkpoint: dict[str, Any], batches: Iterable[BatchRecord] = ()) -> Callable[[], None]:
        """Begins a new file with `checkpoint` and the `batches` that came after it.

        The returned call makes the file durable and removes the older ones; it needs no lock, and until it returned nothing that is only
        in the new file may be called durable.
        """
        number = max([self._number, *self._numbers()]) + 1
        path = self._path(number)
        old_fd = self._fd
        records = [_record(_CHECKPOINT_KIND, json.dumps(checkpoint).encode()), *(_record(_BATCH_KIND, batch.pack()) for batch in batches)]
        data = _HEADER.pack(_MAGIC, FORMAT_VERSION, 0) + b"".join(records)
        with storage_errors(path, "creating"):
            fd = calls.open_file(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
            try:
                calls.pwrite_all(fd, memoryview(data), 0)
            except BaseException:
                os.close(fd)
                path.unlink(missing_ok=True)
                raise
        self._fd, self._number, self._size_bytes = fd, number, len(data)

        def finish() -> None:
            with storage_errors(path, "syncing"):
                calls.sync_data(fd)
                calls.sync_folder(self._folder)
                if old_fd >= 0:
                    os.close(old_fd)
                for older in self._numbers():
                    if older < number:
                        calls.unlink(self._path(older))

        return finish

    def append(self, batch: BatchRecord) -> None:
        """Writes a batch's record: from here on the batch survives the death of the process."""
        data = _record(_BATCH_KIND, batch.pack())
        try:
            calls.pwrite_all(self._fd, memoryview(data), self._size_bytes)
        except OSError as error:
            raise explain(error, self._path(self._number), "writing") from error
        self._size_bytes += len(data)

    def sync_call(self) -> Callable[[], None]:
        """A call, for outside the lock, that makes all records so far durable."""
        fd, path = os.dup(self._fd), self._path(self._number)

        def call() -> None:
            try:
                with storage_errors(path, "syncing"):
                    calls.sync_data(fd)
            finally:
                os.close(fd)

        return call

    def recover(self) -> Recovered:
        """The newest checkpoint and the batches after it. Corruption when there is no readable checkpoint at all."""
        for number in reversed(self._numbers()):
            found = read_journal_file(self._path(number))
            if found.checkpoint is not None:
                return Recovered(found.checkpoint, found.batches)
        raise Corruption(f"{self._folder} holds no readable journal: restore the table from a snapshot, or run 'replaystore repair'")

    def close(self) -> None:
        """Closes the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:08d}.log"

    def _numbers(self) -> list[int]:
        return sorted(int(path.stem) for path in self._folder.glob("*.log") if path.stem.isdigit())


def _record(kind: int, payload: bytes) -> bytes:
    crc = crc32c(payload, crc32c(bytes([kind])))
    return _FRAME.pack(len(payload), crc, kind) + payload


@dataclass(frozen=True, slots=True)
class JournalFile:
    """What one file says, up to the first record that does not check."""

    path: Path
    size_bytes: int
    good_bytes: int
    """Where reading ended."""
    checkpoint: dict[str, Any] | None
    """None when not even that is readable."""
    batches: list[BatchRecord]


def read_journal(folder: Path) -> list[JournalFile]:
    """All files of a journal, oldest first."""
    numbered = sorted((int(path.stem), path) for path in folder.glob("*.log") if path.stem.isdigit())
    return [read_journal_file(path) for _, path in numbered]


def read_journal_file(path: Path) -> JournalFile:
    """One file of a journal. Corruption when it is of a newer format."""
    with storage_errors(path, "reading"):
        data = path.read_bytes()
    if len(data) < _HEADER.size or data[:8] != _MAGIC:
        return JournalFile(path, len(data), 0, None, [])
    version = _HEADER.unpack_from(data)[1]
    if version > FORMAT_VERSION:
        raise Corruption(f"{path} has format version {version}, this replaystore reads up to {FORMAT_VERSION}: use a newer one")
    checkpoint: dict[str, Any] | None = None
    batches: list[BatchRecord] = []
    position = _HEADER.size
    while position + _FRAME.size <= len(data):
        length, crc, kind = _FRAME.unpack_from(data, position)
        payload = data[position + _FRAME.size : position + _FRAME.size + length]
        if length > _MAX_RECORD_BYTES or len(payload) != length or crc32c(payload, crc32c(bytes([kind]))) != crc:
            break
        if kind == _CHECKPOINT_KIND:
            checkpoint = json.loads(payload)
        elif checkpoint is None:
            break
        elif kind == _BATCH_KIND:
            batches.append(BatchRecord.unpack(payload))
        position += _FRAME.size + length
    return JournalFile(path, len(data), position, checkpoint, batches)
