"""How many bytes of blocks, batches and rows a server has on their way at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

import replaystore as rs
from replaystore.server import append
from replaystore.server.bounds import Bounds, Hold
from replaystore.server.options import ServerOptions
from replaystore.server.thread import ServerThread, start_in_thread
from replaystore.store import Store
from replaystore.v1 import data_pb2 as data
from replaystore.wire.framing import prefix
from replaystore.wire.methods import path_of
from replaystore_client import Client
from tests.server.conftest import config, write_steps

from .conftest import KIB, RATIO, Serving, fill, refusal, until, wide, write_wide


def test_blocks_in_flight(serving: Serving) -> None:
    bounds = serving(max_in_flight_bytes=1 << 20)
    client = serving.client()
    client.create_table("t", wide(1, rate_limiter=RATIO))
    writer = client.writer("t", block_rows=4)
    write_wide(writer, 13)
    until(lambda: client.stats("t").waiting_inserts == 1)
    assert 64 * KIB < bounds.blocks.used < 512 * KIB  # a block that waits counts
    others = Hold(bounds.blocks)
    others.take(512 * KIB - bounds.blocks.used)
    another = client.writer("t", actor=1, block_rows=4)
    write_wide(another, 5)
    until(lambda: bounds.blocks.refused >= 2)
    with pytest.raises(rs.Overloaded) as caught:
        another.flush(timeout_s=0.5)
    text = str(caught.value)
    assert "524288 bytes of blocks that are not stored yet are in memory, and " in text
    assert text.endswith(
        " more would exceed 524288, which is their half of max_in_flight_bytes=1048576: let samplers catch up, use fewer writers or "
        "smaller blocks (block_rows), or start the server with a larger --max-in-flight-bytes; try again in 0.2 s"
    )
    assert caught.value.retry_after_s == 0.2
    assert len(client.sample("t", 1)) == 1  # what lets the blocks go on has room of its own
    others.close()
    client.alter_table("t", rate_limiter=rs.MinSize(1))
    writer.close()
    another.close()
    assert client.stats("t").inserted_steps == 18
    until(lambda: bounds.blocks.used == 0)


@pytest.mark.parametrize("free", [0, 100])
def test_batches_in_flight(serving: Serving, beside: Callable[..., Future[Any]], monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    """With none free, it waits before the draw; with a little, after it, as it is not known before how large a batch is."""
    bounds = serving(max_in_flight_bytes=8 << 20)
    client = serving.client()
    fill(client)
    expected = client.sample("t", 4, seed=3)
    until(lambda: bounds.others.used == 0)
    others = Hold(bounds.others)
    assert others.take(bounds.others.most + 1 - free)
    monkeypatch.setattr("replaystore.server.bounds._PATIENCE_S", 0.1)
    hurried = serving.client()
    error = refusal(rs.Overloaded, lambda: hurried.sample("t", 4, seed=3, timeout_s=0.2))
    assert f"{4194305 - free} bytes of batches, rows and parameters on their way are in memory, and" in str(error)
    assert "max_in_flight_bytes=8388608: read batches as they come, ask for fewer or smaller ones at once, or start" in str(error)
    assert error.retry_after_s == 0.2
    refused = bounds.others.refused
    waiting = beside(client.sample, "t", 4, seed=3)
    until(lambda: bounds.others.refused >= refused + 2)
    monkeypatch.setattr("replaystore.server.bounds._PATIENCE_S", 60.0)
    others.close()
    np.testing.assert_array_equal(waiting.result(60).step_ids, expected.step_ids)
    with serving.client().sampler("t", 4, seed=5) as sampler:
        assert len(next(sampler)) == 4
        others = Hold(bounds.others)
        others.take(bounds.others.most + 1 - free)
        later = beside(lambda: [len(next(sampler)) for _ in range(8)])
        until(lambda: later.done() or len(bounds.others.queue))
        others.close()
        assert later.result(60) == [4] * 8
    until(lambda: bounds.others.used == 0)
    assert not len(bounds.others.queue)


def test_who_waits_for_room_and_leaves_gives_it_back(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("replaystore.server.bounds._PATIENCE_S", 60.0)
    bounds = serving(max_in_flight_bytes=8 << 20)
    client = serving.client()
    fill(client)
    others = Hold(bounds.others)
    others.take(bounds.others.most - 100)
    sampler = client.sampler("t", 8, timeout_s=0.3)
    error = refusal(rs.NotReady, lambda: next(sampler))  # drawn, and waiting
    assert "bytes of batches, rows and parameters on their way are in memory" in str(error)
    sampler.close()
    until(lambda: not len(bounds.others.queue))
    others.close()
    until(lambda: bounds.others.used == 0)
    assert len(client.sample("t", 8)) == 8


def test_rows_and_parameters_in_flight(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    bounds = serving(max_in_flight_bytes=8 << 20)
    client = serving.client()
    fill(client)
    arrays = {"weight": np.zeros(1 << 20, np.uint8)}
    client.publish_parameters("policy", arrays)
    others = Hold(bounds.others)
    others.take(bounds.others.most - 1000)
    monkeypatch.setattr("replaystore.server.bounds._PATIENCE_S", 0.05)
    monkeypatch.setattr("replaystore.server.bounds.SOON_S", 90.0)
    for call in (
        lambda: client.read_steps("t", 0, 10),
        lambda: client.fetch_parameters("policy"),
        lambda: client._connection.upload("PublishParameters", lambda: [bytes(2000)], 60.0),
    ):
        with pytest.raises(rs.Overloaded, match=r"more would exceed 4194304, .* try again in 90 s"):
            call()
    others.close()
    assert len(client.read_steps("t", 0, 10)["action"]) == 10
    assert client.fetch_parameters("policy") is not None
    assert client.publish_parameters("policy", arrays) == 2
    until(lambda: bounds.others.used == 0)


def test_room_is_given_in_the_order_of_asking_and_one_alone_always_gets_some() -> None:
    room = Bounds(ServerOptions(max_in_flight_bytes=200)).others

    async def main() -> None:
        first, second, third = Hold(room), Hold(room), Hold(room)
        assert first.take(1000)  # more than there is, but nobody else is there
        assert first.take(1)
        assert not second.take(1)
        assert second.take(0)
        order: list[str] = []

        async def ask(hold: Hold, size: int, name: str) -> None:
            await hold.wait(size, 60.0)
            order.append(name)

        waiting = [asyncio.ensure_future(ask(second, 90, "second")), asyncio.ensure_future(ask(third, 5, "third"))]
        await asyncio.sleep(0)
        first.give(901)
        await asyncio.sleep(0.01)
        assert not third.fits(1)
        assert order == []
        first.close()
        first.close()
        first.give(5)
        await asyncio.gather(*waiting)
        assert order == ["second", "third"]
        assert room.used == 95
        with pytest.raises(rs.Overloaded, match="95 bytes"):
            await third.wait(50, 0.0)
        second.close()
        third.close()
        assert third.take(10**9)  # nothing is counted any more

    asyncio.run(main())
    assert room.used == 0


def test_a_message_larger_than_the_server_takes(serving: Serving) -> None:
    serving(max_message_bytes=1 << 20)
    client = serving.client()
    client.create_table("t", wide(1, selector=rs.Prioritized()))
    ids = np.arange(200_000)
    with pytest.raises(rs.InvalidArgument, match=r"has 24\d\d\d\d\d bytes, at most 1048576 are taken: .* fewer items per call\), or start"):
        client.update_priorities("t", ids, np.ones(len(ids), np.float32))
    writer = client.writer("t", block_rows=20)
    write_wide(writer, 19)
    with pytest.raises(rs.InvalidArgument, match=r"at most 1048576 are taken: .*a writer with a smaller block_rows"):
        writer.flush(timeout_s=60)
    with pytest.raises(rs.InvalidArgument):
        writer.close()
    with client.writer("t", block_rows=4) as smaller:
        write_wide(smaller, 19)
    assert client.stats("t").inserted_steps == 19


def test_acknowledgements_that_wait_for_the_disk_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(append, "_MOST_HELD", 3)
    held: list[int] = []
    release = append._Stream._release

    async def noted(stream: append._Stream) -> None:
        held.append(len(stream._held))
        await release(stream)

    monkeypatch.setattr(append._Stream, "_release", noted)
    with rs.open(tmp_path / "fsync", durability="fsync") as store, start_in_thread(store) as server, Client(server.address) as client:
        client.create_table("t", config())
        with client.writer("t", block_rows=1) as writer:
            write_steps(writer, 100)
            writer.flush(timeout_s=60)
        assert client.stats("t").inserted_steps == 100
    assert held


def test_commits_that_are_asked_for_again_and_again_are_one(store: Store, server: ServerThread, client: Client) -> None:
    client.create_table("t", config())
    opening = prefix(data.AppendHeader(table="t").SerializeToString(), b"", 0)
    commit = prefix(data.AppendHeader(commit=True).SerializeToString(), b"", 0)
    with grpc.insecure_channel(server.address) as channel:
        replies = list(channel.stream_stream(path_of("Append"))(iter([opening] + [commit] * 300), timeout=60))
    kinds = [data.AppendReply.FromString(reply).WhichOneof("reply") for reply in replies]
    assert kinds[0] == "opened"
    assert set(kinds[1:]) == {"durable"}
    assert 1 <= len(kinds) - 1 <= 300
