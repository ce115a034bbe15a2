"""What is known of a store when it is judged, and what judging comes to. Plain values: tests make them up."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from replaystore.server.observing.surroundings import Disk
from replaystore.status import ServerStatus, TableDescription, TableStats

Array = npt.NDArray[Any]

ERROR, WARNING, NOTE = "error", "warning", "note"
SEVERITIES = (ERROR, WARNING, NOTE)
"""Something does not work or is about to stop; something should be looked at; worth knowing, and no reason for exit code 1."""

RECENT_S = 60.0
"""Over which the present rate of inserts is taken."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found."""

    severity: str
    found: str
    """What, with numbers."""
    advice: str
    """What to do, with what to type."""
    table: str = ""
    """Empty: not about one table."""
    check: str = ""
    """Name of the check; set by whoever runs it."""


@dataclass(frozen=True, slots=True)
class TableFacts:
    """One table, looked at twice."""

    name: str
    description: TableDescription | None = None
    before: TableStats | None = None
    """At the first look."""
    stats: TableStats | None = None
    """At the second."""
    problem: str = ""
    """Why it could not be read."""
    failure: str = ""
    """Why the server refuses inserts into it."""
    commit_lag_s: float = 0.0
    idle_s: float | None = None
    """For how long no batch was drawn; None: none was, or it is not known."""
    insert_times: Array = field(default_factory=lambda: np.zeros(0))
    """Of its newest rows, seconds since 1970, oldest first: float64[n]."""
    masses: dict[str, Array] = field(default_factory=dict)
    """By selector that keeps priorities, what it has of the anchors among the newest rows: float32[n]."""
    looked_rows: int = 0
    """Steps whose columns were looked at, the newest ones."""
    zero_columns: tuple[str, ...] = ()
    """Columns that are zero in all of them."""
    odd_columns: tuple[str, ...] = ()
    """Columns with NaN or infinity in one of them."""
    clean: bool | None = None
    """Whether its last close was orderly; None: not known."""
    format_version: int | None = None

    def steps_per_s(self, now: float) -> float:
        """Rows inserted per second, over the last `RECENT_S` or what is known of them."""
        recent = self.insert_times[self.insert_times > now - RECENT_S]
        if not len(recent):
            return 0.0
        whole = len(recent) < len(self.insert_times) or self.stats is None or self.stats.steps <= len(recent)
        return len(recent) / (RECENT_S if whole else max(now - float(recent[0]), 1.0))

    def growth_bytes_per_s(self, now: float) -> float:
        """What its rows add to the disk; 0 once retention drops as much."""
        if self.description is None or self.stats is None or self.is_full:
            return 0.0
        return self.steps_per_s(now) * self.description.config.row_bytes

    @property
    def room_bytes(self) -> float | None:
        """What it may still grow by; None without a bound."""
        if self.description is None or self.stats is None:
            return None
        config, stats = self.description.config, self.stats
        rooms: list[float] = []
        if config.retention.max_steps is not None:
            rooms.append((config.retention.max_steps - stats.steps) * config.row_bytes)
        if config.retention.max_bytes is not None:
            rooms.append(config.retention.max_bytes - stats.steps * config.row_bytes)
        return max(0.0, min(rooms)) if rooms else None

    @property
    def is_full(self) -> bool:
        """Whether retention drops a row for each that comes."""
        room = self.room_bytes
        return room is not None and self.description is not None and room < 2 * self.description.config.row_bytes


@dataclass(frozen=True, slots=True)
class FolderFacts:
    """The store's folder, where it can be seen."""

    path: str
    mode: int
    """Permission bits."""
    owned: bool
    """By whoever looks."""
    writable: bool
    live: bool
    """Whether a process has it open for writing."""
    is_store: bool = True


@dataclass(frozen=True, slots=True)
class FileFacts:
    """A file of secrets, or a socket."""

    path: str
    mode: int = 0
    problem: str = ""
    """Why it could not be looked at."""


@dataclass(frozen=True, slots=True)
class CertificateFacts:
    """One certificate of a file."""

    path: str
    subject: str = ""
    not_before: float = 0.0
    """Seconds since 1970."""
    not_after: float = 0.0
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that was gathered."""

    where: str
    time: float
    """Seconds since 1970 by the clock of whoever looks."""
    version: str
    """Of whoever looks."""
    seconds: float = 0.0
    """Between the two looks."""
    served: bool = False
    """Whether `where` is a server."""
    problem: str = ""
    """Why nothing can be said of the whole of it."""
    status: ServerStatus | None = None
    """None: no server, or one that knows no such call."""
    server_version: str = ""
    protocol: int = 0
    tables: tuple[TableFacts, ...] = ()
    disk: Disk | None = None
    memory_limit_bytes: int = 0
    """Of the machine that serves, or would."""
    strict_overcommit: bool = False
    folder: FolderFacts | None = None
    socket: FileFacts | None = None
    token_file: FileFacts | None = None
    certificates: tuple[CertificateFacts, ...] = ()

    @property
    def now(self) -> float:
        """By the clock that rows are stamped with."""
        return self.time if self.status is None else self.status.time
