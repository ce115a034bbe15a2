"""The Sample stream: requests in, batches out, in order. A batch is gathered straight into its message."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import ReferenceType, ref

import grpc

from replaystore.errors import Overloaded, ReplayStoreError
from replaystore.sampling import PreparedSample, SampleRequest
from replaystore.schema.selectors import Uniform
from replaystore.schema.views import Episode, Hindsight
from replaystore.server.access.roles import NEEDS
from replaystore.server.bounds import UNCOUNTED_BYTES, Bounds, Hold
from replaystore.server.describing import Described
from replaystore.server.local import Asked, Borrowing, Lending
from replaystore.server.observing.figures import Figures, Seen, TableFigures
from replaystore.server.options import ServerOptions
from replaystore.server.translate import Call, reported
from replaystore.server.waiting import bounded_wait, in_thread, wait_turn
from replaystore.steps import UpdateCounts
from replaystore.turns import Ticket
from replaystore.v1 import data_pb2 as pb
from replaystore.wire.framing import prefix
from replaystore.wire.layout import Layout, fill_message, plan
from replaystore.wire.memory import expect_large
from replaystore.wire.samples import IncomingSample, Updates, check_reply_size, decode_sample_request, decode_update, request_number

if TYPE_CHECKING:
    from replaystore.engine.drawing import DrawnSample
    from replaystore.engine.table import Table
    from replaystore.store import Store

_OVERHEAD_BYTES = 1 << 20
"""Room left in a message for everything but the payload."""

_TOGETHER_BYTES = 2 << 20
"""No more batches travel together than this. Copying so much takes about half a millisecond."""

_KEPT_SIZES = 16
"""Of queries, which may be large."""

_MOST_ROWS = 100_000
"""Of batches that a client gathers itself and that are drawn at once: a millisecond or two under the table's lock."""

_SHORTEST_NOTICE_S = 0.02

_UPDATES = NEEDS["UpdatePriorities"][0][1]
"""The role that priorities need which ride on a request."""

_MANY_ROWS = 1 << 18
"""An index over fewer is built in a millisecond or so."""


