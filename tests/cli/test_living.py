"""``replaystore health``, and what a supervisor hears of ``replaystore serve``."""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import replaystore as rs
from replaystore.cli import serving, supervisor
from replaystore.cli.app import app
from replaystore.errors import DeadlineExceeded, InvalidArgument, NotFound
from replaystore.server.thread import ServerThread, start_in_thread


@pytest.fixture
def listening(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """What systemd gives a service."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "notify"))
        receiver.settimeout(60)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield receiver


def heard(receiver: socket.socket) -> dict[str, str]:
    return dict(line.split("=", 1) for line in receiver.recv(65536).decode().splitlines())


def test_a_supervisor_hears_of_start_and_end_and_a_probe_agrees(data: Path, start: Callable[..., Any], listening: socket.socket) -> None:
    process, ready = start("--path", str(data), "--listen", "127.0.0.1:0")
    messages: list[dict[str, str]] = []
    while not messages or "READY" not in messages[-1]:
        messages.append(heard(listening))
    assert messages[-1] == {"READY": "1", "STATUS": f"serving {data} at {ready['listen']}"}
    assert all(message["EXTEND_TIMEOUT_USEC"] == "120000000" for message in messages[:-1])  # on a slow machine kernels are spoken of
    done = CliRunner().invoke(app, ["health", ready["listen"]])
    assert (done.exit_code, done.stdout) == (0, f"{ready['listen']}: serving\n")
    process.send_signal(signal.SIGTERM)
    assert heard(listening) == {"STOPPING": "1", "STATUS": "SIGTERM: finishing calls, closing the store"}
    process.communicate(timeout=60)
    assert process.returncode == 0


@pytest.fixture
def server(data: Path) -> Iterator[ServerThread]:
    with rs.open(data) as store:
        store.table("empty").fail(rs.StorageError("the disk is on fire"))
        with start_in_thread(store) as running:
            yield running


def test_health_by_table(server: ServerThread) -> None:
    ask = CliRunner().invoke
    done = ask(app, ["health", server.address, "--table", "maze", "--json"])
    assert done.exit_code == 0
    assert json.loads(done.stdout) == {"server": server.address, "table": "maze", "status": "SERVING"}
    done = ask(app, ["health", server.address, "--table", "empty"])
    assert (done.exit_code, done.stdout) == (1, f"table 'empty' at {server.address}: not serving\n")
    done = ask(app, ["health", server.address, "--table", "none"])
    assert isinstance(done.exception, NotFound)
    assert "health knows no service 'replaystore.table/none'" in str(done.exception)


def test_health_of_nothing() -> None:
    done = CliRunner().invoke(app, ["health", "127.0.0.1:9", "--timeout-s", "0.2"])
    assert isinstance(done.exception, DeadlineExceeded)  # which ends the command with 1
    done = CliRunner().invoke(app, ["health", "./data"])
    assert isinstance(done.exception, InvalidArgument)  # and this one with 2


def test_a_start_that_takes_long_may(listening: socket.socket, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "PROGRESS_EVERY_S", 0.0)
    serving.Progress()("maze", 1000, 2000)
    line = "recovering maze: checked 1,000 of 2,000 rows"
    assert heard(listening) == {"STATUS": line, "EXTEND_TIMEOUT_USEC": "120000000"}
    assert line in capsys.readouterr().err


def test_an_abstract_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind("")  # the kernel chooses a name
        receiver.settimeout(60)
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{receiver.getsockname()[1:].decode()}")
        assert supervisor.tell("READY=1")
        assert heard(receiver) == {"READY": "1"}


@pytest.mark.parametrize("address", ["", "nowhere", "/there/is/no/such/socket", "@replaystore-no-such-socket"])
def test_nobody_listens(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    assert not supervisor.tell_ready("fine")
