"""A server of the test's own options, seen from inside."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest

import replaystore as rs
from replaystore.server.bounds import Bounds
from replaystore.server.options import ServerOptions
from replaystore.server.thread import ServerThread, start_in_thread
from replaystore.store import Store
from replaystore_client import Client

RATIO = rs.SampleToInsertRatio(samples_per_insert=1.0, min_size_to_sample=1, error_buffer=2.0)
KIB = 1 << 10


class Serving:
    """A server of the test's own options, and what it has taken on."""

    def __init__(self, store: Store, stack: ExitStack, made: list[Bounds]) -> None:
        self._store, self._stack, self._made = store, stack, made
        self.server: ServerThread

    def __call__(self, **options: Any) -> Bounds:
        self.server = self._stack.enter_context(start_in_thread(self._store, options=ServerOptions(**options)))
        return self._made[-1]

    def client(self, timeout_s: float = 60.0) -> Client:
        return self._stack.enter_context(Client(self.server.address, timeout_s=timeout_s, local=False))


@pytest.fixture
def serving(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serving]:
    made: list[Bounds] = []

    class Noted(Bounds):
        def __init__(self, options: ServerOptions) -> None:
            super().__init__(options)
            made.append(self)

    monkeypatch.setattr("replaystore.server.service.Bounds", Noted)
    monkeypatch.setattr("replaystore.server.bounds.SOON_S", 0.2)
    with ExitStack() as stack:
        yield Serving(store, stack, made)


def until(reached: Callable[[], Any], timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not reached():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


def refusal(kind: type[rs.ReplayStoreError], call: Callable[[], Any]) -> Any:
    """What `call` is refused with; made again where a busy machine took longer for the answer than it was given."""
    found: list[rs.ReplayStoreError] = []

    def refused() -> bool:
        try:
            call()
        except (kind, rs.DeadlineExceeded) as error:
            found.append(error)
            return isinstance(error, kind)
        pytest.fail("it was not refused")

    until(refused)
    return found[-1]


@pytest.fixture
def beside() -> Iterator[Callable[..., Future[Any]]]:
    """Calls something in another thread."""
    with ThreadPoolExecutor(8) as pool:
        yield pool.submit


def wide(rows: int, **changes: Any) -> rs.TableConfig:
    """A table whose rows have 64 KiB each."""
    return rs.TableConfig({"observation": rs.Column((64 * KIB,), "uint8"), "action": rs.Column((), "int64")}, **changes)


def write_wide(writer: rs.Writer, steps: int) -> None:
    frame = np.zeros(64 * KIB, np.uint8)
    writer.reset(frame)
    for step in range(steps):
        writer.append(step, 0.0, False, False, frame)


def fill(client: Client, steps: int = 30) -> None:
    client.create_table("t", wide(1))
    with client.writer("t") as writer:
        write_wide(writer, steps)
