"""TLS with certificates made for the test: who gets through, what is said to who does not, and certificates that change."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat, load_pem_private_key

import replaystore as rs
from replaystore.server.access import certificates, gate
from replaystore.server.access.listening import Access
from replaystore.server.options import ServerOptions
from replaystore.server.recovering import Recovering
from replaystore.server.thread import ServerThread
from replaystore_client import TLS, Client
from tests.access.conftest import secret, tokens_text, wait_for, write_private
from tests.ports import address_to_keep

Serve = Callable[..., ServerThread]


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificates, "LOOK_EVERY_S", 0.0)
    monkeypatch.setattr(gate, "LOOK_EVERY_S", 0.05)


class Pair:
    """A certificate and its key as files, to be replaced while they are used."""

    def __init__(self, folder: Path, name: str, authority: trustme.CA, *names: str, common_name: str | None = None) -> None:
        self.cert, self.key = folder / f"{name}.pem", folder / f"{name}.key"
        self.replace(authority, *names, common_name=common_name)

    def replace(self, authority: trustme.CA, *names: str, common_name: str | None = None) -> None:
        issued = authority.issue_cert(*(names or ("localhost", "127.0.0.1")), common_name=common_name)
        write_private(self.key, issued.private_key_pem.bytes().decode())
        write_private(self.cert, "".join(pem.bytes().decode() for pem in issued.cert_chain_pems))


def trust(folder: Path, name: str, authority: trustme.CA) -> Path:
    path = folder / f"{name}.pem"
    authority.cert_pem.write_to_path(str(path))
    return path


@pytest.fixture
def pair(tmp_path: Path, authority: trustme.CA) -> Pair:
    return Pair(tmp_path, "server", authority)


@pytest.fixture
def ca(tmp_path: Path, authority: trustme.CA) -> Path:
    return trust(tmp_path, "ca", authority)


@pytest.fixture(scope="module")
def strangers() -> trustme.CA:
    return trustme.CA()


def check_refusal(address: str, wanted: str, **options: Any) -> None:
    """No connection comes about, and the error says `wanted`; on a slow machine a try may end before it says anything."""

    def said() -> bool:
        with Client(address, timeout_s=0.5, **options) as client, pytest.raises(rs.DeadlineExceeded) as refused:
            client.tables()
        return wanted in str(refused.value)

    wait_for(said)


def test_encrypted(serve: Serve, pair: Pair, ca: Path, tmp_path: Path, strangers: trustme.CA) -> None:
    address = serve("0.0.0.0:0", tls_cert=pair.cert, tls_key=pair.key, tokens=secret("a")).address.replace("0.0.0.0", "localhost")
    for tls in (ca, str(ca), TLS(ca), grpc.ssl_channel_credentials(ca.read_bytes())):
        with Client(address, token=secret("a"), tls=tls) as client:
            assert client.tables() == ["t"]
    with Client(address.replace("localhost", "127.0.0.1"), token=secret("a"), tls=ca) as client:
        assert client.tables() == ["t"]
    check_refusal(address, "is not signed by what tls= trusts", tls=trust(tmp_path, "other", strangers))
    check_refusal(address, "is not signed by what tls= trusts", tls=True)
    check_refusal(address, "it may ask for TLS: tls=True or tls=CA_FILE")


def test_a_client_that_encrypts_and_a_server_that_does_not(serve: Serve, ca: Path) -> None:
    check_refusal(serve().address, "the server does not encrypt: pass tls=False", tls=ca)


def test_a_certificate_for_another_name(serve: Serve, tmp_path: Path, authority: trustme.CA, ca: Path) -> None:
    pair = Pair(tmp_path, "named", authority, "replay.example.org")
    address = serve(tls_cert=pair.cert, tls_key=pair.key).address
    check_refusal(address, "the server's certificate is for another name", tls=ca)
    with Client(address, tls=TLS(ca, server_name="replay.example.org")) as client:
        assert client.tables() == ["t"]


def test_a_unix_socket_is_not_encrypted(serve: Serve, tmp_path: Path, pair: Pair) -> None:
    with Client(serve(None, str(tmp_path / "s"), tls_cert=pair.cert, tls_key=pair.key).address) as client:
        assert client.tables() == ["t"]


def test_certificates_of_clients(serve: Serve, tmp_path: Path, pair: Pair, ca: Path, strangers: trustme.CA) -> None:
    clients = trustme.CA()
    options = {"tls_cert": pair.cert, "tls_key": pair.key, "tls_client_ca": trust(tmp_path, "clients", clients)}
    known = Pair(tmp_path, "known", clients, "x.example", common_name="dashboard")
    other = Pair(tmp_path, "other", clients, "x.example", common_name="somebody")
    stranger = Pair(tmp_path, "stranger", strangers, "x.example", common_name="dashboard")

    def shown(one: Pair) -> TLS:
        return TLS(ca, one.cert, one.key)

    alone = serve("0.0.0.0:0", **options).address.replace("0.0.0.0", "localhost")
    check_refusal(alone, "it may ask for a client's certificate, TLS(ca, cert, key)", tls=ca)
    check_refusal(alone, "it may ask for a client's certificate", tls=shown(stranger))
    with Client(alone, tls=shown(other)) as client:  # whoever has a certificate may do everything
        client.create_table("more", client.describe("t").config)
        client.drop_table("more")

    tokens = write_private(
        tmp_path / "tokens.toml",
        tokens_text(boss={"*": "admin"}) + '\n[token.screen]\ncertificate = "dashboard"\nroles = { t = "read" }\n',
    )
    both = serve(token_file=tokens, **options).address
    check_refusal(both, "it may ask for a client's certificate", tls=ca, token=secret("boss"))
    with Client(both, tls=shown(known)) as client:
        assert client.tables() == ["t"]
        with pytest.raises(rs.PermissionDenied, match="caller 'screen' has the role read on it"):
            client.drop_table("t")
    with Client(both, tls=shown(other)) as client:
        with pytest.raises(rs.PermissionDenied) as refused:
            client.tables()
        assert str(refused.value) == (
            "this server knows neither a token of this call nor the certificate 'somebody': set REPLAYSTORE_TOKEN, or have "
            'certificate = "somebody" added to the server\'s token file'
        )
    with Client(both, tls=shown(other), token=secret("boss")) as client:
        assert client.server_info()["path"]
    with (
        Client(both, tls=shown(known), token=secret("nobody")) as client,
        pytest.raises(rs.PermissionDenied, match="does not know the token"),
    ):
        client.tables()  # a token that is shown counts
    with Client(both, tls=shown(known)) as client:
        client.stats("t")
        write_private(tokens, tokens_text(boss={"*": "admin"}))

        def refused_now() -> bool:
            try:
                client.stats("t")
            except rs.PermissionDenied:
                return True
            return False

        wait_for(refused_now)


def test_new_connections_get_the_new_certificate(
    serve: Serve, pair: Pair, ca: Path, tmp_path: Path, strangers: trustme.CA, caplog: pytest.LogCaptureFixture
) -> None:
    address = serve(tls_cert=pair.cert, tls_key=pair.key).address
    later = trust(tmp_path, "later", strangers)
    with Client(address, tls=ca) as before, caplog.at_level(logging.WARNING):
        assert before.tables() == ["t"]
        pair.replace(strangers)
        with Client(address, tls=later) as client:
            assert client.tables() == ["t"]
        check_refusal(address, "is not signed by what tls= trusts", tls=ca)
        assert before.tables() == ["t"]  # a connection that stands goes on
        assert f"read the certificate {pair.cert} again" in caplog.text
        write_private(pair.key, "nonsense")
        with Client(address, tls=later) as client:
            assert client.tables() == ["t"]
        pair.cert.unlink()
        with Client(address, tls=later) as client:
            assert client.tables() == ["t"]
        assert "the certificate loaded before stays in use: " in caplog.text
        pair.replace(strangers)
        with Client(address, tls=later) as client:
            assert client.tables() == ["t"]


def test_what_cannot_be_used_stops_the_start(tmp_path: Path, pair: Pair, ca: Path, authority: trustme.CA) -> None:
    other = Pair(tmp_path, "other", authority)
    nonsense = write_private(tmp_path / "nonsense", "nonsense")
    locked = tmp_path / "locked.key"
    key = load_pem_private_key(pair.key.read_bytes(), None)
    write_private(locked, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"pass")).decode())
    together = r"both must be PEM, the key must be that of the \(first\) certificate and have no passphrase"
    for cert, its_key, client_ca, message in (
        (pair.cert, other.key, None, together),
        (pair.cert, nonsense, None, together),
        (pair.cert, locked, None, together),
        (nonsense, pair.key, None, together),
        (pair.cert, pair.key, nonsense, f"tls_client_ca {nonsense} cannot be used"),
        (tmp_path / "nowhere", pair.key, None, r"tls_cert .*nowhere cannot be read: No such file or directory"),
        (pair.cert, None, None, "is only a part of what TLS needs: give tls_cert and tls_key"),
        (None, pair.key, None, "is only a part of what TLS needs"),
        (None, None, ca, "is only a part of what TLS needs"),
    ):
        with pytest.raises(rs.InvalidArgument, match=message):
            Access(ServerOptions(tls_cert=cert, tls_key=its_key, tls_client_ca=client_ca))
    pair.key.chmod(0o644)
    with pytest.raises(rs.PermissionDenied, match=f"tls_key {pair.key} has the mode 644, .*: chmod 600 {pair.key}"):
        Access(ServerOptions(tls_cert=pair.cert, tls_key=pair.key))


def test_files_that_change_while_they_are_read(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    contents = iter([(b"a", b"b", None), (b"a", b"c", None)] * 3)
    monkeypatch.setattr(certificates, "_read", lambda *paths: next(contents))
    with pytest.raises(rs.InvalidArgument, match="keep changing while they are read"):
        certificates.read_pems(pair.cert, pair.key, None)


def test_a_recovering_server_speaks_tls_too(pair: Pair, ca: Path) -> None:
    """Or clients would hear of a failed handshake, and not that they are to come again."""
    address = address_to_keep()

    async def ask() -> None:
        recovering = Recovering(names=False)
        recovering.progress("secret", 5, 7)
        await recovering.start(address, None, Access(ServerOptions(tls_cert=pair.cert, tls_key=pair.key)))
        try:
            await asyncio.to_thread(check_refusal, address, "the store is not open yet: checked 5 of 7 rows after a crash", tls=ca)
        finally:
            await recovering.stop()

    asyncio.run(ask())
