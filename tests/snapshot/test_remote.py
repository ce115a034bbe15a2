"""From afar and from the command line; and changes of a served table outlive the server's sudden end."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import replaystore as rs
from replaystore.errors import AlreadyExists, NotFound, PermissionDenied
from replaystore.server.options import ServerOptions
from replaystore.server.thread import start_in_thread
from replaystore.store import Store
from replaystore_client import Client
from tests.snapshot.conftest import Actor, check, config, contents, filled, same


@pytest.fixture
def client(store: Store, tmp_path: Path) -> Iterator[Client]:
    with start_in_thread(store, options=ServerOptions(snapshots=tmp_path / "snapshots")) as server, Client(server.address) as connected:
        yield connected


def test_a_snapshot_of_a_served_table(store: Store, client: Client, tmp_path: Path) -> None:
    client.create_table("t", config(retention=rs.Retention(6000)))
    Actor(client, "t").play(2000)
    report = client.snapshot("t", "monday")
    assert report.path == str((tmp_path / "snapshots/monday").absolute())
    assert report.linked_bytes > 0
    with rs.open(report.path) as copy:
        check(copy, "t")
        same(contents(copy, "t"), contents(store, "t"))
    assert client.snapshot("t", "dataset", episodes=True).table == ""
    assert client.snapshot("t", "renumbered", rebase=True).first_step == 0
    with pytest.raises(AlreadyExists, match="monday exists"):
        client.snapshot("t", "monday")
    with pytest.raises(NotFound):
        client.snapshot("u", "tuesday")


@pytest.mark.parametrize("name", ["../out", "/tmp/out", "a/b", "..", "", ".hidden", "__replaystore", "a\0b"])
def test_a_client_names_no_paths(client: Client, tmp_path: Path, name: str) -> None:
    client.create_table("t", config())
    with pytest.raises(rs.InvalidArgument, match="snapshot name"):
        client.snapshot("t", name)
    assert not (tmp_path / "snapshots").exists()


def test_a_server_without_a_folder_takes_none(store: Store) -> None:
    store.create_table("t", config())
    with start_in_thread(store) as server, Client(server.address) as client, pytest.raises(PermissionDenied, match="--snapshots DIR"):
        client.snapshot("t", "out")


def test_a_fork_from_afar(client: Client) -> None:
    client.create_table("t", config())
    Actor(client, "t").play(100)
    made = client.fork("t", "u", selector=rs.Prioritized(0.1), rate_limiter=rs.MinSize(5), retention=rs.Retention(100))
    assert made == config(selector=rs.Prioritized(0.1), rate_limiter=rs.MinSize(5), retention=rs.Retention(100))
    assert client.tables() == ["t", "u"]
    assert client.stats("u").steps == 100
    assert len(client.sample("u", 8)) == 8
    with pytest.raises(AlreadyExists):
        client.fork("t", "u")


SERVE = """
import asyncio, sys
from replaystore.server.run import serve
asyncio.run(serve(sys.argv[1], "127.0.0.1:0", on_ready=lambda info: print(*info.addresses, flush=True)))
"""


def test_what_was_altered_survives_kill_9(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", SERVE, tmp_path / "data"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        with Client(process.stdout.readline().strip()) as client:
            client.create_table("t", config())
            Actor(client, "t").play(300)
            batch = client.sample("t", 32)
            client.update_priorities("t", batch.step_ids, np.arange(32.0))
            before = client.read_steps("t", 0, 10**9, ["replay/priority"])["replay/priority"]
            wanted = {
                "selector": rs.Prioritized(0.35, 0.1),
                "retention": rs.Retention(500),
                "rate_limiter": rs.SampleToInsertRatio(4.0, 10, 99.0),
            }
            changed = client.alter_table("t", **wanted)
            process.send_signal(signal.SIGKILL)
            process.wait()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    with rs.open(tmp_path / "data") as store:
        assert store.describe("t").config == changed == config(**wanted)
        assert store.stats("t").steps == 500
        check(store, "t")
        after = store.read_steps("t", 0, 10**9, ["replay/priority", "replay/successor"])
        expected = np.where(after["replay/successor"] > 0, (before[-500:] ** (1 / 0.7) - 1e-6 + 0.1) ** 0.35, 0)
        np.testing.assert_allclose(after["replay/priority"], expected, rtol=1e-3)
        for _ in range(9):  # the limiter counts from when it was set
            store.sample("t", 10)
        with pytest.raises(rs.NotReady):
            store.sample("t", 10, timeout_s=0.0)


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "replaystore.cli.main", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, check=False, timeout=120, stdin=subprocess.DEVNULL)


def test_the_command_line(store: Store, tmp_path: Path) -> None:
    filled(store, 200)
    data = tmp_path / "data"
    rows = store.stats("t").next_step
    table = store.table("t")
    table.wait_durable(rows, 60)
    table.publish()
    beside = command("snapshot", data, "t", tmp_path / "beside", "--json")
    assert "taking what is published" in beside.stderr
    assert json.loads(beside.stdout)["next_step"] == rows
    with start_in_thread(store, options=ServerOptions(snapshots=tmp_path / "snapshots")) as server:
        served = command("snapshot", server.address, "t", "out")
        assert served.stdout.startswith(f"{(tmp_path / 'snapshots/out').absolute()}: a store of {rows} rows")
    store.close()
    done = command("snapshot", data, "t", tmp_path / "set", "--episodes")
    assert done.returncode == 0
    assert "a dataset of" in done.stdout
    assert command("snapshot", data, "t", tmp_path / "set").returncode == 1
    assert command("snapshot", tmp_path / "nothing", "t", tmp_path / "x").returncode == 1
    assert not (tmp_path / "nothing").exists()
    forked = command("fork", data, "t", "u", "--selector", '{"type": "Prioritized", "alpha": 0.2}', "--max-steps", "100", "--json")
    assert json.loads(forked.stdout)["retention"]["max_steps"] == 100
    assert command("fork", data, "t", "v", "--selector", "{").returncode == 2
    with rs.open(data) as again:
        assert again.tables() == ["t", "u"]
        check(again, "u")


def test_altered_there_and_back(store: Store) -> None:
    store.create_table("t", config(selector=rs.Prioritized(0.0, 0.0)))
    Actor(store, "t").play(50)
    for alpha, epsilon in ((1.0, 0.5), (0.0, 0.0), (0.5, 0.25), (0.0, 2.0), (1.0, 0.0)):
        store.alter_table("t", selector=rs.Prioritized(alpha, epsilon))
        masses = store.read_steps("t", 0, 10**9, ["replay/priority"])["replay/priority"]
        expected = (1.0 + epsilon) ** alpha  # alpha 0 forgets the priorities: they are 1 then
        np.testing.assert_allclose(masses[masses > 0], expected, rtol=1e-5)
        check(store, "t")


@pytest.mark.parametrize("mode", ["rw", "r"])
def test_killed_while_it_was_altered(store: Store, tmp_path: Path, mode: str) -> None:
    """The leaves stand under the new exponent already, the configuration is still the old one: priorities are what they were."""
    filled(store)
    table = store.table("t")
    table.wait_durable(table.next_step, 60)
    table.publish()
    before = contents(store, "t")
    publish = table._committing.publish

    def killed(**options: bool) -> None:
        shutil.copytree(tmp_path / "data", tmp_path / "killed")
        publish(**options)

    table._committing.publish = killed  # type: ignore[method-assign]
    store.alter_table("t", selector=rs.Prioritized(0.2, 0.3))
    leaves = store.read_steps("t", 0, 10**9, ["replay/priority"])["replay/priority"]
    assert not np.allclose(leaves, before["replay/priority"], rtol=0.01)
    with rs.open(tmp_path / "killed", mode=mode) as again:
        assert again.describe("t").config == config()
        found = again.read_steps("t", 0, 10**9, ["replay/priority"])["replay/priority"]
        np.testing.assert_allclose(found, before["replay/priority"], rtol=1e-3, atol=1e-4)
        assert again.stats("t").max_priority["default"] == pytest.approx(before["max_priority"]["default"], rel=1e-3)
        again.sample("t", 32)