class SampleService:
    """Serves Sample streams and priority updates."""

    def __init__(
        self, store: Store, options: ServerOptions, copying: ThreadPoolExecutor, lending: Lending, figures: Figures, bounds: Bounds
    ) -> None:
        self._store, self._options, self._copying, self._lending, self._figures = store, options, copying, lending, figures
        self._bounds = bounds

    async def sample(self, _: Any, call: Call) -> None:
        """One stream. Requests are answered one after the other; while a large reply leaves, the next one is made."""
        hold = Hold(self._bounds.others)
        outgoing, sizes = (
            _Outgoing(call, self._options.inline_bytes, hold),
            _Sizes(self._options.max_message_bytes - _OVERHEAD_BYTES),
        )
        borrowing = Borrowing(self._lending, call.peer)
        self._figures.sample_streams += 1
        try:
            while (message := await call.read()) is not grpc.aio.EOF:
                counted = len(message) if len(message) > UNCOUNTED_BYTES else 0
                hold.require(counted)
                try:
                    incoming = decode_sample_request(message)
                except ReplayStoreError as error:  # ends the stream when the message has no readable number
                    call.refused(error)
                    await outgoing.write(_failed(request_number(message), None, error, 0))
                else:
                    await self._answer(incoming, sizes, outgoing, borrowing)
                hold.give(counted)
            await outgoing.drain()
        finally:
            self._figures.sample_streams -= 1
            borrowing.close()
            hold.close()

    async def _answer(self, incoming: IncomingSample, sizes: _Sizes, outgoing: _Outgoing, borrowing: Borrowing) -> None:
        """As many replies as it takes. An error stands for one batch; those after it are tried all the same."""
        counts: UpdateCounts | None = None
        done = 0
        while done < incoming.batches:
            figures = None
            try:
                table = outgoing.call.table(self._store, incoming.table)
                figures = self._figures.table(table.name)
                if not done and incoming.updates is not None:
                    outgoing.call.require(incoming.table, _UPDATES)
                    counts = await self._update(table, incoming.updates)
                if incoming.request is None:
                    figures, reply = None, _Reply(prefix(_header(incoming.number, counts), b"", 0), 1)
                else:
                    asked = borrowing.asked(table, incoming.header, first=not done)
                    reply = await self._draw(table, incoming, incoming.request, done, counts, sizes, outgoing, asked, figures)
                    if reply.kept is not None:
                        borrowing.keep(incoming.header, reply.kept)
            except Overloaded:  # ends the stream: its client comes again when it is told to, and asks for what is missing
                raise
            except ReplayStoreError as error:
                outgoing.call.refused(error)
                sizes.forget(incoming.query)
                figures, reply = None, _Reply(_failed(incoming.number, counts, error, 1), 1)
            await outgoing.write(reply.message, figures, reply.payload_bytes)
            done, counts = done + reply.batches, None

    def _is_long(self, table: Table, request: SampleRequest, rows: int) -> bool:
        """Whether walking over the rows of a batch, or over those of the table for a filter, takes longer than the event loop may."""
        if rows > self._options.inline_rows or isinstance(request.view, (Episode, Hindsight)):  # as far as episodes go: not known yet
            return True
        # on first use, or when it is looked at anew
        built = request.where is not None or not (request.selector is None or isinstance(request.selector, (str, Uniform)))
        return built and table.next_step - table.first_step > _MANY_ROWS

    async def _draw(
        self,
        table: Table,
        incoming: IncomingSample,
        request: SampleRequest,
        done: int,
        counts: UpdateCounts | None,
        sizes: _Sizes,
        outgoing: _Outgoing,
        asked: Asked,
        figures: TableFigures,
    ) -> _Reply:
        """The next batches of a request that are to travel together, as many as the limiter lets through, but at least one."""
        rows = request.batch_size * request.view.rows
        most_rows = _MOST_ROWS if asked.local else self._options.inline_rows
        most = max(1, min(incoming.batches - done, most_rows // rows, sizes.together(incoming.query, table, asked.local)))
        long = self._is_long(table, request, rows * most)
        look = asked.due()
        began, hold = perf_counter(), outgoing.hold
        draw_s = fill_s = 0.0
        seen: Seen | None = None

        def draw(ticket: Ticket | None) -> DrawnSample | None:
            if incoming.step_ids is not None:
                return table.prepare_at(request, incoming.step_ids, incoming.as_of)
            if incoming.batches == 1:
                return table.try_prepare(request, ticket)
            return table.try_prepare_group(request, incoming.seeds[done : done + most], incoming.betas[done : done + most], ticket)

        def prepare(ticket: Ticket | None) -> DrawnSample | None:
            nonlocal draw_s, seen
            begun = perf_counter()
            prepared = draw(ticket)
            draw_s = perf_counter() - begun
            if prepared is not None and begun >= figures.look_at:
                seen = Seen.of(prepared.gathered.small, table.newest_version)
            return prepared

        def fill(prepared: DrawnSample, described: Described | None, layout: Layout) -> _Reply | _Drawn:
            nonlocal fill_s
            if not hold.take(layout.payload_bytes):
                return _Drawn(prepared, described, layout)
            begun = perf_counter()
            try:
                reply = make(prepared, described, layout)
            except BaseException:
                hold.give(layout.payload_bytes)
                raise
            fill_s = perf_counter() - begun
            return reply

        def make(prepared: DrawnSample, described: Described | None, layout: Layout) -> _Reply:
            header = _header(incoming.number, counts, prepared) + asked.answer(described, prepared.first_step)
            message = _fill(prepared, described, header, layout)
            if described is None:
                return _Reply(message, prepared.batches, layout.payload_bytes)
            prepared.gathered.forget()
            return _Reply(message, prepared.batches, layout.payload_bytes, described.gathered_bytes, prepared)

        def look_and_fill(prepared: DrawnSample) -> _Reply | _Drawn:
            return fill(prepared, *self._layout(prepared, request, asked, look=look))

        def prepare_and_fill(ticket: Ticket | None) -> _Reply | _Drawn | None:
            prepared = prepare(ticket)
            return None if prepared is None else look_and_fill(prepared)

        async def attempt(ticket: Ticket | None) -> _Reply | _Drawn | None:
            if long:
                return await in_thread(self._copying, lambda: prepare_and_fill(ticket), _close_lost)
            prepared = prepare(ticket)
            if prepared is None:
                return None

            def lost(future: Future[_Reply | _Drawn]) -> None:
                if future.cancelled():
                    prepared.close()
                _close_lost(future)

            if look and asked.lends(prepared.gathered):  # what is little waits for no thread
                return await in_thread(self._copying, lambda: look_and_fill(prepared), lost)
            described, layout = self._layout(prepared, request, asked)
            if layout.payload_bytes <= self._options.inline_bytes * prepared.batches:
                return fill(prepared, described, layout)
            return await in_thread(self._copying, lambda: fill(prepared, described, layout), lost)

        def why() -> str:
            return table.why_blocked("sample", request.batch_size, request)

        async def tell(waited_s: float, reason: str | None = None) -> None:
            header = pb.SampleReplyHeader(request=incoming.number, waiting=f"waited {waited_s:.3g} s: {reason or why()}")
            await outgoing.write(prefix(header.SerializeToString(), b"", 0))

        async def wait_for_room(size: int) -> None:
            await hold.wait(size, timeout_s, lambda waited_s: tell(waited_s, hold.why(size)), notice_s)
            hold.give(size)

        timeout_s = bounded_wait("header.timeout_s", incoming.timeout_s, self._options.max_wait_s)
        notice_s = max(incoming.notice_s, _SHORTEST_NOTICE_S) if incoming.notice_s > 0 else float("inf")
        waits = lambda: figures.waits_of("sample", type(table.config.rate_limiter).__name__)  # noqa: E731
        expected = most * sizes.expected(incoming.query, table, asked.local)
        if not hold.fits(expected):
            await wait_for_room(expected)
        reply: _Reply | _Drawn = await wait_turn(
            table.sampling, attempt, timeout_s, why, tell, notice_s, notice_s, waits, self._bounds.waiting
        )
        while isinstance(reply, _Drawn):  # it turned out to be larger, or others were faster
            drawn = reply
            try:
                await wait_for_room(drawn.layout.payload_bytes)
            except BaseException:
                drawn.kept.close()
                raise
            reply = await in_thread(self._copying, partial(fill, *drawn), partial(_close_drawn, drawn))
        waited_s = perf_counter() - began - draw_s - fill_s
        figures.answered(reply.batches, len(reply.message), reply.gathered_bytes, waited_s, draw_s, fill_s, seen)
        if (traces := self._figures.traces) is not None:
            items = reply.batches * request.batch_size
            traces.sample(table.name, reply.batches, items, len(reply.message), waited_s, draw_s, fill_s)
        sizes.note(incoming.query, table, reply)
        return reply

    def _layout(
        self, prepared: DrawnSample, request: SampleRequest, asked: Asked, *, look: bool = False
    ) -> tuple[Described | None, Layout]:
        """Where the arrays of what was drawn go in a message; lets the rows go when they do not fit one. `look`: and asks for them."""
        try:
            if look:
                asked.look(prepared.gathered)
            described = asked.describe(prepared.gathered)
            layout = plan(prepared.fields) if described is None else described.layout  # from a cache, but for the first of its kind
            check_reply_size(layout.payload_bytes, self._options.max_message_bytes - _OVERHEAD_BYTES, request.batch_size)
        except BaseException:
            prepared.close()
            raise
        return described, layout

    async def _update(self, table: Table, updates: Updates) -> UpdateCounts:
        if len(updates.step_ids) > self._options.inline_items:
            counts = await in_thread(self._copying, lambda: table.update_priorities(updates.step_ids, updates.priorities, updates.selector))
        else:
            counts = table.update_priorities(updates.step_ids, updates.priorities, updates.selector)
        self._figures.table(table.name).updated(counts.applied, counts.gone, counts.rejected)
        return counts

    async def update_priorities(self, message: bytes, call: Call) -> bytes:
        """The unary call."""
        table, updates = decode_update(message)
        return bytes(_counts(await self._update(call.table(self._store, table), updates)).SerializeToString())


class _Reply(NamedTuple):
    """A message made, and how many batches of the request it is about."""

    message: bytes
    batches: int
    payload_bytes: int = 0
    gathered_bytes: int = 0
    """What its client is to gather itself,"""
    kept: DrawnSample | None = None
    """and of which rows."""


class _Drawn(NamedTuple):
    """Batches drawn for which there is no room in memory now."""

    kept: DrawnSample
    described: Described | None
    layout: Layout


class _Sizes:
    """Bytes of a batch of each kind that one stream has asked for, so that it is known before a draw how many go into a message."""

    __slots__ = ("_known", "_most_bytes", "_together_bytes")

    def __init__(self, most_bytes: int) -> None:
        """`most_bytes`: that a message may have."""
        self._known: dict[bytes, tuple[ReferenceType[Table], int, int]] = {}
        self._most_bytes, self._together_bytes = most_bytes, min(_TOGETHER_BYTES, most_bytes)

    def together(self, query: bytes, table: Table, local: bool) -> int:
        """How many batches may travel together; one where none of this very table has been drawn yet."""
        of, described, whole = self._known.get(query, (None, 0, 0))
        if of is None or of() is not table:
            return 1
        if not local or not described:
            return self._together_bytes // max(whole, 1)
        # they fit a message even when they come to be gathered here, because the columns have moved
        return min(self._together_bytes // described, self._most_bytes // whole)

    def expected(self, query: bytes, table: Table, local: bool) -> int:
        """Bytes of a batch in its message; 0 where none of this very table has been drawn yet."""
        of, described, whole = self._known.get(query, (None, 0, 0))
        if of is None or of() is not table:
            return 0
        return described if local and described else whole

    def note(self, query: bytes, table: Table, reply: _Reply) -> None:
        """Batches were so large."""
        if len(self._known) >= _KEPT_SIZES and query not in self._known:
            self._known.clear()
        payload, gathered = reply.payload_bytes // reply.batches, reply.gathered_bytes // reply.batches
        known = self._known.get(query)
        described = payload if gathered else 0 if known is None or known[0]() is not table else known[1]
        self._known[query] = ref(table), described, payload + gathered

    def forget(self, query: bytes) -> None:
        """After an error."""
        self._known.pop(query, None)


class _Outgoing:
    """Replies on their way: one at a time, in order; a large one leaves while the next is made."""

    def __init__(self, call: Call, inline_bytes: int, hold: Hold) -> None:
        self.call, self.hold, self._inline_bytes = call, hold, inline_bytes
        self._leaving: asyncio.Future[None] | None = None

    async def write(self, reply: bytes, table: TableFigures | None = None, held: int = 0) -> None:
        """`table`: where it counts, if it is about one that there is; `held`: bytes of it in `hold`, given back once it has left."""
        await self.drain()
        began, size = perf_counter(), len(reply)
        if size > self._inline_bytes:
            expect_large(size)
            self._leaving = asyncio.ensure_future(self.call.write_apart(reply))
            self._leaving.add_done_callback(partial(self._left, table, began, held))
            return
        try:
            await self.call.write(reply)
        finally:
            self._left(table, began, held)

    def _left(self, table: TableFigures | None, began: float, held: int, leaving: asyncio.Future[None] | None = None) -> None:
        self.hold.give(held)
        if table is not None:
            table.sample["send"].add(perf_counter() - began)
        if leaving is not None and not leaving.cancelled():
            leaving.exception()  # nobody waits for the last reply to a client that has gone

    async def drain(self) -> None:
        if self._leaving is not None:
            leaving, self._leaving = self._leaving, None
            await leaving


def _fill(prepared: PreparedSample, described: Described | None, header: bytes, layout: Layout) -> bytes:
    """The message; closes what was prepared, unless it is only described."""
    if described is None:
        try:
            return fill_message(header, layout, prepared.fill)
        finally:
            prepared.close()
    try:
        return fill_message(header, layout, described.fill)
    except BaseException:
        prepared.close()
        raise


def _close_lost(future: Future[Any]) -> None:
    """Lets go of what was drawn for somebody who has left."""
    if not future.cancelled() and future.exception() is None:
        reply = future.result()
        if reply is not None and reply.kept is not None:
            reply.kept.close()


def _close_drawn(drawn: _Drawn, future: Future[Any]) -> None:
    if future.cancelled():
        drawn.kept.close()
    _close_lost(future)


def _counts(counts: UpdateCounts) -> Any:
    return pb.UpdateCounts(applied=counts.applied, gone=counts.gone, rejected=counts.rejected)


def _header(number: int, counts: UpdateCounts | None, drawn: DrawnSample | None = None) -> bytes:
    header = pb.SampleReplyHeader(request=number, batches=1)
    if drawn is not None:
        header.candidates, header.mass, header.next_step, header.batches = drawn.candidates, drawn.mass, drawn.next_step, drawn.batches
    if counts is not None:
        header.updates.CopyFrom(_counts(counts))
    return bytes(header.SerializeToString())


def _failed(number: int, counts: UpdateCounts | None, error: Exception, batches: int) -> bytes:
    """A reply without batches: `batches` of the request failed, 0 for all of them."""
    header = pb.SampleReplyHeader(request=number, error=reported(error), batches=batches)
    if counts is not None:
        header.updates.CopyFrom(_counts(counts))
    return prefix(bytes(header.SerializeToString()), b"", 0)
