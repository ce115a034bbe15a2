"""The Append stream: blocks in, acknowledgements out, in order.

With ``durability="fsync"`` acknowledgements are held until the group commit has covered them, while the next blocks are already taken.
"""

from __future__ import annotations

import asyncio
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter
from typing import TYPE_CHECKING, Any

import grpc

from replaystore.errors import InvalidArgument
from replaystore.server.bounds import Bounds, Hold
from replaystore.server.observing.figures import Figures
from replaystore.server.options import ServerOptions
from replaystore.server.quotas import Pace, QuotaBook
from replaystore.server.translate import Call
from replaystore.server.waiting import bounded_wait, in_thread, wait_turn
from replaystore.steps import AppendResult, StepBlock
from replaystore.turns import Ticket
from replaystore.v1 import data_pb2 as pb
from replaystore.wire.blocks import decode_block
from replaystore.wire.framing import Parts, split
from replaystore.wire.samples import parse_message

if TYPE_CHECKING:
    from replaystore.engine.table import Table
    from replaystore.store import Store

_MOST_HELD = 4096
"""Acknowledgements that wait for the disk; no more blocks are read then."""


class AppendService:
    """Serves Append streams."""

    def __init__(
        self,
        store: Store,
        options: ServerOptions,
        instance: str,
        copying: ThreadPoolExecutor,
        waiting: ThreadPoolExecutor,
        figures: Figures,
        bounds: Bounds,
        quotas: QuotaBook,
    ) -> None:
        self._store, self._options, self._instance = store, options, instance
        self._copying, self._waiting, self._figures = copying, waiting, figures
        self._bounds, self._quotas = bounds, quotas

    async def append(self, _: Any, call: Call) -> None:
        """One stream, from the message that opens it to its end."""
        message = await call.read()
        if message is grpc.aio.EOF:
            return
        header, parts = _read(message)
        if header.sequence or parts.layout or not header.table:
            raise InvalidArgument("header.table: the first message of an Append stream names the table and holds no block")
        table = call.table(self._store, header.table)
        longest = self._options.max_wait_s
        wait_s = bounded_wait("header.timeout_s", header.timeout_s or longest, longest)
        stream = _Stream(table, call, self._options, self._copying, self._waiting, wait_s, self._figures, self._bounds, self._quotas)
        call.owes = stream.owes
        self._figures.append_streams += 1
        try:
            await self._serve(stream, table, call)
        finally:
            self._figures.append_streams -= 1
            stream.hold.close()
            call.owes = None  # or the two hold each other, and the table, until the garbage collector comes

    async def _serve(self, stream: _Stream, table: Table, call: Call) -> None:
        await call.write(
            pb.AppendReply(
                opened=pb.AppendReply.Opened(next_step=table.next_step, durable_step=table.durable_step, instance=self._instance)
            ).SerializeToString()
        )
        try:
            async with asyncio.TaskGroup() as tasks:
                watching = tasks.create_task(stream.watch())
                await stream.take_blocks(tasks)
                watching.cancel()
        except ExceptionGroup as group:
            raise _first(group) from None


def _first(group: ExceptionGroup[Exception]) -> Exception:
    """One error: those that come with it are consequences of it."""
    error: Exception = group
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error


def _read(message: bytes) -> tuple[Any, Parts]:
    parts = split(message)
    return parse_message(pb.AppendHeader, parts.header, "header"), parts


