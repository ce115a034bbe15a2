"""Opening a table: what the files say, brought back into memory.

After an orderly close the checkpoint says everything and only the inner nodes of the priority tree are built. After anything else the
links are derived again from the rows, open episodes from the batches after the checkpoint, and leaves that cannot be right are mended.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from replaystore.core.episodes import REMEMBERED_EPISODES, EpisodeBook, runs_of_rows
from replaystore.core.links import DELETED, KEPT, USED_UP, rebuild_successors
from replaystore.core.random import seed_state
from replaystore.engine.rows import Rows
from replaystore.engine.selectors import Selectors
from replaystore.errors import Corruption, StorageError
from replaystore.schema.columns import is_reward
from replaystore.schema.selectors import KEEPS_LEAVES
from replaystore.schema.table_config import TableConfig
from replaystore.steps import OPEN, RUN_DTYPE, TERMINATED, TRUNCATED, StepBlock
from replaystore.storage.journal import BatchRecord
from replaystore.storage.layout import ArrayLayout, priority_path, step_arrays
from replaystore.storage.residency import will_need
from replaystore.storage.table_files import TableFiles

Array = npt.NDArray[Any]


READ_ATTEMPTS = 5


def new_table(folder: Path, config: TableConfig) -> None:
    """Writes an empty table's files."""
    TableFiles.create(folder, config.to_json(), layouts_of(config))


def layouts_of(config: TableConfig) -> list[ArrayLayout]:
    """The arrays along the step dimension that a configuration asks for."""
    selectors = [(name, isinstance(selector, KEEPS_LEAVES)) for name, selector in config.selectors.items()]
    return step_arrays(config.columns, selectors, config.retention.max_steps)


