"""How many streams, calls and waiting ones a server takes on: what each bound says, when its client comes again, and that work goes on."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import grpc
import numpy as np
import pytest

import replaystore as rs
from replaystore.sampling import SampleRequest
from replaystore.server.bounds import Bounds
from replaystore.server.options import ServerOptions
from replaystore.store import Store
from replaystore.wire.errors import RETRY_KEY
from replaystore.wire.methods import path_of
from replaystore.wire.samples import encode_query, encode_sample_request
from tests.server.conftest import config, write_steps

from .conftest import KIB, RATIO, Serving, refusal, until


def test_streams(serving: Serving, beside: Callable[..., Future[Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    bounds = serving(max_streams=2)
    client = serving.client()
    client.create_table("t", config())
    with client.writer("t") as first:
        write_steps(first, 30)
        first.flush()
        second = client.writer("t", block_rows=1)
        write_steps(second, 1)
        second.flush()
        monkeypatch.setattr("replaystore.server.bounds.SOON_S", 90.0)
        with pytest.raises(rs.Overloaded) as caught:
            client.read_steps("t", 0, 10)  # does not wait for longer than it may
        assert str(caught.value) == (
            "2 streams are open, and max_streams=2 allows no more: close writers and samplers that are not in use, or start the server "
            "with a larger --max-streams; try again in 90 s"
        )
        assert caught.value.retry_after_s == 90.0
        monkeypatch.setattr("replaystore.server.bounds.SOON_S", 0.2)
        assert client.tables() == ["t"]  # single calls have places of their own
        refused = bounds.streams.refused
        waiting = beside(client.sample, "t", 4)
        until(lambda: bounds.streams.refused >= refused + 2)  # it comes again by itself
        second.close()
        assert len(waiting.result(60)) == 4
        write_steps(first, 10, begin=False, first=30)
    until(lambda: client.stats("t").inserted_steps == 41)
    until(lambda: bounds.streams.used <= 1)  # of the client's sampler


def test_a_writer_waits_for_a_place_and_loses_nothing(serving: Serving) -> None:
    bounds = serving(max_streams=1)
    client = serving.client()
    client.create_table("t", config())
    assert client.publish_parameters("p", {"a": np.zeros(3)}) == 1
    first = client.writer("t")
    write_steps(first, 10)
    first.flush()
    with client.writer("t", actor=1, block_rows=4) as second:
        write_steps(second, 10)
        until(lambda: bounds.streams.refused >= 2)
        with pytest.raises(
            rs.Overloaded, match=r"waited .* s for acknowledgements \(\d+ rows are not acknowledged\): 1 streams are open"
        ) as caught:
            second.flush(timeout_s=0.5)
        assert caught.value.retry_after_s == 0.2
        assert bounds.streams.refused > 1
        first.close()
        second.flush(timeout_s=60)
    assert client.stats("t").inserted_steps == 20


def test_single_calls() -> None:
    bounds = Bounds(ServerOptions(max_streams=1, max_in_flight_bytes=1 << 20))

    async def main() -> None:
        gate = asyncio.Event()

        async def handler(request: bytes, call: Any) -> bytes:
            await gate.wait()
            return request

        admitted = bounds.admitting("UpdateColumns", handler)
        nobody: Any = None
        running = asyncio.ensure_future(admitted(bytes(400 * KIB), nobody))
        await asyncio.sleep(0)
        assert bounds.others.used == 400 * KIB
        with pytest.raises(rs.Overloaded, match=r"1 single calls are running, and max_streams=1 allows no more: call less often"):
            await admitted(b"", nobody)
        assert bounds.admitting("Append", handler) is not None
        bounds.calls.most = 2
        with pytest.raises(rs.Overloaded, match=r"409600 bytes of batches, rows and parameters .* 409600 more would exceed 524288"):
            await admitted(bytes(400 * KIB), nobody)
        gate.set()
        assert len(await running) == 400 * KIB
        assert len(await admitted(bytes(400 * KIB), nobody)) == 400 * KIB

    asyncio.run(main())
    assert bounds.calls.used == bounds.others.used == 0
    assert (bounds.calls.refused, bounds.others.refused) == (1, 1)


def test_what_was_refused_was_not_carried_out(serving: Serving, beside: Callable[..., Future[Any]]) -> None:
    """Or making a table that is there would go well the second time, as when a reply was lost."""
    bounds = serving(max_streams=1)
    client = serving.client()
    client.create_table("t", config())
    bounds.calls.most = 0
    again = beside(client.create_table, "t", config())
    until(lambda: bounds.calls.refused)
    bounds.calls.most = 1
    with pytest.raises(rs.AlreadyExists):
        again.result(60)


@pytest.mark.parametrize("name", ["max_streams", "max_waiting", "max_tables", "max_in_flight_bytes", "max_parameters_total_bytes"])
def test_a_bound_must_be_a_number(name: str) -> None:
    for value in (0, -1, 1.5, True):
        with pytest.raises(rs.InvalidArgument, match=name):
            Bounds(ServerOptions(**{name: value}))


def test_waiting_samples(serving: Serving, beside: Callable[..., Future[Any]]) -> None:
    bounds = serving(max_waiting=1)
    client = serving.client()
    client.create_table("t", config(rate_limiter=rs.MinSize(20)))
    waiting = beside(client.sample, "t", 4)
    until(lambda: bounds.waiting.used == 1)
    hurried = serving.client()
    assert str(refusal(rs.Overloaded, lambda: hurried.sample("t", 4, timeout_s=0.1))) == (
        "1 samples and blocks wait for the limiters of their tables, and max_waiting=1 allows no more: let those go on that wait "
        "(client.why_blocked(TABLE) says who has to act), or start the server with a larger --max-waiting; try again in 0.2 s"
    )
    assert "waited 0 s" in str(refusal(rs.NotReady, lambda: client.sample("t", 4, timeout_s=0)))  # does not wait
    patient = serving.client().sampler("t", 4, prefetch=1, seed=1)
    refused = bounds.waiting.refused
    more = beside(lambda: next(patient))
    until(lambda: bounds.waiting.refused >= refused + 2)
    with client.writer("t") as writer:
        write_steps(writer, 40)
    assert len(waiting.result(60)) == 4
    assert len(more.result(60)) == 4
    patient.close()
    until(lambda: bounds.waiting.used == 0)


def test_waiting_blocks_are_sent_again(serving: Serving, beside: Callable[..., Future[Any]]) -> None:
    bounds = serving(max_waiting=1)
    client = serving.client()
    client.create_table("other", config(rate_limiter=rs.MinSize(20)))
    client.create_table("t", config(rate_limiter=RATIO))
    waiting = beside(client.sample, "other", 1)
    until(lambda: bounds.waiting.used == 1)
    writer = client.writer("t", block_rows=8)
    write_steps(writer, 24)
    until(lambda: bounds.waiting.refused >= 2)
    with pytest.raises(rs.Overloaded, match=r"rows are not acknowledged\): 1 samples and blocks wait .* max_waiting=1") as caught:
        writer.flush(timeout_s=0.5)
    assert caught.value.retry_after_s == 0.2
    client.alter_table("t", rate_limiter=rs.MinSize(1))
    writer.close()
    rows = client.read_steps("t", 0, 1 << 40)
    assert rows["action"].tolist()[:24] == list(range(24))
    assert client.stats("t").inserted_steps == 24
    client.alter_table("other", rate_limiter=rs.MinSize(1))
    with client.writer("other") as filling:
        write_steps(filling, 2)
    waiting.result(60)


def test_a_crowd_of_blocked_samplers_is_refused_at_once_and_leaves_nothing(serving: Serving, store: Store) -> None:
    bounds = serving(max_waiting=20)
    store.create_table("t", config(rate_limiter=rs.MinSize(20)))
    query = encode_query("t", SampleRequest(2, rs.Transition()))
    crowd = 120

    async def ask(channel: Any, number: int) -> tuple[str, str]:
        call = channel.stream_stream(path_of("Sample"))()
        await call.write(encode_sample_request(number, query, 0.0, number, 60.0))
        try:
            return ("served" if await call.read() is not grpc.aio.EOF else "ended"), ""
        except grpc.aio.AioRpcError as error:
            return error.code().name, str(dict(error.trailing_metadata() or ()).get(RETRY_KEY))
        finally:
            call.cancel()

    async def all_of_them() -> None:
        async with grpc.aio.insecure_channel(serving.server.address) as channel:
            before = threading.active_count()
            calls = [asyncio.create_task(ask(channel, number)) for number in range(1, crowd + 1)]
            while sum(call.done() for call in calls) < crowd - 20:
                await asyncio.sleep(0.01)
            assert {call.result() for call in calls if call.done()} == {("RESOURCE_EXHAUSTED", "200")}
            assert (bounds.waiting.used, len(store.table("t").sampling)) == (20, 20)
            assert threading.active_count() <= before + 2
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)

    asyncio.run(all_of_them())
    until(lambda: (bounds.streams.used, bounds.waiting.used, bounds.others.used, len(store.table("t").sampling)) == (0, 0, 0, 0))
    assert bounds.waiting.refused == crowd - 20
