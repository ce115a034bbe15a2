"""Fair waiting: who asked first goes first. No thread per waiter; knows nothing of tables."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import TypeVar

from replaystore.errors import NotReady

T = TypeVar("T")

_LONGEST_S = 86400.0
"""Of one sleep; whoever waits longer, for ever perhaps, looks again."""


class Ticket:
    """A place in a `WaitQueue`."""

    __slots__ = ("aside", "served", "wake")

    def __init__(self, wake: Callable[[], None]) -> None:
        self.wake = wake
        self.aside = False
        """Whether it wants something of its own that is not there: it tries whenever there is news, and nobody waits behind it."""
        self.served: int | None = None
        """Items served to anybody when it stepped aside."""


class WaitQueue:
    """First come, first served. Only the first in the queue is woken, and only it may try; but for those who stepped aside."""

    __slots__ = ("_aside", "_lock", "_tickets")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tickets: OrderedDict[Ticket, None] = OrderedDict()
        self._aside: OrderedDict[Ticket, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._tickets) + len(self._aside)

    def __contains__(self, ticket: object) -> bool:
        return ticket in self._tickets or ticket in self._aside

    def join(self, wake: Callable[[], None]) -> Ticket:
        """Takes a place at the end. `wake` is called, from any thread, whenever it is worth trying again; it must not block."""
        ticket = Ticket(wake)
        with self._lock:
            self._tickets[ticket] = None
        return ticket

    def may_try(self, ticket: Ticket | None) -> bool:
        """Whether the holder of `ticket` is first, or stands aside; without a ticket, whether nobody waits in line."""
        with self._lock:
            return (ticket is not None and ticket.aside) or next(iter(self._tickets), None) is ticket

    def step_aside(self, ticket: Ticket) -> None:
        """Lets those behind pass, for what `ticket` waits for is nothing that they would take away."""
        with self._lock:
            if ticket.aside or ticket not in self._tickets:
                return
            ticket.aside = True
            self._aside[ticket] = self._tickets.pop(ticket)
        self.notify()

    def leave(self, ticket: Ticket) -> None:
        """Gives the place up, served or not, and wakes the next."""
        with self._lock:
            self._tickets.pop(ticket, None)
            self._aside.pop(ticket, None)
        self.notify()

    def notify(self) -> None:
        """Wakes the first, and who stands aside. Called after anything that could let one through."""
        with self._lock:
            first = next(iter(self._tickets), None)
            aside = list(self._aside)
        if first is not None:
            first.wake()
        for ticket in aside:
            ticket.wake()


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
            if not remaining > 0 or not (event.wait(min(remaining, _LONGEST_S)) or remaining > _LONGEST_S):
                raise NotReady(f"waited {timeout_s:g} s: {why()}")
            event.clear()
    finally:
        queue.leave(ticket)
