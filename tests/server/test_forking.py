"""A process that forks while client, writer and sampler are at work: parent and child go on, each with connections of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import replaystore as rs
from replaystore.server.thread import ServerThread
from replaystore.store import Store
from replaystore_client import Client, forking
from replaystore_client.connection import Connection

from .conftest import config, write_steps

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")

COMMON = """
import os, sys, threading, warnings
import numpy as np
import replaystore as rs
from replaystore_client import Client
warnings.simplefilter("ignore", DeprecationWarning)
client = Client(sys.argv[1], timeout_s=60)

def ended_well(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

def refused(*calls):
    for call in calls:
        try:
            call()
        except rs.InvalidArgument as error:
            assert "was opened before a fork: open one in the child process" in str(error)
        else:
            return False
    return True
"""

IN_USE = """
stop = threading.Event()
problems, steps = [], 0
sampler = client.sampler("t", 4, timeout_s=60)
writer = client.writer("t", actor=1, block_rows=7)
writer.reset(np.zeros(3))

def guard(work):
    try:
        while not stop.is_set():
            work()
    except BaseException as error:
        problems.append(error)

def write():
    global steps
    for _ in range(10):
        writer.append(steps, 1.0, False, False, np.full(3, steps + 1, np.float32))
        steps += 1
    writer.flush(timeout_s=60)

with client.sampler("t", 16, timeout_s=60) as other:
    threads = [threading.Thread(target=guard, args=(work,)) for work in (
        write, lambda: next(other), lambda: client.sample("t", 4), client.tables,
        lambda: client.publish_parameters("p", {"w": np.zeros(9)}),
    )]
    for thread in threads:
        thread.start()
    for number in range(8):
        next(sampler)
        child = os.fork()
        if child == 0:
            assert client.tables() == ["t"] and len(client.sample("t", 4)) == 4
            with client.sampler("t", 4, timeout_s=60) as mine:
                next(mine)
            with client.writer("t", actor=100 + number) as mine:
                mine.reset(np.zeros(3))
                mine.append(0, 1.0, True, False, np.ones(3))
            assert refused(lambda: next(sampler), lambda: writer.flush())
            sampler.close()
            client.close()
            os._exit(0)
        assert ended_well(child), number
    stop.set()
    for thread in threads:
        thread.join(60)
assert not problems, problems
sampler.close()
writer.close()
print(steps)
client.close()
"""

WORKERS = """
import torch
from torch.utils.data import DataLoader, IterableDataset

class Batches(IterableDataset):
    def __iter__(self):
        with client.sampler("t", 8, timeout_s=60) as mine:
            for _ in range(5):
                yield torch.from_numpy(next(mine).observation.copy())

next(client.sampler("t", 4))  # in use before the workers are there
loader = DataLoader(Batches(), batch_size=None, num_workers=2, multiprocessing_context="fork")
print(sum(len(batch) for batch in loader))
client.close()
"""


def run(code: str, address: str) -> str:
    path = os.pathsep.join(part for part in sys.path if part)
    done = subprocess.run(
        [sys.executable, "-c", COMMON + code, address], env={**os.environ, "PYTHONPATH": path}, timeout=200, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def filled(store: Store) -> Store:
    store.create_table("t", config())
    with store.writer("t") as writer:
        write_steps(writer, 50)
    return store


def test_parent_and_children_go_on(filled: Store, server: ServerThread) -> None:
    steps = int(run(IN_USE, server.address))
    rows = filled.read_steps("t", 0, 1 << 60)
    mine = rows["meta/actor"] == 1
    np.testing.assert_array_equal(rows["observation"][mine][:, 0], np.arange(steps + 1))  # once, in order
    assert {number for number in rows["meta/actor"].tolist() if number >= 100} == set(range(100, 108))


def test_workers_of_a_data_loader(filled: Store, server: ServerThread) -> None:
    pytest.importorskip("torch")
    assert run(WORKERS, server.address) == "80\n"


def test_a_call_that_meets_a_closed_channel_begins_anew(filled: Store, server: ServerThread, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread forks between the look at the channel and the call."""
    connection = Connection(server.address)
    method, times = Connection._method, []

    def suspended(self: Connection, *what: str) -> Any:
        call = method(self, *what)
        times.append(what)
        if len(times) == 1:
            self.suspend()
        return call

    monkeypatch.setattr(Connection, "_method", suspended)
    connection.unary("ListTables", b"", 60)
    assert len(times) == 2
    connection.close()
    with pytest.raises(rs.InvalidArgument, match="is closed"):
        connection.unary("ListTables", b"", 1)


def test_a_break_before_a_fork_is_no_loss(filled: Store, client: Client) -> None:
    """What the parent goes through, without the fork."""
    with client.sampler("t", 4, seed=5) as sampler, client.writer("t", actor=1) as writer:
        batches = [next(sampler) for _ in range(3)]
        write_steps(writer, 10)
        for after in (forking._after_in_parent, forking._after_in_child):
            forking._before()
            assert not forking.is_free()
            after()
            assert forking.is_free()
            writer.flush(timeout_s=60)
            batches.append(next(sampler))
    assert client.stats("t").inserted_steps == 60
    assert all(len(batch) == 4 for batch in batches)
