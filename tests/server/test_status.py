"""GetServerStatus: what a server says of itself, its machine and its tables."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import replaystore as rs
from replaystore.server.observing import surroundings
from replaystore.server.thread import ServerThread
from replaystore.status import ServerStatus
from replaystore.store import Store
from replaystore_client import Client

from .conftest import config, write_steps


def until(client: Client, reached: Callable[[ServerStatus], bool], timeout_s: float = 60.0) -> ServerStatus:
    deadline = time.monotonic() + timeout_s
    while not reached(status := client.server_status()):
        assert time.monotonic() < deadline, status
        time.sleep(0.02)
    return status


def test_a_server_without_tables(store: Store, server: ServerThread, client: Client) -> None:
    status = client.server_status()
    assert (status.version, status.tables, status.addresses) == (rs.__version__, (), server.addresses)
    assert status.instance == client.server_info()["instance"]
    assert status.path == str(store.path.absolute())
    assert status.pid == os.getpid()
    assert (status.durability, status.commit_interval_s) == ("interval", 0.2)
    assert abs(status.time - time.time()) < 60
    assert 0 < client.server_status().uptime_s - status.uptime_s < 60
    assert 0 < status.rss_bytes < status.memory_limit_bytes
    assert 3 < status.open_files < status.max_open_files
    assert status.threads >= threading.active_count()
    assert 0 < status.disk_free_bytes < status.disk_total_bytes
    assert status.filesystem


def test_streams_and_tables(client: Client) -> None:
    client.create_table("b", config())
    client.create_table("a", config())
    with client.writer("a") as writer, client.sampler("a", 2, timeout_s=30) as sampler:
        write_steps(writer, 20)
        writer.flush(durable=True)
        next(sampler)
        status = until(client, lambda now: now.append_streams == 1 and now.sample_streams == 1)
        assert [table.stats.name for table in status.tables] == ["a", "b"]
        a, b = status.tables
        assert (a.stats.inserted_steps, b.stats.inserted_steps) == (20, 0)
        assert a.stats.sampled_items >= 2
        assert a.received_bytes > 20 * 12
        assert a.sent_bytes > 0
        assert (a.commit_lag_s, a.failure) == (0.0, None)
        assert (b.received_bytes, b.sent_bytes, b.idle_s) == (0, 0, None)
        assert a.idle_s is not None
        assert 0 <= a.idle_s < status.uptime_s
    until(client, lambda now: now.append_streams == 0 and now.sample_streams == 0)


def test_who_is_held_back_and_for_how_long(client: Client) -> None:
    client.create_table("t", config(rate_limiter=rs.MinSize(100)))
    waiting = threading.Thread(target=lambda: client.sample("t", 2, timeout_s=100))
    waiting.start()
    until(client, lambda now: now.tables[0].stats.waiting_samples == 1 and now.tables[0].blocked_sample_s > 0)
    with client.writer("t") as writer:
        write_steps(writer, 101)
    waiting.join()
    (table,) = client.server_status().tables
    assert table.stats.waiting_samples == table.blocked_insert_s == 0
    assert table.blocked_sample_s > 0


def test_rows_that_the_disk_does_not_have_yet(store: Store, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    client.create_table("t", config())
    monkeypatch.setattr(store.table("t"), "commit", lambda: None)
    with client.writer("t") as writer:
        write_steps(writer, 3)
        writer.flush()
        lag_s = until(client, lambda now: now.tables[0].commit_lag_s > 0).tables[0].commit_lag_s
        assert until(client, lambda now: now.tables[0].commit_lag_s > lag_s).tables[0].stats.durable_step == 0
        monkeypatch.undo()
        assert until(client, lambda now: now.tables[0].commit_lag_s == 0).tables[0].stats.durable_step == 3


def test_a_table_whose_files_are_gone(store: Store, client: Client) -> None:
    client.create_table("t", config())
    with store.writer("t") as writer:
        write_steps(writer, 3)
    for path in (store.path / "t/steps/action").glob("c.*"):
        path.rename(path.with_suffix(".moved"))
    status = until(client, lambda now: now.tables[0].failure is not None)
    assert "t/steps/action/c.0" in str(status.tables[0].failure)


def counts_one_more() -> bool:
    before = surroundings.open_files()
    with open("/dev/null") as _:
        return surroundings.open_files() == before + 1


def test_what_surrounds_a_process() -> None:
    assert surroundings.filesystem_of("/proc/self") == "proc"
    assert surroundings.disk_of("/no/such/folder") == surroundings.Disk(0, 0, "")
    assert any(counts_one_more() for _ in range(20))  # what other threads of the process close meanwhile counts too
    assert surroundings.thread_count() >= 1
    assert isinstance(surroundings.strict_overcommit(), bool)


def test_a_control_group_that_allows_less_than_the_machine_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/pod/container\n")
    inner = tmp_path / "groups/pod/container"
    inner.mkdir(parents=True)
    (inner / "memory.max").write_text("max\n")
    monkeypatch.setattr(surroundings, "_PROC", tmp_path / "proc")
    monkeypatch.setattr(surroundings, "_CGROUP", tmp_path / "groups")
    machine = surroundings.memory_limit_bytes()
    (inner.parent / "memory.max").write_text("1048576\n")
    assert surroundings.memory_limit_bytes() == 1 << 20 < machine
    (tmp_path / "proc/self/cgroup").write_text("5:memory:/old\n")
    (tmp_path / "groups/memory/old").mkdir(parents=True)
    (tmp_path / "groups/memory/old/memory.limit_in_bytes").write_text(f"{(1 << 63) - 4096}\n")
    assert surroundings.memory_limit_bytes() == machine
