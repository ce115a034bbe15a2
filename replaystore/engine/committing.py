"""Group commit of one table: when rows become durable, when readers see them, when files go, and when inserts must stop."""

from __future__ import annotations

import contextlib
import functools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from replaystore.engine.pins import Pins
from replaystore.errors import Corruption, DiskFull, NotReady, ReplayStoreError, StorageError
from replaystore.storage.table_files import TableFiles

PUBLISH_INTERVAL_S = 1.0
"""How far the lengths that readers see may lag behind."""


SEALED_BYTES = 512 << 20
"""Read at most per publication to take checksums: some 60 ms of the commit thread. A faster writer is caught up with later."""

INSPECTED_FILES = 16
"""Chunk files of each column that a commit looks at, beside the newest: has something outside changed them?"""

FULL_S = 30.0
"""For so long after a refused block a disk is taken to be full still; writers try again far more often."""


class Committing:
    """Shares the table's lock; the slow parts of a commit run without it."""

    def __init__(self, name: str, files: TableFiles, lock: threading.RLock, pins: Pins, checkpoint: Callable[[], dict[str, Any]]) -> None:
        self._name, self._files, self._lock, self._pins, self._checkpoint = name, files, lock, pins, checkpoint
        self._moved = threading.Condition(lock)
        self._turn = threading.Lock()
        self._publishing = threading.Lock()
        self._error: StorageError | None = None
        self._unreadable: StorageError | None = None
        self._full: tuple[DiskFull, float, int] | None = None
        self._closed = False
        self._last_published = 0.0
        self._rotated = False
        self._unread: deque[Callable[[], None]] = deque()
        self.committed: Callable[[float, int], None] | None = None
        """Called after each commit that had something to do, with its seconds and the rows that became durable."""

    @property
    def failed(self) -> bool:
        """Whether inserts are refused."""
        return self._error is not None

    @property
    def failure(self) -> str | None:
        """Why inserts, or even samples, are refused; None while all is well."""
        error = self._unreadable or self._error
        return None if error is None else str(error)

    def check(self) -> None:
        """Raises the error for which inserts are refused, if there is one."""
        if self._error is not None:
            raise self._error

    @property
    def trouble(self) -> StorageError | None:
        """Why the disk does not take what is written: the error for which inserts are refused, or that of the last block if it was full."""
        trouble = self._unreadable or self._error
        if trouble is None and self._full is not None:
            error, since, next_step = self._full
            if self._files.next_step == next_step and time.monotonic() - since < FULL_S:
                return error
        return trouble

    def check_readable(self) -> None:
        """Raises the error for which even sampling is refused: a file has become shorter than its mapping, which must not be touched."""
        if self._unreadable is not None:
            raise self._unreadable

    def refuse(self, error: ReplayStoreError) -> None:
        """A full disk may be tried again, for nothing was acknowledged; after anything else the state of the files is not known."""
        with self._lock:
            if isinstance(error, DiskFull):
                self._full = DiskFull(str(error)), time.monotonic(), self._files.next_step
            elif self._error is None:
                kind = Corruption if isinstance(error, Corruption) else StorageError
                self._error = kind(f"table {self._name!r} refuses inserts since: {error}. Mend the disk, then restart; sampling goes on")
            self._moved.notify_all()

    def commit(self) -> None:
        """Data, then journal, then watermark; then publication; then what nobody needs any more goes."""
        with self._turn:
            self._commit()

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """Nobody commits or publishes meanwhile. To be entered before the table's lock."""
        with self._turn, self._publishing:
            yield

    def _commit(self) -> None:
        files = self._files
        if not self._closed:
            self._inspect()
        with self._lock:
            if self._closed or self._error is not None:
                return
            commit = files.capture(self._checkpoint) if files.commit_due else None
        if commit is not None:
            began, durable = time.perf_counter(), files.state["durable_step"]
            try:
                files.sync(commit)
                with self._lock:
                    finisher = files.finish(commit)
                if finisher is not None:
                    finisher()
                    self._rotated = True
            except ReplayStoreError as error:
                # whatever a sync says, a full disk too: what it left unwritten cannot be told, so this is for good
                self.refuse(error if isinstance(error, Corruption) else StorageError(str(error)))
                self._inspect()
                return
            with self._lock:
                self._moved.notify_all()
            if self.committed is not None:
                self.committed(time.perf_counter() - began, commit.next_step - durable)
        if time.monotonic() - self._last_published >= PUBLISH_INTERVAL_S:
            self.publish()
            files.seal(SEALED_BYTES, save=self._rotated)
            self._rotated = False

    def _inspect(self) -> None:
        change = self._files.inspect(INSPECTED_FILES)
        if change is not None:
            if not change.still_served:
                self._unreadable = change.error
            self.refuse(change.error)

    def publish(self, *, durable: bool = False, force: bool = False) -> None:
        """Lets readers see what is durable, then takes away files that retention has passed by. Not under the table's lock."""
        files = self._files
        with self._publishing:
            with self._lock:
                if self._closed:
                    return
                files.prepare_publication()
                first = files.attributes["first_step"]
            files.publish(durable=durable, force=force)
            self._last_published = time.monotonic()
            with self._lock:
                removals = [] if self._closed else files.drop_before(first)
            if removals:
                files.sync_publication()
                files.state.sync()  # the watermark first: recovery must never look for a file that is gone on purpose
                for removal in removals:
                    self._pins.retire(functools.partial(self._unread.append, removal))
            while self._unread:  # those of before too: removing a large file takes long, and is no work for a reader that lets go of it
                self._unread.popleft()()

    def clear_away(self) -> None:
        """What was still read when it was to be taken away, and is no more. Where that fails, it goes at the next opening."""
        with self._publishing, contextlib.suppress(StorageError):
            while self._unread:
                self._unread.popleft()()

    def wait_changes(self, changes: int, timeout_s: float) -> None:
        """Returns once so many changes of live columns are on stable storage."""
        with self._moved:
            self._moved.wait_for(lambda: self._closed or self.failed or self._files.durable_changes >= changes, timeout_s)
            if self._files.durable_changes < changes:
                self.check()
                raise NotReady(
                    f"table {self._name!r}: the change was made, but waited {timeout_s:g} s for it to be on stable storage; the disk is "
                    "slow, or the table was closed"
                )

    def wait(self, step: int, timeout_s: float) -> int:
        """Returns the durable position once it has reached `step`."""
        state = self._files.state
        with self._moved:
            reached = self._moved.wait_for(lambda: self._closed or self.failed or state["durable_step"] >= step, timeout_s)
            if state["durable_step"] >= step:
                return state["durable_step"]
            self.check()
            if not reached:
                raise NotReady(
                    f"table {self._name!r}: waited {timeout_s:g} s for rows below {step} to be on stable storage; those below "
                    f"{state['durable_step']} are"
                )
            raise NotReady(f"table {self._name!r} was closed before rows below {step} were on stable storage")

    def close(self) -> None:
        """No more commits; those who wait are woken."""
        with self._lock:
            self._closed = True
            self._moved.notify_all()
