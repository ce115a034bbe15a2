"""What a server counts: plain numbers, raised on the event loop where things happen, read from any thread by whoever asks.

A message costs about two microseconds here. What a table knows by itself (steps, items, what blocks) is not counted twice: see
`TableStats`.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from replaystore.errors import ReplayStoreError

if TYPE_CHECKING:
    from replaystore.server.observing.traces import Traces

BOUNDS_S = (*(float(f"{digit}e{power}") for power in range(-5, 2) for digit in (1, 2, 5)), 100.0, 1000.0)
"""Upper bounds of the classes in which durations are counted; the last class has none."""

APPEND_STAGES = ("decode", "wait", "store", "ack")
"""Reading the block; waiting for the limiter, and for those who asked earlier; rows, journal and index; until the acknowledgement left,
which with ``durability="fsync"`` means until the disk has it."""

SAMPLE_STAGES = ("wait", "draw", "fill", "send")
"""Waiting as above; drawing under the table's lock; gathering the rows into the message; until gRPC has taken it."""

UNEXPECTED = "Unexpected"
"""Stands for errors that are no class of ours."""

FOLD_EVERY = 256
"""Messages of a table whose durations are put into classes together."""

_BOUNDS = np.array(BOUNDS_S)
_folding = threading.Lock()

LOOKED_EVERY_S = 0.1
"""Between two messages of a table whose ages are looked at."""


class Durations:
    """How many durations fell between which bounds, and their sum. They are put into classes many at a time, or when somebody asks."""

    __slots__ = ("_counts", "_fresh", "_sum_s", "add")

    def __init__(self) -> None:
        self._fresh: deque[float] = deque()
        self._counts = np.zeros(len(BOUNDS_S) + 1, np.int64)
        self._sum_s = 0.0
        self.add: Callable[[float], None] = self._fresh.append
        """Counts one, in seconds; `fold` is to be called now and then."""

    def fold(self) -> None:
        """Puts what has come into classes; from any thread."""
        with _folding:
            fresh = [self._fresh.popleft() for _ in range(len(self._fresh))]
            self._counts += np.bincount(np.searchsorted(_BOUNDS, fresh), minlength=len(self._counts))
            self._sum_s += sum(fresh)

    @property
    def counts(self) -> list[int]:
        """By class."""
        self.fold()
        found: list[int] = self._counts.tolist()
        return found

    @property
    def sum_s(self) -> float:
        """Of all."""
        self.fold()
        return self._sum_s

    @property
    def count(self) -> int:
        """How many."""
        return sum(self.counts)

    def quantile(self, share: float) -> float | None:
        """The bound below which `share` of them fell, in seconds; None when there is nothing yet, or it lies beyond the last bound."""
        counts = self.counts
        wanted = share * sum(counts)
        for bound, total in zip(BOUNDS_S, _sums(counts), strict=False):
            if wanted and total >= wanted:
                return bound
        return None


def _sums(counts: Iterable[int]) -> Iterable[int]:
    total = 0
    for count in counts:
        total += count
        yield total


class Waits:
    """How long callers have been held back, those who still are counted in. Exact, and never falls: nanoseconds in integers."""

    __slots__ = ("_now", "_told", "begun")

    def __init__(self) -> None:
        self.begun = 0
        """Callers ever held back."""
        self._now = 0, 0, 0  # who waits, the sum of when they began, for how long others did: replaced as one, for readers in other threads
        self._told = 0

    def begin(self) -> int:
        """One more waits; returns when it began, for `end`."""
        now = time.monotonic_ns()
        waiting, begun_ns, waited_ns = self._now
        self._now = waiting + 1, begun_ns + now, waited_ns
        self.begun += 1
        return now

    def end(self, began_ns: int) -> None:
        """It does not any more."""
        waiting, begun_ns, waited_ns = self._now
        self._now = waiting - 1, begun_ns - began_ns, waited_ns + time.monotonic_ns() - began_ns

    @property
    def waiting(self) -> int:
        """Callers held back now."""
        return self._now[0]

    @property
    def seconds(self) -> float:
        """Of all waiting so far."""
        waiting, begun_ns, waited_ns = self._now
        self._told = max(self._told, waited_ns + waiting * time.monotonic_ns() - begun_ns)
        return self._told / 1e9


class Seen(NamedTuple):
    """How old the items of one message were."""

    items: int
    age_steps: int
    """Sum of how many rows had come since."""
    version_items: int
    """Items of known policy version,"""
    version_lag: int
    """and the sum of how many versions these are behind the newest."""

    @classmethod
    def of(cls, fields: Mapping[str, npt.NDArray[Any]], newest_version: int) -> Seen:
        """Of what was drawn: ``info/ages``, ``info/policy_version``."""
        ages, versions = fields["info/ages"], fields["info/policy_version"]
        known = versions[versions >= 0]
        return cls(ages.size, int(ages.sum()), known.size, newest_version * known.size - int(known.sum()))


