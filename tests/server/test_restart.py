"""A server that dies and comes back: writers and samplers carry on, nothing is lost, nothing is there twice."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import replaystore as rs
from replaystore.server.thread import start_in_thread
from replaystore_client import Client
from tests.ports import address_to_keep

from .conftest import ServerProcess, config, write_steps

Start = Callable[..., ServerProcess]


def check_exactly_once(client: Client, actors: dict[int, int]) -> None:
    """Every actor's steps are there once, in order; `actors` has the number of steps that each wrote in one episode."""
    rows = client.read_steps("t", 0, 1 << 60)
    assert len(rows["step_id"]) == sum(actors.values()) + len(actors)
    for actor, steps in actors.items():
        mine = rows["meta/actor"] == actor
        np.testing.assert_array_equal(rows["observation"][mine][:, 0], np.arange(steps + 1))
        np.testing.assert_array_equal(rows["meta/step_in_episode"][mine], np.arange(steps + 1))
        np.testing.assert_array_equal(rows["action"][mine][:-1], np.arange(steps))
    assert client.stats("t").inserted_steps == sum(actors.values())


@pytest.mark.parametrize("durability", ["interval", "fsync"])
def test_writers_and_a_sampler_outlive_kills_of_the_server(start_process: Start, durability: str) -> None:
    server = start_process(durability=durability)
    address = server.address
    with Client(address, timeout_s=120) as client:
        client.create_table("t", config(selector=rs.Prioritized()))
        stop = threading.Event()
        wrote: dict[int, int] = {}
        errors: list[BaseException] = []
        batches = 0

        def act(actor: int) -> None:
            try:
                with client.writer("t", actor=actor, block_rows=7, interval_s=0.01) as writer:
                    writer.reset(np.zeros(3))
                    step = 0
                    while not stop.is_set():
                        write_steps(writer, 5, begin=False, first=step)
                        step += 5
                        time.sleep(0.001)
                    wrote[actor] = step
            except BaseException as error:
                errors.append(error)

        def learn() -> None:
            nonlocal batches
            try:
                with client.sampler("t", 8, timeout_s=120) as sampler:
                    for batch in sampler:
                        np.testing.assert_array_equal(batch.next_observation, batch.observation + 1)
                        sampler.update_priorities(batch.step_ids, np.ones(8))
                        batches += 1
                        time.sleep(0.002)
                        if stop.is_set():
                            return
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=act, args=(actor,)) for actor in (1, 2)] + [threading.Thread(target=learn)]
        for thread in threads:
            thread.start()
        for _ in range(2):
            time.sleep(0.4)
            server.end("kill")
            server = start_process(address, durability)
        seen = batches
        deadline = time.monotonic() + 120
        while batches < seen + 20 and not errors and time.monotonic() < deadline:
            time.sleep(0.02)
        stop.set()
        for thread in threads:
            thread.join(150)
        assert not errors
        assert batches >= seen + 20
        assert len(wrote) == 2
        check_exactly_once(client, wrote)


def test_a_writer_carries_on_when_the_server_stops_cleanly(start_process: Start) -> None:
    server = start_process()
    address = server.address
    with Client(address, timeout_s=30) as client:
        client.create_table("t", config())
        with client.writer("t", actor=1, block_rows=7) as writer:
            write_steps(writer, 50)
            writer.flush(durable=True)
            assert server.end() == 0
            write_steps(writer, 50, begin=False, first=50)  # there is room: no server is needed for now
            with pytest.raises(rs.DeadlineExceeded, match=r"rows are not acknowledged.*no connection to"):
                writer.flush(timeout_s=0.3)
            server = start_process(address)
            assert server.steps_recovered == 50
            writer.flush(durable=True, timeout_s=60)
            assert client.stats("t").durable_step >= 100
        check_exactly_once(client, {1: 100})


def test_what_was_acknowledged_but_not_durable_is_sent_again_to_a_new_server(start_process: Start) -> None:
    server = start_process()
    address = server.address
    with Client(address, timeout_s=30) as client:
        client.create_table("t", config())
        with client.writer("t", actor=1) as writer:
            write_steps(writer, 10)
            writer.flush()
            sink: Any = writer._sink
            server.end("kill")
            server = start_process(address)
            write_steps(writer, 10, begin=False, first=10)
            writer.flush(timeout_s=60)
            assert sink.applied_rows == 20
        check_exactly_once(client, {1: 20})


def test_an_exhausted_writer_says_that_the_server_is_away(start_process: Start) -> None:
    server = start_process()
    with Client(server.address) as client:
        client.create_table("t", rs.TableConfig({"observation": rs.Column((100_000,)), "action": rs.Column((), "int64")}))
        writer = client.writer("t", timeout_s=0.3)
        writer.reset(np.zeros(100_000))
        server.end("kill")

        def act() -> None:
            for _ in range(2000):
                writer.append(0, 0.0, False, False, np.zeros(100_000))

        with pytest.raises(rs.DeadlineExceeded, match=r"waited 0\.3 s for room to send .* no connection to"):
            act()
        with pytest.raises(rs.DeadlineExceeded, match="not acknowledged"):
            writer.close(0.2)


def test_a_busy_server_stops_and_starts_without_a_word(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with rs.open(tmp_path / "data") as store:
        store.create_table("t", config(selector=rs.Prioritized()))
        server = start_in_thread(store, address_to_keep())
        stop = threading.Event()
        errors: list[BaseException] = []
        wrote: dict[int, int] = {}
        with Client(server.address, timeout_s=30) as client:

            def act(actor: int) -> None:
                try:
                    with client.writer("t", actor=actor, block_rows=5, interval_s=0.005) as writer:
                        writer.reset(np.zeros(3))
                        wrote[actor] = 0
                        while not stop.is_set():
                            write_steps(writer, 5, begin=False, first=wrote[actor])
                            wrote[actor] += 5
                            time.sleep(0.0005)
                except BaseException as error:
                    errors.append(error)

            def learn(batch_size: int) -> None:
                try:
                    with client.sampler("t", batch_size, timeout_s=30) as sampler:
                        while not stop.is_set():
                            batch = next(sampler)
                            sampler.update_priorities(batch.step_ids[:10], np.ones(10))
                except BaseException as error:
                    errors.append(error)

            threads = [threading.Thread(target=act, args=(actor,)) for actor in (1, 2)]
            threads += [threading.Thread(target=learn, args=(size,)) for size in (16, 5000)]  # inline, and through threads
            for thread in threads:
                thread.start()
            for _ in range(4):
                time.sleep(0.25)
                started = time.monotonic()
                server.stop()
                assert time.monotonic() - started < 20
                server = start_in_thread(store, server.address)
            time.sleep(0.3)
            stop.set()
            for thread in threads:
                thread.join(60)
            assert not errors
            check_exactly_once(client, wrote)
        server.stop()
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_late_events_of_a_server_that_is_gone_are_no_errors(tmp_path: Path) -> None:
    with rs.open(tmp_path / "data") as store:
        with start_in_thread(store) as server:
            pass
        heard: list[int] = []
        server._loop.call_soon_threadsafe(heard.append, 1)  # as gRPC does, through the loop of another server
        assert server._loop.is_closed()
        assert not heard


def test_calls_made_while_the_server_is_away_wait_for_it(start_process: Start) -> None:
    server = start_process()
    address = server.address
    with Client(address, timeout_s=60) as client:
        client.create_table("t", config())
        server.end("kill")
        names: list[str] = []
        thread = threading.Thread(target=lambda: names.extend(client.tables()))
        thread.start()
        time.sleep(0.3)
        start_process(address)
        thread.join(120)
        assert names == ["t"]
