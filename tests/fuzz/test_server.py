"""Thousands of spoiled messages for every call of a running server: it answers each with a status that blames the message, and lives on."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from replaystore.schema.columns import check_name
from replaystore.v1 import service_pb2 as service
from replaystore.wire.errors import ERROR_KEY
from replaystore.wire.methods import MAX_MESSAGE_BYTES, path_of
from replaystore_client import Client

from .conftest import count, seed
from .mutations import CONFIG, SHAPES, names_a_field, noise, rss_bytes, spoil, valid_calls

SERVE = """
import pathlib, sys, replaystore
from replaystore.server.options import ServerOptions
from replaystore.server.thread import start_in_thread
store = replaystore.open(sys.argv[1])
server = start_in_thread(store, options=ServerOptions(max_wait_s=0.2, snapshots=pathlib.Path(sys.argv[2])))
print(server.address, flush=True)
sys.stdin.read()
server.stop()
store.close()
"""
THEIR_FAULT = {"INVALID_ARGUMENT", "NOT_FOUND", "ALREADY_EXISTS", "FAILED_PRECONDITION"}
OPTIONS = [("grpc.max_receive_message_length", -1)]  # a spoiled request may well ask for a large batch, and get it
MOST_GROWTH_BYTES = 3 * MAX_MESSAGE_BYTES
"""What one reply of the largest size takes on its way out; the messages claim up to a million times more."""


class Served:
    """A server in a process of its own, so that its memory can be measured and its death noticed."""

    def __init__(self, path: Path) -> None:
        command = [sys.executable, "-c", SERVE, str(path / "data"), str(path / "snapshots")]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().strip()
        self.errors = ""

    def stop(self) -> int:
        if self.process.returncode is None:
            _, self.errors = self.process.communicate("", timeout=30)
        return self.process.returncode


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    running = Served(tmp_path)
    yield running
    running.process.kill()
    running.process.communicate()


def outcome(channel: Any, method: str, messages: list[bytes]) -> tuple[str, str, bool]:
    """Status code, text, and whether the error names its class."""
    shape = SHAPES.get(method, "unary_unary")
    call = getattr(channel, shape)(path_of(method))
    try:
        given: Any = iter(messages) if shape.startswith("stream") else messages[0]
        reply = call(given, timeout=20)
        if shape.endswith("stream"):
            for _ in reply:
                pass
    except grpc.RpcError as error:
        named = any(key == ERROR_KEY for key, _ in error.trailing_metadata() or ())
        return error.code().name, error.details() or "", named
    return "OK", "", True


def prepare(client: Client) -> None:
    """Makes the tables that the messages are about what they were, whatever became of them."""
    there = client.tables()
    for name in ("t", "kept"):
        if name not in there:
            client.create_table(name, CONFIG)
    client.alter_table("t", rate_limiter=CONFIG.rate_limiter, retention=CONFIG.retention, selector=CONFIG.selector)


def test_every_call_is_fuzzed() -> None:
    methods = service.DESCRIPTOR.services_by_name["ReplayStore"].methods
    assert {method.name for method in methods} == valid_calls(random.Random(1)).keys()


@pytest.mark.timeout(1800)
def test_a_server_survives_whatever_is_sent_and_blames_the_message(served: Served, tmp_path: Path) -> None:
    rng = random.Random(f"server {seed()}")
    codes: Counter[str] = Counter()
    with Client(served.address, timeout_s=20) as client, grpc.insecure_channel(served.address, OPTIONS) as channel:
        prepare(client)
        with client.writer("kept", streams=1) as writer:
            writer.reset({"a": np.zeros(3), "b": [0, 0]})
            for step in range(500):
                writer.append(step, 1.0, step % 50 == 49, False, {"a": np.full(3, step), "b": [0, 0]})
                if step % 50 == 49:
                    writer.reset({"a": np.zeros(3), "b": [0, 0]})
        kept = client.read_steps("kept", 0, 10**6)
        assert len(kept["step_id"]) == 510
        for method, make in valid_calls(rng).items():  # the messages are good before they are spoiled
            assert outcome(channel, method, [one.encode() for one in make()])[0] in ("OK", "FAILED_PRECONDITION"), method
        prepare(client)
        client.sample("t", 4)
        begun_bytes = rss_bytes(served.process.pid)
        for number in range(count(3500)):
            calls = valid_calls(rng)
            method = rng.choice(list(calls))
            good = calls[method]()
            spoiled = rng.randrange(len(good))
            messages = [spoil(rng, one) if at == spoiled else one.encode() for at, one in enumerate(good)]
            if rng.random() < 0.05:
                messages[spoiled] = noise(rng)
            started = time.monotonic()
            code, text, named = outcome(channel, method, messages)
            codes[code] += 1
            assert code == "OK" or code in THEIR_FAULT, (number, method, code, text)
            assert named, (number, method, code, text)
            assert code != "INVALID_ARGUMENT" or names_a_field(text), (number, method, text)
            assert time.monotonic() - started < 30, (number, method, code, text)
            if number % 100 == 99 or number == count(3500) - 1:
                prepare(client)
                for name in set(client.tables()) - {"t", "kept"}:
                    client.drop_table(name)
        peak_bytes = rss_bytes(served.process.pid, "VmHWM")
        assert peak_bytes - begun_bytes < MOST_GROWTH_BYTES
        assert codes["OK"] > 100
        assert codes["INVALID_ARGUMENT"] > 500
        after = client.read_steps("kept", 0, 10**6)
        for name, values in kept.items():
            np.testing.assert_array_equal(after[name], values, err_msg=name)
        assert len(client.sample("kept", 16)) == 16
        prepare(client)
        with client.writer("t") as writer:
            writer.reset({"a": np.zeros(3), "b": [0, 0]})
            writer.append(1, 1.0, True, False, {"a": np.ones(3), "b": [1, 1]})
            writer.flush(durable=True)
    assert served.stop() == 0
    assert "Traceback" not in served.errors
    assert {path.name for path in tmp_path.iterdir()} <= {"data", "snapshots"}  # no name led anywhere else
    assert {path.name for path in (tmp_path / "data").iterdir()} == {"t", "kept", "zarr.json", "__replaystore"}
    snapshots = list((tmp_path / "snapshots").iterdir())
    assert snapshots
    assert all(check_name(path.name, "snapshot") for path in snapshots)
