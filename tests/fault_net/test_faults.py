"""Writers and a sampler over a network that fails in every way it can: each step arrives once, no call outlives its time-out."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import replaystore as rs
import replaystore_client.connection as connection
from replaystore.errors import DeadlineExceeded, NotReady
from replaystore.store import Store
from replaystore_client import Client

from .conftest import CONFIG, check_exactly_once, write
from .proxy import FAULTS, FaultProxy, Weather, inject

ROUNDS = int(os.environ.get("REPLAYSTORE_NET_FAULTS", "1"))
"""How often each fault is tried."""

LATE_S = 10.0
"""A call may outlive its time-out by so much where two cores are shared with other work; alone it is a second or two."""


class Agents:
    """Two writers and a sampler that go on until told to stop; what they may see of the network are typed errors, in time."""

    TIMEOUT_S = 2.0

    def __init__(self, address: str) -> None:
        self._client = Client(address, timeout_s=self.TIMEOUT_S)
        self._stop = threading.Event()
        self.wrote = {1: 0, 2: 0}
        self.batches = 0
        self.said: list[str] = []
        self.longest_s = 0.0
        self.problems: list[BaseException] = []
        self.threads = [threading.Thread(target=self._guard, args=(self._act, actor)) for actor in self.wrote]
        self.threads.append(threading.Thread(target=self._guard, args=(self._learn,)))
        for thread in self.threads:
            thread.start()

    def _guard(self, work: Callable[..., None], *arguments: Any) -> None:
        try:
            work(*arguments)
        except BaseException as error:
            self.problems.append(error)

    def _timed(self, call: Callable[[], Any]) -> Any:
        """The call's result, or None where the network stood in the way."""
        started = time.monotonic()
        try:
            return call()
        except (DeadlineExceeded, NotReady) as error:
            self.said.append(str(error))
            return None
        finally:
            self.longest_s = max(self.longest_s, time.monotonic() - started)

    def _act(self, actor: int) -> None:
        writer = self._client.writer("t", actor=actor, block_rows=8, interval_s=0.01, timeout_s=self.TIMEOUT_S)
        while not self._stop.is_set():
            write(writer, actor, self.wrote[actor], 5)
            self.wrote[actor] += 5
            self._timed(lambda: writer.flush(timeout_s=self.TIMEOUT_S))
            time.sleep(0.005)
        writer.close(timeout_s=30)

    def _learn(self) -> None:
        with self._client.sampler("t", 8) as sampler:
            while not self._stop.is_set():
                batch = self._timed(lambda: next(sampler))
                if batch is not None:
                    np.testing.assert_array_equal(batch.next_observation - batch.observation, [[1, 0, 0]] * 8)
                    np.testing.assert_array_equal(batch.observation[:, 0], batch.action)
                    np.testing.assert_array_equal(batch.reward, batch.action % 11)
                    sampler.update_priorities(batch.step_ids, np.ones(8))
                    self.batches += 1
                time.sleep(0.002)

    def progress(self) -> tuple[int, ...]:
        return (*self.wrote.values(), self.batches)

    def wait_for_progress(self, store: Store, timeout_s: float = 40.0) -> None:
        """Until both writers' steps arrive again and the sampler has got a batch."""
        before, begun = self.progress(), store.stats("t").inserted_steps
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline and not self.problems:
            moved = all(now > then + 5 for now, then in zip(self.progress(), before, strict=True))
            if moved and store.stats("t").inserted_steps >= begun + 20:
                return
            time.sleep(0.01)
        assert not self.problems
        raise AssertionError(f"no progress for {timeout_s} s: {before} and {self.progress()}")

    def end(self) -> None:
        self._stop.set()
        for thread in self.threads:
            thread.join(60)
        self._client.close()
        assert not self.problems


def test_every_step_arrives_once_over_a_network_that_fails_in_every_way(store: Store, proxy: FaultProxy) -> None:
    rng = random.Random(f"network {ROUNDS}")
    agents = Agents(proxy.address)
    try:
        agents.wait_for_progress(store)
        faults = list(FAULTS) * ROUNDS
        rng.shuffle(faults)
        for fault in faults:
            inject(proxy, fault, rng)
            time.sleep(rng.uniform(0.2, 0.7))
            proxy.heal()
            agents.wait_for_progress(store)
    finally:
        proxy.heal()
        agents.end()
    check_exactly_once(store, agents.wrote)
    assert proxy.cuts >= 3 * ROUNDS
    assert all(proxy.address in text or "table 't'" in text for text in agents.said)
    assert agents.longest_s < agents.TIMEOUT_S + LATE_S


