"""A server that asks for tokens, over the wire: who gets in, and what happens to whoever is inside when rights change."""

from __future__ import annotations

import logging
import socket
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

import replaystore as rs
from replaystore.server.access import gate
from replaystore.server.access.callers import ANYBODY
from replaystore.server.address import check_exposure
from replaystore.server.thread import ServerThread
from replaystore.wire.methods import TABLE_HEALTH, path_of
from replaystore_client import Client
from tests.access.conftest import Caller, secret, tokens_text, wait_for, write_private
from tests.fuzz.mutations import CONFIG

Serve = Callable[..., ServerThread]

UNKNOWN = "this server does not know the token that came: it is mistyped or was taken back; ask whoever keeps the server's token file"
MISSING = "this server asks for a token: set REPLAYSTORE_TOKEN or REPLAYSTORE_TOKEN_FILE, or pass Client(address, token=…)"


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "LOOK_EVERY_S", 0.05)


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    return write_private(tmp_path / "tokens.toml", tokens_text(boss={"*": "admin"}, actor={"t": "write"}))


def observation(value: float) -> dict[str, Any]:
    return {"a": np.full(3, value, np.float32), "b": np.zeros(2, np.uint8)}


def write(writer: rs.Writer, steps: int) -> None:
    writer.reset(observation(0))
    for step in range(steps):
        writer.append(step, 1.0, step == steps - 1, False, observation(step + 1))
    writer.flush()


def test_no_token_a_wrong_one_and_the_right_one(serve: Serve, tokens: Path) -> None:
    server = serve(token_file=tokens)
    for token, message in ((None, MISSING), (secret("nobody"), UNKNOWN), (secret("boss")[:-1], UNKNOWN)):
        with Client(server.address, token=token) as client:
            with pytest.raises(rs.PermissionDenied) as refused:
                client.tables()
            assert str(refused.value) == message
            with pytest.raises(rs.PermissionDenied):
                client.sample("t", 1)
            with pytest.raises(rs.PermissionDenied):
                client.publish_parameters("policy", {"w": np.zeros(3)})
            with pytest.raises(rs.PermissionDenied):
                client.fetch_parameters("policy")
            with pytest.raises(rs.PermissionDenied):
                client.sampler("t", 1).__next__()
    with Client(server.address, token=secret("boss")) as client:
        assert client.tables() == ["t"]
        with client.writer("t") as writer:
            write(writer, 3)
        assert len(client.sample("t", 8)) == 8


def test_the_status_is_that_of_nobody_known(serve: Serve, tokens: Path) -> None:
    channel = grpc.insecure_channel(serve(token_file=tokens).address)
    for header in ((), (("authorization", secret("boss")),), (("authorization", f"Basic {secret('boss')}"),), (("authorization", ""),)):
        with pytest.raises(grpc.RpcError) as refused:
            channel.unary_unary(path_of("ListTables"))(b"", timeout=60, metadata=header)
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert (
        channel.unary_unary(path_of("ListTables"))(b"", timeout=60, metadata=(("authorization", f"bearer {secret('boss')}"),)) == b"\n\1t"
    )
    channel.close()


def test_tokens_of_the_environment(serve: Serve) -> None:
    server = serve(tokens=f"{secret('a')}\n{secret('b')}")
    for name in ("a", "b"):
        with Client(server.address, token=secret(name)) as client:
            client.create_table(f"of-{name}", CONFIG)
    with Client(server.address) as client, pytest.raises(rs.PermissionDenied):
        client.tables()


def test_without_tokens_everybody_may_do_everything(serve: Serve) -> None:
    with Client(serve().address) as client, Client(serve().address, token=secret("whoever")) as other:
        client.drop_table("t")
        assert other.tables() == []
        assert ANYBODY.everything


