"""What travels from a writer to a table: blocks of rows, made of runs of single episodes. Also what comes back.

A run is a stretch of consecutive rows of one episode. A block holds the rows of its runs one run after the other, so the rows of a stream
lie next to each other on disk however many streams an actor has. An episode is named by a random 63-bit number that its writer draws;
(episode, step in episode) names a row for ever, which is what makes a re-sent block harmless.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from replaystore.errors import InvalidArgument, SchemaMismatch
from replaystore.schema.columns import DTYPES, Column

OPEN, TERMINATED, TRUNCATED = 0, 1, 2
"""How a run leaves its episode: still going, or closed. The last row of a closed run is the closing row: final observation, no step."""

RUN_DTYPE = np.dtype(
    [
        ("episode", "<i8"),  # > 0, drawn by the writer
        ("first", "<i8"),  # step in episode of the run's first row
        ("rows", "<i8"),  # rows of the run, the closing row counted in
        ("ending", "<u1"),  # OPEN, TERMINATED or TRUNCATED
        ("policy_version", "<i8"),  # of the parameters that chose the actions; -1 unknown
        ("seed", "<i8"),  # the environment's seed of this episode; -1 unknown
    ]
)

_DTYPES = {name: np.dtype(name) for name in DTYPES}

Rows = npt.NDArray[Any]
Ids = npt.NDArray[np.int64]


class Form:
    """What all blocks of one layout have in common, so that it is looked at once and not block by block."""

    __slots__ = ("fits",)

    def __init__(self) -> None:
        self.fits: tuple[Mapping[str, Column] | None, int] = None, 0
        """The table columns that their arrays were found to fit last, and with how many rows."""


@dataclass(slots=True)
class StepBlock:
    """Rows to append: one array per column and the runs that they are made of."""

    columns: dict[str, Rows]
    """By column name, ``(rows, *shape)``, C-contiguous, of the column's dtype."""

    runs: npt.NDArray[np.void]
    """``(runs,)`` of `RUN_DTYPE`, in the order of the rows."""

    actor: int = 0
    """Which actor wrote them (int32)."""

    form: Form | None = None
    """Of a received block, shared with all that have the same names, dtypes and shapes."""

    @property
    def rows(self) -> int:
        """Number of rows."""
        return int(self.runs["rows"].sum())

    @property
    def nbytes(self) -> int:
        """Bytes of all columns."""
        return sum(array.nbytes for array in self.columns.values())

    def check(self, columns: Mapping[str, Column]) -> None:
        """Raises SchemaMismatch or InvalidArgument, naming the field, unless the block fits a table of these columns."""
        runs = self.runs
        if runs.dtype != RUN_DTYPE or runs.ndim != 1 or not len(runs):
            raise InvalidArgument("runs: a block must hold at least one run")
        if not -(2**31) <= self.actor < 2**31:
            raise InvalidArgument(f"actor={self.actor} must fit 32 bits")
        rows = 0
        closed: list[tuple[int, int]] = []
        for episode, first, count, ending, _, _ in runs.tolist():
            if episode < 1 or not 0 <= first < 2**31 or not 1 <= count < 2**31 or ending > TRUNCATED:
                raise self._wrong_run()
            rows += count
            if ending != OPEN:
                closed.append((rows - 1, ending))
        form = self.form
        if form is None or form.fits[0] is not columns or form.fits[1] != rows:
            self._check_columns(columns, rows)
            if form is not None:
                form.fits = columns, rows
        if closed:
            terminated, truncated = self.columns["terminated"], self.columns["truncated"]
            if any(terminated[row] != (ending == TERMINATED) or truncated[row] != (ending == TRUNCATED) for row, ending in closed):
                raise self._wrong_closing_row()

    def _check_columns(self, columns: Mapping[str, Column], rows: int) -> None:
        if columns.keys() != self.columns.keys():
            missing, unknown = columns.keys() - self.columns.keys(), self.columns.keys() - columns.keys()
            wrong = f"column {min(missing)!r} is missing" if missing else f"there is no column {min(unknown)!r}"
            raise SchemaMismatch(f"{wrong}; the table has {', '.join(sorted(columns))}")
        for name, column in columns.items():
            array = self.columns[name]
            want = (rows, *column.shape)
            if array.shape != want or array.dtype != _DTYPES[column.dtype]:
                raise SchemaMismatch(f"column {name!r} takes {column.dtype} {want}, got {array.dtype.name} {array.shape}")

    def _wrong_run(self) -> InvalidArgument:
        runs = self.runs
        for name, low, high in (("episode", 1, 2**63 - 1), ("first", 0, 2**31 - 1), ("rows", 1, 2**31 - 1), ("ending", 0, TRUNCATED)):
            off = np.flatnonzero((runs[name] < low) | (runs[name] > high))
            if len(off):
                return InvalidArgument(f"runs.{name}[{off[0]}]={runs[name][off[0]]} must be from {low} to {high}")
        raise AssertionError("every run is as it must be")

    def _wrong_closing_row(self) -> InvalidArgument:
        """After a crash the flags of the closing row are all that says how an episode ended."""
        closed = np.flatnonzero(self.runs["ending"] != OPEN)
        rows, endings = np.cumsum(self.runs["rows"])[closed] - 1, self.runs["ending"][closed]
        for name, ending in (("terminated", TERMINATED), ("truncated", TRUNCATED)):
            off = np.flatnonzero(self.columns[name][rows] != (endings == ending))
            if len(off):
                return InvalidArgument(
                    f"runs.ending[{closed[off[0]]}]={endings[off[0]]}: the run's last row is the closing row, and {name!r} must be "
                    f"{bool(endings[off[0]] == ending)} there (1 is terminated, 2 truncated)"
                )
        raise AssertionError("every closing row is as it must be")


@dataclass(frozen=True, slots=True)
class AppendResult:
    """What became of a block."""

    applied_rows: int
    """Rows that are new."""

    duplicate_rows: int
    """Rows that the table already had: the block was sent before."""

    next_step: int
    """The table's next step id after this block."""

    durable_step: int
    """Every step below this id survives power loss."""


@dataclass(frozen=True, slots=True)
class DeleteCounts:
    """What became of a deletion."""

    deleted: int
    """Rows deleted now, closing rows counted in."""

    gone: int
    """Of the steps or episodes asked for by number: those evicted, unknown or deleted before."""


@dataclass(frozen=True, slots=True)
class UpdateCounts:
    """What became of an update of priorities or columns."""

    applied: int
    """Priorities set; or rows written."""

    gone: int
    """Steps that are evicted, unknown or deleted, or, for priorities, no anchors (any more): nothing was touched for them."""

    rejected: int
    """Values that were NaN, infinite or negative."""