def test_a_message_cut_anywhere_is_neither_lost_nor_doubled(store: Store, proxy: FaultProxy) -> None:
    rng = random.Random(3)
    steps = 0
    with Client(proxy.address, timeout_s=20) as client, client.writer("t", actor=1, block_rows=40) as writer:
        for _ in range(25 * ROUNDS):
            direction = rng.choice(("up", "up", "down"))
            proxy.weather = Weather(cut_after_bytes={direction: rng.randrange(1, 2500 if direction == "up" else 150)})
            write(writer, 1, steps, 100)
            steps += 100
            writer.flush(timeout_s=20)
            proxy.heal()
    check_exactly_once(store, {1: steps})
    assert proxy.cuts >= 10 * ROUNDS


def verbs(client: Client, writer: rs.Writer, sampler: Any) -> dict[str, Callable[[], Any]]:
    """Every call that needs the server."""

    def flush() -> None:
        write(writer, 1, flush.steps, 3)  # type: ignore[attr-defined]
        flush.steps += 3  # type: ignore[attr-defined]
        writer.flush()

    flush.steps = 30  # type: ignore[attr-defined]
    return {
        "tables": client.tables,
        "describe": lambda: client.describe("t"),
        "stats": lambda: client.stats("t"),
        "create_table": lambda: client.create_table("t", CONFIG, exist_ok=True),
        "alter_table": lambda: client.alter_table("t", rate_limiter=rs.MinSize(1)),
        "writer": lambda: client.writer("t").close(),
        "flush": flush,
        "sample": lambda: client.sample("t", 4),
        "sampler": lambda: [next(sampler) for _ in range(8)],  # more than are on their way already
        "update_priorities": lambda: client.update_priorities("t", [1], [1.0]),
        "read_steps": lambda: client.read_steps("t", 0, 10),
        "episodes": lambda: client.episodes("t"),
        "publish_parameters": lambda: client.publish_parameters("policy", {"w": np.zeros(1000)}),
        "fetch_parameters": lambda: client.fetch_parameters("policy"),
        "server_info": client.server_info,
    }


def call_all(calls: dict[str, Callable[[], Any]]) -> tuple[dict[str, float], dict[str, BaseException]]:
    """Makes all calls at once; how long each took, and what it raised."""
    took: dict[str, float] = {}
    raised: dict[str, BaseException] = {}

    def make(name: str) -> None:
        started = time.monotonic()
        try:
            calls[name]()
        except BaseException as error:
            raised[name] = error
        took[name] = time.monotonic() - started

    threads = [threading.Thread(target=make, args=(name,)) for name in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return took, raised


@pytest.mark.parametrize("known", [True, False], ids=["connected before", "never connected"])
def test_no_call_outlives_its_timeout_and_each_says_what_to_do(store: Store, proxy: FaultProxy, known: bool) -> None:
    timeout_s = 1.0
    with Client(proxy.address, timeout_s=timeout_s) as client:
        writer = client.writer("t", actor=1, timeout_s=timeout_s)
        write(writer, 1, 0, 30)
        writer.flush()
        sampler = client.sampler("t", 4)
        calls = verbs(client, writer, sampler)
        if known:
            deadline = time.monotonic() + 60
            while raised := call_all(calls)[1]:  # the time-out is short for a disk that others use too
                assert time.monotonic() < deadline, raised
        else:
            proxy.cut("rst")
        proxy.weather = Weather(held={"up", "down"})
        took, raised = call_all(calls)
        assert raised.keys() == calls.keys()
        for name, error in raised.items():
            assert isinstance(error, DeadlineExceeded), (name, error)
            assert proxy.address in str(error), name
        assert max(took.values()) < timeout_s + LATE_S, took
        proxy.heal()
        deadline = time.monotonic() + 30
        while raised and time.monotonic() < deadline:
            _, raised = call_all(calls)
        assert raised == {}
        sampler.close()
        writer.close(timeout_s=20)
        rows = store.read_steps("t", 0, 1000)
        steps = len(rows["step_id"]) - 1
        check_exactly_once(store, {1: steps})


def test_a_machine_that_vanished_is_noticed_and_the_work_goes_on(store: Store, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its connections stay open without a word for ever: only pings can tell. They come every 20 s; here every second."""
    faster = dict.fromkeys(("grpc.keepalive_time_ms", "grpc.keepalive_timeout_ms", "grpc.http2.ping_timeout_ms"), 1000)
    monkeypatch.setattr(connection, "_OPTIONS", [(name, faster.get(name, value)) for name, value in connection._OPTIONS])
    agents = Agents(proxy.address)
    try:
        agents.wait_for_progress(store)
        proxy.abandon()
        agents.wait_for_progress(store)
    finally:
        agents.end()
    check_exactly_once(store, agents.wrote)
    assert agents.longest_s < agents.TIMEOUT_S + LATE_S
