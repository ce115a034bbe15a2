"""The standard health service: the server's state, each table's, and whoever watches them."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

import replaystore as rs
from replaystore.engine import committing
from replaystore.errors import PermissionDenied
from replaystore.server import health as served
from replaystore.server.access.callers import Caller
from replaystore.server.access.roles import Role
from replaystore.server.health import Health
from replaystore.server.thread import ServerThread
from replaystore.storage import calls
from replaystore.store import Store
from replaystore_client import Client

from .conftest import config, write_steps

LONG_S = 60.0
NAMES = ("SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")
SERVING, NOT_SERVING, UNKNOWN = map(health_pb2.HealthCheckResponse.ServingStatus.Value, NAMES)


class Probe:
    def __init__(self, address: str) -> None:
        self.channel = grpc.insecure_channel(address)
        self.stub = health_pb2_grpc.HealthStub(self.channel)

    def check(self, service: str) -> int:
        return int(self.stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=LONG_S).status)

    def watch(self, service: str) -> Any:
        return self.stub.Watch(health_pb2.HealthCheckRequest(service=service), timeout=LONG_S)

    def all(self) -> dict[str, int]:
        return {name: int(reply.status) for name, reply in self.stub.List(health_pb2.HealthListRequest(), timeout=LONG_S).statuses.items()}


@pytest.fixture
def probe(server: ServerThread) -> Iterator[Probe]:
    made = Probe(server.address)
    yield made
    made.channel.close()


@pytest.fixture
def full_disk() -> Iterator[threading.Event]:
    """While it is set there is no space left for rows."""
    full = threading.Event()

    def hook(name: str, *details: Any) -> None:
        if full.is_set() and name == "pwrite":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    calls.hook = hook
    yield full
    calls.hook = None


def test_server_and_tables_have_states_of_their_own(store: Store, probe: Probe) -> None:
    store.create_table("t", config())
    assert probe.all() == {"": SERVING, "replaystore.v1.ReplayStore": SERVING, "replaystore.table/t": SERVING}
    for name, state in probe.all().items():
        assert probe.check(name) == state
    store.drop_table("t")
    for name in ("replaystore.table/t", "replaystore.table/", "t", "x" * 5000):
        with pytest.raises(grpc.RpcError) as caught:
            probe.check(name)
        error: Any = caught.value
        assert error.code() is grpc.StatusCode.NOT_FOUND
        assert "ask for '' (the server) or 'replaystore.table/NAME' (a table that there is)" in error.details()
        assert len(error.details()) < 400


def test_a_full_disk_is_seen_until_there_is_space_again(store: Store, client: Client, probe: Probe, full_disk: threading.Event) -> None:
    store.create_table("t", config())
    store.create_table("u", config())
    with client.writer("t", timeout_s=LONG_S) as writer:
        write_steps(writer, 10)
        writer.flush()
        assert probe.check("replaystore.table/t") == SERVING
        full_disk.set()
        write_steps(writer, 10, begin=False, first=10)
        with pytest.raises(rs.DiskFull):
            writer.flush(timeout_s=2)
        assert probe.check("replaystore.table/t") == NOT_SERVING
        assert probe.check("replaystore.table/u") == SERVING
        assert probe.check("") == SERVING
        full_disk.clear()
        writer.flush(timeout_s=LONG_S)
        assert probe.check("replaystore.table/t") == SERVING


def test_a_full_disk_that_nobody_writes_to_is_forgotten(
    store: Store, probe: Probe, full_disk: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.create_table("t", config())
    full_disk.set()
    with store.writer("t", timeout_s=0) as writer:
        write_steps(writer, 5)
        with pytest.raises(rs.DiskFull):
            writer.flush()
        full_disk.clear()
        assert probe.check("replaystore.table/t") == NOT_SERVING
        monkeypatch.setattr(committing, "FULL_S", 0.0)
        assert probe.check("replaystore.table/t") == SERVING


def test_a_failed_disk_is_seen_for_good_and_by_those_who_watch(store: Store, probe: Probe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served, "LOOK_EVERY_S", 0.01)
    watched = probe.watch("replaystore.table/t")
    assert next(watched).status == UNKNOWN
    store.create_table("t", config())
    assert next(watched).status == SERVING
    store.table("t").fail(rs.StorageError("the disk is on fire"))
    assert next(watched).status == NOT_SERVING
    assert probe.check("replaystore.table/t") == NOT_SERVING
    store.drop_table("t")
    assert next(watched).status == UNKNOWN
    watched.cancel()


def test_watches_hold_no_stopping_server_up_and_are_bounded(
    store: Store, server: ServerThread, probe: Probe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served, "MAX_WATCHES", 3)
    watches = [probe.watch("") for _ in range(3)]
    assert [next(watch).status for watch in watches] == [SERVING] * 3
    with pytest.raises(grpc.RpcError, match="3 health watches are open, the bound: end some, or use Check"):
        next(probe.watch(""))
    watches.pop().cancel()
    deadline = time.monotonic() + LONG_S
    while True:  # the server hears of the end in a moment
        try:
            watches.append(probe.watch(""))
            assert next(watches[-1]).status == SERVING
            break
        except grpc.RpcError:
            watches.pop()
            assert time.monotonic() < deadline
    server.stop(LONG_S)
    assert [[reply.status for reply in watch] for watch in watches] == [[NOT_SERVING]] * 3


def test_of_tables_a_caller_hears_whom_it_may_read() -> None:
    health = Health(lambda table: True, lambda: ["mine", "other"])
    service = "replaystore.table/"
    for who, may in ((Caller("a", (("mine", Role.read),)), SERVING), (Caller("b", (("other", Role.admin),)), UNKNOWN)):
        health.identify = lambda context, who=who: who  # type: ignore[misc]
        assert health._status(f"{service}mine", health._caller(None)) == may

    def nobody(context: Any) -> Caller:
        raise PermissionDenied("no token")

    health.identify = nobody
    assert health._status("", health._caller(None)) == SERVING  # probes have no token
    assert health._status(f"{service}mine", health._caller(None)) == UNKNOWN


def test_nothing_is_well_before_the_store_is_open() -> None:
    health = Health(lambda table: False, tuple, opened=False)
    caller = health._caller(None)
    assert [health._status(name, caller) for name in ("", "replaystore.table/any", "x")] == [NOT_SERVING, NOT_SERVING, UNKNOWN]
