"""What a server takes on at once: streams, calls, bytes in memory, waiting requests, tables, parameter sets. Each bound refuses with
Overloaded, which says how many there are, how many may be, what to do, and when to come again.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from replaystore.errors import NotReady, Overloaded
from replaystore.schema.record import check_number
from replaystore.server.options import ServerOptions
from replaystore.server.waiting import Notice, wait_turn
from replaystore.turns import Ticket, WaitQueue

if TYPE_CHECKING:
    from replaystore.server.translate import Call, Handler

SOON_S = 1.0
"""When to come again for what others give back by themselves."""

LATE_S = 60.0
"""And for what somebody has to remove first."""

UNCOUNTED_BYTES = 64 << 10
"""Requests up to this size are not counted as bytes in flight, but blocks are: they may wait for long."""

_PATIENCE_S = 5.0
"""How long a batch waits for others to leave before it is refused."""

_STREAMS = frozenset(("Append", "Sample", "ReadSteps", "ReadEpisodes", "PublishParameters", "FetchParameters"))

_COUNTS = ("max_streams", "max_waiting", "max_tables", "max_parameter_sets")
_BYTES = ("max_in_flight_bytes", "max_parameters_total_bytes")


class Places:
    """A bound on how many of something there are at once. For the event loop only."""

    __slots__ = ("_advice", "_setting", "_what", "most", "refused", "used")

    def __init__(self, most: int, setting: str, what: str, advice: str) -> None:
        self.most, self.used = most, 0
        self.refused = 0
        """Ever."""
        self._setting, self._what, self._advice = setting, what, advice

    def enter(self) -> None:
        """Takes a place; Overloaded when there is none."""
        if self.used >= self.most:
            self.refused += 1
            raise Overloaded(
                f"{self.used} {self._what}, and {self._setting}={self.most} allows no more: {self._advice}, or start the server with a "
                f"larger {_flag(self._setting)}; try again in {SOON_S:g} s",
                SOON_S,
            )
        self.used += 1

    def leave(self) -> None:
        """Gives it back."""
        self.used -= 1


class Room:
    """A bound on bytes in memory. Taken and given back through a `Hold`, from any thread."""

    __slots__ = ("_advice", "_lock", "_total", "_what", "most", "queue", "refused", "used")

    def __init__(self, most: int, total: int, what: str, advice: str) -> None:
        self.most, self.used = most, 0
        self.refused = 0
        """Ever."""
        self.queue = WaitQueue()
        """Who waits for some."""
        self._total, self._what, self._advice = total, what, advice
        self._lock = threading.Lock()

    def overloaded(self, size: int) -> Overloaded:
        """The refusal of `size` bytes more."""
        self.refused += 1
        return Overloaded(f"{self.why(size)}: {self._advice}; try again in {SOON_S:g} s", SOON_S)

    def why(self, size: int) -> str:
        """What stands in the way of `size` bytes."""
        return (
            f"{self.used} bytes of {self._what} are in memory, and {size} more would exceed {self.most}, which is their half of "
            f"max_in_flight_bytes={self._total}"
        )


class Hold:
    """The bytes that one stream or call has in memory."""

    __slots__ = ("_open", "_room", "size")

    def __init__(self, room: Room) -> None:
        self._room, self.size, self._open = room, 0, True

    def fits(self, size: int) -> bool:
        """Whether so many more would be let through now. A single stream always gets what it asks for when nobody else holds anything."""
        room = self._room
        return (room.used + size <= room.most or room.used <= self.size) and not len(room.queue)

    def take(self, size: int) -> bool:
        """Takes so many bytes, unless they are too many."""
        if not size:
            return True
        room = self._room
        with room._lock:
            if self._open:
                if room.used + size > room.most and room.used > self.size:
                    return False
                room.used += size
                self.size += size
        return True

    def require(self, size: int) -> None:
        """Takes so many bytes; Overloaded when they are too many."""
        if not self.take(size):
            raise self._room.overloaded(size)

    async def wait(self, size: int, timeout_s: float, notice: Notice | None = None, notice_s: float = float("inf")) -> None:
        """Takes so many bytes once others have given enough back, who asked first being first.

        Raises:
            Overloaded: not in `timeout_s`, or in the few seconds that anybody waits for this.
        """
        room = self._room

        async def attempt(ticket: Ticket | None) -> bool | None:
            return True if room.queue.may_try(ticket) and self.take(size) else None

        try:
            await wait_turn(room.queue, attempt, min(timeout_s, _PATIENCE_S), lambda: room.why(size), notice, notice_s, notice_s)
        except NotReady:
            raise room.overloaded(size) from None

    def why(self, size: int) -> str:
        """What stands in the way of `size` bytes."""
        return self._room.why(size)

    def give(self, size: int) -> None:
        """Gives so many back."""
        if not size:
            return
        room = self._room
        with room._lock:
            if self._open:
                room.used -= size
                self.size -= size
        if len(room.queue):
            room.queue.notify()

    def close(self) -> None:
        """Gives back what is left; nothing is counted from now on."""
        room = self._room
        with room._lock:
            if self._open:
                room.used -= self.size
                self.size, self._open = 0, False
        if len(room.queue):
            room.queue.notify()


class Bounds:
    """Those of one server."""

    def __init__(self, options: ServerOptions) -> None:
        """InvalidArgument for an option that is no sensible number."""
        for name in (*_COUNTS, *_BYTES):
            check_number(name, getattr(options, name), 1, 1 << 62, whole=True)
        self._options = options
        streams, half = options.max_streams, max(1, options.max_in_flight_bytes // 2)
        self.streams = Places(streams, "max_streams", "streams are open", "close writers and samplers that are not in use")
        self.calls = Places(streams, "max_streams", "single calls are running", "call less often")
        self.waiting = Places(
            options.max_waiting,
            "max_waiting",
            "samples and blocks wait for the limiters of their tables",
            "let those go on that wait (client.why_blocked(TABLE) says who has to act)",
        )
        self.blocks = Room(
            half,
            options.max_in_flight_bytes,
            "blocks that are not stored yet",
            "let samplers catch up, use fewer writers or smaller blocks (block_rows), or start the server with a larger "
            "--max-in-flight-bytes",
        )
        self.others = Room(
            half,
            options.max_in_flight_bytes,
            "batches, rows and parameters on their way",
            "read batches as they come, ask for fewer or smaller ones at once, or start the server with a larger --max-in-flight-bytes",
        )
        self.refused_tables = self.refused_parameters = 0
        """Ever."""
        self._making: list[str] = []
        self._publishing: dict[str, list[int]] = {}

    @contextmanager
    def making_table(self, name: str, there: Collection[str]) -> Iterator[None]:
        """While a table is being made. Overloaded when there are as many as may be; one that is `there` already is no more."""
        most = self._options.max_tables
        if name not in there:
            count = len({*there, *self._making})
            if count >= most and name not in self._making:
                self.refused_tables += 1
                raise Overloaded(
                    f"table {name!r} cannot be made: there are {count} tables, and max_tables={most} allows no more: drop one, or start "
                    f"the server with a larger --max-tables",
                    LATE_S,
                )
        self._making.append(name)
        try:
            yield
        finally:
            self._making.remove(name)

    @contextmanager
    def publishing(self, name: str, size: int, there: dict[str, int]) -> Iterator[None]:
        """While a parameter set of `size` bytes replaces the one of that name.

        Args:
            name: of the set.
            size: bytes of its arrays.
            there: bytes of the sets that there are, by name.
        """
        sizes = dict(there)
        for other, coming in self._publishing.items():
            sizes[other] = max(sizes.get(other, 0), *coming)
        most, most_bytes = self._options.max_parameter_sets, self._options.max_parameters_total_bytes
        if name not in sizes and len(sizes) >= most:
            self.refused_parameters += 1
            raise Overloaded(
                f"parameter set {name!r} cannot be kept: there are {len(sizes)} sets, and max_parameter_sets={most} allows no more: "
                f"publish under a name that is there, or start the server with a larger --max-parameter-sets",
                LATE_S,
            )
        before, total = sizes.get(name, 0), sum(sizes.values())
        if size > before and total - before + size > most_bytes:
            self.refused_parameters += 1
            raise Overloaded(
                f"parameter set {name!r} of {size} bytes cannot be kept: the other sets have {total - before} bytes, and "
                f"max_parameters_total_bytes={most_bytes} allows no more for all together: publish fewer or smaller sets, or start the "
                f"server with a larger --max-parameters-total-bytes",
                LATE_S,
            )
        coming = self._publishing.setdefault(name, [])
        coming.append(size)
        try:
            yield
        finally:
            coming.remove(size)
            if not coming:
                self._publishing.pop(name, None)

    def admitting(self, method: str, handler: Handler) -> Handler:
        """The `handler` of a method, which takes a place while it runs, and room for a request that comes all at once and is large."""
        places = self.streams if method in _STREAMS else self.calls

        async def admitted(request: Any, call: Call) -> Any:
            places.enter()
            try:
                if not isinstance(request, bytes) or len(request) <= UNCOUNTED_BYTES:
                    return await handler(request, call)
                hold = Hold(self.others)
                try:
                    hold.require(len(request))
                    return await handler(request, call)
                finally:
                    hold.close()
            finally:
                places.leave()

        return admitted


def _flag(setting: str) -> str:
    return "--" + setting.replace("_", "-")
