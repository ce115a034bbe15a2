"""A served store and two clients of it: one that reads the files, one that has everything sent."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import replaystore as rs
from replaystore.server.options import ServerOptions
from replaystore.server.thread import ServerThread, start_in_thread
from replaystore.store import Store
from replaystore_client import Client
from tests.views.worlds import Move, World, moves

EVERYTHING = ServerOptions(local_least_bytes=0)
"""By the local path, however little it is."""

WIDE = 1024
"""Floats of an observation: a page, so that chunk files are as small as the retention lets them be."""


def config(max_steps: int | None = None, **changes: Any) -> rs.TableConfig:
    columns = {"observation": rs.Column((WIDE,), "float32"), "action": rs.Column((), "int64"), **changes.pop("extras", {})}
    return rs.TableConfig(columns, **{"seed": 7, "retention": rs.Retention(max_steps), **changes})


def play(api: Any, table: str, steps: int, *, mark: int = 0, end: bool = True) -> None:
    """An episode whose rows say where they are: observation mark + t, action t, reward t + 1."""
    with api.writer(table) as writer:
        writer.reset(np.full(WIDE, mark, np.float32))
        for t in range(steps):
            writer.append(t, t + 1.0, end and t == steps - 1, False, np.full(WIDE, mark + t + 1, np.float32))


def check(batch: rs.Batch, mark: int | None = None) -> None:
    """The rows of a batch of transitions belong together."""
    observation, following = batch.observation, batch.next_observation
    marks = observation[:, 0] - batch.action
    if mark is not None:
        assert set(marks.tolist()) == {mark}
    np.testing.assert_array_equal(observation, np.broadcast_to(observation[:, :1], observation.shape))
    np.testing.assert_array_equal(following, np.broadcast_to(observation[:, :1] + 1, following.shape))
    np.testing.assert_array_equal(batch.reward, batch.action + 1)


def same(one: rs.Batch, other: rs.Batch, *, but: tuple[str, ...] = ("info/times_sampled",)) -> None:
    """Bit for bit."""
    assert one.fields.keys() == other.fields.keys()
    for name, array in one.fields.items():
        if name not in but:
            there = other.fields[name]
            assert (array.dtype, array.shape) == (there.dtype, there.shape), name
            assert array.tobytes() == there.tobytes(), name
    assert (one.candidates, one.mass, one.next_step) == (other.candidates, other.mass, other.next_step)


def compare_lives(store: Store, views: st.SearchStrategy[Any], most: int, compare: Callable[[str, Any, int], None]) -> None:
    """Calls `compare` with a table, a view and a batch size of at most `most`, for tables that have lived in many ways."""
    numbers = iter(range(1000))
    compared = 0

    @settings(max_examples=5, deadline=None, database=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
    @given(moves("delete"), views, st.integers(1, most))
    def live(played: list[Move], view: Any, size: int) -> None:
        nonlocal compared
        table = f"{type(view).__name__.lower()}-{next(numbers)}"
        world = World(store, table, 40)
        try:
            for move in played:
                world.play(move)
            world.close_writer()
            if store.stats(table).anchors and world.check(view, 1):
                compare(table, view, size)
                compared += 1
        finally:
            store.drop_table(table)

    live()
    assert compared >= 2


def until(condition: Callable[[], object], what: str) -> None:
    """Waits for what another thread does."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.005)


def chunks(store: Store, table: str, column: str = "observation") -> set[int]:
    """Chunk files of a column that are there."""
    return {int(path.name.split(".")[1]) for path in (store.path / table / "steps" / column).glob("c.*")}


@pytest.fixture(scope="module")
def shared_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with rs.open(tmp_path_factory.mktemp("store") / "data") as opened:
        yield opened


@pytest.fixture(scope="module")
def clients(shared_store: Store) -> Iterator[tuple[Client, Client]]:
    """Of one store: by the local path, and by wire."""
    with (
        start_in_thread(shared_store, options=EVERYTHING) as server,
        Client(server.address) as local,
        Client(server.address, local=False) as wire,
    ):
        yield local, wire


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with rs.open(tmp_path / "data", commit_interval_s=0.02) as opened:
        yield opened


@pytest.fixture
def server(store: Store) -> Iterator[ServerThread]:
    with start_in_thread(store, options=EVERYTHING) as running:
        yield running


@pytest.fixture
def local(server: ServerThread) -> Iterator[Client]:
    with Client(server.address) as connected:
        yield connected


@pytest.fixture
def wire(server: ServerThread) -> Iterator[Client]:
    with Client(server.address, local=False) as connected:
        yield connected
