"""A server in a thread of this process: for tests, demonstrations and notebooks."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self

from replaystore.server.options import ServerOptions
from replaystore.server.service import Server
from replaystore.store import Store


class ServerThread:
    """A running server; `stop` it before closing its store. A context manager."""

    def __init__(self, store: Store, listen: str | None, unix: str | None, options: ServerOptions | None) -> None:
        self._ready: Future[tuple[str, ...]] = Future()
        self._loop = asyncio.new_event_loop()
        self._stopping = asyncio.Event()
        self._arguments = (store, listen, unix, options)
        self.metrics = ""
        """``HOST:PORT`` of the metrics; empty: nowhere."""
        self._thread = threading.Thread(target=self._run, name="replaystore-server", daemon=True)
        self._thread.start()
        self.addresses = self._ready.result()
        """As clients type them."""

    @property
    def address(self) -> str:
        """The first of `addresses`: ``Client(thread.address)``."""
        return self.addresses[0]

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._loop.run_until_complete(self._finish())
            self._loop.call_soon_threadsafe = _nobody_hears  # type: ignore[assignment, method-assign]
            self._loop.close()

    async def _serve(self) -> None:
        store, listen, unix, options = self._arguments
        server = Server(store, options)
        try:
            await server.start(listen, unix)
        except BaseException as error:
            await server.stop()
            self._ready.set_exception(error)
            return
        self.metrics = server.observing.address
        self._ready.set_result(server.addresses)
        await self._stopping.wait()
        await server.stop()

    async def _finish(self) -> None:
        """Ends what is left of calls that were cut off."""
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._loop.shutdown_asyncgens()

    def stop(self, timeout_s: float = 30.0) -> None:
        """Ends all calls with a clear status and waits for the thread. Safe to call twice."""
        if self._thread.is_alive():
            try:
                self._loop.call_soon_threadsafe(self._stopping.set)
            except RuntimeError:
                pass  # it has just ended by itself
            self._thread.join(timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()


def _nobody_hears(*event: Any, context: Any = None) -> None:
    """What a loop does about events once it is closed.

    gRPC reports the ends of calls that were cut off a moment later, at no time that could be waited for, through the loop of any server
    or client in the process. From there they would go to this one, whose error would be logged for each.
    """


def start_in_thread(
    store: Store, listen: str | None = "127.0.0.1:0", unix: str | None = None, options: ServerOptions | None = None
) -> ServerThread:
    """Serves `store` from a thread of its own: ``with start_in_thread(store) as server: Client(server.address)``."""
    return ServerThread(store, listen, unix, options)
