"""What single callers may append per second, store, and make: counted per caller over all of its connections.

Rates hold blocks back, as a limiter does; nothing is dropped. What is stored and made is refused with Overloaded beyond the quota.
"""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from replaystore.errors import NotFound, Overloaded, ReplayStoreError, StorageError
from replaystore.server.access.callers import Caller
from replaystore.server.bounds import LATE_S
from replaystore.server.waiting import Waker
from replaystore.storage.files import read_json, replace_file
from replaystore.storage.layout import PRIVATE_FOLDER

if TYPE_CHECKING:
    from replaystore.engine.table import Table
    from replaystore.store import Store

MAKERS_FILE = "makers.json"
"""Who made which table: in the store's private folder, and only of callers with names."""

BURST_S = 1.0
"""Who appended less than the rate may catch up on so much of it at once."""

_META_ROW_BYTES = 64
"""About what a row of all bookkeeping columns takes."""

_LOOK_EVERY_S = 1.0
"""Between two looks at which tables are whose."""

_STORED_RETRY_S = 10.0
"""When to come again for what retention, or somebody else, removes."""


class Pace(NamedTuple):
    """How blocks are to be held back."""

    longest_s: float
    tell: Callable[[str, float], Awaitable[None]]
    """Called with the reason and the seconds waited so far,"""
    notice_s: float
    """after so long, and again every ten times as long."""


class Bucket:
    """A rate that is held in the long run: an amount is let through once those before it are paid for, and then has to be paid for."""

    __slots__ = ("_at", "_level")

    def __init__(self) -> None:
        self._at, self._level = float("-inf"), 0.0

    def take(self, amount: float, rate: float, now: float) -> float:
        """Takes `amount` at time `now`; returns the seconds until it is its turn. In the order of asking.

        Args:
            amount: of anything.
            rate: of it per second, above 0.
            now: in seconds, by a clock that does not go back.
        """
        level = min(self._level + (now - self._at) * rate, rate * BURST_S)
        self._at, self._level = now, level - amount
        return max(0.0, -level / rate)

    def give_back(self, amount: float) -> None:
        """What was taken is not used after all."""
        self._level += amount


class _Usage:
    """Of one caller."""

    __slots__ = ("bytes", "counted", "looked_at", "making", "steps", "written")

    def __init__(self) -> None:
        self.steps, self.bytes = Bucket(), Bucket()
        self.written: set[str] = set()
        """Tables that it wrote to since the server started."""
        self.counted: set[str] = set()
        """These and those that it made,"""
        self.looked_at = float("-inf")
        """at this time (monotonic)."""
        self.making = 0
        """Tables that are being made now."""


