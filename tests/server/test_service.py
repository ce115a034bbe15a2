"""The service from outside: listening, health, reflection, errors, malformed messages, stopping."""

from __future__ import annotations

import socket
import stat
import threading
import time
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

import replaystore as rs
from replaystore.server.options import ServerOptions
from replaystore.server.thread import ServerThread, start_in_thread
from replaystore.store import Store
from replaystore.v1 import data_pb2 as data
from replaystore.v1 import service_pb2 as pb
from replaystore.wire.methods import SERVICE, path_of
from replaystore_client import Client

from .conftest import config, write_steps


@pytest.fixture
def channel(server: ServerThread) -> Any:
    with grpc.insecure_channel(server.address) as opened:
        yield opened


def test_health_and_reflection(server: ServerThread, channel: Any) -> None:
    health = health_pb2_grpc.HealthStub(channel)
    for name in ("", SERVICE):
        assert health.Check(health_pb2.HealthCheckRequest(service=name)).status == health_pb2.HealthCheckResponse.SERVING
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    asked = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol=SERVICE),
    ]
    services, file = list(stub.ServerReflectionInfo(iter(asked)))
    assert SERVICE in [service.name for service in services.list_services_response.service]
    assert b"GetServerInfo" in b"".join(file.file_descriptor_response.file_descriptor_proto)


def test_the_server_tells_about_itself(store: Store, client: Client) -> None:
    info = client.server_info()
    assert (info["version"], info["protocol"], info["path"]) == (rs.__version__, 1, str(store.path.absolute()))


def test_a_client_made_of_the_generated_classes_alone(client: Client, channel: Any) -> None:
    """What another language does: nothing of ours but the .proto."""
    client.create_table("t", config(selector=rs.Prioritized()))

    def packed(kind: Any, header: Any, arrays: dict[str, np.ndarray[Any, Any]], **more: Any) -> Any:
        layout, payload = data.Layout(), b""
        for name, array in arrays.items():
            payload += bytes(-len(payload) % 8)
            layout.fields.add(name=name, dtype=array.dtype.name, shape=array.shape, offset_bytes=len(payload))
            payload += array.tobytes()
        return kind(header=header, layout=layout, payload=payload, **more)

    def stream(method: str, request: Any, reply: Any, messages: list[Any]) -> list[Any]:
        call = channel.stream_stream(path_of(method), request.SerializeToString, reply.FromString)
        return list(call(iter(messages)))

    one = np.ones(1, np.int64)
    rows = {
        "data/observation": np.arange(9, dtype=np.float32).reshape(3, 3),
        "data/action": np.arange(3),
        "data/reward": np.array([1, 2, 0], np.float32),
        "data/terminated": np.array([False, True, True]),
        "data/truncated": np.zeros(3, bool),
        "run/episode": 77 * one,
        "run/first": 0 * one,
        "run/rows": 3 * one,
        "run/ending": np.ones(1, np.uint8),
        "run/policy_version": -one,
        "run/seed": -one,
    }
    opening = data.AppendRequest(header=data.AppendHeader(table="t"))
    block = packed(data.AppendRequest, data.AppendHeader(sequence=1, actor=5), rows)
    opened, ack, again = stream("Append", data.AppendRequest, data.AppendReply, [opening, block, block])
    assert opened.opened.next_step == 0
    assert (ack.ack.sequence, ack.ack.applied_rows, ack.ack.next_step) == (1, 3, 3)
    assert (again.ack.applied_rows, again.ack.duplicate_rows, again.ack.next_step) == (0, 3, 3)

    updates = {"update/step_ids": np.array([0, 1, 99]), "update/priorities": np.array([2.0, float("nan"), 1.0])}
    query = data.SampleQuery(table="t", batch_size=4)
    request = packed(data.SampleRequest, data.SampleHeader(request=9, timeout_s=1), updates, query=query)
    (reply,) = stream("Sample", data.SampleRequest, data.SampleReply, [request])
    assert reply.header.request == 9
    assert (reply.header.updates.applied, reply.header.updates.rejected, reply.header.updates.gone) == (1, 1, 1)
    found = {
        field.name: np.frombuffer(reply.payload, field.dtype, int(np.prod(field.shape)), field.offset_bytes).reshape(field.shape)
        for field in reply.layout.fields
    }
    ids = found["info/step_ids"]
    assert set(ids.tolist()) <= {0, 1}
    np.testing.assert_array_equal(found["data/observation"], rows["data/observation"][ids])
    np.testing.assert_array_equal(found["next/observation"], rows["data/observation"][ids + 1])

    listed = channel.unary_unary(path_of("ListTables"), pb.ListTablesRequest.SerializeToString, pb.ListTablesReply.FromString)
    assert list(listed(pb.ListTablesRequest()).tables) == ["t"]


