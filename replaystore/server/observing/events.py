"""What a server logs: who did what, and what went wrong. Never data, never secrets. `replaystore serve` says how it is written."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from replaystore.errors import NotReady, Overloaded, PermissionDenied, ReplayStoreError, StorageError

if TYPE_CHECKING:
    from replaystore.server.translate import Call

log = logging.getLogger("replaystore.server")
"""Of everything that a server logs; facts go into ``extra``, and appear as fields."""

SLOW_COMMIT_S = 1.0
"""A group commit that takes longer is worth a line."""

REFUSALS_EVERY_S = 1.0
"""Between two lines about refusals of one kind; those in between are counted."""

MOST_TEXT = 400
"""Of a refusal's text, which may repeat what a client sent."""

_LOUD = (PermissionDenied, Overloaded, StorageError)
"""Refusals that an operator should hear of."""


def who(call: Call) -> dict[str, str]:
    """A caller, by name where it has one, and where it calls from."""
    return {"caller": call.caller.name, "peer": call.peer} if call.caller.name else {"peer": call.peer}


def happened(call: Call, event: str, **facts: Any) -> None:
    """Somebody has changed something."""
    log.info(event, extra={**facts, **who(call)})


class Refusals:
    """Logs refusals, not too many of a kind: a client that goes on asking must not fill a disk. For the event loop."""

    def __init__(self) -> None:
        self._kinds: dict[tuple[str, str], tuple[float, int]] = {}  # methods and classes of errors: a few dozen at most

    def tell(self, call: Call, error: Exception) -> None:
        """One was refused. What is unexpected is logged elsewhere, with its trace; that a limiter held somebody back is no news."""
        level = logging.WARNING if isinstance(error, _LOUD) else logging.INFO
        if not isinstance(error, ReplayStoreError) or isinstance(error, NotReady) or not log.isEnabledFor(level):
            return
        key = call.method, type(error).__name__
        after, unsaid = self._kinds.get(key, (0.0, 0))
        now = time.monotonic()
        if now < after:
            self._kinds[key] = after, unsaid + 1
            return
        self._kinds[key] = now + REFUSALS_EVERY_S, 0
        facts = {"method": key[0], "error": key[1], "why": str(error)[:MOST_TEXT], **who(call)}
        log.log(level, "refused", extra={**facts, "others_unsaid": unsaid} if unsaid else facts)
