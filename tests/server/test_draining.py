"""A server that is told to stop: what it took is answered, whoever waits is told, nothing new begins, and it is soon gone."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

import replaystore as rs
from replaystore.engine.table import Table
from replaystore.sampling import SampleRequest
from replaystore.server import run
from replaystore.server.options import ServerOptions
from replaystore.server.thread import ServerThread, start_in_thread
from replaystore.store import Store
from replaystore.v1 import data_pb2 as pb
from replaystore.v1 import service_pb2
from replaystore.wire.framing import prefix
from replaystore.wire.samples import encode_query, encode_sample_request
from replaystore_client import Client
from replaystore_client.connection import Connection
from tests.crash.script import Script, abandon
from tests.ports import address_to_keep

from .conftest import config, write_steps

STOPPING = "the server is stopping; connect again when it is back"
LONG_S = 60.0
"""For what takes a moment where the machine is not shared."""


def until(done: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + LONG_S
    while not done():
        assert time.monotonic() < deadline, f"waited {LONG_S:g} s: {what}"
        time.sleep(0.01)


class Load:
    """Writers that write without a pause, each one episode; `acknowledged` has the rows that each was told of."""

    def __init__(self, address: str, actors: int = 3) -> None:
        self.client = Client(address, timeout_s=LONG_S)
        self._stop = threading.Event()
        self.wrote: dict[int, int] = {}
        self.sinks: list[Any] = []
        self.problems: list[BaseException] = []
        self._threads = [threading.Thread(target=self._act, args=(actor,)) for actor in range(1, actors + 1)]
        for thread in self._threads:
            thread.start()
        until(lambda: len(self.sinks) == actors and min(self.acknowledged) > 20, "for acknowledgements")

    @property
    def acknowledged(self) -> list[int]:
        return [sink.applied_rows for sink in self.sinks]

    def wait_for_more(self, than: list[int]) -> None:
        """Until each writer was told of more rows."""
        until(lambda: all(now > then for now, then in zip(self.acknowledged, than, strict=True)), "for writers to go on")

    def wait_for_end(self) -> None:
        """Until no writer has a stream: nobody will be told of more by this server."""
        until(lambda: not self.connected, "for the streams' ends")

    @property
    def connected(self) -> bool:
        return any(sink._requests is not None for sink in self.sinks)

    def _act(self, actor: int) -> None:
        try:
            with self.client.writer("t", actor=actor, block_rows=7, interval_s=0.01) as writer:
                self.sinks.append(writer._sink)
                writer.reset(np.zeros(3))
                step = 0
                while not self._stop.is_set():
                    write_steps(writer, 5, begin=False, first=step)
                    step += 5
                    time.sleep(0.002)
                self.wrote[actor] = step
        except BaseException as error:
            self.problems.append(error)

    def end(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(LONG_S)
        assert not self.problems

    def check(self) -> None:
        """Every step is there once, in order."""
        rows = self.client.read_steps("t", 0, 1 << 60)
        assert len(rows["step_id"]) == sum(self.wrote.values()) + len(self.wrote)
        for actor, steps in self.wrote.items():
            mine = rows["meta/actor"] == actor
            np.testing.assert_array_equal(rows["observation"][mine][:, 0], np.arange(steps + 1))


@pytest.mark.parametrize("durability", ["interval", "fsync"])
def test_every_block_that_was_taken_is_acknowledged(tmp_path: Path, durability: str) -> None:
    with rs.open(tmp_path / "data", durability=durability) as store:
        store.create_table("t", config())
        server = start_in_thread(store, address_to_keep())
        load = Load(server.address)
        for _ in range(3):
            server.stop()
            load.wait_for_end()
            assert sum(load.acknowledged) == store.stats("t").next_step  # no row is there that its writer does not know of
            before = load.acknowledged
            server = start_in_thread(store, server.address)
            load.wait_for_more(before)
        load.end()
        load.check()
        load.client.close()
        server.stop()


def open_streams(connection: Connection) -> tuple[dict[str, Any], list[SimpleQueue[Any]]]:
    """A writer that writes nothing, a sampler with nothing to sample, one that asks for nothing, an actor that waits for parameters."""
    request = SampleRequest(batch_size=4)
    messages = {
        "Append": [pb.AppendHeader(table="t").SerializeToString()],
        "Sample": [encode_sample_request(1, encode_query("t", request), 0.0, None, 60.0, 0.05, None)],
    }
    queues: list[SimpleQueue[Any]] = [SimpleQueue() for _ in range(3)]
    queues[0].put(prefix(messages["Append"][0], b"", 0))
    queues[1].put(messages["Sample"][0])
    calls = {
        "Append": connection.open_stream("Append", iter(queues[0].get, None)),
        "Sample": connection.open_stream("Sample", iter(queues[1].get, None)),
        "idle Sample": connection.open_stream("Sample", iter(queues[2].get, None)),
        "FetchParameters": connection._method("unary_stream", "FetchParameters")(
            service_pb2.FetchParametersRequest(name="policy", timeout_s=60).SerializeToString()
        ),
    }
    next(calls["Append"])  # opened
    next(calls["Sample"])  # a notice that it waits
    return calls, queues


def test_whoever_waits_is_told_at_once(store: Store) -> None:
    store.create_table("t", config(rate_limiter=rs.MinSize(1000)))
    server = start_in_thread(store, options=ServerOptions(grace_s=LONG_S))
    connection = Connection(server.address)
    calls, queues = open_streams(connection)
    started = time.monotonic()
    server.stop(LONG_S)
    assert time.monotonic() - started < LONG_S / 2  # not when the grace is over
    for name, call in calls.items():
        with pytest.raises(grpc.RpcError) as caught:
            list(call)
        error: Any = caught.value
        assert (error.code().name, error.details()) == ("UNAVAILABLE", STOPPING), name
    for queue in queues:
        queue.put(None)
    connection.close()


class Held:
    """Makes the calls of Flush wait until they are let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.waiting, self.go = threading.Event(), threading.Event()

        def wait(table: Table, step: int, timeout_s: float) -> int:
            self.waiting.set()
            self.go.wait(LONG_S)
            return step

        monkeypatch.setattr(Table, "wait_durable", wait)