@pytest.mark.parametrize(
    ("method", "shape", "messages", "what"),
    [
        ("CreateTable", "unary_unary", b"\xff", "request: not a CreateTableRequest"),
        ("UpdatePriorities", "unary_unary", b"\x0a\xff", "message: cut short"),
        ("ReadSteps", "unary_stream", b"\xff", "request: not a ReadStepsRequest"),
        ("Append", "stream_stream", [data.AppendRequest().SerializeToString()], "the first message of an Append stream"),
        ("Append", "stream_stream", [b"\xff\xff"], "message"),
        ("Sample", "stream_stream", [b"\x22\xff\xff"], "message"),
        ("PublishParameters", "stream_unary", [], "at least one message"),
    ],
)
def test_malformed_messages_get_a_clear_status(channel: Any, method: str, shape: str, messages: Any, what: str) -> None:
    request = messages if isinstance(messages, bytes) else iter(messages)
    call = getattr(channel, shape)(path_of(method))
    with pytest.raises(grpc.RpcError) as caught:
        list(call(request, timeout=10))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert what in caught.value.details()
    assert ("replaystore-error", "InvalidArgument") in [tuple(pair) for pair in caught.value.trailing_metadata()]


def test_typed_errors_cross_the_wire(client: Client) -> None:
    client.create_table("t", config())
    for call, kind, what in [
        (lambda: client.stats("nope"), rs.NotFound, "no table 'nope'; tables: t"),
        (lambda: client.sample("nope", 1), rs.NotFound, "nope"),
        (lambda: client.writer("nope"), rs.NotFound, "nope"),
        (lambda: client.create_table("t", config()), rs.AlreadyExists, "exist_ok"),
        (lambda: client.create_table("t", config(selector=rs.Prioritized()), exist_ok=True), rs.AlreadyExists, "another selectors"),
        (lambda: client.update_priorities("t", [1], [1.0]), rs.InvalidArgument, "Prioritized"),
        (lambda: client.read_steps("t", 0, 1, ["nope"]), rs.InvalidArgument, "no column 'nope'"),
        (lambda: client.fetch_parameters("../etc"), rs.InvalidArgument, "name"),
        (lambda: client.sample("t", 1, timeout_s=0), rs.NotReady, "waited 0 s"),
    ]:
        with pytest.raises(kind, match=what) as caught:
            call()
        assert type(caught.value) is kind


def test_what_is_unexpected_is_logged_and_not_shown(
    store: Store, client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: Any) -> None:
        raise RuntimeError("secret/path")

    monkeypatch.setattr(store, "stats", fails)
    with pytest.raises(rs.ReplayStoreError, match="its log has details under") as caught:
        client.stats("t")
    assert "secret" not in str(caught.value)
    number = str(caught.value).split()[-1]
    assert number in caplog.text
    assert "secret/path" in caplog.text


def test_a_batch_too_large_for_a_message_says_how_many_fit(store: Store) -> None:
    with start_in_thread(store, options=ServerOptions(max_message_bytes=2 << 20)) as server, Client(server.address) as client:
        client.create_table("t", rs.TableConfig({"observation": rs.Column((1000,))}))
        with client.writer("t") as writer:
            writer.reset(np.zeros(1000))
            for _ in range(20):
                writer.append({}, 0.0, False, False, np.ones(1000))
        with pytest.raises(rs.InvalidArgument, match=r"batch_size=1000: .* at most 1048576: ask for at most (\d+) at once") as caught:
            client.sample("t", 1000)
        fits = int(str(caught.value).split("ask for at most ")[1].split()[0])
        assert len(client.sample("t", fits)) == fits


