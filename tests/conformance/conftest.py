"""One suite, two sides: `api` is an embedded store, or a client of a server over a store like it. Tests cannot tell which."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import replaystore as rs
from replaystore.server.options import ServerOptions
from replaystore.server.thread import ServerThread, start_in_thread
from replaystore_client import Client

KINDS = ["embedded", "remote"]


class Side:
    """A store on disk and a way to it; `reopen` ends everything and begins again from the files."""

    def __init__(self, kind: str, path: Path) -> None:
        self.kind, self.path = kind, path
        self._server: ServerThread | None = None
        self._open()

    def _open(self) -> None:
        self._store = rs.open(self.path, commit_interval_s=0.02)
        self.api: Any = self._store
        if self.kind == "remote":
            # from a stream's second request on by the local path, however small a batch is
            self._server = start_in_thread(self._store, options=ServerOptions(local_least_bytes=0))
            self.api = Client(self._server.address)

    def close(self) -> None:
        if self._server is not None:
            self.api.close()
            self._server.stop()
        self._store.close()

    def watch_publications(self, table: str, pause_s: float) -> tuple[list[int], list[int]]:
        """Makes them slow; returns those that are going on, and the most that ever were at once."""
        files = self._store.table(table)._files
        publish, inside, most = files.publish, [], [0]

        def watched(**options: Any) -> None:
            inside.append(1)
            most[0] = max(most[0], len(inside))
            time.sleep(pause_s)
            try:
                publish(**options)
            finally:
                inside.pop()

        files.publish = watched  # type: ignore[method-assign]
        return inside, most

    def publish_soon(self, table: str) -> None:
        """Lets the committer's next turn publish, which else happens once a second."""
        self._store.table(table)._committing._last_published = 0.0

    def reopen(self) -> Any:
        self.close()
        self._open()
        return self.api


@pytest.fixture(scope="module", params=KINDS)
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Side]:
    side = Side(request.param, tmp_path_factory.mktemp("store") / "data")
    yield side
    side.close()


@pytest.fixture
def api(shared: Side) -> Any:
    return shared.api


@pytest.fixture(params=KINDS)
def side(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Side]:
    """One of its own, for tests that reopen or count tables."""
    opened = Side(request.param, tmp_path / "data")
    yield opened
    opened.close()


@pytest.fixture
def sides(tmp_path: Path) -> Iterator[dict[str, Side]]:
    """Both kinds at once, over stores of their own."""
    both = {kind: Side(kind, tmp_path / kind) for kind in KINDS}
    yield both
    for opened in both.values():
        opened.close()


_numbers = count()


@pytest.fixture
def table() -> str:
    """A name that no other test uses."""
    return f"table-{next(_numbers)}"


def config(**changes: Any) -> rs.TableConfig:
    columns = {"observation": rs.Column((2,), "float32"), "action": rs.Column((), "int64"), **changes.pop("extras", {})}
    return rs.TableConfig(columns, **{"seed": 7, **changes})


def play(writer: Any, steps: int, *, stream: int = 0, first: int = 0, end: bool = True, **extras: Any) -> None:
    """An episode whose rows say where they are: observation (stream, t), action t, reward t + 1."""
    writer.reset(np.array([stream, first], np.float32), stream=stream)
    for t in range(first, first + steps):
        last = end and t == first + steps - 1
        writer.append(t, t + 1, last, False, np.array([stream, t + 1], np.float32), stream=stream, **extras)


@pytest.fixture
def filled(api: Any, table: str) -> Callable[..., str]:
    """Makes a table with one episode in it and returns its name."""

    def fill(steps: int = 10, **changes: Any) -> str:
        api.create_table(table, config(**changes))
        with api.writer(table) as writer:
            play(writer, steps)
        return table

    return fill
