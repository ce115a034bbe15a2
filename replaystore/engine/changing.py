"""Changing rows that are there: deletion, and writing into columns declared ``writable``. What an update of priorities is not.

Durable like inserts: after an acknowledged change a killed process finds it again, and after power loss when it is older than the commit
interval. With durability "fsync" the acknowledgement waits for the disk.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import numpy.typing as npt

from replaystore.core.episodes import EpisodeBook
from replaystore.engine.drawing import Drawing
from replaystore.engine.population import Population
from replaystore.engine.removal import episodes_that_pass, rows_of_episodes, steps_that_pass
from replaystore.engine.write_back import fitted, write
from replaystore.sampling import ids_of
from replaystore.schema.columns import Column
from replaystore.schema.filters import Filter, check_choice
from replaystore.steps import DeleteCounts, UpdateCounts
from replaystore.storage.table_files import TableFiles

Ids = npt.NDArray[np.int64]

TIMEOUT_S = 60.0


class Changing:
    """Of one table. It is the table's lock that `change` takes, and raises where there is nothing to change."""

    def __init__(
        self,
        columns: Mapping[str, Column],
        files: TableFiles,
        book: EpisodeBook,
        population: Population,
        drawing: Drawing,
        change: Callable[[str], AbstractContextManager[None]],
        changed: Callable[[int, float], None],
        wait_durable: Callable[[int, float], int],
    ) -> None:
        self._columns, self._files, self._book = columns, files, book
        self._population, self._drawing = population, drawing
        self._change, self._changed, self._wait_durable = change, changed, wait_durable

    def delete_steps(self, step_ids: Any = None, where: Filter | None = None, timeout_s: float = TIMEOUT_S) -> DeleteCounts:
        """Deletes steps: they are not sampled any more, nor is a step whose next observation they hold. Their bytes go with their files.

        Args:
            step_ids: ``(n,)`` integers; closing rows may be among them.
            where: instead of ids, every step that meets these conditions.
            timeout_s: how long to wait for the disk, where the table acknowledges only what is on it.

        Raises:
            InvalidArgument: neither ids nor a filter, or both.
        """
        check_choice("step_ids", step_ids, where)
        ids = np.unique(ids_of([] if step_ids is None else step_ids))
        with self._change("delete"):
            if where is not None:
                ids = steps_that_pass(self._population.rows(), where, self._drawing.facts())
            deleted, changes = self._delete(ids)
        self._changed(changes, timeout_s)
        return DeleteCounts(deleted, len(ids) - deleted)

    def delete_episodes(self, episodes: Any = None, where: Filter | None = None, timeout_s: float = TIMEOUT_S) -> DeleteCounts:
        """Deletes the rows of whole episodes, likewise. Rows that an episode gets later, while it goes on, stay.

        Args:
            episodes: ``(n,)`` numbers of episodes (``meta/episode``).
            where: instead, every finished episode all of whose kept steps meet these conditions.
            timeout_s: as above.
        """
        check_choice("episodes", episodes, where)
        wanted, gone = ids_of([] if episodes is None else episodes, "episodes"), 0
        with self._change("delete"):
            rows, facts = self._population.rows(), self._drawing.facts()
            if where is not None:
                ids = episodes_that_pass(rows, where, facts)
            else:
                ids, gone = rows_of_episodes(rows, wanted, self._book.open, facts)
            deleted, changes = self._delete(ids)
        self._changed(changes, timeout_s)
        return DeleteCounts(deleted, gone)

    def _delete(self, ids: Ids) -> tuple[int, int]:
        """How many rows were deleted, and the change to wait for."""
        deleted = self._population.delete(ids)
        self._population.age(time.time())
        return deleted, self._files.changes if deleted else 0

    def update_columns(self, step_ids: Any, values: Mapping[str, Any], timeout_s: float = TIMEOUT_S) -> UpdateCounts:
        """Writes columns declared ``writable`` of rows that are there, closing rows too. A batch gathered meanwhile may hold old or new.

        Args:
            step_ids: ``(n,)`` integers; where one comes twice, its last value stays.
            values: by column, ``(n, *shape)``, checked like what is appended.
            timeout_s: how long to wait for the disk.

        Returns:
            Rows written (`applied`), and ids that are evicted, unknown or deleted (`gone`); nothing is rejected.

        Raises:
            InvalidArgument: a column that there is not, or that is not writable.
            SchemaMismatch: values that do not fit.
        """
        ids = ids_of(step_ids)
        arrays = fitted(self._columns, ids, values)
        with self._change("write"):
            newest = min(int(ids.max(initial=-1)) + 1, self._files.next_step)
            durable, settled = self._files.state["durable_step"], self._files.settled_step
        # a batch's CRC is for what was inserted, and recovery asks for it above the watermark, which power loss may set back
        if newest > durable:
            self._wait_durable(newest, timeout_s)
        if newest > settled:
            self._files.settle()
        with self._change("write"):
            counts = write(self._population.rows(), self._files, ids, arrays)
            changes = self._files.changes if counts.applied else 0
        self._changed(changes, timeout_s)
        return counts
