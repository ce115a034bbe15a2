"""One run of a server as others see it: its metrics, its traces, and what is logged of its commits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import replaystore
from replaystore.server.observing.events import SLOW_COMMIT_S, log
from replaystore.server.observing.figures import Figures
from replaystore.server.options import ServerOptions

if TYPE_CHECKING:
    from replaystore.server.observing.metrics.http import Pages
    from replaystore.server.service import Server
    from replaystore.store import Store


def open_pages(options: ServerOptions) -> Pages | None:
    """Listens for those who want metrics, if any are wanted; InvalidArgument when it cannot. On the server's event loop."""
    if options.metrics is None:
        return None
    from replaystore.server.observing.metrics.http import Pages

    return Pages(options.metrics)


class Observing:
    """From the start of a server to its end."""

    def __init__(self, options: ServerOptions, figures: Figures, pages: Pages | None) -> None:
        """`pages`: what listens already, since before there was a store."""
        self._options, self._figures, self._pages = options, figures, pages

    @property
    def address(self) -> str:
        """Where metrics are, ``HOST:PORT``; empty: nowhere."""
        return "" if self._pages is None else self._pages.address

    def begin(self, server: Server, store: Store) -> None:
        """Calls are served from now on. InvalidArgument when what is asked for cannot be had."""
        if self._options.otlp is not None:
            from replaystore.server.observing.traces import traces_to

            self._figures.traces = traces_to(self._options.otlp, replaystore.__version__, server.instance)
        if self._pages is None:
            self._pages = open_pages(self._options)
        store.on_commit = self._committed
        if self._pages is not None:
            self._pages.serve(server, store)

    def _committed(self, table: str, seconds: float, rows: int) -> None:
        self._figures.table(table).committed(seconds, rows)
        if self._figures.traces is not None:
            self._figures.traces.commit(table, seconds, rows)
        if seconds >= SLOW_COMMIT_S:
            log.warning("slow commit", extra={"table": table, "seconds": round(seconds, 3), "rows": rows})

    def stop(self) -> None:
        """No call is served any more."""
        if self._pages is not None:
            self._pages.stop()

    def end(self, store: Store) -> None:
        """All is over."""
        store.on_commit = lambda table, seconds, rows: None
        if self._pages is not None:
            self._pages.close()
        if self._figures.traces is not None:
            self._figures.traces.close()
            self._figures.traces = None
