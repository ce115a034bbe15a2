"""The one place where exceptions become gRPC statuses, and requests and replies become messages."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any

import grpc

from replaystore.errors import NotFound, PermissionDenied, ReplayStoreError
from replaystore.server.access.callers import ANYBODY, Caller
from replaystore.server.access.roles import NEEDS, Role
from replaystore.server.observing.events import Refusals, log
from replaystore.server.observing.figures import Figures
from replaystore.server.waiting import is_resting
from replaystore.v1 import data_pb2 as pb
from replaystore.wire.errors import ERROR_KEY, RETRY_KEY, error_text, retry_hint
from replaystore.wire.samples import parse_message

if TYPE_CHECKING:
    from replaystore.engine.table import Table
    from replaystore.store import Store

STOPPING = "the server is stopping; connect again when it is back"

_SETTLE_S = 2.0
"""How long a call that is ending waits for a message that is on its way out."""

_LOOK_EVERY_S = 0.02
"""Between two looks at which calls have come to a rest, while the server stops."""

_MOST_GRANTED = 1024
"""Names that one call remembers to be allowed; a client chooses them."""


class Call:
    """One call that is running: what a handler reads from and writes to.

    gRPC takes one message at a time, and no status while a message is on its way out, also when whoever waited for that was cancelled. So
    every write is either finished before the call may be interrupted, or waited for before the status goes out.
    """

    def __init__(self, context: Any, method: str = "", caller: Caller = ANYBODY) -> None:
        self._context = context  # grpc.aio.ServicerContext, which has no type information
        self.method, self.caller = method, caller
        self._granted: dict[str, Role] = {}
        self._refusal: PermissionDenied | None = None
        self._peer: str | None = None
        self._task = asyncio.current_task()
        self._writes: set[asyncio.Future[None]] = set()
        self._writing = self._interrupted = self._reading = self._stopping = False
        self.on_refusal: Callable[[Call, Exception], None] | None = None
        """Hears what `refused` is told."""
        self.owes: Callable[[], bool] | None = None
        """Says whether something that was taken is still to be answered although the handler itself is at rest."""

    @property
    def refusal(self) -> PermissionDenied | None:
        """Why it was interrupted, when that was about rights."""
        return self._refusal

    @property
    def peer(self) -> str:
        """Who calls, as gRPC says it: ``ipv4:127.0.0.1:50000``, ``unix:…``. To be asked for before the call is over: it is known then, and
        gRPC, asked for the first time, would end the process."""
        if self._peer is None:
            self._peer = str(self._context.peer())
        return self._peer

    def require(self, name: str, need: Role | None = None) -> None:
        """PermissionDenied unless the caller may do this with the table or parameter set `name`. What it may is not asked again.

        `need`: the role; that of the call's method unless given.
        """
        wanted = NEEDS[self.method][0][1] if need is None else need
        if self._granted.get(name, -1) < wanted:
            self.caller.check(wanted, name, self.method)
            if len(self._granted) >= _MOST_GRANTED:
                self._granted.clear()
            self._granted[name] = wanted

    def table(self, store: Store, name: str) -> Table:
        """A table that the caller may use for what this call does; PermissionDenied, or NotFound naming only what the caller may read."""
        self.require(name)
        try:
            return store.table(name)
        except NotFound as error:
            raise self.not_found(error, name, store.tables()) from None

    def not_found(self, error: NotFound, name: str, tables: Iterable[str]) -> NotFound:
        """`error`, about the table `name`, without names of others that the caller may not read."""
        return error if self.caller.everything else self.caller.not_found(name, tables)

    def judge(self, caller: Caller | None) -> None:
        """The caller's rights are these from now on; None: it has none any more. What it may not do ends."""
        try:
            if caller is None:
                raise PermissionDenied(f"{self.caller} is no longer among those that this server knows: its token was taken back")
            self.caller = caller
            for name, need in self._granted.items():
                caller.check(need, name, self.method)
        except PermissionDenied as refusal:
            self._refusal = refusal
            self.interrupt()

    async def read(self) -> Any:
        """The next message, or grpc.aio.EOF. None is taken once the server stops: the call ends here."""
        self._reading = True
        try:
            if self._stopping:
                await asyncio.get_running_loop().create_future()
            return await self._context.read()
        finally:
            self._reading = False

    async def write(self, message: bytes) -> None:
        """Sends a message. Only for the handler's own task, and not while a `write_apart` is under way."""
        self._writing = True
        try:
            await self._context.write(message)
        finally:
            self._writing = False
            if self._interrupted:
                self._cancel()

    async def write_apart(self, message: bytes) -> None:
        """Sends a message, from any task. It goes out even when the caller is cancelled meanwhile."""
        write = asyncio.ensure_future(self._context.write(message))
        self._writes.add(write)
        write.add_done_callback(self._written)
        await asyncio.shield(write)

    def _written(self, write: asyncio.Future[None]) -> None:
        self._writes.discard(write)
        if not write.cancelled():
            write.exception()  # whoever waits gets it as well; nobody may, when the call has ended

    def interrupt(self) -> None:
        """Ends the handler by cancelling it, once no message of its own is on its way."""
        if not self._interrupted:
            self._interrupted = True
            if not self._writing:
                self._cancel()

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def refused(self, error: Exception) -> None:
        """It ends with this error, or one of its requests does."""
        if self.on_refusal is not None:
            self.on_refusal(self, error)

    def finish(self) -> None:
        """Ends the handler where it waits for a message or for its turn, when everything it took is answered. To be called again until
        the call is over."""
        self._stopping = True
        if (self._reading or is_resting(self._task)) and not (self.owes is not None and self.owes()):
            self.interrupt()

    async def abort(self, code: grpc.StatusCode, text: str, kind: str | None = None, retry_after_ms: str | None = None) -> None:
        """Ends the call with a status. Raises, always."""
        if self._writes:
            await asyncio.wait(self._writes, timeout=_SETTLE_S)
        trailing = tuple((key, value) for key, value in ((ERROR_KEY, kind), (RETRY_KEY, retry_after_ms)) if value)
        await self._context.abort(code, text, trailing_metadata=trailing)


