"""Tokens and certificates of clients: from arguments, from the environment, and what is wrong with them."""

from __future__ import annotations

import select
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme

import replaystore as rs
from replaystore_client import TLS, Client
from replaystore_client.identity import tls_of, token_of
from tests.access.conftest import secret


def test_where_a_token_is_from(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"# mine\n\n  {secret('file')}\n")
    several = {"REPLAYSTORE_TOKEN": secret("variable"), "REPLAYSTORE_TOKEN_FILE": str(file)}
    assert token_of(secret("argument"), several) == (secret("argument"), "token")
    assert token_of(None, several) == (secret("variable"), "REPLAYSTORE_TOKEN")
    assert token_of(None, {**several, "REPLAYSTORE_TOKEN": ""})[0] == secret("file")
    assert token_of(None, {}) == (None, "REPLAYSTORE_TOKEN")
    assert token_of("", several)[0] is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[token.a]\n", "is a server's table of tokens, not a client's token: set REPLAYSTORE_TOKEN, or a file that holds one alone"),
        ("# nothing\n", "holds no token: write one, alone on its line"),
        ("two words\n", "must be at most 4096 printable ASCII characters without spaces (it is not shown here)"),
        ("secrät-of-nobody\n", "must be at most 4096 printable ASCII characters"),
    ],
)
def test_token_files_of_clients(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "token"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(rs.InvalidArgument) as wrong:
        token_of(None, {"REPLAYSTORE_TOKEN_FILE": str(file)})
    assert message in str(wrong.value)
    assert str(file) in str(wrong.value)
    assert "words" not in str(wrong.value)


def test_a_token_file_that_is_not_there() -> None:
    with pytest.raises(rs.InvalidArgument, match="REPLAYSTORE_TOKEN_FILE nowhere cannot be read: No such file or directory"):
        token_of(None, {"REPLAYSTORE_TOKEN_FILE": "nowhere"})


@pytest.mark.parametrize("token", ["a b", "a\nb", "ä", "x" * 5000, 7])
def test_what_is_no_token(token: Any) -> None:
    with pytest.raises(rs.InvalidArgument, match="token must be at most 4096 printable ASCII characters"):
        Client("localhost:1", token=token)


def test_a_token_of_the_environment_stays_on_the_machine_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPLAYSTORE_TOKEN", secret("variable"))
    with pytest.raises(rs.PermissionDenied) as refused:
        Client("replay.example.org:7777")
    assert str(refused.value) == (
        "a token (REPLAYSTORE_TOKEN) would travel to replay.example.org:7777 unencrypted, for anybody to read: pass tls=True or "
        "tls=CA_FILE, or set REPLAYSTORE_TLS_CA"
    )
    monkeypatch.setenv("REPLAYSTORE_TLS_CA", "system")
    Client("replay.example.org:7777").close()
    with pytest.raises(rs.PermissionDenied):
        Client("replay.example.org:7777", tls=False)
    Client("localhost:7777", tls=False).close()


@pytest.fixture
def files(tmp_path: Path, authority: trustme.CA) -> dict[str, str]:
    issued = authority.issue_cert("x.example")
    authority.cert_pem.write_to_path(str(tmp_path / "ca"))
    issued.private_key_pem.write_to_path(str(tmp_path / "key"))
    issued.cert_chain_pems[0].write_to_path(str(tmp_path / "cert"))
    (tmp_path / "nonsense").write_text("nonsense")
    return {name: str(tmp_path / name) for name in ("ca", "key", "cert", "nonsense")}


def test_where_tls_is_from(files: dict[str, str]) -> None:
    environment = {
        "REPLAYSTORE_TLS_CA": files["ca"],
        "REPLAYSTORE_TLS_CLIENT_CERT": files["cert"],
        "REPLAYSTORE_TLS_CLIENT_KEY": files["key"],
        "REPLAYSTORE_TLS_SERVER_NAME": "replay",
    }

    def encrypts(given: Any, variables: dict[str, str] | None = None, *, unix: bool = False) -> tuple[bool, str | None]:
        credentials, name = tls_of(given, local_socket=unix, environment=environment if variables is None else variables)
        return isinstance(credentials, grpc.ChannelCredentials), name

    assert encrypts(None, {}) == (False, None)
    assert encrypts(None) == (True, "replay")
    assert encrypts(None, unix=True) == (False, None)
    assert encrypts(False) == (False, None)
    assert encrypts(True) == (True, None)
    assert encrypts(files["ca"]) == (True, None)
    assert encrypts(Path(files["ca"])) == (True, None)
    assert encrypts(TLS(files["ca"], files["cert"], files["key"], "other")) == (True, "other")
    assert encrypts(None, {"REPLAYSTORE_TLS_CA": "system"}) == (True, None)
    given = grpc.ssl_channel_credentials()
    assert tls_of(given, local_socket=False, environment=environment) == (given, None)


def test_what_is_wrong_with_certificates(files: dict[str, str]) -> None:
    for tls, message in (
        ("nowhere", "certificates to trust nowhere cannot be read: No such file or directory"),
        (files["nonsense"], "holds no certificates in PEM to trust"),
        (TLS(cert=files["cert"]), "a client's certificate needs its key, and the other way round"),
        (TLS(cert=files["cert"], key=files["nonsense"]), "both must be PEM and belong together"),
        (7, r"tls=7 must be True for what this machine trusts"),
    ):
        with pytest.raises(rs.InvalidArgument, match=message):
            Client("localhost:1", tls=tls)


def test_what_is_on_this_machine_is_reached_without_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which would hear the token."""
    for name in ("no_proxy", "NO_PROXY", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
    with socket.create_server(("127.0.0.1", 0)) as proxy, socket.create_server(("127.0.0.1", 0)) as server:
        for name in ("http_proxy", "https_proxy", "grpc_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.getsockname()[1]}")
        asking = Client(f"127.0.0.1:{server.getsockname()[1]}", token=secret("argument"), timeout_s=60)
        with ThreadPoolExecutor(1) as beside:
            listing = beside.submit(asking.tables)
            ready, _, _ = select.select([proxy, server], [], [], 60)
            asking.close()
            assert isinstance(listing.exception(60), rs.ReplayStoreError)
        assert ready == [server]
