"""``replaystore serve --metrics … --log-format json``, as an operator starts it."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import replaystore as rs
from replaystore_client import Client
from tests.cli.conftest import start as start
from tests.metrics.conftest import COLUMNS, Scrape, get


def test_metrics_and_a_log_that_programs_read(tmp_path: Path, start: Callable[..., Any]) -> None:
    process, ready = start(
        "--path", str(tmp_path / "data"), "--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--log-format", "json", "--log-level",
        "info",
    )  # fmt: skip
    assert get(ready["metrics"], "/readyz") == (200, "ready\n")
    with Client(ready["listen"]) as client:
        client.create_table("t", rs.TableConfig(COLUMNS))
    found = Scrape(get(ready["metrics"], "/metrics")[1])
    assert found("tables") == 1
    assert found("build_info", version=rs.__version__, run=ready["instance"]) == 1
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    events = [json.loads(line) for line in said.splitlines()]
    kinds = [event["event"] for event in events]
    for event in ("ready", "table created", "stopping"):
        assert event in kinds, said
    (opened,) = [event for event in events if event["event"] == "ready"]
    assert (opened["addresses"], opened["metrics"], opened["tables"]) == (ready["addresses"], ready["metrics"], 0)
    assert events[kinds.index("stopping")]["signal"] == "SIGTERM"
    assert all({"event", "level", "logger", "timestamp"} <= event.keys() for event in events)
