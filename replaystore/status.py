"""What a table says of itself: its description, which rarely changes, its figures, which always do, and what became of a snapshot of it."""

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
