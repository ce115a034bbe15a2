"""What a server logs, and how `serve` writes it."""

from __future__ import annotations

import io
import json
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import replaystore as rs
from replaystore.cli import logs
from replaystore.server.observing import events, observing
from replaystore.server.observing.figures import Figures
from replaystore.server.options import ServerOptions
from replaystore.server.thread import start_in_thread
from replaystore.store import Store
from replaystore_client import Client
from tests.metrics.conftest import COLUMNS


@pytest.fixture(autouse=True)
def everything(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "replaystore")


def told(caplog: pytest.LogCaptureFixture, event: str) -> list[Any]:
    return [record for record in caplog.records if record.message == event]


def test_what_becomes_of_tables(store: Store, caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    with start_in_thread(store, options=ServerOptions(snapshots=tmp_path / "snapshots")) as server, Client(server.address) as client:
        config = rs.TableConfig(COLUMNS)
        client.create_table("t", config)
        client.create_table("t", config, exist_ok=True)
        client.alter_table("t", rate_limiter=rs.MinSize(3))
        (tmp_path / "snapshots").mkdir()
        client.snapshot("t", "kept")
        client.fork("t", "u")
        client.drop_table("t")
    (created,) = told(caplog, "table created")
    assert created.table == "t"
    assert created.peer.startswith(("ipv4:127.0.0.1", "ipv6:"))
    assert told(caplog, "table altered")[0].changed == ["rate_limiter"]
    assert told(caplog, "snapshot taken")[0].snapshot == "kept"
    assert told(caplog, "table forked")[0].new_table == "u"
    assert [record.table for record in told(caplog, "table dropped")] == ["t"]


def test_refusals_are_told_but_not_all_of_them(store: Store, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(events, "time", SimpleNamespace(monotonic=lambda: now[0]))
    with start_in_thread(store) as server, Client(server.address) as client:
        for _ in range(5):
            with pytest.raises(rs.NotFound):
                client.stats("none")
        with pytest.raises(rs.InvalidArgument):
            client.fetch_parameters("../etc")
        now[0] += events.REFUSALS_EVERY_S
        with pytest.raises(rs.NotFound):
            client.stats("none")
        with pytest.raises(rs.NotFound):
            client.sample("none", 1)
    first, invalid, later, sampling = told(caplog, "refused")
    assert (first.method, first.error, first.levelname) == ("GetStats", "NotFound", "INFO")
    assert "there is no table 'none'" in first.why
    assert not hasattr(first, "others_unsaid")
    assert invalid.method == "FetchParameters"
    assert later.others_unsaid == 4
    assert (sampling.method, sampling.error) == ("Sample", "NotFound")


def test_what_an_operator_should_hear_of_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    call: Any = SimpleNamespace(method="Append", peer="ipv4:10.0.0.1:1", caller=SimpleNamespace(name="actor"))
    refusals = events.Refusals()
    for error in (
        rs.PermissionDenied("no"),
        rs.Overloaded("full"),
        rs.StorageError("disk"),
        rs.NotReady("wait"),
        ValueError("not ours"),
        rs.InvalidArgument("x" * 10_000),
    ):
        refusals.tell(call, error)
    kinds = {record.error: record for record in told(caplog, "refused")}
    assert kinds.keys() == {"PermissionDenied", "Overloaded", "StorageError", "InvalidArgument"}
    assert [kinds[name].levelname for name in ("PermissionDenied", "Overloaded", "StorageError")] == ["WARNING"] * 3
    assert kinds["Overloaded"].caller == "actor"
    assert len(kinds["InvalidArgument"].why) == events.MOST_TEXT


def test_slow_commits(caplog: pytest.LogCaptureFixture) -> None:
    seen = observing.Observing(ServerOptions(), Figures(), None)
    store: Any = SimpleNamespace(on_commit=None)
    seen.begin(SimpleNamespace(instance="x"), store)  # type: ignore[arg-type]
    store.on_commit("t", 0.9, 5)
    store.on_commit("t", 1.25, 7)
    (slow,) = told(caplog, "slow commit")
    assert (slow.table, slow.seconds, slow.rows) == ("t", 1.25, 7)
    seen.end(store)
    store.on_commit("t", 9.0, 1)
    assert len(told(caplog, "slow commit")) == 1, "it is over"


def test_data_and_secrets_are_not_logged(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    with start_in_thread(store) as server, Client(server.address) as client:
        client.create_table("t", rs.TableConfig(COLUMNS))
        with client.writer("t") as writer:
            writer.reset(np.full(3, 123456.5))
            writer.append(987654, 1.0, True, False, np.full(3, 123456.5))
        client.sample("t", 2)
        client.publish_parameters("policy", {"secret-weight": np.full(3, 123456.5)})
    said = " ".join(str(record.__dict__) for record in caplog.records)
    for word in ("123456", "987654", "secret-weight"):
        assert word not in said


@pytest.fixture
def lines() -> Iterator[tuple[io.StringIO, logs.Lines, logging.Logger]]:
    stream = io.StringIO()
    handler = logs.Lines(stream)
    logger = logging.Logger("replaystore.server", logging.INFO)
    logger.addHandler(handler)
    yield stream, handler, logger
    handler.close()


def test_lines_of_json(lines: tuple[io.StringIO, logs.Lines, logging.Logger]) -> None:
    stream, handler, logger = lines
    handler.setFormatter(logs.formatter("json"))
    logger.info("table created", extra={"table": "t\n", "peer": "unix:", "path": Path("data")})
    logger.error("unexpected error %s", "ab12", exc_info=ValueError("why"))
    handler.close()
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert first.pop("timestamp").endswith("Z")
    assert first == {
        "event": "table created", "level": "info", "logger": "replaystore.server", "table": "t\n", "peer": "unix:", "path": "data",
    }  # fmt: skip
    assert second["event"] == "unexpected error ab12"
    assert "ValueError: why" in second["exception"]


def test_lines_for_people(lines: tuple[io.StringIO, logs.Lines, logging.Logger]) -> None:
    stream, handler, logger = lines
    handler.setFormatter(logs.formatter("text"))
    logger.info("refused", extra={"why": "no table 'x'\n2026-01-01 [info] all is well"})
    handler.close()
    (line,) = stream.getvalue().splitlines()
    for words in ("[info", "refused", "replaystore.server", r"why=", r"\n2026"):
        assert words in line


def test_a_reader_that_has_stopped_holds_nobody_up() -> None:
    go_on = threading.Event()

    class Stuck(io.StringIO):
        def write(self, text: str) -> int:
            assert go_on.wait(60)
            return super().write(text)

    stream = Stuck()
    handler = logs.Lines(stream)
    logger = logging.Logger("x", logging.INFO)
    logger.addHandler(handler)
    for number in range(logs.MOST_LINES + 100):
        logger.info("%d", number)
    assert handler.dropped >= 99
    go_on.set()
    handler.close()
    assert stream.getvalue().startswith("0\n1\n")


def test_notes_of_serve_are_events_where_lines_are_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    logs.note("a note")
    assert capsys.readouterr().err == "a note\n"
    monkeypatch.setattr(logs, "_notes_are_events", True)
    logs.note("an event")
    assert capsys.readouterr().err == ""
    assert told(caplog, "an event")
