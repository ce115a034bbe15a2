"""Hundreds of clients that a limiter holds back: served in the order of their asking, and no thread for each."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import grpc
import numpy as np

import replaystore as rs
from replaystore.sampling import SampleRequest
from replaystore.server.thread import ServerThread
from replaystore.store import Store
from replaystore.turns import Ticket
from replaystore.wire.methods import path_of
from replaystore.wire.samples import decode_sample_reply, encode_query, encode_sample_request

from .conftest import config, write_steps

QUEUE = {"selector": rs.Fifo(), "rate_limiter": rs.Queue(8), "retention": rs.Retention(max_times_sampled=1)}
SAMPLERS, STREAMS = 200, 500


def test_waiting_samplers_are_served_in_the_order_of_their_asking(store: Store) -> None:
    store.create_table("t", config(**QUEUE))
    table, request = store.table("t"), SampleRequest(1, rs.Transition())
    tickets: list[Ticket] = [table.sampling.join(lambda: None) for _ in range(SAMPLERS)]
    served: list[int] = []
    chance = np.random.default_rng(4)
    with store.writer("t", block_rows=1) as writer:
        for _ in range(SAMPLERS + 1):
            write_steps(writer, 1)
            for number in [*chance.permutation(SAMPLERS).tolist()[:60], len(served)]:
                if number < len(served) or number >= SAMPLERS:
                    continue
                prepared = table.try_prepare(request, tickets[number])
                if prepared is not None:
                    prepared.close()
                    table.sampling.leave(tickets[number])
                    served.append(number)
            if len(served) == SAMPLERS:
                break
    assert served == list(range(SAMPLERS))
    assert not len(table.sampling)


def test_waiting_streams_take_no_threads(store: Store, server: ServerThread) -> None:
    store.create_table("t", config(rate_limiter=rs.MinSize(20)))
    query = encode_query("t", SampleRequest(2, rs.Transition()))

    async def one(channel: Any, number: int, waiting: list[int]) -> int:
        call = channel.stream_stream(path_of("Sample"))()
        await call.write(encode_sample_request(number, query, 0.0, number, 60.0))
        waiting.append(number)
        header, arrays = decode_sample_reply(await call.read())
        call.cancel()
        assert not header.HasField("error"), header
        return len(arrays["info/step_ids"])

    async def all_of_them() -> tuple[int, int, list[int]]:
        async with grpc.aio.insecure_channel(server.address) as channel:
            before, waiting = threading.active_count(), list[int]()
            calls = [asyncio.create_task(one(channel, number, waiting)) for number in range(STREAMS)]
            while len(store.table("t").sampling) < STREAMS:
                done = [call for call in calls if call.done()]
                assert not done, done[0].exception()
                await asyncio.sleep(0.02)
            during = threading.active_count()
            await asyncio.to_thread(fill)
            return before, during, await asyncio.gather(*calls)

    def fill() -> None:
        with store.writer("t") as writer:
            write_steps(writer, 40)

    before, during, sizes = asyncio.run(all_of_them())
    assert during <= before + 2, f"{during - before} more threads while {STREAMS} streams waited"
    assert sizes == [2] * STREAMS
    assert store.stats("t").sampled_items == 2 * STREAMS
