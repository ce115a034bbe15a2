"""Fair waiting: who asked first goes first. No thread per waiter; knows nothing of tables."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import TypeVar

from replaystore.errors import NotReady

T = TypeVar("T")


class Ticket:
    """A place in a `WaitQueue`."""

    __slots__ = ("wake",)

    def __init__(self, wake: Callable[[], None]) -> None:
        self.wake = wake


class WaitQueue:
    """First come, first served. Only the first in the queue is woken, and only it may try."""

    __slots__ = ("_lock", "_tickets")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tickets: OrderedDict[Ticket, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._tickets)

    def join(self, wake: Callable[[], None]) -> Ticket:
        """Takes a place at the end. `wake` is called, from any thread, whenever it is worth trying again; it must not block."""
        ticket = Ticket(wake)
        with self._lock:
            self._tickets[ticket] = None
        return ticket

    def may_try(self, ticket: Ticket | None) -> bool:
        """Whether the holder of `ticket` is first; without a ticket, whether nobody waits."""
        with self._lock:
            return next(iter(self._tickets), None) is ticket

    def leave(self, ticket: Ticket) -> None:
        """Gives the place up, served or not, and wakes the next."""
        with self._lock:
            self._tickets.pop(ticket, None)
        self.notify()

    def notify(self) -> None:
        """Wakes the first. Called after anything that could let it through."""
        with self._lock:
            first = next(iter(self._tickets), None)
        if first is not None:
            first.wake()


def wait_turn(queue: WaitQueue, attempt: Callable[[Ticket | None], T | None], timeout_s: float, why: Callable[[], str]) -> T:
    """Makes attempts, in this thread's turn, until one gives a result.

    Args:
        queue: where to wait.
        attempt: called with this thread's ticket (None at first); None means not yet.
        timeout_s: how long.
        why: what stands in the way, for the error.

    Raises:
        NotReady: `timeout_s` went by.
    """
    result = attempt(None)
    if result is not None:
        return result
    deadline = time.monotonic() + timeout_s
    event = threading.Event()
    ticket = queue.join(event.set)
    try:
        while True:
            result = attempt(ticket)
            if result is not None:
                return result
            remaining = deadline - time.monotonic()
            if remaining <= 0 or not event.wait(remaining):
                raise NotReady(f"waited {timeout_s:g} s: {why()}")
            event.clear()
    finally:
        queue.leave(ticket)
