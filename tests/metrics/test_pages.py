"""What is served over HTTP, from before the store is open until the server has stopped."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
import urllib.error
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics

import replaystore as rs
from replaystore.server import run
from replaystore.server.observing.metrics import http
from replaystore.server.options import ServerOptions
from replaystore.server.thread import ServerThread, start_in_thread
from replaystore.store import Store
from tests.crash.script import Script
from tests.metrics.conftest import Scrape, get
from tests.ports import address_to_keep

PATIENCE_S = 60.0


def test_while_a_store_recovers_it_is_alive_and_not_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = Script(tmp_path / "data")
    for step in (script.open, script.create, script.write, script.write, script.die):
        step()
    address, metrics = address_to_keep(), address_to_keep()
    go_on, checked = threading.Event(), threading.Event()

    def slow(*arguments: Any, progress: Any, **options: Any) -> Store:
        def report(*state: Any) -> None:
            progress(*state)
            checked.set()

        store = Store(*arguments, progress=report, **options)
        assert go_on.wait(PATIENCE_S)
        return store

    monkeypatch.setattr(run, "Store", slow)

    async def main() -> None:
        ready = asyncio.Event()
        infos: list[run.ReadyInfo] = []

        def is_ready(info: run.ReadyInfo) -> None:
            infos.append(info)
            ready.set()

        async def page(path: str) -> tuple[int, str]:
            return await asyncio.to_thread(get, metrics, path)

        options = ServerOptions(metrics=metrics)
        serving = asyncio.ensure_future(run.serve(tmp_path / "data", address, options=options, on_ready=is_ready))
        assert await asyncio.to_thread(checked.wait, PATIENCE_S)
        assert await page("/healthz") == (200, "alive\n")
        assert await page("/readyz") == (503, "not ready: the store is being opened: checked 240 of 240 rows of table 't' after a crash\n")
        during = Scrape((await page("/metrics"))[1])
        assert during("ready") == 0
        assert during("recovery_rows", table="t") == during("recovery_rows_checked", table="t") == 240
        assert "replaystore_tables" not in during.names
        go_on.set()
        await asyncio.wait_for(ready.wait(), PATIENCE_S)
        assert infos[0].metrics == metrics
        assert await page("/readyz") == (200, "ready\n")
        after = Scrape((await page("/metrics"))[1])
        assert after("ready") == after("recovered_tables") == 1
        assert "replaystore_recovery_rows" not in after.names
        os.kill(os.getpid(), signal.SIGTERM)
        await serving
        with pytest.raises(urllib.error.URLError):
            await page("/readyz")

    asyncio.run(main())


def test_formats_and_other_paths(serve: Callable[..., ServerThread]) -> None:
    server = serve()
    status, text = get(server.metrics, "/metrics?x=1", accept="application/openmetrics-text; version=1.0.0")
    assert status == 200
    assert "replaystore_ready" in {family.name for family in open_metrics(text)}
    assert get(server.metrics, "/") == (404, "there is nothing here but /metrics, /healthz, /readyz\n")
    status, _ = get(server.metrics, "/../../etc/passwd")
    assert status == 404


def test_it_says_that_it_stops(serve: Callable[..., ServerThread], store: Store) -> None:
    async def main() -> None:
        pages = http.Pages("127.0.0.1:0")
        try:
            pages.stop()
            assert await asyncio.to_thread(get, pages.address, "/readyz") == (503, "not ready: the server is stopping\n")
        finally:
            pages.close()
            pages.close()

    asyncio.run(main())


def test_a_stuck_event_loop_is_not_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "PATIENCE_S", 0.05)
    made: list[http.Pages] = []

    async def main() -> None:
        made.append(http.Pages("127.0.0.1:0"))
        asking = threading.Thread(target=lambda: answers.append(get(made[0].address, "/healthz")))
        asking.start()
        asking.join(PATIENCE_S)  # on the loop: nothing else runs there

    answers: list[tuple[int, str]] = []
    asyncio.run(main())
    assert answers == [(503, "the event loop has not answered for 0.05 s\n")]
    assert get(made[0].address, "/healthz") == (503, "the event loop is gone\n")
    made[0].close()


def test_clients_that_say_nothing_are_few(serve: Callable[..., ServerThread], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "MOST_REQUESTS", 2)
    server = serve()
    host, port = server.metrics.split(":")
    idle = [socket.create_connection((host, int(port)), timeout=PATIENCE_S) for _ in range(3)]
    assert idle[2].recv(1) == b"", "hung up on"
    for one in idle:
        one.close()
    deadline = threading.Event()
    for _ in range(600):
        try:
            assert get(server.metrics, "/readyz") == (200, "ready\n")
            break
        except (urllib.error.URLError, ConnectionError):
            deadline.wait(0.1)
    else:
        pytest.fail("places are not given back")


def test_an_address_that_cannot_be_had(store: Store) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(rs.InvalidArgument, match=f"cannot serve metrics on 127.0.0.1:{port}: the address is in use"):
            start_in_thread(store, options=ServerOptions(metrics=f"127.0.0.1:{port}"))
    with pytest.raises(rs.InvalidArgument, match="must be HOST:PORT"):
        start_in_thread(store, options=ServerOptions(metrics="9464"))
    with start_in_thread(store) as server:
        assert server.metrics == ""


def test_a_failure_is_logged_and_not_shown(
    serve: Callable[..., ServerThread], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    server = serve()

    def fails(*_: Any) -> None:
        raise RuntimeError("secret/path")

    monkeypatch.setattr("replaystore.server.observing.metrics.collecting._collect_server", fails)
    status, text = get(server.metrics, "/metrics")
    assert status == 500
    assert "secret" not in text
    assert "secret/path" in caplog.text


def test_metrics_that_others_can_read_are_announced(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    with start_in_thread(store, options=ServerOptions(metrics="0.0.0.0:0")) as server:
        port = server.metrics.rpartition(":")[2]
        assert get(f"127.0.0.1:{port}", "/healthz")[0] == 200
    assert "metrics can be read from other machines" in caplog.text
