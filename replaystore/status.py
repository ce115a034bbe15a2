"""What a table says of itself: its description, which rarely changes, its figures, which always do, and what became of a snapshot of it.
What a running server says of itself and of all of them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from replaystore.errors import InvalidArgument
from replaystore.schema.table_config import TableConfig


@dataclass(frozen=True, slots=True)
class TableDescription:
    """What a table is."""

    name: str
    config: TableConfig
    format_version: int
    created: float
    """Seconds since 1970."""

    rows_per_chunk: dict[str, int]
    """By Zarr path below the table (``steps/observation``)."""

    def to_json(self) -> dict[str, Any]:
        """The description as a JSON object."""
        return {**{f.name: getattr(self, f.name) for f in dataclasses.fields(self)}, "config": self.config.to_json()}

    @classmethod
    def from_json(cls, data: Any) -> TableDescription:
        """The inverse of `to_json`."""
        return cls(**{**_fields_of(cls, data), "config": TableConfig.from_json(data["config"])})


@dataclass(frozen=True, slots=True)
class TableStats:
    """How a table stands."""

    name: str
    first_step: int
    """Oldest step id kept."""
    next_step: int
    """Id that the next row will get."""
    durable_step: int
    """Rows below survive power loss."""
    anchors: int
    """Steps that can be sampled now."""
    episodes: int
    """Episodes finished since the table was made."""
    open_episodes: int
    inserted_steps: int
    """Steps ever inserted, closing rows not counted; what the rate limiter counts."""
    sampled_items: int
    """Items ever sampled."""
    bytes_on_disk: int
    """Bytes of all chunk files, as allocated."""
    index_bytes: int
    """RAM of the index."""
    total_priority: dict[str, float]
    """By prioritized selector: Σ (priority + epsilon) ** alpha over the anchors."""
    max_priority: dict[str, float]
    """By prioritized selector: the highest priority seen, at which new anchors enter."""
    oldest_time: float | None
    """Seconds since 1970 at which the oldest row kept was inserted; None when the table is empty."""
    newest_time: float | None
    waiting_inserts: int
    """Appends that the rate limiter holds back now."""
    waiting_samples: int
    blocked_insert: str | None
    """Why an append would wait now, or None."""
    blocked_sample: str | None
    """Why a sample of one item would wait now, or None."""

    @property
    def steps(self) -> int:
        """Rows kept, closing rows counted in."""
        return self.next_step - self.first_step

    def why_blocked(self) -> str:
        """Whether inserting and sampling wait now, and why; a line each."""
        sides = (("inserting", self.blocked_insert, self.waiting_inserts), ("sampling", self.blocked_sample, self.waiting_samples))
        return "\n".join(f"{side} {'goes on' if why is None else f'waits: {why}'} ({waiting} waiting)" for side, why, waiting in sides)

    def to_json(self) -> dict[str, Any]:
        """The figures as a JSON object."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: Any) -> TableStats:
        """The inverse of `to_json`."""
        return cls(**_fields_of(cls, data))


@dataclass(frozen=True, slots=True)
class TableStatus:
    """One table of a running server."""

    stats: TableStats
    received_bytes: int
    """Of Append and Sample messages, since the server started."""
    sent_bytes: int
    """Of batches, since then; of those that clients gather themselves, what was sent."""
    commit_lag_s: float
    """For how long the oldest row that power loss would take has been there, in seconds; 0 when every row is durable."""
    blocked_insert_s: float
    """For how long appends were held back by the rate limiter since the server started, in seconds, all of them together."""
    blocked_sample_s: float
    failure: str | None
    """Why the table refuses inserts, or even samples."""
    idle_s: float | None
    """For how long no batch was drawn, in seconds, to a tenth; None: none was since the server started."""


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """How a server stands at one moment. What is not known on its system is 0, or empty."""

    version: str
    protocol: int
    instance: str
    """Random name of this run of the server."""
    path: str
    """The store's folder, on the server's machine."""
    time: float
    """Seconds since 1970, by the server's clock."""
    uptime_s: float
    addresses: tuple[str, ...]
    """As clients type them."""
    pid: int
    rss_bytes: int
    """Main memory of its process, pages of mapped files included."""
    memory_limit_bytes: int
    """The least of what its control group and its machine have."""
    open_files: int
    max_open_files: int
    threads: int
    append_streams: int
    sample_streams: int
    max_streams: int
    """0: no bound."""
    in_flight_bytes: int
    """Of blocks and batches on their way in or out."""
    max_in_flight_bytes: int
    """0: no bound."""
    disk_free_bytes: int
    """What the server's user may still take."""
    disk_total_bytes: int
    filesystem: str
    """ext4, xfs, tmpfs, nfs4, ..."""
    durability: str
    """``interval`` or ``fsync``."""
    commit_interval_s: float
    encrypted: bool
    authenticated: bool
    """Whether callers have to say who they are."""
    metrics: str
    """Where they are served; empty: nowhere."""
    strict_overcommit: bool
    """Whether the kernel refuses to promise more memory than there is."""
    tables: tuple[TableStatus, ...]
    """Those that the caller may read, by name."""

    def to_json(self) -> dict[str, Any]:
        """The status as a JSON object."""
        return dataclasses.asdict(self)


@dataclass(frozen=True, slots=True)
class SnapshotReport:
    """What a snapshot, fork or dataset holds and what it cost."""

    path: str
    """Where it is, on the machine that made it."""
    table: str
    """The table's name in it; empty for a dataset."""
    first_step: int
    """Oldest row; 0 for a dataset, whose rows are counted from 0."""
    next_step: int
    """End of the rows."""
    episodes: int
    """Finished episodes."""
    linked_bytes: int
    """Of chunk files shared with the table by hard links."""
    copied_bytes: int
    """Of rows copied."""
    left_out_rows: int
    """Rows of the table that are not in it, for their episode has lost its beginning or, in a dataset, is not finished."""
    seconds: float
    note: str
    """Why files were copied that could have been links; empty otherwise."""

    def to_json(self) -> dict[str, Any]:
        """The report as a JSON object."""
        return dataclasses.asdict(self)


def _fields_of(kind: type[Any], data: Any) -> dict[str, Any]:
    names = {f.name for f in dataclasses.fields(kind)}
    if not isinstance(data, dict) or not names <= data.keys():
        raise InvalidArgument(f"{kind.__name__}: {data!r} must be an object with {', '.join(sorted(names))}")
    return {name: data[name] for name in names}
