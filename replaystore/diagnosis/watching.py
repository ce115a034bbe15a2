"""A store or server looked at again and again: readings, and what they come to per second."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from replaystore.diagnosis.gathering import state_of, status_of
from replaystore.errors import NotFound, ReplayStoreError
from replaystore.server.observing import surroundings
from replaystore.server.observing.surroundings import Disk
from replaystore.status import ServerStatus, TableStats, TableStatus
from replaystore.storage.files import read_json

if TYPE_CHECKING:
    from replaystore_client import Client


@dataclass(frozen=True, slots=True)
class TableReading:
    """One table at one moment. None: not to be known from where it was read."""

    name: str
    steps: int
    inserted_steps: int
    sampled_items: int
    not_durable: int
    """Rows that power loss would take."""
    anchors: int | None = None
    received_bytes: int | None = None
    sent_bytes: int | None = None
    commit_lag_s: float | None = None
    waiting_inserts: int | None = None
    waiting_samples: int | None = None
    blocked_insert: str | None = None
    """Why an append would wait."""
    blocked_sample: str | None = None
    total_priority: dict[str, float] = field(default_factory=dict)
    max_priority: dict[str, float] = field(default_factory=dict)
    failure: str | None = None

    @property
    def replays_per_step(self) -> float | None:
        """Items sampled per step inserted, since the table was made."""
        return self.sampled_items / self.inserted_steps if self.inserted_steps else None


@dataclass(frozen=True, slots=True)
class Reading:
    """Everything at one moment."""

    clock: float
    """Seconds; only differences mean something."""
    time: float
    """Seconds since 1970."""
    tables: tuple[TableReading, ...]
    server: ServerStatus | None = None
    disk: Disk | None = None
    source: str = "server"
    """``server``; ``older server``, which tells less; ``folder``, which tells what is in small files."""


@dataclass(frozen=True, slots=True)
class Rates:
    """What became of one table between two readings, per second."""

    inserted_per_s: float | None = None
    sampled_per_s: float | None = None
    received_bytes_per_s: float | None = None
    sent_bytes_per_s: float | None = None


def rates(before: Reading | None, after: Reading) -> dict[str, Rates]:
    """By table; nothing is known of one that was not there before, or that was made anew since, or whose server was restarted."""
    if before is None or after.clock <= before.clock:
        return {table.name: Rates() for table in after.tables}
    seconds = after.clock - before.clock
    same = before.server is None or after.server is None or before.server.instance == after.server.instance
    earlier = {table.name: table for table in before.tables}
    return {table.name: _between(earlier.get(table.name), table, seconds, same) for table in after.tables}


def _between(before: TableReading | None, after: TableReading, seconds: float, same: bool) -> Rates:
    if before is None or not same or after.inserted_steps < before.inserted_steps or after.sampled_items < before.sampled_items:
        return Rates()

    def rate(name: str) -> float | None:
        first, second = getattr(before, name), getattr(after, name)
        return None if first is None or second is None else (second - first) / seconds

    return Rates(rate("inserted_steps"), rate("sampled_items"), rate("received_bytes"), rate("sent_bytes"))


def read_server(client: Client) -> Reading:
    """A server as it stands now.

    Raises:
        DeadlineExceeded, PermissionDenied: it does not answer, or does not let this caller in.
    """
    status = status_of(client)
    clock = time.monotonic()
    if status is not None:
        disk = Disk(status.disk_free_bytes, status.disk_total_bytes, status.filesystem)
        return Reading(clock, status.time, tuple(_of_status(table) for table in status.tables), status, disk)
    found = []
    for name in client.tables():
        try:
            found.append(_of_stats(client.stats(name)))
        except NotFound:
            continue  # dropped meanwhile
    return Reading(clock, time.time(), tuple(found), source="older server")


def _of_stats(stats: TableStats, **more: Any) -> TableReading:
    return TableReading(
        name=stats.name,
        steps=stats.steps,
        inserted_steps=stats.inserted_steps,
        sampled_items=stats.sampled_items,
        not_durable=max(0, stats.next_step - stats.durable_step),
        anchors=stats.anchors,
        waiting_inserts=stats.waiting_inserts,
        waiting_samples=stats.waiting_samples,
        blocked_insert=stats.blocked_insert,
        blocked_sample=stats.blocked_sample,
        total_priority=stats.total_priority,
        max_priority=stats.max_priority,
        **more,
    )


def _of_status(table: TableStatus) -> TableReading:
    return _of_stats(
        table.stats,
        received_bytes=table.received_bytes,
        sent_bytes=table.sent_bytes,
        commit_lag_s=table.commit_lag_s,
        failure=table.failure,
    )


def read_folder(path: str | Path) -> Reading:
    """A store's folder as it stands now: each table's state page, which whoever writes changes in place, and its published attributes.

    Raises:
        NotFound: there is no store.
    """
    from replaystore.engine.checking.verify import check_store, table_names

    root = Path(path)
    check_store(root, None)
    found = []
    for name in table_names(root):
        state = state_of(root / name)
        if state is None:
            continue
        try:
            published = int(read_json(root / name / "zarr.json")["attributes"]["next_step"])
        except (ReplayStoreError, KeyError, TypeError, ValueError):
            published = 0
        stop, durable = max(published, int(state["durable_step"])), int(state["durable_step"])
        first, inserted, sampled = int(state["first_step"]), int(state["inserted_steps"]), int(state["sampled_items"])
        found.append(TableReading(name, max(0, stop - first), inserted, sampled, stop - durable))
    return Reading(time.monotonic(), time.time(), tuple(found), disk=surroundings.disk_of(root), source="folder")
