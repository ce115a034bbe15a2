"""Waiting without threads: for a place in a queue, and for work that a thread does. Knows nothing of messages."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from replaystore.errors import InvalidArgument, NotReady
from replaystore.server.observing.figures import Waits
from replaystore.turns import Ticket, WaitQueue

if TYPE_CHECKING:
    from replaystore.server.bounds import Places

T = TypeVar("T")

Attempt = Callable[[Ticket | None], Awaitable[T | None]]
Notice = Callable[[float], Awaitable[None]]

_resting: set[asyncio.Task[Any] | None] = set()
"""Tasks that do nothing but wait to be woken: nothing of theirs is half done."""


_going_on: set[asyncio.Task[Any]] = set()


def is_resting(task: asyncio.Task[Any] | None) -> bool:
    """Whether a task waits for its turn or for news, and may be cancelled without loss."""
    return task in _resting


def bounded_wait(name: str, asked_s: float, longest_s: float) -> float:
    """`asked_s`, from 0 to `longest_s`. InvalidArgument for what is no number: no clock ever reaches it, so nothing would ever end."""
    if asked_s != asked_s:
        raise InvalidArgument(f"{name}={asked_s} must be a number of seconds")
    return min(max(asked_s, 0.0), longest_s)


class Waker:
    """An event that any thread may set. Set by the loop's own, it costs no system call, and whoever waits is next to run."""

    __slots__ = ("_loop", "_thread", "_waiting", "_woken")

    def __init__(self) -> None:
        self._loop, self._thread = asyncio.get_running_loop(), threading.get_ident()
        self._waiting: asyncio.Future[None] | None = None
        self._woken = False

    def wake(self) -> None:
        """Ends the current or next wait. Does nothing when the loop is gone."""
        try:
            if threading.get_ident() == self._thread:
                self._wake()
            else:
                self._loop.call_soon_threadsafe(self._wake)
        except RuntimeError:
            pass

    def _wake(self) -> None:
        self._woken = True
        self._end()

    def _end(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    async def wait(self, timeout_s: float) -> bool:
        """Whether it was woken in time."""
        if not self._woken:
            self._waiting = self._loop.create_future()
            late = self._loop.call_later(timeout_s, self._end)  # less work on waking up than asyncio.timeout
            task = asyncio.current_task()
            _resting.add(task)
            try:
                await self._waiting
            finally:
                _resting.discard(task)
                late.cancel()
                self._waiting = None
        woken, self._woken = self._woken, False
        return woken


async def wait_turn(
    queue: WaitQueue,
    attempt: Attempt[T],
    timeout_s: float,
    why: Callable[[], str],
    notice: Notice | None = None,
    notice_s: float = float("inf"),
    repeat_s: float = float("inf"),
    waits: Callable[[], Waits] | None = None,
    places: Places | None = None,
) -> T:
    """The first result of `attempt` that is not None; who asked first is served first.

    Args:
        queue: where to stand in line.
        attempt: tries, given the place in the line (None before there is one).
        timeout_s: how long to go on.
        why: says what stands in the way.
        notice: is called with the seconds waited so far,
        notice_s: after so long,
        repeat_s: and again every so often.
        waits: where it is counted that somebody had to wait, and how long.
        places: bounds how many wait.

    Raises:
        NotReady: not in `timeout_s`; the text is that of `why`.
        Overloaded: there is no place to wait.
    """
    result = await attempt(None)
    if result is not None:
        return result
    if timeout_s <= 0:
        places = None
    started = time.monotonic()
    deadline, next_notice = started + timeout_s, started + notice_s
    waker = Waker()
    counted = waits() if waits is not None else Waits()
    if places is not None:
        places.enter()
    ticket = queue.join(waker.wake)
    began_ns = counted.begin()
    try:
        while True:
            result = await attempt(ticket)
            if result is not None:
                return result
            now = time.monotonic()
            if now >= deadline:
                raise NotReady(f"waited {timeout_s:g} s: {why()}")
            if now >= next_notice and notice is not None:
                await notice(now - started)
                next_notice = now + repeat_s
            await waker.wait(max(0.0, min(deadline, next_notice) - time.monotonic()))
    finally:
        counted.end(began_ns)
        queue.leave(ticket)
        if places is not None:
            places.leave()


async def in_thread(pool: ThreadPoolExecutor, call: Callable[[], T], lost: Callable[[Future[T]], None] | None = None) -> T:
    """The result of `call`, made in a thread of `pool`.

    Should the caller be cancelled meanwhile, `lost` is given the future once it is over: cancelled if the call never began.
    """
    future = pool.submit(call)
    try:
        return await asyncio.wrap_future(future)
    except asyncio.CancelledError:
        if lost is not None:
            future.add_done_callback(lost)
        raise


async def to_the_end(work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which goes on to its end should the caller be cancelled meanwhile."""
    task = asyncio.ensure_future(work)
    _going_on.add(task)
    task.add_done_callback(_ended)
    return await asyncio.shield(task)


def _ended(task: asyncio.Task[Any]) -> None:
    _going_on.discard(task)
    if not task.cancelled():
        task.exception()  # whoever asked gets it as well; nobody may be there any more