class OpenTable:
    """The parts of a table as they are after opening."""

    def __init__(self, name: str, folder: Path, mode: str, progress: Callable[[int, int], None] | None = None) -> None:
        for attempt in range(READ_ATTEMPTS):
            try:
                self._open(name, folder, mode, progress)
                break
            except StorageError as error:
                # A writer may take away files that have just been published as past; what it published since is there.
                gone = isinstance(error.__cause__, FileNotFoundError)
                if mode != "r" or not gone or attempt == READ_ATTEMPTS - 1:
                    raise

    def _open(self, name: str, folder: Path, mode: str, progress: Callable[[int, int], None] | None) -> None:
        attributes = TableFiles.read_attributes(folder)
        self.config = TableConfig.from_json(attributes["table_config"])
        self.files = TableFiles(folder, mode, attributes, stored_layouts(self.config, attributes["rows_per_chunk"]))
        self.book = EpisodeBook()
        self.clean = False
        """Whether the table had been closed in an orderly way; always False of one that is only read."""
        self.private: dict[str, Array] = {}
        """Arrays that stand for the mapped ones, by path: a reader's own copies of what the writer goes on changing."""
        try:
            if mode == "r":
                self._open_published()
            else:
                self._open_for_writing(progress)
            rows = Rows(self._array, self.files.steps.origin, self.first_step, self.files.next_step)
            self.selectors = Selectors(name, self.config.selectors, self.files.state, rows, mend=not self.clean)
        except BaseException:
            self.files.close()
            raise

    def _array(self, path: str) -> Array:
        return self.private[path] if path in self.private else self.files.steps.columns[path].array

    def _live(self, path: str) -> Array:
        origin = self.files.steps.origin
        return self._array(path)[self.first_step - origin : self.files.next_step - origin]

    # -- reading only

    def _open_published(self) -> None:
        files = self.files
        files.open_published()
        self.first_step = int(files.attributes["first_step"])
        origin = files.steps.origin
        # what was removed is read last: nothing removed meanwhile is an anchor here
        paths = [
            "replay/successor",
            "replay/removed",
            *(priority_path(n) for n, s in self.config.selectors.items() if isinstance(s, KEEPS_LEAVES)),
        ]
        for path in paths:
            copy = np.zeros(files.next_step - origin, files.steps.columns[path].layout.dtype)
            copy[self.first_step - origin :] = files.steps.rows(path, self.first_step, files.next_step)
            self.private[path] = copy
        successor = self._live("replay/successor")
        removed, previous = self._live("replay/removed"), self._live("meta/previous")
        beyond = np.arange(self.first_step, files.next_step) + np.abs(successor) >= files.next_step
        successor[beyond | (removed == DELETED)] = 0  # rows that the writer has appended since are not ours to see
        before = previous[removed == DELETED] - self.first_step
        successor[before[before >= 0]] = 0
        successor[(removed == USED_UP) & (successor > 0)] *= -1
        self._count()
        if files.state["inserted_steps"] < self.live_steps:
            files.state["inserted_steps"] = self.live_steps
        self._seed_random()

    # -- writing

    def _open_for_writing(self, progress: Callable[[int, int], None] | None) -> None:
        files = self.files
        self.clean = bool(files.state["clean"])
        files.state["clean"] = 0
        files.state.sync()
        found = files.recover(progress)
        checkpoint = found.checkpoint
        self.first_step = files.state["first_step"]
        self.book.load(checkpoint["open"])
        self._remember_finished(int(checkpoint["episodes"]))
        inserted = int(checkpoint.get("inserted_steps", 0))
        for batch in found.batches:
            inserted += self._replay(batch)
        if self.clean and not found.batches and "anchors" in checkpoint:
            self.anchors, self.live_steps = int(checkpoint["anchors"]), int(checkpoint["live_steps"])
        else:
            self._rebuild_live_columns()
            files.state["inserted_steps"] = inserted
            files.state["limiter_inserted"] = min(files.state["limiter_inserted"], inserted)
            self._count()
        self._seed_random()
        files.restart_journal(
            {
                "next_step": files.next_step,
                "first_step": self.first_step,
                "episodes": files.next_episode,
                "sequence": files.sequence,
                "inserted_steps": files.state["inserted_steps"],
                "open": self.book.to_json(),
            },
            live=False,
        )
        files.prepare_publication()
        files.publish()

    def _remember_finished(self, stop: int) -> None:
        start = max(0, stop - REMEMBERED_EPISODES)
        numbers = self.files.episodes.rows("episodes/episode", start, stop).tolist()
        lengths = self.files.episodes.rows("episodes/length", start, stop).tolist()
        for episode, length in zip(numbers, lengths, strict=True):
            self.book.remember(episode, length + 1)

    def _replay(self, batch: BatchRecord) -> int:
        """Brings the book of episodes past a batch; returns its number of steps."""
        steps = self.files.steps
        start, stop = batch.first_step, batch.first_step + batch.rows

        def read(name: str) -> Array:
            return steps.rows(f"meta/{name}", start, stop)

        kind = read("kind")
        offsets, lengths = runs_of_rows(read("episode"), read("step_in_episode"), kind)
        lasts = offsets + lengths - 1
        closed = np.where(steps.rows("steps/terminated", start, stop)[lasts], TERMINATED, TRUNCATED)
        runs = np.zeros(len(offsets), RUN_DTYPE)
        runs["episode"], runs["first"], runs["rows"] = read("episode")[offsets], read("step_in_episode")[offsets], lengths
        runs["ending"] = np.where(kind[lasts] == 1, closed, OPEN)
        runs["policy_version"], runs["seed"] = read("policy_version")[lasts], -1
        rewards = {name: steps.rows(f"steps/{name}", start, stop) for name in self.config.columns if is_reward(name)}
        block = StepBlock(rewards, runs, int(read("actor")[0]))
        self.book.apply(self.book.plan(block, start, float(read("insert_time")[0]), dict(batch.seeds)))
        return batch.rows - int((kind == 1).sum())

    def _rebuild_live_columns(self) -> None:
        files = self.files
        for column in files.steps.columns.values():
            if column.layout.live:
                column.clear_from(files.next_step)
        origin, stop = files.steps.origin, files.next_step
        self._mend_removed()
        removed, successor = self._array("replay/removed"), self._array("replay/successor")
        rebuild_successors(self._array("meta/previous"), removed, successor, origin, self.first_step, self.first_step, stop)

    def _mend_removed(self) -> None:
        """Puts right what power loss made of ``replay/removed``: deletions stay, and only steps are used up."""
        removed, is_step = self._live("replay/removed"), self._live("meta/kind") == 0
        removed[(removed > USED_UP) | (~is_step & (removed == USED_UP))] = KEPT
        most, least = self.config.retention.max_times_sampled, self.config.retention.min_steps
        if most is not None and not least:  # the count may have come through without the mark
            removed[is_step & (removed == KEPT) & (will_need(self._live("replay/times_sampled")) >= most)] = USED_UP

    # -- both

    def _count(self) -> None:
        self.anchors = int(np.count_nonzero(self._live("replay/successor") > 0))
        self.live_steps = int(np.count_nonzero((self._live("meta/kind") == 0) & (self._live("replay/removed") == KEPT)))

    def _seed_random(self) -> None:
        state = self.files.state.rng
        if not state.any():
            state[:] = seed_state(self.config.seed if self.config.seed is not None else secrets.randbits(63))


def stored_layouts(config: TableConfig, rows_per_chunk: dict[str, int]) -> list[ArrayLayout]:
    """The arrays as they were laid out when the table was made, whatever its retention says now."""
    missing = [layout.path for layout in layouts_of(config) if layout.path not in rows_per_chunk]
    if missing:
        raise Corruption(f"the attribute rows_per_chunk lacks {', '.join(missing)}: restore zarr.json, or run 'replaystore repair'")
    return [replace(layout, rows_per_chunk=rows_per_chunk[layout.path]) for layout in layouts_of(config)]
