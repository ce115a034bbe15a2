"""Every error a user of replaystore can meet.

    ReplayStoreError
    ├── InvalidArgument         the call is wrong; sending it again cannot help
    │   └── SchemaMismatch      values do not fit the table's columns
    ├── NotFound                no such table, episode or parameter set
    ├── AlreadyExists           a table of that name with another configuration
    ├── NotReady                the rate limiter blocks: says which bound, by how much and who has to act
    ├── Overloaded              a configured bound is reached; try again later
    ├── DeadlineExceeded        the other side did not answer in time
    ├── PermissionDenied        read-only store, or a token without that right
    └── StorageError            the disk, not the caller
        ├── Corruption          bytes on disk are not what was written
        ├── DiskFull            no space left: inserts stop, samples go on
        └── Locked              another process has the store open

Each class carries ``grpc_code``, the name of the gRPC status code that stands for it on the wire, so that the server and
the client translate from one table. This module imports nothing.
"""

from __future__ import annotations

from typing import ClassVar

NO_ENGINE_HERE = "the storage engine needs mmap and flock, which Windows lacks: run it on Linux, or in WSL; replaystore_client works here"
"""Of the ImportError where there is no Unix."""


class ReplayStoreError(Exception):
    """Base of all errors raised by replaystore. ``str(error)`` says what happened, with which value, and what to do."""

    grpc_code: ClassVar[str] = "INTERNAL"


class InvalidArgument(ReplayStoreError, ValueError):
    """An argument is wrong. The message names it, shows its value and says what is allowed."""

    grpc_code = "INVALID_ARGUMENT"


class SchemaMismatch(InvalidArgument):
    """Values do not fit the table's columns: a name, a shape or a dtype."""


class NotFound(ReplayStoreError, LookupError):
    """There is no such thing here. The message lists what there is."""

    grpc_code = "NOT_FOUND"


class AlreadyExists(ReplayStoreError):
    """A table of that name exists with another configuration."""

    grpc_code = "ALREADY_EXISTS"


class NotReady(ReplayStoreError):
    """The table's rate limiter did not let the call through in time."""

    grpc_code = "FAILED_PRECONDITION"


class Overloaded(ReplayStoreError):
    """A configured bound (streams, bytes in flight, waiting requests, tables, a caller's quota) is reached."""

    grpc_code = "RESOURCE_EXHAUSTED"

    def __init__(self, message: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        """Seconds after which trying again may help; None when nobody knows."""


class DeadlineExceeded(ReplayStoreError, TimeoutError):
    """The other side did not answer within the call's timeout."""

    grpc_code = "DEADLINE_EXCEEDED"


class PermissionDenied(ReplayStoreError):
    """This store, connection or token may not do that."""

    grpc_code = "PERMISSION_DENIED"


class StorageError(ReplayStoreError):
    """The file system failed or holds something unexpected. The message names the file."""

    grpc_code = "UNAVAILABLE"


class Corruption(StorageError):
    """Bytes on disk are not what was written."""

    grpc_code = "DATA_LOSS"


class DiskFull(StorageError):
    """No space left on the device: inserts are refused until there is, sampling goes on."""


class Locked(StorageError):
    """Another process holds the store's lock."""


def all_errors() -> dict[str, type[ReplayStoreError]]:
    """All error classes by name, the most general first."""
    found: dict[str, type[ReplayStoreError]] = {}
    pending: list[type[ReplayStoreError]] = [ReplayStoreError]
    while pending:
        error = pending.pop(0)
        found[error.__name__] = error
        pending.extend(error.__subclasses__())
    return found
