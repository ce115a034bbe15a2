"""Actors, each with a connection of its own: ``python -m benchmarks.soak.crowd ADDRESS FOLDER SERIAL COUNT PACE_S``.

They speak the protocol themselves, one task each: hundreds of whole clients in a process would measure their threads. Some of them break
their connection while a block is on its way, and send it again over a new one. It ends when standard input does.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time
from pathlib import Path
from typing import Any

import grpc
import numpy as np

import replaystore as rs
from benchmarks.soak.ledger import APPENDS, AUDITED, CROWD, LIMITED, LIMITED_APPENDS, Entry, Ledger, fail, note
from replaystore.steps import RUN_DTYPE, StepBlock
from replaystore.v1 import data_pb2 as pb
from replaystore.wire.blocks import encode_block
from replaystore.wire.framing import prefix
from replaystore.wire.methods import path_of

COLUMNS = {
    "observation": rs.Column((17,), "float32"),
    "action": rs.Column((6,), "float32"),
    "number": rs.Column((), "int64"),
}
MOST_ROWS = 16
"""Of a block; between one and so many, by chance."""
ENDS, BREAKS = 0.2, 0.02
"""Chances that a block ends its episode, and that its connection breaks."""
IN_LIMITED = 10
"""Every so many actors there is one who writes to the table with the limiter."""
ACTORS_OF_A_PROCESS = 1000
"""Numbers of actors are SERIAL times this and on."""
AUDIT_PATIENCE_S = 10.0
LOST = ("UNAVAILABLE", "CANCELLED", "UNKNOWN", "INTERNAL")
"""What gRPC itself says of a connection that is gone, or took too long to be made."""
OPTIONS = [("grpc.use_local_subchannel_pool", 1), ("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 2000)]


class Actor:
    """One stream of numbered steps."""

    def __init__(self, address: str, folder: Path, table: str, actor: int, entry: Entry, pace_s: float) -> None:
        self._folder = folder
        self._address, self._table, self._actor, self._entry, self._pace_s = address, table, actor, entry, pace_s
        self._chance = random.Random(actor)
        self._number = self._sequence = 0
        self._episode = self._rows = 0
        self._pending: bytes | None = None
        self._call: Any = None

    async def act(self, stop: asyncio.Event) -> None:
        """Until told to stop, and everything sent is acknowledged."""
        await asyncio.sleep(self._chance.random() * self._pace_s)
        while not stop.is_set() or self._pending is not None:
            async with grpc.aio.insecure_channel(self._address, OPTIONS) as channel:
                try:
                    await self._stream(channel, stop)
                except (grpc.aio.AioRpcError, asyncio.InvalidStateError):  # the second: of a call that has ended already
                    note(self._folder, "losses", await self._look_at(self._call))
                    self._entry.lost()
                    await asyncio.sleep(self._chance.uniform(0.5, 1.5))

    async def _stream(self, channel: Any, stop: asyncio.Event) -> None:
        self._call = call = channel.stream_stream(path_of("Append"))()
        await call.write(prefix(pb.AppendHeader(table=self._table).SerializeToString(), b"", 0))
        if await call.read() is grpc.aio.EOF:
            raise asyncio.InvalidStateError
        while self._pending is not None or not stop.is_set():
            if self._pending is None:
                if not await self._audited(stop):
                    break
                self._pending = self._block()
                self._entry.sending(self._number)
            await call.write(self._pending)
            if self._chance.random() < BREAKS:
                return  # and with it the channel: nobody knows whether the block arrived
            await self._acknowledged(call)
            try:
                await asyncio.wait_for(stop.wait(), self._pace_s * self._chance.uniform(0.5, 1.5))
            except TimeoutError:
                pass
        await call.done_writing()
        while await call.read() is not grpc.aio.EOF:
            pass

    async def _look_at(self, call: Any) -> str:
        """How a call ended. RuntimeError unless sending again helps against that, as when a connection took too long to be made."""
        code, kind = await call.code(), dict(await call.trailing_metadata() or ()).get("replaystore-error")
        if kind not in ("NotReady", "Overloaded") and (kind is not None or code.name not in LOST):
            raise RuntimeError(f"the server ended the stream of actor {self._actor} with {code}: {await call.details()}")
        return f"{kind or code.name}: {await call.details()}"

    async def _audited(self, stop: asyncio.Event) -> bool:
        """Waits while the auditor is behind, so that nothing is dropped unread on a slow machine; False when it is to stop."""
        while time.time() - (self._folder / AUDITED).stat().st_mtime > AUDIT_PATIENCE_S:
            if stop.is_set():
                return False
            await asyncio.sleep(0.5)
        return not stop.is_set()

    async def _acknowledged(self, call: Any) -> None:
        while True:
            message = await call.read()
            if message is grpc.aio.EOF:
                raise asyncio.InvalidStateError
            reply = pb.AppendReply.FromString(message)
            if reply.WhichOneof("reply") != "ack":
                continue
            if reply.ack.sequence != self._sequence:
                raise RuntimeError(f"actor {self._actor} got the acknowledgement of {reply.ack.sequence}, not of {self._sequence}")
            self._pending = None
            self._entry.answered(self._number)
            return

    def _block(self) -> bytes:
        if not self._episode:
            self._episode, self._rows = self._chance.randrange(1, 2**63), 0
        steps, ends = self._chance.randint(1, MOST_ROWS), self._chance.random() < ENDS
        rows = steps + ends
        columns: dict[str, Any] = {
            "observation": np.full((rows, 17), self._number % 1000, np.float32),
            "action": np.zeros((rows, 6), np.float32),
            "number": np.arange(self._number, self._number + rows),
            "reward": np.ones(rows, np.float32),
            "terminated": np.zeros(rows, bool),
            "truncated": np.zeros(rows, bool),
        }
        if ends:
            for name in ("number", "reward"):
                columns[name][-1] = 0
            columns["terminated"][-2:] = True
        run = np.array([(self._episode, self._rows, rows, int(ends), -1, -1)], RUN_DTYPE)
        self._sequence += 1
        self._number += steps
        self._episode, self._rows = (0, 0) if ends else (self._episode, self._rows + rows)
        return encode_block(StepBlock(columns, run, self._actor), self._sequence)


async def load(address: str, folder: Path, serial: int, count: int, pace_s: float) -> None:
    """All actors of this process."""
    ledger = Ledger(folder / f"ledger-{serial}", count)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin, stop.set)
    async with asyncio.TaskGroup() as tasks:
        for index in range(count):
            actor, limited = serial * ACTORS_OF_A_PROCESS + index, index % IN_LIMITED == 0
            entry = ledger.join(index, LIMITED_APPENDS if limited else APPENDS, actor)
            one = Actor(address, folder, LIMITED if limited else CROWD, actor, entry, pace_s)
            tasks.create_task(one.act(stop))


def main() -> None:
    """See the module."""
    address, folder, serial, count, pace_s = sys.argv[1:]
    try:
        asyncio.run(load(address, Path(folder), int(serial), int(count), float(pace_s)))
    except BaseException as error:
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        fail(Path(folder), f"actors of process {serial}", f"{type(error).__name__}: {error}")
        os._exit(1)


if __name__ == "__main__":
    main()