def flush(address: str, outcome: dict[str, Any]) -> None:
    with grpc.insecure_channel(address) as channel:
        call = channel.unary_unary("/replaystore.v1.ReplayStore/Flush")
        try:
            outcome["reply"] = call(service_pb2.FlushRequest(table="t").SerializeToString(), timeout=LONG_S)
        except grpc.RpcError as error:
            outcome["error"] = error


def refusal(ask: Callable[[], Any]) -> str:
    """What a client hears in the end. Its last attempt may have begun too late for any answer: then it asks again."""
    until_s = time.monotonic() + LONG_S / 2
    while True:
        with pytest.raises(rs.DeadlineExceeded) as caught:
            ask()
        if STOPPING in str(caught.value) or time.monotonic() > until_s:
            return str(caught.value)


@pytest.fixture
def draining(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[float], tuple[Held, ServerThread, dict[str, Any]]]]:
    """A server that stops while one call is still at work, and what became of that call."""
    threads: list[threading.Thread] = []
    held = Held(monkeypatch)

    def begin(grace_s: float) -> tuple[Held, ServerThread, dict[str, Any]]:
        store.create_table("t", config())
        server = start_in_thread(store, options=ServerOptions(grace_s=grace_s))
        outcome: dict[str, Any] = {}
        threads.append(threading.Thread(target=flush, args=(server.address, outcome)))
        threads[0].start()
        assert held.waiting.wait(LONG_S)
        threads.append(threading.Thread(target=server.stop, args=(LONG_S,)))
        threads[1].start()
        return held, server, outcome

    yield begin
    held.go.set()
    for thread in threads:
        thread.join(LONG_S)


