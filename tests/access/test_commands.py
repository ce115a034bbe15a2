"""Commands that talk to a server take token and TLS from the environment; files on the same machine are lent to who may read."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme
from typer.testing import CliRunner

import replaystore as rs
from replaystore.cli.app import app
from replaystore.cli.serving import say_ready
from replaystore.sampling import SampleRequest
from replaystore.schema.views import Transition
from replaystore.server.run import ReadyInfo
from replaystore.server.thread import ServerThread
from replaystore.store import Store
from replaystore.v1 import data_pb2 as pb
from replaystore.wire.methods import path_of
from replaystore.wire.samples import decode_sample_reply, encode_query, encode_sample_request
from replaystore_client import Client
from tests.access.conftest import Caller, secret, tokens_text, write_private
from tests.access.test_gate import write
from tests.access.test_tls import Pair, trust
from tests.cli.conftest import command, read_line

Serve = Callable[..., ServerThread]


def test_serve_and_a_command_meet_over_tls_with_a_token(tmp_path: Path, authority: trustme.CA, monkeypatch: pytest.MonkeyPatch) -> None:
    pair, ca = Pair(tmp_path, "server", authority), trust(tmp_path, "ca", authority)
    tokens = write_private(tmp_path / "tokens.toml", tokens_text(boss={"*": "admin"}))
    line = command(
        "serve", "--path", str(tmp_path / "data"), "--listen", "0.0.0.0:0", "--json-ready",
        "--token-file", str(tokens), "--tls-cert", str(pair.cert), "--tls-key", str(pair.key),
    )  # fmt: skip
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL)
    try:
        port = read_line(process).partition('"listen": "0.0.0.0:')[2].partition('"')[0]
        monkeypatch.setenv("REPLAYSTORE_TOKEN", secret("boss"))
        monkeypatch.setenv("REPLAYSTORE_TLS_CA", str(ca))
        with Client(f"localhost:{port}") as client:
            client.create_table("t", rs.TableConfig({"observation": rs.Column(), "action": rs.Column()}))
        shown = CliRunner().invoke(app, ["ls", f"localhost:{port}", "--json"])
        assert shown.exception is None, shown.exception
        assert '"t"' in shown.stdout
        monkeypatch.setenv("REPLAYSTORE_TOKEN", secret("nobody"))
        refused = CliRunner().invoke(app, ["ls", f"localhost:{port}"])
        assert isinstance(refused.exception, rs.PermissionDenied)
    finally:
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert secret("boss") not in errors


def test_a_server_that_is_open_to_others_does_not_start(tmp_path: Path) -> None:
    tokens = write_private(tmp_path / "tokens.toml", tokens_text(boss={"*": "admin"}))
    line = ["serve", "--path", str(tmp_path / "data"), "--listen", "0.0.0.0:0", "--token-file", str(tokens)]
    done = subprocess.run([sys.executable, "-m", "replaystore.cli.main", *line], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 1
    assert "0.0.0.0 can be reached from other machines, and this server sends tokens unencrypted" in done.stderr
    assert not (tmp_path / "data").exists()  # said before the store is opened, or made


def test_files_are_offered_to_who_may_read(serve: Serve, store: Store, tmp_path: Path) -> None:
    tokens = write_private(tmp_path / "tokens.toml", tokens_text(reader={"t": "read"}, other={"elsewhere": "admin"}))
    address = serve(token_file=tokens, local_least_bytes=0).address
    with store.writer("t") as writer:
        write(writer, 5)
    query = encode_query("t", SampleRequest(2, Transition(), "flat"))
    asks = pb.SampleHeader(local_nonce=b"nonce").SerializeToString()
    message = encode_sample_request(1, query, 0.0, None, 0.01, local=asks)
    for name, kind in (("reader", ""), ("other", "PermissionDenied")):
        caller = Caller(address, secret(name))
        call = caller.channel.stream_stream(path_of("Sample"))
        (reply,) = call(iter([message]), timeout=60, metadata=caller.metadata)
        header, fields = decode_sample_reply(reply)
        assert header.error.kind == kind
        assert header.HasField("local_offer") == (kind == "") == bool(fields)
    with Client(address, token=secret("reader"), local=True) as reader, reader.sampler("t", 2, selector="flat") as sampler:
        for _ in range(5):
            next(sampler)
        assert sampler.path == "local"


@pytest.mark.parametrize(
    ("address", "encrypted", "asks", "access", "client"),
    [
        ("127.0.0.1:7777", False, False, "", 'Client("127.0.0.1:7777")'),
        ("127.0.0.1:7777", False, True, "not encrypted, known callers", 'Client("127.0.0.1:7777", token="TOKEN")'),
        ("0.0.0.0:7777", True, True, "TLS, known callers", 'Client("0.0.0.0:7777", tls="CA.pem", token="TOKEN")'),
        ("unix:/run/replay", True, False, "TLS, everybody", 'Client("unix:/run/replay")'),
    ],
)
def test_the_ready_block_says_how_to_connect(
    capsys: pytest.CaptureFixture[str], address: str, encrypted: bool, asks: bool, access: str, client: str
) -> None:
    say_ready(ReadyInfo((address,), Path("data"), (), 0, 0.1, "x", encrypted=encrypted, asks=asks), as_json=False)
    said = capsys.readouterr().out
    assert f"  client = {client}\n" in said
    assert (f"  access        {access}\n" in said) == bool(access)
