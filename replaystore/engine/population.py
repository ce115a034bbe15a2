"""Which rows a table keeps, and which of them can be sampled: entering, deletion, using up, eviction. All of it under the table's lock."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from replaystore.core.episodes import EpisodeBook, Plan
from replaystore.core.links import KEPT, delete_rows, link_runs, use_up_rows
from replaystore.engine.retention import head_kept, oldest_kept, used_up
from replaystore.engine.rows import Ahead, Rows
from replaystore.engine.selectors import Selectors
from replaystore.sampling import SampleRequest
from replaystore.schema.columns import is_reward
from replaystore.schema.selectors import Fifo, Lifo, MaxHeap, MinHeap, Selector
from replaystore.schema.table_config import Retention
from replaystore.storage.table_files import TableFiles

Array = npt.NDArray[Any]
Ids = npt.NDArray[np.int64]

READ_BY_DRAWS = (
    "replay/times_sampled",
    "replay/successor",
    "meta/kind",
    "steps/terminated",
    "steps/truncated",
    "meta/policy_version",
    "replay/removed",
    "meta/previous",
)
"""Columns that are read of every step drawn, beside its rewards; the last two only by views that look back."""

DISTINCT = (Fifo, Lifo, MinHeap, MaxHeap)
"""Selectors of whose batches no anchor comes twice."""


def anchors_needed(request: SampleRequest, selectors: Mapping[str, Selector]) -> int:
    """How many anchors a table with these selectors must hold for the request to be served, whatever its filter says."""
    asked = request.selector
    wanted = next(iter(selectors.values())) if asked is None else selectors[asked] if isinstance(asked, str) else asked
    return request.batch_size if isinstance(wanted, DISTINCT) else 1


class Population:
    """Counts what is there; tells the indexes what comes and goes."""

    def __init__(
        self,
        files: TableFiles,
        book: EpisodeBook,
        selectors: Selectors,
        private: Mapping[str, Array],
        counts: tuple[int, int, int],
        retention: Retention,
    ) -> None:
        """The rows of opened files.

        Args:
            files, book, selectors: of the table.
            private: arrays that stand for the mapped ones, by path.
            counts: first row, anchors, and steps that are neither deleted nor used up.
            retention: may be set to another one later.
        """
        self._files, self._book, self._selectors, self._private = files, book, selectors, private
        self.first, self.anchors, self.steps = counts
        self.retention = retention
        self.deletions = 0
        """Deletions since the table was opened."""
        self._row_bytes = sum(layout.row_bytes for layout in files.steps.layouts)
        self._spent = self.first
        rewards = (path for path in files.steps.columns if is_reward(path.removeprefix("steps/")))
        self.ahead = Ahead(path for path in (*READ_BY_DRAWS, *rewards) if path in files.steps.columns and path not in private)
        """What is asked for before it is read."""

    def rows(self) -> Rows:
        """The rows at this moment."""
        steps, private = self._files.steps, self._private

        def array(path: str) -> Array:
            return private[path] if path in private else steps.columns[path].array

        return Rows(array, steps.origin, self.first, self._files.next_step, self.ahead)

    def link(self, plan: Plan, start: int) -> None:
        """Sets successor links for the rows just written from `start` on, and lets the steps that got one enter the indexes."""
        rows = self.rows()
        removed, successor = rows.array("replay/removed"), rows.array("replay/successor")
        entering = link_runs(plan.starts, plan.numbers[2], plan.previous, removed, successor, rows.origin, self.first, start)
        self._selectors.enter(rows, entering)
        self.anchors += len(entering)

    def evict(self, first: int) -> None:
        """Moves the start of the table up to `first`. Files go at the next commit."""
        if first <= self.first:
            return
        rows = self.rows()
        old = slice(self.first - rows.origin, first - rows.origin)
        self.anchors -= int(np.count_nonzero(rows.array("replay/successor")[old] > 0))
        self.steps -= int(np.count_nonzero((rows.array("meta/kind")[old] == 0) & (rows.array("replay/removed")[old] == KEPT)))
        self.first = self._files.state["first_step"] = first
        self._selectors.drop(rows, first)

    def age(self, now: float) -> bool:
        """Drops what retention says at `now` (seconds since 1970), and whether that was anything."""
        before = self.first
        rows = self.rows()
        head = self.first - rows.origin
        if self.retention.max_times_sampled is not None or (rows.stop > rows.first and rows.array("replay/removed")[head]):
            first, self._spent = head_kept(rows, self.retention, self._spent, self._book.open)
            self.evict(first)
            rows = self.rows()
        self.evict(oldest_kept(rows, self.retention, self._row_bytes, now))
        return self.first > before

    def delete(self, ids: Ids) -> int:
        """Marks rows as deleted; nothing samples them from now on, and no step before them. Returns how many were not before."""
        rows = self.rows()
        previous, kind, removed = rows.array("meta/previous"), rows.array("meta/kind"), rows.array("replay/removed")
        deleted, steps, left = delete_rows(previous, kind, removed, rows.array("replay/successor"), rows.origin, rows.first, rows.stop, ids)
        self.steps -= steps
        if deleted:
            self.deletions += 1
            self._selectors.deleted()
            kept = ids[(ids >= rows.first) & (ids < rows.stop)]
            self._leave(rows, left)
            self._files.touch("replay/removed", kept)
        return deleted

    def use_up(self, rows: Rows, ids: Ids, counts: npt.NDArray[np.uint32]) -> None:
        """After a draw of the anchors `ids`, which have been drawn so often by now: those that were sampled enough leave."""
        due = used_up(ids, counts, self.retention, self.anchors)
        if len(due):
            left = use_up_rows(rows.array("replay/removed"), rows.array("replay/successor"), rows.origin, due)
            self.steps -= len(left)
            self._leave(rows, left)

    def use_up_all(self) -> None:
        """The same for all anchors, after retention has changed."""
        if self.retention.max_times_sampled is None:
            return
        rows = self.rows()
        anchors = rows.first + np.flatnonzero(rows.live("replay/successor") > 0)
        self.use_up(rows, anchors, rows.array("replay/times_sampled")[anchors - rows.origin])

    def _leave(self, rows: Rows, left: Ids) -> None:
        self._selectors.remove(rows, left)
        self.anchors -= len(left)