def test_while_a_call_is_at_work_none_begins_and_health_says_so(draining: Any) -> None:
    held, server, outcome = draining(LONG_S)
    with grpc.insecure_channel(server.address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for service in ("", "replaystore.v1.ReplayStore", "replaystore.table/t"):
            watched = health.Watch(health_pb2.HealthCheckRequest(service=service), timeout=LONG_S)
            assert [reply.status for reply in watched][-1] == health_pb2.HealthCheckResponse.NOT_SERVING
        with Client(server.address, timeout_s=1.0) as client:
            advice = "calls try again by themselves until their timeout_s, which may be too short"
            assert refusal(client.tables) == f"no connection to {server.address} ({STOPPING}): {advice}"
        with Client(server.address, timeout_s=1.0) as client:
            assert STOPPING in refusal(lambda: next(client.sampler("t", 4, timeout_s=1.0)))
            assert STOPPING in refusal(lambda: client.writer("t"))
        assert not outcome
        held.go.set()
        until(lambda: outcome, "for the call that was at work")
        assert "reply" in outcome


def test_a_call_that_does_not_end_is_cut_off(draining: Any) -> None:
    _, server, outcome = draining(3.0)  # a fifth of it is for telling
    until(lambda: outcome, "for the end of the grace")
    assert (outcome["error"].code().name, outcome["error"].details()) == ("UNAVAILABLE", STOPPING)
    server.stop(LONG_S)
    assert not server._thread.is_alive()


SERVE = """
import asyncio, sys
from replaystore.server.run import serve
from replaystore.server.translate import Calls
def ready(info):
    print(*info.addresses, flush=True)
def stopping(signal):
    print("stopping", flush=True)
async def hang(calls, timeout_s):
    await asyncio.sleep(3600)
if "hang" in sys.argv:
    Calls.drain = hang
asyncio.run(serve(sys.argv[1], sys.argv[2], on_ready=ready, on_stopping=stopping))
"""


def start_process(path: Path, address: str, *more: str) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", SERVE, str(path), address, *more], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline().split() == [address]
    return process


def end(process: subprocess.Popen[str]) -> int:
    process.communicate(timeout=LONG_S)
    return process.returncode


def test_a_second_signal_ends_a_process_under_load_at_once_without_loss(tmp_path: Path) -> None:
    with rs.open(tmp_path / "data") as store:
        store.create_table("t", config())
    address = address_to_keep()
    process = start_process(tmp_path / "data", address, "hang")
    load = Load(address)
    try:
        process.send_signal(signal.SIGTERM)
        assert process.stdout is not None
        assert process.stdout.readline() == "stopping\n"
        load.wait_for_more(load.acknowledged)  # it hangs
        process.send_signal(signal.SIGTERM)
        assert end(process) == 128 + signal.SIGTERM
        load.wait_for_end()
        with rs.open(tmp_path / "data") as store:
            assert store.stats("t").next_step >= sum(load.acknowledged)
            with start_in_thread(store, address):
                load.end()
                load.check()
    finally:
        load._stop.set()
        process.kill()
        process.communicate(timeout=LONG_S)
    load.client.close()


def test_a_signal_ends_a_recovery(tmp_path: Path) -> None:
    script = Script(tmp_path / "data")
    for step in (script.open, script.create, script.write, script.write, script.die):
        step()
    told, checked = threading.Event(), []

    def progress(*state: Any) -> None:
        checked.append(state)
        os.kill(os.getpid(), signal.SIGTERM)
        assert told.wait(LONG_S)

    ready: list[Any] = []
    asyncio.run(
        run.serve(tmp_path / "data", "127.0.0.1:0", progress=progress, on_ready=ready.append, on_stopping=lambda signal: told.set())
    )
    assert len(checked) == 1
    assert not ready
    store = rs.open(tmp_path / "data")
    script.oracle.check(store)
    abandon(store)
