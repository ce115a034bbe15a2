from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import replaystore as rs
from replaystore.server.thread import start_in_thread
from replaystore.store import Store
from replaystore_client import stream, watchdog

from .proxy import FaultProxy

CONFIG = rs.TableConfig({"observation": rs.Column((3,)), "action": rs.Column((), "int64")}, rs.Prioritized())


@pytest.fixture(scope="package", autouse=True)
def impatient() -> Iterator[None]:
    """Clients give a silent server up as early as they do outside the tests."""
    before, stream.LATE_S = stream.LATE_S, watchdog.LATE_S
    yield
    stream.LATE_S = before


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with rs.open(tmp_path / "data") as opened:
        opened.create_table("t", CONFIG)
        yield opened


@pytest.fixture
def proxy(store: Store) -> Iterator[FaultProxy]:
    """The only way to the server."""
    with start_in_thread(store) as server:
        between = FaultProxy(server.address)
        yield between
        between.close()


def check_exactly_once(store: Store, actors: dict[int, int]) -> None:
    """Every actor's steps of its one episode are there once, in order, with their contents; its closing row follows them."""
    rows = store.read_steps("t", 0, 1 << 60)
    assert len(rows["step_id"]) == sum(actors.values()) + len(actors)
    for actor, steps in actors.items():
        mine = rows["meta/actor"] == actor
        np.testing.assert_array_equal(rows["observation"][mine], [[step, actor, 0] for step in range(steps + 1)])
        np.testing.assert_array_equal(rows["meta/step_in_episode"][mine], np.arange(steps + 1))
        np.testing.assert_array_equal(rows["action"][mine][:-1], np.arange(steps))
        np.testing.assert_array_equal(rows["reward"][mine][:-1], np.arange(steps) % 11)
        np.testing.assert_array_equal(rows["meta/kind"][mine], [0] * steps + [1])
        ids = rows["step_id"][mine]
        np.testing.assert_array_equal(rows["meta/previous"][mine], [-1, *ids[:-1]])
    assert store.stats("t").inserted_steps == sum(actors.values())


def write(writer: rs.Writer, actor: int, first: int, steps: int) -> None:
    """Steps [first, first + steps) of the actor's only episode."""
    if first == 0:
        writer.reset(np.array([0, actor, 0]))
    for step in range(first, first + steps):
        writer.append(step, float(step % 11), False, False, np.array([step + 1, actor, 0]))
