"""Store: a directory of tables, a lock on it, and the thread that commits. `replaystore.open` is the embedded default."""

from __future__ import annotations

import json
import os
import threading
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy.typing as npt

from replaystore.engine.checking.verify import check_no_other
from replaystore.engine.copies.dataset import export_episodes
from replaystore.engine.copies.snapshot import copy_table, take_snapshot
from replaystore.engine.parameters import ParameterShelf
from replaystore.engine.recovery import new_table
from replaystore.engine.table import Table
from replaystore.engine.verbs import TableVerbs
from replaystore.errors import AlreadyExists, InvalidArgument, NotFound, PermissionDenied, ReplayStoreError, StorageError
from replaystore.schema.columns import check_name
from replaystore.schema.limiters import RateLimiter
from replaystore.schema.selectors import Selector
from replaystore.schema.table_config import Retention, TableConfig
from replaystore.status import SnapshotReport, TableDescription, TableStats
from replaystore.steps import StepBlock
from replaystore.storage import calls
from replaystore.storage.files import FileLock, storage_errors
from replaystore.storage.layout import PRIVATE_FOLDER
from replaystore.storage.table_files import TableFiles
from replaystore.storage.zarr_metadata import publish_root
from replaystore.writer import Writer

Array = npt.NDArray[Any]
Progress = Callable[[str, int, int], None]

DEFAULT_SNAPSHOT_TIMEOUT_S = 60.0


