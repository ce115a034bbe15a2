"""`replaystore serve`: opens the store, serves it until a signal, drains, closes. Prints nothing itself."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from replaystore.engine.warm_up import warm_up
from replaystore.server.access.listening import Access
from replaystore.server.address import parse_address
from replaystore.server.observing.events import log
from replaystore.server.observing.observing import open_pages
from replaystore.server.options import ServerOptions
from replaystore.server.recovering import PATIENCE_S, Recovering
from replaystore.server.service import Server
from replaystore.store import Progress, Store

if TYPE_CHECKING:
    from replaystore.server.observing.metrics.http import Pages


@dataclass(frozen=True, slots=True)
class ReadyInfo:
    """What is worth saying when a server is ready."""

    addresses: tuple[str, ...]
    """As clients type them: ``127.0.0.1:7777``, ``unix:/run/replay.sock``."""
    path: Path
    """The store's folder, absolute."""
    tables: tuple[str, ...]
    steps_recovered: int
    """Rows that all tables hold."""
    seconds: float
    """From the start of opening the store until the server listened."""
    instance: str
    """Random name of this run of the server."""
    metrics: str = ""
    """``HOST:PORT`` where metrics are served; empty: nowhere."""
    encrypted: bool = False
    """Whether all addresses but unix sockets are."""
    asks: bool = False
    """Whether callers must be known, by a token or a certificate."""

    @property
    def facts(self) -> dict[str, Any]:
        """As fields of a log."""
        recovered = {"rows": self.steps_recovered, "seconds": round(self.seconds, 3)}
        return {"addresses": list(self.addresses), "path": str(self.path), "tables": len(self.tables), **recovered, "metrics": self.metrics}


async def serve(
    path: str | Path,
    listen: str | None = "127.0.0.1:7777",
    unix: str | None = None,
    *,
    durability: str = "interval",
    commit_interval_s: float = 0.2,
    options: ServerOptions | None = None,
    on_ready: Callable[[ReadyInfo], None] | None = None,
    on_stopping: Callable[[str], None] | None = None,
    progress: Progress | None = None,
    on_compiling: Callable[[], None] | None = None,
) -> None:
    """Serves the store at `path` until SIGTERM or SIGINT, then ends the calls with a clear status and closes the store.

    From the signal on health says NOT_SERVING and no call begins; those that run have `ServerOptions.grace_s`, see `Calls.drain`. While
    the store is being recovered the signal ends that: the next start recovers it anew. A second signal ends the process at once, with
    status 128 + its number; everything acknowledged is on disk by then, as after any crash.

    Args:
        path: the store; made when there is none.
        listen: ``host:port``, port 0 for a free one; None for a unix socket only.
        unix: path of a unix socket to listen on as well.
        durability: ``"interval"`` or ``"fsync"``.
        commit_interval_s: seconds between group commits.
        options: bounds; `ServerOptions.insecure` allows addresses that other machines can reach.
        on_ready: called once when the server listens.
        on_stopping: called with the signal's name.
        progress: called while a crash is recovered from.
        on_compiling: called when the start takes long because kernels are compiled, as after every installation.

    Raises:
        Locked, StorageError, Corruption, InvalidArgument, PermissionDenied: it cannot serve.
    """
    started = time.monotonic()
    loop = asyncio.get_running_loop()
    stop: asyncio.Future[str] = loop.create_future()

    def on_signal(which: signal.Signals) -> None:
        if stop.done():
            os._exit(128 + which)
        stop.set_result(which.name)
        log.info("stopping", extra={"signal": which.name})
        if on_stopping is not None:
            on_stopping(which.name)

    for which in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(which, on_signal, which)
    options, pages = options or ServerOptions(), None
    try:
        try:
            pages = open_pages(options)
            store = await _open(stop, path, listen, unix, options, progress, on_compiling, durability, commit_interval_s, pages)
        except _Stopped:
            return
        try:
            server = Server(store, options, pages)
            try:
                await server.start(listen, unix)
                if not stop.done():
                    info = _ready_info(store, server, time.monotonic() - started)
                    log.info("ready", extra=info.facts)
                    if on_ready is not None:
                        on_ready(info)
                await stop
            finally:
                await server.stop()
        finally:
            await asyncio.to_thread(store.close)
    finally:
        if pages is not None:
            pages.close()
        for which in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(which)


class _Stopped(Exception):
    """A signal came while the store was being opened."""


async def _open(
    stop: asyncio.Future[str],
    path: str | Path,
    listen: str | None,
    unix: str | None,
    options: ServerOptions,
    progress: Progress | None,
    on_compiling: Callable[[], None] | None,
    durability: str,
    commit_interval_s: float,
    pages: Pages | None,
) -> Store:
    """Opens the store; when that takes long, something listens meanwhile and says so."""
    access = Access(options)  # before the store, which may take long: a token file that cannot be used is told at once
    if listen is not None:
        access.check(parse_address(listen)[0])
    recovering = Recovering(names=not access.gate.asks)

    def report(table: str, checked: int, total: int) -> None:
        if stop.done():
            raise _Stopped
        recovering.progress(table, checked, total)
        if pages is not None:
            pages.progress(table, checked, total)
        if progress is not None:
            progress(table, checked, total)

    compiled = threading.Event()

    def work() -> Store:
        warm_up()
        compiled.set()
        if stop.done():
            raise _Stopped
        return Store(path, durability=durability, commit_interval_s=commit_interval_s, progress=report)

    opening = asyncio.ensure_future(asyncio.to_thread(work))
    await asyncio.wait((opening,), timeout=PATIENCE_S)
    if not opening.done():
        if not compiled.is_set():
            recovering.compiling()
            if pages is not None:
                pages.opening("kernels are being compiled")
            if on_compiling is not None:
                on_compiling()
        await recovering.start(listen, unix, access)
    try:
        return await opening
    finally:
        await recovering.stop()


def _ready_info(store: Store, server: Server, seconds: float) -> ReadyInfo:
    tables = [store.table(name) for name in store.tables()]
    return ReadyInfo(
        addresses=server.addresses,
        path=store.path.absolute(),
        tables=tuple(table.name for table in tables),
        steps_recovered=sum(table.recovered_steps for table in tables),
        seconds=seconds,
        instance=server.instance,
        metrics=server.observing.address,
        encrypted=server.encrypted,
        asks=server.asks,
    )