def test_two_servers_on_one_address(server: ServerThread, store: Store) -> None:
    with pytest.raises(rs.InvalidArgument, match="in use"):
        start_in_thread(store, server.address)


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0", "192.168.1.7:0", "example.org:0"])
def test_nobody_else_can_reach_it_unless_that_is_meant(store: Store, listen: str) -> None:
    with pytest.raises(rs.PermissionDenied, match="--insecure"):
        start_in_thread(store, listen)


def test_insecure_is_possible(store: Store) -> None:
    with start_in_thread(store, "0.0.0.0:0", options=ServerOptions(insecure=True)) as server:
        assert not server.address.endswith(":0")
        with Client("127.0.0.1:" + server.address.rpartition(":")[2]) as client:
            assert client.tables() == []


@pytest.mark.parametrize("listen", ["localhost", "7777", "localhost:x", "localhost:99999", ":7"])
def test_addresses_that_are_none(store: Store, listen: str) -> None:
    with pytest.raises(rs.InvalidArgument, match="HOST:PORT"):
        start_in_thread(store, listen)
    with pytest.raises(rs.InvalidArgument, match="HOST:PORT"):
        Client(listen)


def test_unix_socket(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    with start_in_thread(store, None, str(path)) as server:
        assert server.address == f"unix:{path}"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with Client(server.address) as client:
            client.create_table("t", config())
            with client.writer("t") as writer:
                write_steps(writer, 10)
            assert len(client.sample("t", 5)) == 5
        with pytest.raises(rs.InvalidArgument, match="another server is listening"):
            start_in_thread(store, None, str(path))
    assert not path.exists()
    with socket.socket(socket.AF_UNIX) as dead:  # what a killed server leaves behind
        dead.bind(str(path))
    with start_in_thread(store, None, str(path)) as server, Client(server.address) as client:
        assert client.tables() == ["t"]
    path.write_text("precious")
    with pytest.raises(rs.InvalidArgument, match="is no socket"):
        start_in_thread(store, None, str(path))
    with pytest.raises(rs.InvalidArgument, match="107 bytes"):
        start_in_thread(store, None, str(tmp_path / ("x" * 120)))


def test_stopping_ends_calls_with_a_clear_status(store: Store) -> None:
    store.create_table("t", config())
    with start_in_thread(store) as server:
        address = server.address
        with grpc.insecure_channel(address) as channel:
            waiting = data.SampleRequest(header=data.SampleHeader(request=1, timeout_s=60), query=data.SampleQuery(table="t", batch_size=1))
            request = data.AppendRequest(header=data.AppendHeader(table="t"))
            gate = threading.Event()

            def messages(first: Any) -> Any:
                yield first.SerializeToString()
                gate.wait(120)

            calls = [
                channel.stream_stream(path_of("Sample"))(messages(waiting)),
                channel.stream_stream(path_of("Append"))(messages(request)),
            ]
            next(calls[1])
            while not len(store.table("t").sampling):
                time.sleep(0.01)
            started = time.monotonic()
            server.stop()
            assert time.monotonic() - started < 20
            for call in calls:
                with pytest.raises(grpc.RpcError) as caught:
                    list(call)
                assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
                assert "the server is stopping" in caught.value.details()
            gate.set()
        assert not len(store.table("t").sampling)
        assert store.tables() == ["t"]
        with Client(address, timeout_s=0.3) as client, pytest.raises(rs.DeadlineExceeded, match=r"no connection to .* is it running\?"):
            client.tables()


def test_a_token_does_not_travel_in_the_clear() -> None:
    with pytest.raises(rs.PermissionDenied, match="unencrypted"):
        Client("example.org:7777", token="secret")
    Client("localhost:7777", token="secret").close()


def test_the_server_leaves_no_threads(store: Store) -> None:
    before = {thread.name for thread in threading.enumerate()}
    with start_in_thread(store) as server, Client(server.address) as client:
        client.create_table("t", config())
        with client.writer("t") as writer:
            write_steps(writer, 10)
        client.sample("t", 3)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        left = {thread.name for thread in threading.enumerate()} - before - {"replaystore-watchdog"}
        left = {name for name in left if name.startswith("replaystore")}
        if not left:
            break
        time.sleep(0.05)
    assert not left
