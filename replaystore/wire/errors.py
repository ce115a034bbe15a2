"""Errors and gRPC statuses: one catalogue for both directions. Knows status codes by name only, so it needs no gRPC."""

from __future__ import annotations

from replaystore.errors import (
    AlreadyExists,
    Corruption,
    DeadlineExceeded,
    InvalidArgument,
    NotFound,
    NotReady,
    Overloaded,
    PermissionDenied,
    ReplayStoreError,
    StorageError,
    all_errors,
)

ERROR_KEY = "replaystore-error"
"""Trailing metadata that names the class of the error."""

MAX_TEXT_BYTES = 3000
"""Longer texts are cut: status messages travel as HTTP/2 headers, which are limited to 8 KiB."""

_WIDE_BYTES = 12
"""What a character outside ASCII takes there at most: four bytes, percent-encoded."""

_BY_CODE: dict[str, type[ReplayStoreError]] = {
    kind.grpc_code: kind
    for kind in (
        InvalidArgument,
        NotFound,
        AlreadyExists,
        NotReady,
        Overloaded,
        DeadlineExceeded,
        PermissionDenied,
        StorageError,
        Corruption,
    )
}
_BY_CODE["OUT_OF_RANGE"] = InvalidArgument
_BY_CODE["UNAUTHENTICATED"] = PermissionDenied


def error_text(error: ReplayStoreError) -> str:
    """The text that travels."""
    text, taken = str(error), 0
    for position, character in enumerate(text):
        taken += 1 if " " <= character <= "~" else _WIDE_BYTES
        if taken > MAX_TEXT_BYTES - _WIDE_BYTES:
            return text[:position] + "…"
    return text


def error_of(kind: str | None, code: str, text: str) -> ReplayStoreError:
    """The exception for a status: by the class's name, else by the code's."""
    found = all_errors().get(kind or "") or _BY_CODE.get(code)
    return found(text) if found is not None else ReplayStoreError(f"{text} ({code})")
