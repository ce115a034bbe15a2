"""Being woken, and being told what is durable: who hears of it, and how often."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace
from typing import Any

from replaystore.server.append import _Stream
from replaystore.server.bounds import Bounds
from replaystore.server.observing.figures import Figures
from replaystore.server.options import ServerOptions
from replaystore.server.waiting import Waker
from replaystore.v1 import data_pb2 as pb


def test_a_waker_is_woken_by_its_loop_and_by_any_other_thread() -> None:
    async def main() -> None:
        waker = Waker()
        waker.wake()
        assert await waker.wait(60.0), "also when it was woken before it waited"
        for wake in (waker.wake, lambda: threading.Thread(target=waker.wake).start()):
            waiting = asyncio.ensure_future(waker.wait(60.0))
            await asyncio.sleep(0)
            wake()
            assert await waiting
        assert not await waker.wait(0.0), "once each"

    asyncio.run(main())


def test_on_the_loop_whoever_waits_is_the_next_to_run() -> None:
    order: list[str] = []

    async def wait(waker: Waker) -> None:
        await waker.wait(60.0)
        order.append("waiter")

    async def main() -> None:
        waker = Waker()
        waiting = asyncio.ensure_future(wait(waker))
        await asyncio.sleep(0)
        waker.wake()
        asyncio.get_running_loop().call_soon(order.append, "what came later")
        await waiting

    asyncio.run(main())
    assert order[0] == "waiter"


def test_to_wake_a_loop_that_is_gone_does_nothing() -> None:
    wakers: list[Waker] = []

    async def main() -> None:
        wakers.append(Waker())
        waiting = asyncio.ensure_future(wakers[0].wait(60.0))
        await asyncio.sleep(0)
        assert not waiting.done()

    asyncio.run(main())
    wakers[0].wake()
    other = threading.Thread(target=wakers[0].wake)
    other.start()
    other.join()


def test_a_writer_that_goes_on_hears_what_is_durable_with_its_acknowledgements_only() -> None:
    told: list[int] = []

    async def write_apart(message: bytes) -> None:
        told.append(pb.AppendReply.FromString(message).durable.durable_step)

    async def main() -> None:
        table: Any = SimpleNamespace(name="t", durable_step=1000, next_step=1000)
        call: Any = SimpleNamespace(write_apart=write_apart)
        nobody: Any = None
        options = ServerOptions(durable_poll_s=0.0)
        stream = _Stream(table, call, options, nobody, nobody, 1.0, Figures(), Bounds(options), nobody)
        watching = asyncio.ensure_future(stream.watch())
        for step in range(10, 100, 10):
            stream._next_step = step
            stream._moved.set()
            await asyncio.sleep(0)
        assert not told
        while not told:
            await asyncio.sleep(0)
        assert told == [1000], "once it is quiet"
        watching.cancel()

    asyncio.run(main())
