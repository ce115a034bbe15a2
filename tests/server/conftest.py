from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import replaystore as rs
from replaystore.server.thread import ServerThread, start_in_thread
from replaystore.store import Store
from replaystore_client import Client
from tests.ports import address_to_keep

COLUMNS = {"observation": rs.Column((3,)), "action": rs.Column((), "int64")}

SERVE = """
import asyncio, sys
from replaystore.server.run import serve
from replaystore.server.options import ServerOptions
def ready(info):
    print(*info.addresses, info.steps_recovered, flush=True)
asyncio.run(serve(sys.argv[1], sys.argv[2], durability=sys.argv[3], on_ready=ready))
"""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with rs.open(tmp_path / "data") as opened:
        yield opened


@pytest.fixture
def server(store: Store) -> Iterator[ServerThread]:
    with start_in_thread(store) as running:
        yield running


@pytest.fixture
def client(server: ServerThread) -> Iterator[Client]:
    with Client(server.address) as connected:
        yield connected


class ServerProcess:
    """`serve` in a process of its own, which a test may kill."""

    def __init__(self, path: Path, listen: str, durability: str) -> None:
        command = [sys.executable, "-c", SERVE, str(path), listen, durability]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        words = self.process.stdout.readline().split()
        if not words:
            _, errors = self.process.communicate(timeout=60)
            raise RuntimeError(f"the server did not start: {errors}")
        self.address, self.steps_recovered = words[0], int(words[-1])

    def end(self, how: str = "terminate") -> int:
        if self.process.poll() is None:
            getattr(self.process, how)()
        self.process.communicate(timeout=30)
        return self.process.returncode


@pytest.fixture
def start_process(tmp_path: Path) -> Iterator[Callable[..., ServerProcess]]:
    started: list[ServerProcess] = []

    def start(listen: str | None = None, durability: str = "interval") -> ServerProcess:
        started.append(ServerProcess(tmp_path / "data", address_to_keep() if listen is None else listen, durability))
        return started[-1]

    yield start
    for one in started:
        one.end("kill")


def config(**changes: Any) -> rs.TableConfig:
    return rs.TableConfig(COLUMNS, **changes)


def write_steps(writer: rs.Writer, steps: int, *, begin: bool = True, first: int = 0) -> None:
    """Steps of one episode whose observations count from `first`; the last one does not end the episode."""
    if begin:
        writer.reset(np.full(3, first, np.float32))
    for step in range(first, first + steps):
        writer.append(step, 1.0, False, False, np.full(3, step + 1, np.float32))
