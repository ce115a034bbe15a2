"""The disk says EIO or ENOSPC at the N-th call, for every N, once or from then on: errors that help, nothing lost, nothing stuck.

``REPLAYSTORE_FAULTS=all`` fails all calls in all four ways. By default every call fails in one of them, but for the forty documents of each
publication: of their calls, only some.
"""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import replaystore as rs
from replaystore.errors import NotReady, ReplayStoreError
from replaystore.storage import calls
from tests.crash.script import Script, block_of
from tests.crash.test_every_call import UNCHANGING, is_of_a_document

ALL = os.environ.get("REPLAYSTORE_FAULTS") == "all"
WAYS = [(errno.EIO, False), (errno.ENOSPC, False), (errno.EIO, True), (errno.ENOSPC, True)]
ALLOCATING = ("open", "mkdir", "fallocate", "pwrite", "fdatasync")
LONGEST_CALL_S = 5.0


class Fault:
    """The hook: counts calls; the N-th fails, and with `lasting` all that come after it."""

    def __init__(self, at: int, code: int, *, lasting: bool) -> None:
        self.at, self.code, self.lasting = at, code, lasting
        self.count = self.failed = 0
        self.worth_trying: list[int] = []
        """Numbers of the calls that are to fail in some test."""

    def __call__(self, name: str, *details: Any) -> None:
        self.count += 1
        if name not in UNCHANGING and (ALL or self.count % 20 == 0 or not is_of_a_document(name, details)):
            self.worth_trying.append(self.count)
        if not (self.count == self.at or (self.lasting and self.count > self.at > 0)):
            return
        if self.code == errno.ENOSPC and name not in ALLOCATING:
            return
        self.failed += 1
        if name == "pwrite" and self.code == errno.ENOSPC:
            fd, data, offset = details
            os.pwrite(fd, data[: len(data) // 2], offset)  # a full disk takes what still fits
        raise OSError(self.code, os.strerror(self.code))


class Life(Script):
    """A short life in which every call may fail."""

    def __init__(self, path: Path, fault: Fault) -> None:
        super().__init__(path)
        self.fault = fault
        self.errors: list[ReplayStoreError] = []

    def durable(self) -> None:
        assert self.store is not None
        table = self.store.table("t")
        self.oracle.durable = max(self.oracle.durable, table.wait_durable(table.next_step, LONGEST_CALL_S))

    def write(self, rows: int = 60) -> None:
        assert self.store is not None
        streams, number, following = [list(stream) for stream in self._streams], self._round, self._next_episode
        try:
            super().write(rows)
        except ReplayStoreError:  # not acknowledged: a writer would send the same rows again
            self._streams, self._round, self._next_episode = streams, number, following
            raise

    def attempt(self, step: Callable[[], None]) -> bool:
        started = time.monotonic()
        failures = self.fault.failed
        try:
            step()
            return True
        except ReplayStoreError as raised:
            error = raised
        self.errors.append(error)
        assert time.monotonic() - started < LONGEST_CALL_S
        assert not isinstance(error, NotReady), f"waited in vain: {error}"
        assert "refuses" in str(error) or str(self.path.parent) in str(error), f"the error names no file: {error}"
        assert self.fault.failed > failures or "refuses" in str(error), f"failed without a fault: {error}"
        return False

    def live(self) -> None:
        """Goes on as far as it can, and samples whatever happens."""
        for step in (self.open, self.create):
            if not self.attempt(step):
                self.fault.lasting = False  # somebody mends the disk and tries again
                if self.store is None:
                    self.open()
                self.create()
        life = [self.write, self.write, self.commit, self.write, self.durable, self.alter, self.parameters]
        life += [self.write, self.write, self.remove, self.write, self.annotate, self.write, self.write, self.commit, self.publish]
        life += [self.write, self.commit]
        for step in life:
            if not self.attempt(step):
                self.after_an_error(step)
        if not self.attempt(self.close):
            self.store = None

    def after_an_error(self, step: Callable[[], None]) -> None:
        assert self.store is not None
        table = self.store.table("t")
        if table.stats().anchors:
            self.store.sample("t", 8, timeout_s=0)
        refused = table._committing.failed
        if self.fault.code == errno.ENOSPC and step == self.write and not refused:
            self.fault.lasting, self.fault.at = False, -1  # somebody makes room: the writer goes on without a restart
            self.write()
        if refused:
            with pytest.raises(ReplayStoreError, match="refuses inserts since"):
                table.append(block_of([(77, 0, 0)]), 0)


def calls_of_a_life(folder: Path) -> list[int]:
    """Lives without a fault; returns the calls that are worth failing."""
    fault = Fault(0, errno.EIO, lasting=False)
    calls.hook = fault
    life = Life(folder / "data", fault)
    life.live()
    calls.hook = None
    shutil.rmtree(folder / "data")
    assert not life.errors
    assert life.oracle.acknowledged == 9 * 120
    assert len(fault.worth_trying) > 300
    return fault.worth_trying


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("code", "lasting"), WAYS, ids=["EIO once", "ENOSPC once", "EIO for good", "ENOSPC until there is room"])
def test_a_fault_at_every_call(fast_folder: Path, code: int, lasting: bool, tell: Callable[[str], None]) -> None:
    faults = 0
    worth_trying = calls_of_a_life(fast_folder)
    for at in worth_trying if ALL else worth_trying[WAYS.index((code, lasting)) :: len(WAYS)]:
        path = fast_folder / "data"
        fault = Fault(at, code, lasting=lasting)
        calls.hook = fault
        life = Life(path, fault)
        try:
            life.live()
        except BaseException as error:
            error.add_note(f"the fault was at call {at}")
            raise
        finally:
            calls.hook = None
        if fault.failed:
            faults += 1
            with rs.open(path, commit_interval_s=3600) as store:
                try:
                    life.oracle.check(store)
                except BaseException as error:
                    error.add_note(f"the fault was at call {at}; errors: {life.errors}")
                    raise
        shutil.rmtree(path)
    tell(f"{faults} faults injected")
    assert faults > 50