Handler = Callable[[Any, Call], Awaitable[Any]]


class Calls:
    """The calls that are running, so that a stopping server can end them with a clear status."""

    def __init__(self, figures: Figures) -> None:
        self._figures, self._refusals = figures, Refusals()
        self.identify: Callable[[Any], Caller] = lambda context: ANYBODY
        """Who makes the call of a context; PermissionDenied for nobody that the server knows."""
        self._running: set[Call] = set()
        self._draining = False

    def judge(self, again: Callable[[Caller], Caller | None]) -> None:
        """Rights have changed: `again` gives the present ones of a caller, or None. Calls that these do not allow any more end."""
        for call in list(self._running):
            call.judge(again(call.caller))

    def _refused(self, call: Call, error: Exception) -> None:
        self._figures.refused(error)
        self._refusals.tell(call, error)

    async def drain(self, timeout_s: float) -> None:
        """Ends every call with a clear status; those that begin from now on end at once.

        What was taken is answered first: blocks are acknowledged, a batch that is being made is sent. Whoever waits, for a limiter or for
        news, is told at once. What is not done after `timeout_s` is cut off.
        """
        self._draining = True
        deadline = time.monotonic() + timeout_s
        while self._running and time.monotonic() < deadline:
            for call in list(self._running):
                call.finish()
            await asyncio.sleep(_LOOK_EVERY_S)
        for call in list(self._running):
            call.interrupt()

    def guard(self, method: str, handler: Handler) -> Callable[[Any, Any], Awaitable[Any]]:
        """The `handler` of a method, for callers that the server knows.

        Its exceptions end the call with the status they stand for. Others than ours are logged and not shown.
        """

        async def guarded(request: Any, context: Any) -> Any:
            call = Call(context, method)
            call.on_refusal = self._refused
            if self._draining:
                await call.abort(grpc.StatusCode.UNAVAILABLE, STOPPING)
            try:
                call.caller = self.identify(context)
            except PermissionDenied as refusal:
                self._figures.refused(refusal)
                await call.abort(grpc.StatusCode.UNAUTHENTICATED, str(refusal), PermissionDenied.__name__)
            self._running.add(call)
            try:
                return await handler(request, call)
            except asyncio.CancelledError:
                if (not self._draining and call.refusal is None) or context.cancelled():
                    raise
            except Exception as error:
                if context.done() and not isinstance(error, ReplayStoreError):
                    return None  # the client left while it was being answered
                call.refused(error)
                code, kind, text = describe(error)
                await call.abort(code, text, kind, retry_hint(error))
            finally:
                self._running.discard(call)
            task = asyncio.current_task()
            assert task is not None
            task.uncancel()
            if call.refusal is not None:
                call.refused(call.refusal)
                code, kind, text = describe(call.refusal)
                await call.abort(code, text, kind)
            return await call.abort(grpc.StatusCode.UNAVAILABLE, STOPPING)

        return guarded


def describe(error: Exception) -> tuple[grpc.StatusCode, str, str]:
    """Status code, class name and text for a client. What is unexpected is logged with its trace and gets a number."""
    if isinstance(error, ReplayStoreError):
        return grpc.StatusCode[error.grpc_code], type(error).__name__, error_text(error)
    number = secrets.token_hex(4)
    log.error("unexpected error %s", number, exc_info=error)
    return grpc.StatusCode.INTERNAL, ReplayStoreError.__name__, f"the server failed unexpectedly; its log has details under {number}"


def reported(error: Exception) -> Any:
    """An error as an Error message, for a stream that goes on."""
    _, kind, text = describe(error)
    return pb.Error(kind=kind, message=text)


def unary(request_type: Any, handler: Handler) -> Handler:
    """A handler of bytes around one of messages; what these name must be the caller's to use."""

    async def handle(message: bytes, call: Call) -> bytes:
        request = parse_message(request_type, message, "request")
        for field, need in NEEDS[call.method]:
            call.require(getattr(request, field), need)
        reply = await handler(request, call)
        return bytes(reply.SerializeToString())

    return handle
