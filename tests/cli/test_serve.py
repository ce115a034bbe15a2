"""``replaystore serve``: what it says, and how it ends."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import replaystore as rs
from replaystore_client import Client
from tests.cli.conftest import command, read_line, replaystore


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT], ids=lambda end: end.name)
def test_it_serves_until_a_signal_and_keeps_everything(data: Path, start: Callable[..., Any], end: signal.Signals) -> None:
    process, ready = start("--path", str(data), "--listen", "127.0.0.1:0", "--commit-interval-ms", "50")
    assert ready["data"] == str(data)
    assert ready["tables"] == ["empty", "maze"]
    assert ready["steps_recovered"] == 16
    assert ready["seconds"] >= 0
    with Client(ready["listen"]) as client, client.writer("empty") as writer:
        writer.reset(0.0)
        for t in range(10):
            writer.append(t, 1.0, False, False, t + 1.0)
        writer.flush()
        process.send_signal(end)  # with a stream open
        _, said = process.communicate(timeout=30)
        assert process.returncode == 0, said
        assert f"{end.name}: finishing calls" in said
        assert "Traceback" not in said
        with rs.open(data) as store:  # the lock is free again
            assert store.stats("empty").inserted_steps == 10
        process, again = start("--path", str(data), "--listen", ready["listen"])
        writer.append(10, 1.0, True, False, 11.0)
    assert again["listen"] == ready["listen"]
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    with rs.open(data, mode="r") as store:
        assert store.read_steps("empty", 0, 100, ["observation"])["observation"].tolist() == [float(t) for t in range(12)]


def test_the_ready_block_can_be_copied(data: Path) -> None:
    line = command("serve", "--path", str(data), "--listen", "127.0.0.1:0")
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        block = [read_line(process)]
        while not block[-1].strip().startswith("client = "):
            block.append(process.stdout.readline())
        said = "".join(block)
        assert block[0] == f"replaystore {rs.__version__} is ready\n"
        for words in (str(data), "empty, maze", "16 steps in"):
            assert words in said
        example = "\n".join(part.strip() for part in block[-2:])
        done = subprocess.run(
            [sys.executable, "-c", f"{example}\nprint(client.tables())\nclient.close()"],
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert done.stdout == "['empty', 'maze']\n", done.stderr
    finally:
        process.terminate()
        process.communicate(timeout=30)


def test_a_store_that_is_served_already_is_refused(data: Path, start: Callable[..., Any]) -> None:
    start("--path", str(data), "--listen", "127.0.0.1:0")
    done = replaystore("serve", "--path", str(data), "--listen", "127.0.0.1:0")
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


def test_a_unix_socket_alone(tmp_path: Path, start: Callable[..., Any]) -> None:
    _, ready = start("--path", str(tmp_path / "new"), "--listen", "", "--unix", str(tmp_path / "s"), "--durability", "fsync")
    assert ready["addresses"] == [ready["listen"]] == [f"unix:{tmp_path / 's'}"]
    with Client(ready["listen"]) as client:
        assert client.tables() == []
