"""Clients that vanish without a word, that ping too much, and that come back to a server that was away: all at their own time."""

from __future__ import annotations

import socket
import statistics
import threading
import time
from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
import pytest

import replaystore as rs
from replaystore.server import peers
from replaystore.server.options import ServerOptions
from replaystore.server.thread import start_in_thread
from replaystore.store import Store
from replaystore.v1 import service_pb2
from replaystore_client import Client, connection
from replaystore_client.connection import Backoff
from tests.fault_net.proxy import FaultProxy
from tests.ports import address_to_keep

from .conftest import config, write_steps

LONG_S = 60.0


def until(done: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + LONG_S
    while not done():
        assert time.monotonic() < deadline, f"waited {LONG_S:g} s: {what}"
        time.sleep(0.02)


def test_what_a_vanished_machine_held_is_given_back(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its connection stays open without a word for ever. Pings come every 30 s; here every second, and a busy machine answers within 4."""
    monkeypatch.setattr(peers, "PING_EVERY_S", 1.0)
    monkeypatch.setattr(peers, "PING_TIMEOUT_S", 4.0)
    store.create_table("t", config())
    store.create_table("full", config(rate_limiter=rs.SampleToInsertRatio(1.0, 1, 10.0)))
    store.create_table("empty", config(rate_limiter=rs.MinSize(1000)))
    with store.writer("t") as writer:
        write_steps(writer, 50)
    pins = store.table("t")._pins
    with start_in_thread(store, options=ServerOptions(local_least_bytes=0)) as server:
        proxy = FaultProxy(server.address)
        gone = Client(proxy.address, timeout_s=LONG_S)
        sampler: Any = gone.sampler("t", 8, prefetch=4)
        until(lambda: next(sampler) is not None and sampler.path == "local" and pins._readers, "for batches that are lent")
        blocked = gone.writer("full", block_rows=2, interval_s=0.01)
        write_steps(blocked, 20)
        waiting: Any = blocked._sink
        until(lambda: waiting._blocked, "for the limiter")
        empty: Any = gone.sampler("empty", 4, timeout_s=1)
        with pytest.raises(rs.NotReady):
            next(empty)
        with Client(server.address, timeout_s=LONG_S) as near:
            status = near.server_status()
            assert (status.append_streams, status.sample_streams) == (1, 2)
            assert status.in_flight_bytes > 0  # the block that waits for the limiter
            assert len(store.table("full").inserting) == len(store.table("empty").sampling) == 1
            proxy.abandon()

            def noticed() -> bool:
                status = near.server_status()
                return status.append_streams + status.sample_streams == 0

            until(noticed, "for pings to tell")
            assert not pins._readers
            assert len(store.table("full").inserting) == len(store.table("empty").sampling) == 0
            assert near.server_status().in_flight_bytes == 0
        proxy.close()
        for one in (sampler, empty):
            one._stream.close()
        with pytest.raises(rs.ReplayStoreError):
            blocked.close(0.1)
        gone.close()


def test_a_client_may_not_ping_for_ever(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = dict(connection._OPTIONS)
    assert ours["grpc.keepalive_time_ms"] >= 10_000 * peers.LEAST_PING_S
    monkeypatch.setattr(peers, "LEAST_PING_S", 60.0)
    monkeypatch.setattr(peers, "MAX_PING_STRIKES", 2)
    pinging = [("grpc.keepalive_time_ms", 20), ("grpc.keepalive_timeout_ms", 60_000), ("grpc.http2.max_pings_without_data", 0)]
    with start_in_thread(store) as server, grpc.insecure_channel(server.address, pinging) as channel:
        request = service_pb2.FetchParametersRequest(name="policy", timeout_s=2 * LONG_S).SerializeToString()
        with pytest.raises(grpc.RpcError, match=r"(?i)too[ _]many[ _]pings|ENHANCE_YOUR_CALM"):
            list(channel.unary_stream("/replaystore.v1.ReplayStore/FetchParameters")(request, timeout=LONG_S))


def test_pauses_grow_and_are_spread() -> None:
    pauses = np.array([[backoff.pause_s() for _ in range(10)] for backoff in (Backoff() for _ in range(400))])
    most = np.minimum(connection.FIRST_RETRY_S * 2.0 ** np.arange(10), connection.LONGEST_RETRY_S)
    assert (pauses >= most / 2).all()
    assert (pauses <= most).all()
    for column, bound in zip(pauses.T, most, strict=True):  # 400 clients that lost their server at once come back all over the time
        assert len(np.unique(column)) > 390
        assert abs(statistics.fmean(column) / bound - 0.75) < 0.05
        counts, _ = np.histogram(column, 8, (bound / 2, bound))
        assert counts.max() < 3 * 400 / 8


class Slammed:
    """Accepts connections, counts them and closes them at once: the worst that a server can do to its clients' patience."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.connections = 0
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            near.close()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(LONG_S)


def test_a_crowd_does_not_storm_a_server_that_cannot_answer() -> None:
    """Each client tries a few times a second at most, however many calls it has waiting."""
    slammed, clients, seconds = Slammed(), 12, 2.0
    refused: list[rs.DeadlineExceeded] = []

    def ask(client: Client) -> None:
        with pytest.raises(rs.DeadlineExceeded) as caught:
            client.tables()
        refused.append(caught.value)

    crowd = [Client(slammed.address, timeout_s=seconds) for _ in range(clients)]
    threads = [threading.Thread(target=ask, args=(client,)) for client in crowd for _ in range(2)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG_S)
    took_s = time.monotonic() - began
    for client in crowd:
        client.close()
    slammed.close()
    assert len(refused) == len(threads)
    assert all(slammed.address in str(error) for error in refused)
    # pauses of 0.05, 0.08, 0.13, … 1 s between connections, a fifth of each at random
    assert clients <= slammed.connections <= clients * (9 + 2 * took_s)


def test_a_server_that_was_away_is_found_by_all_in_a_moment(store: Store) -> None:
    """A writer, a sampler and calls of 10 clients; a pause lasts 2 s at most, and so does a connection's."""
    store.create_table("t", config(selector=rs.Prioritized()))
    server = start_in_thread(store, address_to_keep())
    with Client(server.address, timeout_s=LONG_S) as client:
        writer, sampler = client.writer("t", actor=1), client.sampler("t", 4, timeout_s=LONG_S)
        write_steps(writer, 20)
        writer.flush()
        next(sampler)
        server.stop()
        write_steps(writer, 20, begin=False, first=20)
        found: dict[str, float] = {}

        def find(name: str, call: Callable[[], Any]) -> None:
            call()
            found[name] = time.monotonic()

        others = [Client(server.address, timeout_s=LONG_S) for _ in range(10)]
        calls: dict[str, Callable[[], Any]] = {
            "writer": lambda: writer.flush(timeout_s=LONG_S),
            "sampler": lambda: [next(sampler) for _ in range(8)],
            **{f"call {index}": other.tables for index, other in enumerate(others)},
        }
        threads = [threading.Thread(target=find, args=entry) for entry in calls.items()]
        for thread in threads:
            thread.start()
        time.sleep(1.0)
        assert not found
        server = start_in_thread(store, server.address)
        back = time.monotonic()
        for thread in threads:
            thread.join(LONG_S)
        assert found.keys() == calls.keys()
        assert max(found.values()) - back < 40  # 3 s where the machine is not shared
        sampler.close()
        writer.close()
        for other in others:
            other.close()
        assert client.stats("t").inserted_steps == 40
    server.stop()
