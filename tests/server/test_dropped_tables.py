"""What a dropped table leaves behind: nothing, and at once, without the garbage collector."""

from __future__ import annotations

import gc
import os
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import replaystore as rs
from replaystore.engine.weakly import weakly
from replaystore.server import service
from replaystore.server.observing.figures import Figures
from replaystore.server.thread import ServerThread, start_in_thread
from replaystore.store import Store
from replaystore_client import Client

from .conftest import COLUMNS, config


@pytest.fixture(autouse=True)
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def gone(there: weakref.ref[Any], timeout_s: float = 30.0) -> bool:
    """Whether it is freed, once those threads that were at it just then have let go."""
    deadline = time.monotonic() + timeout_s
    while there() is not None and time.monotonic() < deadline:
        time.sleep(0.01)
    return there() is None


def use(client: Client | Store, name: str, selector: rs.Selector) -> None:
    """All that makes a table hold things: rows, draws by views, updates, changed columns, deleted rows."""
    columns = {**COLUMNS, "mark": rs.Column((), writable=True)}
    client.create_table(name, rs.TableConfig(columns, selector))
    with client.writer(name) as writer:
        writer.reset(np.zeros(3, np.float32))
        for step in range(30):
            writer.append(step, 1.0, step % 10 == 9, False, np.zeros(3, np.float32), mark=0.0)
            if step % 10 == 9:
                writer.reset(np.zeros(3, np.float32))
    batch = client.sample(name, 8, view=rs.Transition(n_step=2))
    client.sample(name, 4, view=rs.Sequence(4))
    if isinstance(selector, rs.Prioritized):
        client.update_priorities(name, batch.step_ids, np.ones(8, np.float32))
    client.update_columns(name, batch.step_ids, {"mark": np.ones(8, np.float32)})
    client.delete_steps(name, [3])


SELECTORS = [rs.Uniform(), rs.Prioritized(), rs.RankPrioritized(), rs.Recency(half_life_steps=10.0)]


@pytest.mark.parametrize("selector", SELECTORS, ids=lambda one: type(one).__name__)
def test_in_process(store: Store, selector: rs.Selector) -> None:
    use(store, "t", selector)
    table = weakref.ref(store.table("t"))
    store.drop_table("t")
    assert gone(table)


@pytest.mark.parametrize("local", [False, None])
def test_by_a_server(tmp_path: Path, local: bool | None, monkeypatch: pytest.MonkeyPatch) -> None:
    figures: list[Figures] = []

    def noted() -> Figures:
        figures.append(Figures())
        return figures[-1]

    monkeypatch.setattr(service, "Figures", noted)
    with rs.open(tmp_path / "data") as store, start_in_thread(store) as server, Client(server.address, local=local) as client:
        for name, selector in zip("abcd", SELECTORS, strict=True):
            use(client, name, selector)
        assert set(figures[0].tables) == set("abcd")
        tables = [weakref.ref(store.table(name)) for name in "abc"]
        with client.sampler("a", 4, prefetch=2) as sampler:
            next(sampler)
            for name in "abc":
                client.drop_table(name)
        assert all(gone(table) for table in tables)
        assert "d" in figures[0].tables
        client.create_table("e", config())  # a stream may have counted something for a table that was just dropped
        assert not {"a", "b", "c"} & set(figures[0].tables)


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_descriptors_go_too(store: Store, server: ServerThread) -> None:
    def open_files() -> list[str]:
        links = [os.readlink(link) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
        return [link for link in links if str(store.path) in link and ("/dropped-" in link or "/t/" in link)]

    with Client(server.address, local=False) as client:  # a client on this machine has files open, too
        for _ in range(5):
            use(client, "t", rs.Prioritized())
            assert open_files()
            table = weakref.ref(store.table("t"))
            client.drop_table("t")
            assert gone(table)
            assert not open_files()


def test_weakly() -> None:
    class Owner:
        def double(self, number: int, *, more: int = 0) -> int:
            return 2 * number + more

    owner = Owner()
    call: Callable[..., int] = weakly(owner.double)
    assert (call(3), call(3, more=1)) == (6, 7)
    del owner
    with pytest.raises(ReferenceError, match=r"Owner\.double was called after its owner had gone"):
        call(3)
