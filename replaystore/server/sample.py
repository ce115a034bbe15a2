"""The Sample stream: requests in, batches out, in order. A batch is gathered straight into its message."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc

from replaystore.errors import ReplayStoreError
from replaystore.sampling import PreparedSample, SampleRequest
from replaystore.schema.selectors import Uniform
from replaystore.schema.views import Episode, Hindsight
from replaystore.server.options import ServerOptions
from replaystore.server.translate import Call, reported
from replaystore.server.waiting import bounded_wait, in_thread, wait_turn
from replaystore.steps import UpdateCounts
from replaystore.turns import Ticket
from replaystore.v1 import data_pb2 as pb
from replaystore.wire.framing import prefix
from replaystore.wire.layout import Layout, fill_message, plan
from replaystore.wire.samples import IncomingSample, Updates, check_reply_size, decode_sample_request, decode_update, request_number

if TYPE_CHECKING:
    from replaystore.engine.drawing import DrawnSample
    from replaystore.engine.table import Table
    from replaystore.store import Store

_OVERHEAD_BYTES = 1 << 20
"""Room left in a message for everything but the payload."""


_SHORTEST_NOTICE_S = 0.02

_MANY_ROWS = 1 << 18
"""An index over fewer is built in a millisecond or so."""


class SampleService:
    """Serves Sample streams and priority updates."""

    def __init__(self, store: Store, options: ServerOptions, copying: ThreadPoolExecutor) -> None:
        self._store, self._options, self._copying = store, options, copying

    async def sample(self, _: Any, call: Call) -> None:
        """One stream. Requests are answered one after the other; while a large reply leaves, the next one is made."""
        outgoing = _Outgoing(call, self._options.inline_bytes)
        while (message := await call.read()) is not grpc.aio.EOF:
            await outgoing.write(await self._answer(message, outgoing))
        await outgoing.drain()

    async def _answer(self, message: bytes, outgoing: _Outgoing) -> bytes:
        """A reply, whatever happens: an error does not end the stream unless the message has no readable number."""
        counts: UpdateCounts | None = None
        try:
            incoming = decode_sample_request(message)
        except ReplayStoreError as error:
            return _failed(request_number(message), None, error)
        try:
            table = self._store.table(incoming.table)
            if incoming.updates is not None:
                counts = await self._update(table, incoming.updates)
            if incoming.request is None:
                return prefix(_header(incoming.number, counts), b"", 0)
            prepare = self._prepare if incoming.step_ids is None else self._prepare_at
            prepared = await prepare(table, incoming, outgoing)
            return await self._gather(prepared, _header(incoming.number, counts, prepared), incoming.request.batch_size)
        except ReplayStoreError as error:
            return _failed(incoming.number, counts, error)

    def _is_long(self, table: Table, request: SampleRequest) -> bool:
        """Whether walking over the rows of a batch, or over those of the table for a filter, takes longer than the event loop may."""
        far = isinstance(request.view, Episode | Hindsight)  # as far as episodes go, which is not known yet
        built = request.where is not None or not isinstance(
            request.selector, str | Uniform | None
        )  # on first use, or when it is looked at anew
        most = self._options.inline_rows
        return far or request.batch_size * request.view.rows > most or (built and table.next_step - table.first_step > _MANY_ROWS)

    async def _prepare_at(self, table: Table, incoming: IncomingSample, _: _Outgoing) -> DrawnSample:
        request, step_ids = incoming.request, incoming.step_ids
        assert request is not None
        assert step_ids is not None
        if self._is_long(table, request):
            return await in_thread(self._copying, lambda: table.prepare_at(request, step_ids, incoming.as_of), _close_lost)
        return table.prepare_at(request, step_ids, incoming.as_of)

    async def _prepare(self, table: Table, incoming: IncomingSample, outgoing: _Outgoing) -> DrawnSample:
        request = incoming.request
        assert request is not None
        large = self._is_long(table, request)

        async def attempt(ticket: Ticket | None) -> DrawnSample | None:
            if large:
                return await in_thread(self._copying, lambda: table.try_prepare(request, ticket), _close_lost)
            return table.try_prepare(request, ticket)

        def why() -> str:
            return table.why_blocked("sample", request.batch_size, request)

        async def tell(waited_s: float) -> None:
            header = pb.SampleReplyHeader(request=incoming.number, waiting=f"waited {waited_s:.3g} s: {why()}")
            await outgoing.write(prefix(header.SerializeToString(), b"", 0))

        timeout_s = bounded_wait("header.timeout_s", incoming.timeout_s, self._options.max_wait_s)
        notice_s = max(incoming.notice_s, _SHORTEST_NOTICE_S) if incoming.notice_s > 0 else float("inf")
        return await wait_turn(table.sampling, attempt, timeout_s, why, tell, notice_s, notice_s)

    async def _gather(self, prepared: PreparedSample, header: bytes, batch_size: int) -> bytes:
        try:
            layout = plan(prepared.fields)  # from the cache, but for the first batch of its kind
            check_reply_size(layout.payload_bytes, self._options.max_message_bytes - _OVERHEAD_BYTES, batch_size)
        except BaseException:
            prepared.close()
            raise
        if layout.payload_bytes <= self._options.inline_bytes:
            return _fill(prepared, header, layout)

        def never_began(future: Future[bytes]) -> None:
            if future.cancelled():
                prepared.close()

        return await in_thread(self._copying, lambda: _fill(prepared, header, layout), never_began)

    async def _update(self, table: Table, updates: Updates) -> UpdateCounts:
        if len(updates.step_ids) > self._options.inline_items:
            return await in_thread(self._copying, lambda: table.update_priorities(updates.step_ids, updates.priorities, updates.selector))
        return table.update_priorities(updates.step_ids, updates.priorities, updates.selector)

    async def update_priorities(self, message: bytes, call: Call) -> bytes:
        """The unary call."""
        table, updates = decode_update(message)
        return bytes(_counts(await self._update(self._store.table(table), updates)).SerializeToString())


class _Outgoing:
    """Replies on their way: one at a time, in order; a large one leaves while the next is made."""

    def __init__(self, call: Call, inline_bytes: int) -> None:
        self._call, self._inline_bytes = call, inline_bytes
        self._leaving: asyncio.Future[None] | None = None

    async def write(self, reply: bytes) -> None:
        await self.drain()
        if len(reply) > self._inline_bytes:
            self._leaving = asyncio.ensure_future(self._call.write_apart(reply))
            self._leaving.add_done_callback(_seen)
        else:
            await self._call.write(reply)

    async def drain(self) -> None:
        if self._leaving is not None:
            leaving, self._leaving = self._leaving, None
            await leaving


def _seen(leaving: asyncio.Future[None]) -> None:
    """Nobody waits for the last reply to a client that has gone."""
    if not leaving.cancelled():
        leaving.exception()


def _fill(prepared: PreparedSample, header: bytes, layout: Layout) -> bytes:
    try:
        return fill_message(header, layout, prepared.fill)
    finally:
        prepared.close()


def _close_lost(future: Future[Any]) -> None:
    """Unpins a sample that was drawn for somebody who has left."""
    if not future.cancelled() and future.exception() is None:
        prepared = future.result()
        if prepared is not None:
            prepared.close()


def _counts(counts: UpdateCounts) -> Any:
    return pb.UpdateCounts(applied=counts.applied, gone=counts.gone, rejected=counts.rejected)


def _header(number: int, counts: UpdateCounts | None, drawn: DrawnSample | None = None) -> bytes:
    header = pb.SampleReplyHeader(request=number)
    if drawn is not None:
        header.candidates, header.mass, header.next_step = drawn.candidates, drawn.mass, drawn.next_step
    if counts is not None:
        header.updates.CopyFrom(_counts(counts))
    return bytes(header.SerializeToString())


def _failed(number: int, counts: UpdateCounts | None, error: Exception) -> bytes:
    header = pb.SampleReplyHeader(request=number, error=reported(error))
    if counts is not None:
        header.updates.CopyFrom(_counts(counts))
    return prefix(bytes(header.SerializeToString()), b"", 0)
