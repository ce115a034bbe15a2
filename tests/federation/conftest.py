"""Tables whose rows say where they are from: observation (tag, step), so that a joined batch can be told apart."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import replaystore as rs
from replaystore.federated import federation
from replaystore.server.thread import ServerThread, start_in_thread
from replaystore.store import Store
from replaystore_client import Client

COLUMNS = {"observation": rs.Column((2,)), "action": rs.Column((), "int64")}


def fill(api: Any, table: str, tag: int, steps: int, **changes: Any) -> None:
    """A table with `steps` anchors of one episode, ids from 0."""
    api.create_table(table, rs.TableConfig(COLUMNS, **{"seed": tag, **changes}))
    play(api, table, tag, steps)


def play(api: Any, table: str, tag: int, steps: int) -> None:
    with api.writer(table) as writer:
        writer.reset(np.array([tag, 0], np.float32))
        for t in range(steps):
            writer.append(t, 1.0, t == steps - 1, False, np.array([tag, t + 1], np.float32))


class Lab:
    """A store and a server of it at one address, which can go away and come back."""

    def __init__(self, path: Path) -> None:
        self.path, self.socket = path, path.parent / f"{path.name}.sock"
        self.store: Store | None = None
        self.server: ServerThread | None = None
        self.start()
        self.client = Client(f"unix:{self.socket}", timeout_s=10.0)

    def start(self) -> None:
        self.store = rs.open(self.path, commit_interval_s=0.02)
        self.server = start_in_thread(self.store, None, str(self.socket))

    def stop(self) -> None:
        if self.server is not None and self.store is not None:
            self.server.stop()
            self.store.close()
        self.server = self.store = None

    def close(self) -> None:
        self.client.close()
        self.stop()


@pytest.fixture
def make_lab(tmp_path: Path) -> Iterator[Callable[[str], Lab]]:
    labs: list[Lab] = []

    def make(name: str) -> Lab:
        labs.append(Lab(tmp_path / name))
        return labs[-1]

    yield make
    for lab in labs:
        lab.close()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with rs.open(tmp_path / "local") as opened:
        yield opened


@pytest.fixture(params=["embedded", "remote"])
def api(request: pytest.FixtureRequest, store: Store) -> Iterator[Any]:
    if request.param == "embedded":
        yield store
        return
    with start_in_thread(store) as server, Client(server.address) as client:
        yield client


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sources that are away are tried again every few hundredths of a second."""
    monkeypatch.setattr(federation, "FIRST_PAUSE_S", 0.05)
    monkeypatch.setattr(federation, "LONGEST_PAUSE_S", 0.1)
