"""While a server recovers a store it can be asked: health says NOT_SERVING, a client hears how far it is and is served when it is ready."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

import replaystore as rs
from replaystore.errors import ReplayStoreError
from replaystore.server import run
from replaystore.store import Store
from replaystore_client import Client
from tests.crash.script import Script, abandon
from tests.ports import address_to_keep


def test_health_and_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = Script(tmp_path / "data")
    for step in (script.open, script.create, script.write, script.write, script.die):
        step()
    address = address_to_keep()
    go_on, checked, progress = threading.Event(), threading.Event(), []

    def slow(*arguments: Any, progress: Any, **options: Any) -> Store:
        def report(*state: Any) -> None:
            progress(*state)
            checked.set()

        store = Store(*arguments, progress=report, **options)
        assert go_on.wait(20)
        return store

    monkeypatch.setattr(run, "Store", slow)
    monkeypatch.setattr(run, "PATIENCE_S", 0.0)

    async def health(service: str = "") -> int:
        async with grpc.aio.insecure_channel(address) as channel:
            request = health_pb2.HealthCheckRequest(service=service)
            reply = await health_pb2_grpc.HealthStub(channel).Check(request, wait_for_ready=True, timeout=20)
            return int(reply.status)

    def refused() -> ReplayStoreError:
        with pytest.raises(ReplayStoreError, match="connect again soon") as caught, Client(address, timeout_s=2.0) as client:
            client.tables()
        return caught.value

    async def main() -> None:
        ready = asyncio.Event()
        serving = asyncio.ensure_future(
            run.serve(tmp_path / "data", address, on_ready=lambda info: ready.set(), progress=lambda *state: progress.append(state))
        )
        assert await health() == health_pb2.HealthCheckResponse.NOT_SERVING
        assert await health("replaystore.table/t") == health_pb2.HealthCheckResponse.NOT_SERVING
        assert await asyncio.to_thread(checked.wait, 20)
        assert "of 240 rows of table 't'" in str(await asyncio.to_thread(refused))
        go_on.set()
        await asyncio.wait_for(ready.wait(), 20)
        assert await health() == health_pb2.HealthCheckResponse.SERVING
        assert await health("replaystore.table/t") == health_pb2.HealthCheckResponse.SERVING
        os.kill(os.getpid(), signal.SIGTERM)
        await serving

    asyncio.run(main())
    assert progress[-1] == ("t", 240, 240)
    store = rs.open(tmp_path / "data")
    script.oracle.check(store)
    abandon(store)
