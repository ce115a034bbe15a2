"""A server that was told nothing on the command line."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from replaystore_client import Client
from tests.cli.conftest import start

__all__ = ["start"]


def test_a_server_of_a_file_and_the_environment(here: Path, monkeypatch: pytest.MonkeyPatch, start: Callable[..., Any]) -> None:
    (here / "replaystore.toml").write_text('path = "data"\nlisten = "127.0.0.1:7777"\nmax_message_bytes = "3MiB"\nmax_streams = 5\n')
    monkeypatch.setenv("REPLAYSTORE_LISTEN", "127.0.0.1:0")
    monkeypatch.setenv("REPLAYSTORE_MAX_STREAMS", "6")
    _, ready = start("--max-in-flight-bytes", "64MiB")
    assert ready["data"] == str(here / "data")
    assert not ready["listen"].endswith(":7777")
    with Client(ready["listen"]) as client:
        assert client.server_info()["max_message_bytes"] == 3 << 20
        status = client.server_status()
    assert (status.max_streams, status.max_in_flight_bytes) == (6, 64 << 20)


def test_other_commands_do_without_what_reads_settings() -> None:
    code = "import replaystore.cli.app, sys; print('pydantic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=120).stdout == "False\n"