class QuotaBook:
    """What all callers of a server have used of their quotas."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._usage: dict[str, _Usage] = {}
        self._path: Path = store.path / PRIVATE_FOLDER / MAKERS_FILE
        self._makers: dict[str, str] | None = None

    def _of(self, caller: Caller) -> _Usage:
        found = self._usage.get(caller.name)
        return self._usage.setdefault(caller.name, _Usage()) if found is None else found

    # -- appending

    async def admit(self, caller: Caller, table: Table, rows: int, size: int, pace: Pace) -> None:
        """Waits until a block of `rows` rows and `size` bytes is within the caller's quotas.

        Raises:
            Overloaded: that would take longer than it may wait, or the caller has stored too much.
        """
        quotas = caller.quotas
        if quotas.steps_per_s is None and quotas.bytes_per_s is None and quotas.max_bytes is None:
            return
        usage = self._of(caller)
        if quotas.max_bytes is not None:
            self._check_stored(caller, usage, table.name, quotas.max_bytes)
        now, delay_s, over = time.monotonic(), 0.0, ""
        taken: list[tuple[Bucket, float]] = []
        for bucket, rate, amount, name in (
            (usage.steps, quotas.steps_per_s, float(rows), "steps_per_s"),
            (usage.bytes, quotas.bytes_per_s, float(size), "bytes_per_s"),
        ):
            if rate is not None:
                this_s = bucket.take(amount, rate, now)
                taken.append((bucket, amount))
                if this_s > delay_s:
                    delay_s, over = this_s, f"{caller} is over its quota {name}={rate:g}: a block of {rows} rows and {size} bytes"
        if not delay_s:
            return
        try:
            if delay_s > pace.longest_s:
                raise Overloaded(
                    f"{over} would wait for {delay_s:.3g} s, and may for {pace.longest_s:g} s: send less, or have the quota in the "
                    f"server's token file raised; try again in {delay_s:.3g} s",
                    delay_s,
                )
            await self._hold_back(over, now, delay_s, pace)
        except BaseException:
            for bucket, amount in taken:
                bucket.give_back(amount)
            raise

    @staticmethod
    async def _hold_back(over: str, began: float, delay_s: float, pace: Pace) -> None:
        waker = Waker()  # nobody wakes it; but whoever waits so is known to be at rest
        next_notice = began + pace.notice_s
        while (now := time.monotonic()) < began + delay_s:
            if now >= next_notice:
                await pace.tell(f"{over} waits for another {began + delay_s - now:.3g} s", now - began)
                next_notice = now + 10 * pace.notice_s
            await waker.wait(min(began + delay_s, next_notice) - time.monotonic())

    def _check_stored(self, caller: Caller, usage: _Usage, name: str, most: int) -> None:
        now = time.monotonic()
        if name not in usage.written or now - usage.looked_at > _LOOK_EVERY_S:
            there = set(self._store.tables())
            usage.written = (usage.written | {name}) & there
            usage.counted, usage.looked_at = usage.written | (self._made_by(caller) & there), now
        stored: dict[str, int] = {}
        for counted in usage.counted:
            with suppress(NotFound):
                stored[counted] = _stored_bytes(self._store.table(counted))
        total = sum(stored.values())
        if total >= most:
            raise Overloaded(
                f"{caller} has {total} bytes stored in {', '.join(sorted(stored))}, and its quota max_bytes={most} allows no more: drop or "
                f"shorten what is not needed (alter_table with another retention), or have the quota in the server's token file raised; "
                f"try again in {_STORED_RETRY_S:g} s",
                _STORED_RETRY_S,
            )

    # -- making tables

    @contextmanager
    def making_table(self, caller: Caller, name: str) -> Iterator[None]:
        """While a caller makes a table, which is noted as its own afterwards. One that is there already is not counted.

        Raises:
            Overloaded: it has as many as it may.
        """
        there = self._store.tables()
        if name in there or not caller.name:
            yield
            return
        usage, most = self._of(caller), caller.quotas.max_tables
        mine = self._made_by(caller) & set(there)
        if most is not None and len(mine) + usage.making >= most:
            raise Overloaded(
                f"table {name!r} cannot be made: {caller} has made {len(mine) + usage.making} tables, and its quota max_tables={most} "
                f"allows no more: drop one of {', '.join(sorted(mine)) or 'them'}, or have the quota in the server's token file raised",
                LATE_S,
            )
        usage.making += 1
        try:
            yield
            if name in self._store.tables():
                self._note(name, caller)
        finally:
            usage.making -= 1

    def _made_by(self, caller: Caller) -> set[str]:
        return {table for table, maker in self._all_makers().items() if maker == caller.name} if caller.name else set()

    def _all_makers(self) -> dict[str, str]:
        if self._makers is None:
            try:
                stored = read_json(self._path) if self._path.exists() else {}
            except ReplayStoreError:
                stored = {}  # quotas count anew; nothing else depends on it
            self._makers = {str(table): str(maker) for table, maker in stored.items()} if isinstance(stored, dict) else {}
        return self._makers

    def _note(self, table: str, caller: Caller) -> None:
        there = {*self._store.tables(), table}
        self._makers = {name: maker for name, maker in self._all_makers().items() if name in there} | {table: caller.name}
        with suppress(StorageError):  # on a full disk, until the server is started again
            replace_file(self._path, json.dumps(self._makers, sort_keys=True).encode(), durable=False, whole=False)


def _stored_bytes(table: Table) -> int:
    row_bytes = sum(column.row_bytes for column in table.config.columns.values()) + _META_ROW_BYTES
    return (table.next_step - table.first_step) * row_bytes
