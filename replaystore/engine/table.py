"""Table: storage and core behind one lock. What the embedded store and the server both call.

Inserting and sampling never block here: `try_append` and `try_prepare` answer None when the rate limiter (or somebody who asked earlier)
stands in the way, and the wait queues say when to try again. `append` and `sample` are the blocking forms for a thread.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from replaystore.core.episodes import Plan
from replaystore.engine.appending import episode_arrays, step_arrays
from replaystore.engine.changing import Changing
from replaystore.engine.committing import Committing
from replaystore.engine.copies.moment import Moment
from replaystore.engine.drawing import Drawing
from replaystore.engine.limiting import Limiting
from replaystore.engine.pins import Pins
from replaystore.engine.population import Population
from replaystore.engine.recovery import OpenTable
from replaystore.engine.rows import Rows
from replaystore.engine.sampling import Sampling
from replaystore.engine.warming import Warming
from replaystore.engine.weakly import weakly
from replaystore.errors import InvalidArgument, NotFound, PermissionDenied, ReplayStoreError, StorageError
from replaystore.mapping.buffers import BufferPool
from replaystore.schema.limiters import MinSize, RateLimiter
from replaystore.schema.selectors import Selector
from replaystore.schema.table_config import Retention, TableConfig
from replaystore.status import TableDescription, TableStats
from replaystore.steps import AppendResult, StepBlock
from replaystore.storage.layout import EPISODE_DTYPES, ArrayLayout
from replaystore.storage.residency import will_need
from replaystore.storage.zarr_metadata import Documents
from replaystore.turns import Ticket, WaitQueue, wait_turn

Array = npt.NDArray[Any]
Ids = npt.NDArray[np.int64]
T = TypeVar("T")

_NO_COMMIT: Callable[[], None] = lambda: None  # noqa: E731


class Table(Sampling):
    """One table of an open store."""

    def __init__(
        self, name: str, folder: Path, mode: str, *, fsync: bool = False, progress: Callable[[int, int], None] | None = None
    ) -> None:
        self.name = name
        self.mode = mode
        self.fsync = fsync
        """Whether an append is acknowledged only once it survives power loss."""
        self.inserting = WaitQueue()
        self.sampling = WaitQueue()
        self.request_commit = _NO_COMMIT
        """Set by the store: asks for a commit now."""
        self._lock = threading.RLock()
        self._pins = Pins()
        self._buffers = BufferPool()
        self._closed = False
        opened = OpenTable(name, folder, mode, progress)
        self.config: TableConfig = opened.config
        self.recovered_steps = opened.files.next_step - opened.first_step
        self.was_clean = opened.clean
        """Whether it had been closed in an orderly way before it was opened."""
        self._files, self._book, self._selectors = opened.files, opened.book, opened.selectors
        counts = opened.first_step, opened.anchors, opened.live_steps
        self._population = Population(
            self._files, self._book, self._selectors, opened.private, counts, self.config.retention if mode == "rw" else Retention()
        )
        self._drawing = Drawing(self.config.columns, self._selectors, self._files, self._pins)
        self._drawing.counted = self._population.use_up
        # A store that is only read gets no inserts: a ratio would hold its readers back for ever.
        self._limiting = Limiting(self.config.rate_limiter if mode == "rw" else MinSize(), self._files, self._population)
        self._committing = Committing(name, self._files, self._lock, self._pins, weakly(self._checkpoint))
        change, changed, wait_durable = weakly(self._change), weakly(self._changed), weakly(self.wait_durable)
        self.changing = Changing(
            self.config.columns, self._files, self._book, self._population, self._drawing, change, changed, wait_durable
        )
        """Deletes rows and writes into them."""
        self._warming = Warming(weakly(self._borrow), self._population.ahead.read_around)
        self._population.ahead.begun = weakly(self._warm)

    def _warm(self, rows: Rows) -> None:
        """Has what draws read of every step brought into memory; leaves first, without which nothing is drawn."""
        columns = self._files.steps.columns
        own = self.mode != "r"  # a reader has its own copies of leaves, and nobody needs the pages that it would change
        leaves = [path for path in columns if path.startswith("replay/priority") and own]
        first = [*leaves, *self._population.ahead.paths]
        narrow = [*first, *(path for path in columns if path.startswith("steps/") and path not in first and not columns[path].scattered)]
        wide = [path for path in columns if path.startswith("steps/") and path not in narrow]
        sizes = {path: columns[path].layout.row_bytes for path in (*narrow, *wide)}
        read, cached = [(path, sizes[path]) for path in narrow], [(path, sizes[path]) for path in wide]
        self._warming.begin(rows.first, rows.stop, read, ["replay/times_sampled"] if own else [], cached)

    def _borrow(self, path: str, start: int, stop: int) -> tuple[Array, Callable[[], None]]:
        with self._lock:
            rows, token = self._population.rows(), self._pins.acquire()
        begin = min(max(start, rows.first), rows.stop)
        return rows.array(path)[begin - rows.origin : max(begin, min(stop, rows.stop)) - rows.origin], lambda: self._pins.release(token)

    @property
    def documents(self) -> Documents:
        """The zarr.json documents published last, by path below the store."""
        return self._files.documents

    def on_publish(self, callback: Callable[[], None]) -> None:
        """Calls `callback` after each publication."""
        self._files.on_publish = callback

    def on_commit(self, callback: Callable[[float, int], None]) -> None:
        """Calls `callback`, from the commit thread, with seconds and rows of each group commit that had something to do."""
        self._committing.committed = callback

    # -- positions

    @property
    def next_step(self) -> int:
        """Id that the next row will get."""
        return self._files.next_step

    @property
    def first_step(self) -> int:
        """Oldest id kept."""
        return self._population.first

    @property
    def durable_step(self) -> int:
        """Rows below this id survive power loss."""
        return self._files.next_step if self.mode == "r" else self._files.state["durable_step"]

    @property
    def failure(self) -> str | None:
        """Why inserts, or even samples, are refused since something went wrong with the files; None while all is well."""
        return self._committing.failure

    # -- inserting

    def append(self, block: StepBlock, timeout_s: float) -> AppendResult:
        """Appends a block; waits while the rate limiter holds inserts back, and for the group commit if the table asks for it.

        Raises:
            NotReady: the limiter did not let it through in `timeout_s`.
            InvalidArgument, SchemaMismatch: the block does not fit. Nothing was appended.
            StorageError: the disk. Nothing was acknowledged.
        """
        started = time.monotonic()
        result = wait_turn(self.inserting, lambda ticket: self.try_append(block, ticket), timeout_s, lambda: self.why_blocked("insert"))
        if self.fsync and result.durable_step < result.next_step:
            self.wait_durable(result.next_step, max(0.1, timeout_s - (time.monotonic() - started)))
        return result

    def try_append(self, block: StepBlock, ticket: Ticket | None = None) -> AppendResult | None:
        """Appends a block, or returns None when the rate limiter blocks or somebody else is first."""
        if self.mode == "r":
            raise PermissionDenied(f"table {self.name!r} is open with mode='r': open the store with mode='rw' to insert")
        block.check(self.config.columns)
        with self._lock:
            self._check_open()
            self._committing.check()
            now = self._drawing.now()
            plan = self._book.plan(block, self._files.next_step, now)
            if plan.rows and not self._may_insert(ticket):
                return None
            if plan.rows:
                self._apply(plan, now)
            result = AppendResult(plan.rows, plan.duplicate_rows, self._files.next_step, self.durable_step)
        self.sampling.notify()
        return result

    def _may_insert(self, ticket: Ticket | None) -> bool:
        self._limiting.look_after(self.sampling)
        return self.inserting.may_try(ticket) and self._limiting.may_insert()

    def _apply(self, plan: Plan, now: float) -> None:
        files, state = self._files, self._files.state
        start = files.next_step
        arrays = step_arrays(plan, now)
        episodes = episode_arrays(plan.finished)
        seeds = tuple((episode, seed) for episode, first, _, _, _, seed in plan.runs if first == 0 and seed >= 0)
        try:
            left = files.write_batch(arrays, episodes, seeds)
        except StorageError as error:
            self._committing.refuse(error)
            raise
        for removal in left:
            self._pins.retire(removal)
        self._book.apply(plan)
        self._population.link(plan, start)
        if plan.finished:
            self._selectors.finished(np.array([done.state.last_step for done in plan.finished]))
        steps = plan.rows - len(plan.finished)
        state["inserted_steps"] += steps
        self._population.steps += steps
        newest = min(max(run[4] for run in plan.runs), 2**63 - 2)
        if newest >= state["version_count"]:
            state["version_count"] = newest + 1
        self._population.age(now)

    # -- changing rows

    @contextlib.contextmanager
    def _change(self, what: str) -> Iterator[None]:
        """The lock, for a change of rows that are there."""
        if self.mode == "r":
            raise PermissionDenied(f"table {self.name!r} is open with mode='r': open the store with mode='rw' to {what}")
        with self._lock:
            self._check_open()
            self._committing.check()
            yield

    def _changed(self, changes: int, timeout_s: float) -> None:
        """After it: somebody may go on, and where acknowledgements mean the disk, so does this one."""
        self.inserting.notify()
        self.sampling.notify()
        if self.fsync and changes:
            self.request_commit()
            self._committing.wait_changes(changes, timeout_s)

    # -- reading

    def read_steps(self, start: int, stop: int, columns: Any = None) -> dict[str, Array]:
        """Copies of rows [start, stop) as far as they are kept.

        Args:
            start: first step id.
            stop: end of the ids.
            columns: names (``observation``, ``meta/episode``, ``replay/priority``); None: all columns and ``meta/…``.

        Returns:
            ``step_id`` int64 and one array per column, ``(rows, *shape)``.
        """
        paths = {path.removeprefix("steps/"): path for path in self._files.steps.columns}
        if columns is None:
            wanted = [name for name in paths if not name.startswith("replay/")]
        else:
            wanted = [columns] if isinstance(columns, str) else list(columns)
        for name in wanted:
            if name not in paths:
                raise InvalidArgument(f"columns: there is no column {name!r}; the table has {', '.join(paths)}")
        with self._lock:
            self._check_open()
            rows = self._population.rows()
            token = self._pins.acquire()
        try:
            begin = min(max(start, rows.first), rows.stop)
            end = max(begin, min(stop, rows.stop))
            part = slice(begin - rows.origin, end - rows.origin)
            return {"step_id": np.arange(begin, end), **{name: will_need(rows.array(paths[name])[part]).copy() for name in wanted}}
        finally:
            self._pins.release(token)

    def episodes(self, start: int | None = None, stop: int | None = None) -> dict[str, Array]:
        """Finished episodes [start, stop) in the order of their ends, negative numbers counting from the newest; all by default.

        Returns:
            ``episode``, ``first_step``, ``last_step`` (the closing row), ``length``, ``return``, ``ending`` (1 terminated, 2 truncated),
            ``actor``, ``policy_version``, ``seed``, ``start_time``, ``end_time``: ``(episodes,)`` each.
        """
        with self._lock:
            self._check_open()
            begin, end, _ = slice(start, stop).indices(self._files.next_episode)
            return {name: self._files.episodes.rows(f"episodes/{name}", begin, max(begin, end)).copy() for name in EPISODE_DTYPES}

    def describe(self) -> TableDescription:
        """What the table is."""
        attributes = self._files.attributes
        chunks = {layout.path: layout.rows_per_chunk for layout in (*self._files.steps.layouts, *self._files.episodes.layouts)}
        return TableDescription(self.name, self.config, attributes["format_version"], attributes["created"], chunks)

    def mapped_columns(self) -> list[tuple[ArrayLayout, Array, int]]:
        """Each column of ``steps/``: its files, the array that they are mapped as, and the id of that one's first row."""
        with self._lock:
            self._check_open()
            steps = self._files.steps
            columns = (column for path, column in steps.columns.items() if path.startswith("steps/"))
            return [(column.layout, column.array, steps.origin) for column in columns]

    def stats(self) -> TableStats:
        """How the table stands."""
        with self._lock:
            self._check_open()
            files, rows = self._files, self._population.rows()
            kept = rows.stop > rows.first
            times = rows.array("meta/insert_time")
            return TableStats(
                name=self.name,
                first_step=rows.first,
                next_step=rows.stop,
                durable_step=self.durable_step,
                anchors=self._population.anchors,
                episodes=files.next_episode,
                open_episodes=len(self._book.open),
                inserted_steps=files.state["inserted_steps"],
                sampled_items=files.state["sampled_items"],
                bytes_on_disk=files.nbytes,
                index_bytes=self._selectors.nbytes,
                total_priority=self._selectors.totals(),
                max_priority=self._selectors.highest(),
                oldest_time=float(times[rows.first - rows.origin]) if kept else None,
                newest_time=float(times[rows.stop - 1 - rows.origin]) if kept else None,
                waiting_inserts=len(self.inserting),
                waiting_samples=len(self.sampling),
                blocked_insert=None if self._may_insert(None) else self.why_blocked("insert"),
                blocked_sample=self._blocked_sample(),
            )

    # -- changing

    def alter(
        self,
        *,
        rate_limiter: RateLimiter | None = None,
        retention: Retention | None = None,
        selector: Selector | Mapping[str, Selector] | None = None,
    ) -> TableConfig:
        """Changes limiter, retention, or the parameters of selectors, at once and durably."""
        if self.mode == "r":
            raise PermissionDenied(f"table {self.name!r} is open with mode='r': open the store with mode='rw' to alter it")
        with self._lock:
            self._check_open()
            old = self.config
            config = old.changed(selector=selector, rate_limiter=rate_limiter, retention=retention)
            self._selectors.change(config.selectors, self._population.rows())
            if config.selectors != old.selectors:
                self._files.steps.sync_live()  # leaves under the new exponent before the configuration that says so
                self._files.state.sync()
            self.config = config
            if rate_limiter is not None:
                self._limiting.change(rate_limiter)
            self._population.retention = config.retention
            self._population.use_up_all()
            self._population.age(time.time())
            self._files.attributes["table_config"] = config.to_json()
        self._committing.publish(durable=True, force=True)
        self.inserting.notify()
        self.sampling.notify()
        return config

    # -- durability

    def commit(self) -> None:
        """One group commit, publication and clean-up; the slow parts run without the lock. Drops what has become too old."""
        if self.mode == "r":
            return
        if self.config.retention.max_age_s is not None:
            with self._lock:
                aged = not self._closed and self._population.age(time.time())
            if aged:
                self.inserting.notify()
        self.sampling.notify()  # conditions on age in seconds come true by themselves
        self._committing.commit()

    def publish(self) -> None:
        """Lets readers with Zarr tools see every durable row now, and not within a second."""
        if self.mode != "r":
            self._committing.publish()

    def fail(self, error: ReplayStoreError) -> None:
        """Refuses inserts from now on: something outside a single call went wrong with the files."""
        self._committing.refuse(error)

    @property
    def trouble(self) -> StorageError | None:
        """Why the disk does not take what is written, or None; sampling may go on all the same."""
        return self._committing.trouble

    def wait_durable(self, step: int, timeout_s: float) -> int:
        """Returns the durable position once it has reached `step`; asks for a commit at once.

        Raises:
            NotReady: not in `timeout_s`.
            StorageError: a sync failed.
        """
        self.request_commit()
        return self._committing.wait(step, timeout_s)

    def _checkpoint(self) -> dict[str, Any]:
        files = self._files
        return {
            "next_step": files.next_step,
            "first_step": self._population.first,
            "episodes": files.next_episode,
            "sequence": files.sequence,
            "inserted_steps": files.state["inserted_steps"],
            "anchors": self._population.anchors,
            "live_steps": self._population.steps,
            "open": self._book.to_json(),
        }

    def capture(self) -> Moment:
        """The table as it is now, for a copy of it; to be closed, for until then its files stay."""
        with self._lock:
            self._check_open()
            token = self._pins.acquire()
            return Moment(
                self.name,
                self.config,
                self._files,
                self._population.rows(),
                self._checkpoint(),
                self._population.deletions,
                lambda: self._pins.release(token),
            )

    def close(self, *, save: bool = True) -> None:
        """Makes everything durable and published, and closes the files. Nobody may be reading any more.

        Args:
            save: False closes the files as they are, as if the process had died.

        Raises:
            StorageError: the table is closed, but the next opening has to recover it.
        """
        if self._closed:
            return
        self._warming.stop()
        if save:
            self.commit()
            self._committing.clear_away()
        with self._committing.pause(), self._lock:
            self._closed = True
            files = self._files
            self._committing.close()
            try:
                if save and self.mode != "r" and not self._committing.failed:
                    files.restart_journal(self._checkpoint(), live=True)
                    files.prepare_publication()
                    files.publish(durable=True)
                    files.seal(None, save=True)
                    files.state["clean"] = 1
                    files.state.sync()
            finally:
                self._pins.retire(files.close)
                self.inserting.notify()
                self.sampling.notify()

    # -- inside

    def _check_open(self) -> None:
        if self._closed:
            raise NotFound(f"table {self.name!r} is closed: the store was closed or the table dropped")
        self._committing.check_readable()
