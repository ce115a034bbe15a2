"""Errors and gRPC statuses: one catalogue for both directions. Knows status codes by name only, so it needs no gRPC."""

from __future__ import annotations

import math

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

RETRY_KEY = "replaystore-retry-after-ms"
"""Trailing metadata of a refusal: whole milliseconds after which it is worth coming again."""

LONGEST_RETRY_MS = 86_400_000
"""Hints beyond it, and what is no number, are no hints."""

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


def retry_hint(error: Exception) -> str | None:
    """The value of `RETRY_KEY` for an error; None without one."""
    seconds = getattr(error, "retry_after_s", None)
    return None if seconds is None else str(min(max(math.ceil(seconds * 1000), 0), LONGEST_RETRY_MS))


def error_of(kind: str | None, code: str, text: str, retry_after_ms: str | None = None) -> ReplayStoreError:
    """The exception for a status: by the class's name, else by the code's. `retry_after_ms` is what came under `RETRY_KEY`."""
    found = all_errors().get(kind or "") or _BY_CODE.get(code)
    error = found(text) if found is not None else ReplayStoreError(f"{text} ({code})")
    if isinstance(error, Overloaded) and retry_after_ms is not None and retry_after_ms.isascii() and retry_after_ms.isdigit():
        hint_ms = int(retry_after_ms[:12])
        error.retry_after_s = hint_ms / 1000 if hint_ms <= LONGEST_RETRY_MS else None
    return error