class TableFigures:
    """Of one table, since the server started."""

    __slots__ = (
        "age_steps",
        "append",
        "batches",
        "blocks",
        "commit",
        "committed_rows",
        "duplicate_rows",
        "lent_bytes",
        "look_at",
        "looked_items",
        "received_bytes",
        "replies",
        "rows",
        "sample",
        "sent_bytes",
        "updates_applied",
        "updates_gone",
        "updates_rejected",
        "version_items",
        "version_lag",
        "waits",
    )

    def __init__(self) -> None:
        self.blocks = 0
        """Append messages with a block that were applied."""
        self.rows = 0
        """Rows of theirs that were new; closing rows counted in."""
        self.duplicate_rows = 0
        """Rows that had come before."""
        self.received_bytes = 0
        """Of Append and Sample messages."""
        self.replies = 0
        """Messages with batches."""
        self.batches = 0
        self.sent_bytes = 0
        """Of Sample replies."""
        self.lent_bytes = 0
        """Of batches, or parts of them, that clients on this machine gathered themselves."""
        self.updates_applied = self.updates_gone = self.updates_rejected = 0
        """Priority updates, by item."""
        self.append = {stage: Durations() for stage in APPEND_STAGES}
        """By stage, per block."""
        self.sample = {stage: Durations() for stage in SAMPLE_STAGES}
        """By stage, per reply."""
        self.commit = Durations()
        """Group commits that had something to do; from the commit thread."""
        self.committed_rows = 0
        self.waits: dict[tuple[str, str], Waits] = {}
        """By side (``insert``, ``sample``) and the limiter's class."""
        self.look_at = 0.0
        """When the ages of a message are to be looked at next, by `time.perf_counter`."""
        self.looked_items = 0
        """Items of messages whose ages were looked at, one message now and then;"""
        self.age_steps = 0
        """sum of their ages, in steps;"""
        self.version_items = 0
        """those of known policy version,"""
        self.version_lag = 0
        """and the sum of how many versions these are behind the newest inserted."""

    def applied(self, new_rows: int, duplicate_rows: int, received_bytes: int, decode_s: float, wait_s: float, store_s: float) -> None:
        """A block."""
        self.blocks += 1
        self.rows += new_rows
        self.duplicate_rows += duplicate_rows
        self.received_bytes += received_bytes
        stages = self.append
        stages["decode"].add(decode_s)
        stages["wait"].add(wait_s)
        stages["store"].add(store_s)
        if not self.blocks % FOLD_EVERY:
            for durations in stages.values():
                durations.fold()

    def answered(
        self, batches: int, sent_bytes: int, lent_bytes: int, wait_s: float, draw_s: float, fill_s: float, seen: Seen | None
    ) -> None:
        """A request, or a part of it, with batches."""
        self.replies += 1
        self.batches += batches
        self.sent_bytes += sent_bytes
        self.lent_bytes += lent_bytes
        stages = self.sample
        stages["wait"].add(wait_s)
        stages["draw"].add(draw_s)
        stages["fill"].add(fill_s)
        if not self.replies % FOLD_EVERY:
            for durations in stages.values():
                durations.fold()
        if seen is not None:
            self.look_at = time.perf_counter() + LOOKED_EVERY_S
            self.looked_items += seen.items
            self.age_steps += seen.age_steps
            self.version_items += seen.version_items
            self.version_lag += seen.version_lag

    def committed(self, seconds: float, rows: int) -> None:
        """A group commit that had something to do; from the commit thread."""
        self.commit.add(seconds)
        self.commit.fold()
        self.committed_rows += rows

    def updated(self, applied: int, gone: int, rejected: int) -> None:
        """Priorities."""
        self.updates_applied += applied
        self.updates_gone += gone
        self.updates_rejected += rejected

    def waits_of(self, side: str, limiter: str) -> Waits:
        """Those held back on one side by one kind of limiter."""
        found = self.waits.get((side, limiter))
        return self.waits.setdefault((side, limiter), Waits()) if found is None else found


class Figures:
    """Of one server, since it started."""

    def __init__(self) -> None:
        self.started = time.time()
        """Seconds since 1970."""
        self.tables: dict[str, TableFigures] = {}
        """By name, of tables that were used; see `keep`."""
        self.append_streams = 0
        """Open now."""
        self.sample_streams = 0
        self.errors: Counter[str] = Counter()
        """Calls refused or failed, by the class of the error; ``Unexpected``: a fault of the server's, in its log."""
        self.traces: Traces | None = None
        """Hears of every message too, where somebody wants to see them one by one."""
        self.parameters_published = 0
        self.parameters_fetched = 0
        """Sets sent."""

    def refused(self, error: Exception) -> None:
        """A call, or a batch of a stream that goes on, ended with `error`."""
        self.errors[type(error).__name__ if isinstance(error, ReplayStoreError) else UNEXPECTED] += 1

    def table(self, name: str) -> TableFigures:
        """Of a table that exists; the same object until the table is gone."""
        found = self.tables.get(name)
        return self.tables.setdefault(name, TableFigures()) if found is None else found

    def keep(self, names: Iterable[str]) -> None:
        """Forgets tables that are not among `names`."""
        wanted = set(names)
        for name in list(self.tables):
            if name not in wanted:
                self.tables.pop(name, None)
