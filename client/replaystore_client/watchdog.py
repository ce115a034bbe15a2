"""Breaks calls that hang: gRPC cannot wait for the next message of a stream with a time-out. Knows nothing of what the calls are about."""

from __future__ import annotations

import os
import threading
import time
import weakref
from typing import Any, Protocol

LATE_S = 1.0
"""So much later than promised, and a server is taken for dead."""

_LOOK_EVERY_S = 0.25


class Watched(Protocol):
    """Something that may hang."""

    late_after: float
    """Time (monotonic) after which it is to be broken; infinity while nobody waits."""

    def break_call(self) -> None:
        """Ends the call, from another thread."""


class Silence:
    """How long one call has been silent: `heard` after every sign of life, `over` at its end."""

    def __init__(self, call: Any, limit_s: float) -> None:
        self._call = call
        self.late_after = time.monotonic() + limit_s
        self.broken = False
        watch(self)

    def heard(self, limit_s: float) -> None:
        """The next sign of life is due in `limit_s`."""
        self.late_after = time.monotonic() + limit_s

    def over(self) -> None:
        """Nothing is due any more."""
        self.late_after = float("inf")

    def break_call(self) -> None:
        """Ends the call."""
        self.broken = True
        self._call.cancel()


_watched: weakref.WeakSet[Watched] = weakref.WeakSet()
_watching = threading.Lock()
_watchdog: tuple[int, threading.Thread] | None = None


def watch(one: Watched) -> None:
    """Has one thread for the whole process break what hangs, until `one` is collected."""
    global _watchdog, _watching
    if _watchdog is not None and _watchdog[0] != os.getpid():
        _watching, _watchdog = threading.Lock(), None  # after a fork; the parent's thread may have held the lock
    with _watching:
        _watched.add(one)
        if _watchdog is None:
            thread = threading.Thread(target=_watch, name="replaystore-watchdog", daemon=True)
            _watchdog = os.getpid(), thread
            thread.start()


def _watch() -> None:
    while True:
        time.sleep(_LOOK_EVERY_S)
        now = time.monotonic()
        with _watching:
            late = [one for one in _watched if one.late_after < now]
        for one in late:
            one.break_call()