class _Stream:
    """One writer's stream into one table."""

    def __init__(
        self,
        table: Table,
        call: Call,
        options: ServerOptions,
        copying: ThreadPoolExecutor,
        waiting: ThreadPoolExecutor,
        timeout_s: float,
        figures: Figures,
        bounds: Bounds,
        quotas: QuotaBook,
    ) -> None:
        self._table, self._call, self._options = table, call, options
        self._figures, self._counts, self._store_s = figures, figures.table(table.name), 0.0
        self._copying, self._waiting, self._timeout_s = copying, waiting, timeout_s
        self._writing = asyncio.Lock()  # gRPC takes one message at a time, but acknowledgements and notices come from several tasks
        self._held: deque[tuple[int, AppendResult, float]] = deque()
        self._releasing = False
        self._answering: set[asyncio.Task[None]] = set()
        self._told_durable = 0
        self._next_step = 0
        self._moved = asyncio.Event()
        self._commit_wanted = self._committing = False
        self.hold, self._places, self._quotas = Hold(bounds.blocks), bounds.waiting, quotas

    def owes(self) -> bool:
        """Whether blocks or commits are not answered yet although nothing stands in their way but the disk."""
        return bool(self._answering)

    async def take_blocks(self, tasks: asyncio.TaskGroup) -> None:
        """Reads until the client has no more to send and everything is answered."""
        answering = self._answering
        while True:
            message = await self._call.read()
            if message is grpc.aio.EOF:
                break
            began = perf_counter()
            header, parts = _read(message)
            if header.table:
                raise InvalidArgument("header.table: only the first message of an Append stream names the table")
            if header.sequence:
                result = await self._take(header, parts, len(message), began)
                stored = perf_counter()
                if len(self._table.sampling):
                    await asyncio.sleep(0)  # whoever waits for these steps is woken by now, and goes first
                if self._table.fsync and result.durable_step < result.next_step:
                    self._held.append((header.sequence, result, stored))
                    if not self._releasing:
                        self._releasing = True
                        _start(tasks, answering, self._release())
                    if len(self._held) >= _MOST_HELD:
                        await asyncio.wait(answering)
                else:
                    await self._acknowledge(header.sequence, result, stored, result.durable_step)
            elif parts.layout:
                raise InvalidArgument("header.sequence: a block must have a number of at least 1")
            if header.commit:
                self._commit_wanted = True
                if not self._committing:
                    self._committing = True
                    _start(tasks, answering, self._commit())
        if answering:
            await asyncio.wait(answering)

    async def _take(self, header: Any, parts: Parts, received_bytes: int, began: float) -> AppendResult:
        self.hold.require(received_bytes)
        block = decode_block(parts, header.actor)
        decoded = perf_counter()
        if self._call.caller.quotas.on_appends:
            await self._pace(header.sequence, block.rows, received_bytes)
        result = await self._apply(header.sequence, block)
        self.hold.give(received_bytes)
        wait_s, store_s = perf_counter() - decoded - self._store_s, self._store_s
        self._counts.applied(result.applied_rows, result.duplicate_rows, received_bytes, decoded - began, wait_s, store_s)
        if (traces := self._figures.traces) is not None:
            traces.append(self._table.name, result.applied_rows, received_bytes, decoded - began, wait_s, store_s)
        return result

    async def _pace(self, sequence: int, rows: int, size: int) -> None:
        """Waits until a block is within its caller's quotas."""

        async def tell(why: str, waited_s: float) -> None:
            await self._write(blocked=pb.AppendReply.Blocked(sequence=sequence, why=why, waited_s=waited_s))

        pace = Pace(self._timeout_s, tell, self._options.blocked_notice_s)
        await self._quotas.admit(self._call.caller, self._table, rows, size, pace)

    async def _apply(self, sequence: int, block: StepBlock) -> AppendResult:
        table, large = self._table, block.nbytes > self._options.inline_bytes

        async def attempt(ticket: Ticket | None) -> AppendResult | None:
            began = perf_counter()
            if large:
                result = await in_thread(self._copying, lambda: table.try_append(block, ticket))
            else:
                result = table.try_append(block, ticket)
            self._store_s = perf_counter() - began
            return result

        async def tell(waited_s: float) -> None:
            why = table.why_blocked("insert", block.rows)
            await self._write(blocked=pb.AppendReply.Blocked(sequence=sequence, why=why, waited_s=waited_s))

        return await wait_turn(
            table.inserting,
            attempt,
            self._timeout_s,
            lambda: table.why_blocked("insert", block.rows),
            tell,
            self._options.blocked_notice_s,
            10 * self._options.blocked_notice_s,
            lambda: self._counts.waits_of("insert", type(table.config.rate_limiter).__name__),
            self._places,
        )

    async def _acknowledge(self, sequence: int, result: AppendResult, stored: float, durable_step: int) -> None:
        self._next_step, self._told_durable = result.next_step, durable_step
        await self._write(
            ack=pb.AppendReply.Ack(
                sequence=sequence,
                applied_rows=result.applied_rows,
                duplicate_rows=result.duplicate_rows,
                next_step=result.next_step,
                durable_step=durable_step,
            )
        )
        self._counts.append["ack"].add(perf_counter() - stored)
        if durable_step < result.next_step:
            self._moved.set()

    async def _release(self) -> None:
        """Acknowledges what was held, as group commits cover it."""
        while self._held:
            durable = await self._wait_durable(self._held[-1][1].next_step)
            while self._held and self._held[0][1].next_step <= durable:
                await self._acknowledge(*self._held.popleft(), durable)
        self._releasing = False

    async def _commit(self) -> None:
        while self._commit_wanted:  # one at a time, however often it is asked for
            self._commit_wanted = False
            await self._tell_durable(await self._wait_durable(self._table.next_step))
        self._committing = False

    async def _wait_durable(self, step: int) -> int:
        return await in_thread(self._waiting, lambda: self._table.wait_durable(step, self._options.max_wait_s))

    async def watch(self) -> None:
        """Tells the writer when what it wrote has become durable, so that it may forget it."""
        while True:
            await self._moved.wait()
            acknowledged = self._next_step
            await asyncio.sleep(self._options.durable_poll_s)
            if self._next_step != acknowledged:
                continue  # acknowledgements say it too
            durable = self._table.durable_step
            if durable > self._told_durable:
                await self._tell_durable(durable)
            if self._told_durable >= self._next_step:
                self._moved.clear()

    async def _tell_durable(self, durable_step: int) -> None:
        self._told_durable = durable_step
        await self._write(durable=pb.AppendReply.Durable(durable_step=durable_step))

    async def _write(self, **reply: Any) -> None:
        message = pb.AppendReply(**reply).SerializeToString()
        async with self._writing:
            await self._call.write_apart(message)


def _start(group: asyncio.TaskGroup, running: set[asyncio.Task[None]], work: Any) -> None:
    task = group.create_task(work)
    running.add(task)
    task.add_done_callback(running.discard)