class Store(TableVerbs):
    """An open store: ``with replaystore.open("data/") as store: ...``. The verbs are those of `replaystore_client.Client`."""

    def __init__(
        self,
        path: str | Path,
        mode: str = "rw",
        *,
        durability: str = "interval",
        commit_interval_s: float = 0.2,
        progress: Progress | None = None,
    ) -> None:
        if mode not in ("r", "rw"):
            raise InvalidArgument(f"mode={mode!r} must be 'rw' or 'r' (read only, also beside a live server)")
        if durability not in ("interval", "fsync"):
            raise InvalidArgument(f"durability={durability!r} must be 'interval' or 'fsync'")
        if not 0.001 <= commit_interval_s <= 3600:
            raise InvalidArgument(f"commit_interval_s={commit_interval_s} must be from 0.001 to 3600")
        self.path = Path(path)
        self.mode = mode
        self.durability, self.commit_interval_s = durability, commit_interval_s
        self._fsync, self._interval_s, self._progress = durability == "fsync", commit_interval_s, progress
        self._lock = threading.RLock()
        self._root_lock = threading.Lock()
        self._tables: dict[str, Table] = {}
        self._half_made: set[str] = set()
        self._closed = False
        self._file_lock: FileLock | None = None
        self.on_commit: Callable[[str, float, int], None] = lambda table, seconds, rows: None
        """Called from the commit thread after each group commit that had something to do."""
        private = self.path / PRIVATE_FOLDER
        with storage_errors(self.path, "opening"):
            check_no_other(self.path)
        if mode == "rw":
            with storage_errors(self.path, "creating"):
                calls.make_folders(private)
            self._file_lock = FileLock(private / "LOCK")
        elif not (self.path / "zarr.json").exists():
            raise NotFound(f"{self.path} is no replaystore store: it has no zarr.json")
        try:
            if mode == "rw":
                self._make_root(private)
            self._parameters = ParameterShelf(private / "parameters", mode)
            for folder in sorted(self.path.iterdir()):
                if mode == "rw" and TableFiles.is_half_made(folder):
                    calls.remove_tree(folder)
                elif (folder / PRIVATE_FOLDER).is_dir() and (folder / "zarr.json").exists():
                    self._open_table(folder.name)
            if mode == "rw":
                self._publish_root()
        except BaseException:
            for table in self._tables.values():
                table.close(save=False)
            if self._file_lock is not None:
                self._file_lock.release()
            raise
        self._wake = threading.Event()
        self._committer: threading.Thread | None = None
        if mode == "rw":
            self._committer = threading.Thread(target=self._commit_loop, name="replaystore-commit", daemon=True)
            self._committer.start()

    def _make_root(self, private: Path) -> None:
        if not (self.path / "zarr.json").exists():
            publish_root(self.path, {}, durable=True)
            above = self.path.absolute().parent
            if os.access(above, os.R_OK):  # a folder that may only be passed through cannot be synced; nor can we have made this one in it
                with storage_errors(above, "syncing"):
                    calls.sync_folder(above)
        for leftover in (*private.glob("dropped-*"), *private.glob("forking-*")):
            calls.remove_tree(leftover)

    def _open_table(self, name: str) -> Table:
        report = None if self._progress is None else (lambda done, total: self._progress(name, done, total))  # type: ignore[misc]
        table = Table(name, self.path / name, self.mode, fsync=self._fsync, progress=report)
        table.request_commit = self._request_commit
        table.on_publish(self._publish_root)
        table.on_commit(lambda seconds, rows: self.on_commit(name, seconds, rows))
        self._tables[name] = table
        return table

    def _publish_root(self) -> None:
        with self._root_lock:
            publish_root(self.path, {name: table.documents for name, table in list(self._tables.items())}, durable=False)

    # -- tables

    def create_table(self, name: str, config: TableConfig, exist_ok: bool = False) -> None:
        """Creates a table.

        Args:
            name: letters, digits, ``_ . -``.
            config: columns, selector, rate limiter, retention.
            exist_ok: with True an existing table of an equal configuration is fine.

        Raises:
            AlreadyExists: there is one; with `exist_ok`, one of another configuration (the message says what differs).
        """
        check_name(name, "table")
        if not isinstance(config, TableConfig):
            raise InvalidArgument(f"config must be a replaystore.TableConfig, got {type(config).__name__}")
        self._check_writable("create a table")
        with self._lock:
            if name in self._tables:
                if not exist_ok:
                    raise AlreadyExists(f"table {name!r} exists: pass exist_ok=True to use it, or drop it first")
                self._check_same(name, config)
                return
            if name in self._half_made:
                calls.remove_tree(self._discard(name))
                self._half_made.remove(name)
            new_table(self.path / name, config)
            try:
                self._open_table(name)
                self._publish_root()
            except ReplayStoreError:
                self._half_made.add(name)  # its user is told that there is none: the next to create it shall not hear that there is
                table = self._tables.pop(name, None)
                if table is not None:
                    table.close(save=False)
                raise

    def _check_same(self, name: str, config: TableConfig) -> None:
        have, want = self._tables[name].config.to_json(), config.to_json()
        for part in want:
            if have[part] != want[part] and not (part == "seed" and want[part] is None):
                raise AlreadyExists(
                    f"table {name!r} exists with another {part}: {json.dumps(have[part])} is stored, {json.dumps(want[part])} was asked "
                    "for; use alter_table, another name, or drop it first"
                )

    def tables(self) -> list[str]:
        """Names of the tables, sorted."""
        with self._lock:
            return sorted(self._tables)

    def table(self, name: str) -> Table:
        """The table object; NotFound lists what there is."""
        with self._lock:
            if self._closed:
                raise InvalidArgument(f"the store {self.path} is closed")
            table = self._tables.get(name)
            if table is None:
                there = ", ".join(sorted(self._tables)) or "none yet: create one with create_table"
                raise NotFound(f"there is no table {name!r}; tables: {there}")
            return table

    def describe(self, name: str) -> TableDescription:
        """What a table is: columns, configuration, chunking."""
        return self.table(name).describe()

    def stats(self, name: str) -> TableStats:
        """How a table stands: sizes, counters, what blocks."""
        return self.table(name).stats()

    def alter_table(
        self,
        name: str,
        *,
        rate_limiter: RateLimiter | None = None,
        retention: Retention | None = None,
        selector: Selector | Mapping[str, Selector] | None = None,
    ) -> TableConfig:
        """Changes rate limiter, retention or selector parameters, at once and for good; returns the new configuration."""
        return self.table(name).alter(rate_limiter=rate_limiter, retention=retention, selector=selector)

    def snapshot(
        self,
        name: str,
        out: str | Path,
        *,
        rebase: bool = False,
        episodes: bool = False,
        closing_rows: bool = False,
        timeout_s: float = DEFAULT_SNAPSHOT_TIMEOUT_S,
    ) -> SnapshotReport:
        """Copies a table as it is now into a store of its own, while writers and samplers go on.

        Sealed chunk files are shared by hard links where the file system has them, so this takes little time and room.

        Args:
            name: the table.
            out: a folder that does not exist yet; it appears complete or not at all.
            rebase: numbers the steps from 0: every row is copied, episodes whose beginning is gone are left out.
            episodes: writes a plain dataset of the finished episodes instead, ``data/…`` and ``meta/episode_ends``, in Zarr v2 and v3.
            closing_rows: with `episodes`, keeps the row after each episode's last step.
            timeout_s: how long to wait for the table's own rows to be durable.

        Raises:
            AlreadyExists: there is something at `out`.
        """
        if episodes:
            return export_episodes(self.table(name), Path(out), closing_rows=closing_rows)
        if closing_rows:
            raise InvalidArgument("closing_rows=True belongs to episodes=True; a store always keeps them")
        return take_snapshot(self.table(name), Path(out), rebase=rebase, timeout_s=timeout_s)

    def fork(
        self,
        name: str,
        new_name: str,
        *,
        selector: Selector | Mapping[str, Selector] | None = None,
        rate_limiter: RateLimiter | None = None,
        retention: Retention | None = None,
        timeout_s: float = DEFAULT_SNAPSHOT_TIMEOUT_S,
    ) -> TableConfig:
        """Makes the table `new_name` over the rows that `name` has now, sharing its sealed files; both go on by themselves.

        Args:
            name: the table; it is not changed.
            new_name: of the new one.
            selector: other selectors, of any kind; a prioritized one of a name that `name` has too takes its priorities over, others begin
                with the same priority everywhere.
            rate_limiter: another one; it counts from now on.
            retention: another one.
            timeout_s: how long to wait for the rows to be durable.

        Returns:
            The new table's configuration.
        """
        check_name(new_name, "table")
        self._check_writable("fork a table")
        source, target = self.table(name), self.path / new_name
        with self._lock:
            self._check_new(new_name)

        def change(config: TableConfig) -> TableConfig:
            return config.changed(selector=selector, rate_limiter=rate_limiter, retention=retention)

        work = self.path / PRIVATE_FOLDER / f"forking-{uuid.uuid4().hex}"
        try:
            copied = copy_table(source, work / new_name, change=change)
            source.wait_durable(copied.source_next_step, timeout_s)
            with self._lock, storage_errors(target, "creating"):
                self._check_new(new_name)
                calls.rename(work / new_name, target)
                calls.sync_folder(self.path)
        finally:
            calls.remove_tree(work)
        table = self._open_table(new_name)
        self._publish_root()
        return table.config

    def _check_new(self, name: str) -> None:
        if self._closed:
            raise InvalidArgument(f"the store {self.path} is closed")
        if name in self._tables or (self.path / name).exists():
            raise AlreadyExists(f"table {name!r} exists: choose another name, or drop it first")

    def drop_table(self, name: str) -> None:
        """Removes a table and its files."""
        self._check_writable("drop a table")
        with self._lock:
            self.table(name)
            hidden = self._discard(name)
            self._publish_root()
        calls.remove_tree(hidden)

    def _discard(self, name: str) -> Path:
        """Takes a table out of sight; returns the folder that is left to remove. If that fails, the table is served again."""
        table = self._tables.pop(name, None)
        if table is not None:
            table.close(save=False)
        hidden = self.path / PRIVATE_FOLDER / f"dropped-{uuid.uuid4().hex}"
        try:
            with storage_errors(self.path / name, "dropping"):
                calls.rename(self.path / name, hidden)
                calls.sync_folder(self.path)
        except ReplayStoreError:
            if table is not None and (self.path / name / "zarr.json").exists():
                self._open_table(name)
            raise
        return hidden

    # -- writing and sampling

    def writer(self, name: str, *, streams: int = 1, actor: int = 0, policy_version: int = -1, **options: Any) -> Writer:
        """A writer for one actor's `streams` environments; a context manager. See `replaystore.Writer` for the options."""
        self._check_writable("write")
        table = self.table(name)
        sink = _TableSink(table)
        return Writer(table.config.columns, sink, streams=streams, actor=actor, policy_version=policy_version, **options)

    # -- parameters

    def publish_parameters(self, name: str, arrays: Mapping[str, Any]) -> int:
        """Keeps named arrays under `name` for actors to fetch; returns their version, which only ever grows."""
        self._check_writable("publish parameters")
        return self._parameters.publish(name, arrays)

    def fetch_parameters(self, name: str, newer_than: int = 0, timeout_s: float = 0.0) -> tuple[dict[str, Array], int] | None:
        """The newest arrays and their version, or None when nothing newer than `newer_than` appeared within `timeout_s`."""
        return self._parameters.fetch(name, newer_than, timeout_s)

    def parameter_bytes(self) -> dict[str, int]:
        """Bytes of each parameter set in memory, by name."""
        return self._parameters.sizes()

    def on_parameters(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Calls `callback` after every publication; returns a call that ends that."""
        return self._parameters.on_publish(callback)

    # -- life

    def _check_writable(self, what: str) -> None:
        if self.mode == "r":
            raise PermissionDenied(f"cannot {what}: {self.path} is open with mode='r'")

    def _request_commit(self) -> None:
        self._wake.set()

    def _commit_loop(self) -> None:
        while not self._closed:
            self._wake.wait(self._interval_s)
            self._wake.clear()
            self._commit_all()

    def _commit_all(self) -> None:
        with self._lock:
            tables = list(self._tables.values())
        for table in tables:
            try:
                table.commit()
            except ReplayStoreError as error:
                table.fail(error)
            except Exception as error:  # whatever it was, this thread must live and somebody must hear of it
                table.fail(StorageError(f"the commit thread met {error!r}"))

    def close(self) -> None:
        """Commits, publishes and closes everything; safe to call twice."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        if self._committer is not None:
            self._wake.set()
            self._committer.join()
        errors = []
        for table in self._tables.values():
            try:
                table.close()
            except ReplayStoreError as error:
                errors.append(error)
        if self._file_lock is not None:
            self._file_lock.release()
        if errors:
            raise errors[0]

    def __repr__(self) -> str:
        return f"Store({str(self.path)!r}, mode={self.mode!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class _TableSink:
    """Blocks straight into a table of this process."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def send(self, block: StepBlock, timeout_s: float) -> None:
        self._table.append(block, timeout_s)

    def flush(self, durable: bool, timeout_s: float) -> None:
        if durable:
            self._table.wait_durable(self._table.next_step, max(timeout_s, 0.001))

    def close(self, timeout_s: float) -> None:
        pass

    def poll(self) -> None:
        pass
