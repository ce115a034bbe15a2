"""The one place where exceptions become gRPC statuses, and requests and replies become messages."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from replaystore.errors import ReplayStoreError
from replaystore.v1 import data_pb2 as pb
from replaystore.wire.errors import ERROR_KEY, error_text
from replaystore.wire.samples import parse_message

log = logging.getLogger("replaystore.server")

STOPPING = "the server is stopping; connect again when it is back"

_SETTLE_S = 2.0
"""How long a call that is ending waits for a message that is on its way out."""


class Call:
    """One call that is running: what a handler reads from and writes to.

    gRPC takes one message at a time, and no status while a message is on its way out, also when whoever waited for that was cancelled. So
    every write is either finished before the call may be interrupted, or waited for before the status goes out.
    """

    def __init__(self, context: Any) -> None:
        self._context = context  # grpc.aio.ServicerContext, which has no type information
        self._task = asyncio.current_task()
        self._writes: set[asyncio.Future[None]] = set()
        self._writing = self._interrupted = False

    @property
    def peer(self) -> str:
        """Who calls, as gRPC says it: ``ipv4:127.0.0.1:50000``, ``unix:…``."""
        return str(self._context.peer())

    async def read(self) -> Any:
        """The next message, or grpc.aio.EOF."""
        return await self._context.read()

    async def write(self, message: bytes) -> None:
        """Sends a message. Only for the handler's own task, and not while a `write_apart` is under way."""
        self._writing = True
        try:
            await self._context.write(message)
        finally:
            self._writing = False
            if self._interrupted:
                self.interrupt()

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
        self._interrupted = True
        if not self._writing and self._task is not None:
            self._task.cancel()

    async def abort(self, code: grpc.StatusCode, text: str, kind: str | None = None) -> None:
        """Ends the call with a status. Raises, always."""
        if self._writes:
            await asyncio.wait(self._writes, timeout=_SETTLE_S)
        await self._context.abort(code, text, trailing_metadata=((ERROR_KEY, kind),) if kind else ())


Handler = Callable[[Any, Call], Awaitable[Any]]


class Calls:
    """The calls that are running, so that a stopping server can end them with a clear status."""

    def __init__(self) -> None:
        self._running: set[Call] = set()
        self._draining = False

    def end_all(self) -> None:
        """Ends every call; those that begin from now on end at once."""
        self._draining = True
        for call in list(self._running):
            call.interrupt()

    def guard(self, handler: Handler) -> Callable[[Any, Any], Awaitable[Any]]:
        """`handler`, whose exceptions end the call with the status they stand for. Others than ours are logged and not shown."""

        async def guarded(request: Any, context: Any) -> Any:
            call = Call(context)
            if self._draining:
                await call.abort(grpc.StatusCode.UNAVAILABLE, STOPPING)
            self._running.add(call)
            try:
                return await handler(request, call)
            except asyncio.CancelledError:
                if not self._draining or context.cancelled():
                    raise
            except Exception as error:
                if context.done() and not isinstance(error, ReplayStoreError):
                    return None  # the client left while it was being answered
                code, kind, text = describe(error)
                await call.abort(code, text, kind)
            finally:
                self._running.discard(call)
            task = asyncio.current_task()
            assert task is not None
            task.uncancel()
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


def unary(request_type: Any, handler: Callable[[Any], Awaitable[Any]]) -> Handler:
    """A handler of bytes around one of messages."""

    async def handle(request: bytes, call: Call) -> bytes:
        reply = await handler(parse_message(request_type, request, "request"))
        return bytes(reply.SerializeToString())

    return handle