def test_a_token_that_is_taken_back_ends_its_streams(serve: Serve, tokens: Path) -> None:
    server = serve(token_file=tokens)
    waited: list[BaseException] = []
    with Client(server.address, token=secret("boss")) as boss, Client(server.address, token=secret("actor")) as actor:

        def wait_long() -> None:
            try:
                actor.fetch_parameters("t", timeout_s=600)
            except BaseException as error:
                waited.append(error)

        waiting = threading.Thread(target=wait_long)
        waiting.start()
        writer = actor.writer("t")
        write(writer, 3)
        with actor.sampler("t", 2) as sampler:
            next(sampler)
            write_private(tokens, tokens_text(boss={"*": "admin"}))
            with pytest.raises(
                rs.PermissionDenied, match=r"does not know the token|'actor' is no longer among those that this server knows"
            ):
                until_it_fails(lambda: next(sampler))
        with pytest.raises(rs.PermissionDenied):
            until_it_fails(lambda: write(writer, 2))
        with pytest.raises(rs.PermissionDenied):
            writer.close(1)
        waiting.join(60)
        assert [type(error) for error in waited] == [rs.PermissionDenied]
        with pytest.raises(rs.PermissionDenied, match="does not know the token"):
            actor.stats("t")
        assert boss.tables() == ["t"]


def until_it_fails(act: Callable[[], Any]) -> None:
    for _ in range(100_000):
        act()
    pytest.fail("it went on")


def test_a_role_that_is_lowered_ends_what_it_no_longer_allows_and_nothing_else(serve: Serve, tokens: Path) -> None:
    server = serve(token_file=tokens)
    with Client(server.address, token=secret("actor")) as actor:
        writer = actor.writer("t")
        write(writer, 3)
        with actor.sampler("t", 2) as sampler:
            next(sampler)
            write_private(tokens, tokens_text(boss={"*": "admin"}, actor={"t": "read"}))
            with pytest.raises(rs.PermissionDenied, match="Append on 't' needs the role write, and caller 'actor' has the role read on it"):
                until_it_fails(lambda: write(writer, 2))
            for _ in range(20):
                next(sampler)
            sampler.update_priorities(next(sampler).step_ids, np.ones(2))
            with pytest.raises(rs.PermissionDenied, match="needs the role write"):
                until_it_fails(lambda: next(sampler))
        with pytest.raises(rs.PermissionDenied):
            writer.close(1)


def test_a_role_that_is_raised_counts_at_once_also_on_an_open_connection(serve: Serve, tokens: Path) -> None:
    server = serve(token_file=tokens)
    with Client(server.address, token=secret("actor")) as actor:
        with pytest.raises(rs.PermissionDenied):
            actor.drop_table("t")
        write_private(tokens, tokens_text(boss={"*": "admin"}, actor={"t": "admin"}))

        def dropped() -> bool:
            try:
                actor.drop_table("t")
            except rs.PermissionDenied:
                return False
            return True

        wait_for(dropped)


def test_a_broken_file_keeps_everybody_in(serve: Serve, tokens: Path, caplog: pytest.LogCaptureFixture) -> None:
    server = serve(token_file=tokens)
    with Client(server.address, token=secret("actor")) as actor, actor.writer("t") as writer:
        write(writer, 2)
        with caplog.at_level(logging.ERROR):
            write_private(tokens, "[token")
            wait_for(lambda: "the tokens known before stay in force" in caplog.text)
        write(writer, 2)
        assert actor.stats("t").inserted_steps == 4


def test_health_is_open_and_reflection_is_not(serve: Serve, tokens: Path) -> None:
    channel = grpc.insecure_channel(serve(token_file=tokens).address)
    check = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=60)
    assert check.status == health_pb2.HealthCheckResponse.SERVING
    reflect = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo
    asked = reflection_pb2.ServerReflectionRequest(list_services="")
    with pytest.raises(grpc.RpcError) as refused:
        list(reflect(iter([asked]), timeout=60))
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
    (reply,) = reflect(iter([asked]), timeout=60, metadata=(("authorization", f"Bearer {secret('actor')}"),))
    assert "replaystore.v1.ReplayStore" in {service.name for service in reply.list_services_response.service}
    channel.close()


def test_who_watches_a_table_sees_no_more_of_it_without_a_token(serve: Serve, tokens: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("replaystore.server.health.LOOK_EVERY_S", 0.05)
    channel = grpc.insecure_channel(serve(token_file=tokens).address)
    asked = health_pb2.HealthCheckRequest(service=f"{TABLE_HEALTH}t")
    watched = health_pb2_grpc.HealthStub(channel).Watch(asked, timeout=60, metadata=(("authorization", f"Bearer {secret('actor')}"),))
    assert next(watched).status == health_pb2.HealthCheckResponse.SERVING
    write_private(tokens, tokens_text(boss={"*": "admin"}))
    assert next(watched).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
    watched.cancel()
    channel.close()


def test_what_cannot_be_used_stops_the_start(serve: Serve, tmp_path: Path, tokens: Path) -> None:
    with pytest.raises(rs.InvalidArgument, match="no tokens, so nobody could connect"):
        serve(token_file=write_private(tmp_path / "empty", "\n"))
    tokens.chmod(0o644)
    with pytest.raises(rs.PermissionDenied, match=f"chmod 600 {tokens}"):
        serve(token_file=tokens)


def test_a_unix_socket_is_its_owners(serve: Serve, tmp_path: Path, tokens: Path) -> None:
    path = tmp_path / "s"
    server = serve(None, str(path), token_file=tokens)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with Client(server.address) as client, pytest.raises(rs.PermissionDenied, match="asks for a token"):
        client.tables()
    with Client(server.address, token=secret("boss")) as client:
        assert client.tables() == ["t"]


@pytest.mark.parametrize(
    ("asks", "encrypts", "message"),
    [
        (False, False, "this server neither encrypts nor asks who is there: pass --tls-cert, --tls-key and --token-file"),
        (True, False, "this server sends tokens unencrypted, for anybody between to read: pass --tls-cert and --tls-key"),
        (False, True, "this server asks nobody who they are: pass --token-file (token_file), or --tls-client-ca"),
    ],
)
def test_addresses_that_others_can_reach(asks: bool, encrypts: bool, message: str) -> None:
    for host in ("0.0.0.0", "::", "replay.example.org", "192.168.1.5"):
        with pytest.raises(rs.PermissionDenied) as refused:
            check_exposure(host, False, asks=asks, encrypts=encrypts)
        assert message in str(refused.value)
        assert f"{host} can be reached from other machines" in str(refused.value)
        check_exposure(host, True, asks=asks, encrypts=encrypts)
        check_exposure(host, False, asks=True, encrypts=True)
    for host in ("127.0.0.1", "::1", "localhost"):
        check_exposure(host, False, asks=asks, encrypts=encrypts)


def test_tokens_alone_do_not_open_a_public_address(serve: Serve, tokens: Path) -> None:
    with pytest.raises(rs.PermissionDenied, match="sends tokens unencrypted"):
        serve("0.0.0.0:0", token_file=tokens)
    serve("0.0.0.0:0", token_file=tokens, insecure=True)


def test_refusals_are_logged_without_secrets_and_seldom(
    serve: Serve, tokens: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "_SAID_EVERY_S", 3600.0)
    server = serve(token_file=tokens)
    with caplog.at_level(logging.WARNING):
        for number in range(20):
            Caller(server.address, f"{secret('wrong')}{number}").refusal("ListTables", [b""])
        Caller(server.address, secret("boss")).refusal("ListTables", [b""])
    said = [record.getMessage() for record in caplog.records if record.name == "replaystore.server"]
    assert len(said) == 1
    assert said[0].startswith("refused 1 calls of nobody known, the last from ipv4:127.0.0.1:")
    assert "secret-of" not in caplog.text


def test_a_port_that_is_taken_is_said_so_with_tokens_too(serve: Serve, tokens: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(rs.InvalidArgument, match="the address is in use"):
            serve(f"127.0.0.1:{taken.getsockname()[1]}", token_file=tokens)
