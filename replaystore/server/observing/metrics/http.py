"""``/metrics``, ``/healthz`` and ``/readyz`` over plain HTTP, from threads of their own: nobody who asks holds the event loop up."""

from __future__ import annotations

import asyncio
import logging
import socket
import socketserver
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder

from replaystore.errors import InvalidArgument
from replaystore.server.address import is_loopback, join_address, parse_address
from replaystore.server.observing.metrics.collecting import Collector

if TYPE_CHECKING:
    from replaystore.server.service import Server
    from replaystore.store import Store

log = logging.getLogger("replaystore.server")

MOST_REQUESTS = 16
"""At once; more are hung up on."""

PATIENCE_S = 10.0
"""How long a client may take to ask or to read, and the event loop to show that it is alive."""

_TEXT = "text/plain; charset=utf-8"


class Pages:
    """What is served, from before a store is open until its server has stopped. To be made on the server's event loop."""

    def __init__(self, listen: str) -> None:
        """Listens at once on ``HOST:PORT``, port 0 for a free one; InvalidArgument when it cannot."""
        host, port = parse_address(listen)
        self._loop = asyncio.get_running_loop()
        self._collector = Collector()
        self._registry = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=self._registry)
        self._registry.register(self._collector)
        self._why_not: str | None = "the store is being opened"
        try:
            self._http = _Http((host, port), self)
        except OSError as error:
            raise InvalidArgument(f"cannot serve metrics on {listen}: the address is in use or not this machine's ({error})") from error
        self.address = join_address(host, self._http.server_address[1])
        """``HOST:PORT``, with the real port."""
        if not is_loopback(host):
            log.warning(
                "metrics can be read from other machines: names of tables and numbers, but no data", extra={"address": self.address}
            )
        self._thread = threading.Thread(
            target=self._http.serve_forever, kwargs={"poll_interval": 0.2}, name="replaystore-metrics", daemon=True
        )
        self._thread.start()

    def opening(self, how: str) -> None:
        """What keeps the store from being open; from any thread."""
        self._why_not = f"the store is being opened: {how}"

    def progress(self, table: str, checked: int, total: int) -> None:
        """How far the recovery of a table is; from any thread."""
        self._collector.recovering(table, checked, total)
        self.opening(f"checked {checked} of {total} rows of table {table!r} after a crash")

    def serve(self, server: Server, store: Store) -> None:
        """Calls are served from now on."""
        self._collector.serve(server, store)
        self._why_not = None

    def stop(self) -> None:
        """They are not any more."""
        self._why_not = "the server is stopping"
        self._collector.stop()

    def close(self) -> None:
        """Listens no longer."""
        self.stop()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join(PATIENCE_S)

    # -- in the thread of a request

    def metrics(self, accept: str) -> tuple[HTTPStatus, str, bytes]:
        """Everything, in the format that is asked for."""
        encode, kind = choose_encoder(accept)
        return HTTPStatus.OK, kind, encode(self._registry)

    def health(self, _: str) -> tuple[HTTPStatus, str, bytes]:
        """Whether the event loop goes round."""
        alive = threading.Event()
        try:
            self._loop.call_soon_threadsafe(alive.set)
        except RuntimeError:
            return _line(HTTPStatus.SERVICE_UNAVAILABLE, "the event loop is gone")
        if alive.wait(PATIENCE_S):
            return _line(HTTPStatus.OK, "alive")
        return _line(HTTPStatus.SERVICE_UNAVAILABLE, f"the event loop has not answered for {PATIENCE_S:g} s")

    def readiness(self, _: str) -> tuple[HTTPStatus, str, bytes]:
        """Whether calls are served."""
        why_not = self._why_not
        return _line(HTTPStatus.OK, "ready") if why_not is None else _line(HTTPStatus.SERVICE_UNAVAILABLE, f"not ready: {why_not}")

    @property
    def paths(self) -> dict[str, Callable[[str], tuple[HTTPStatus, str, bytes]]]:
        """What there is; each is given what the client accepts."""
        return {"/metrics": self.metrics, "/healthz": self.health, "/readyz": self.readiness}


def _line(status: HTTPStatus, text: str) -> tuple[HTTPStatus, str, bytes]:
    return status, _TEXT, f"{text}\n".encode()


class _Http(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], pages: Pages) -> None:
        self.pages = pages
        self._places = threading.BoundedSemaphore(MOST_REQUESTS)
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, _Request)

    def server_bind(self) -> None:
        socketserver.TCPServer.server_bind(self)  # HTTPServer's asks a name server who it is

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._places.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.debug("a client of the metrics went away", exc_info=True)


class _Request(BaseHTTPRequestHandler):
    server: _Http
    timeout = PATIENCE_S
    server_version = "replaystore"
    sys_version = ""

    def do_GET(self) -> None:
        paths = self.server.pages.paths
        answer = paths.get(self.path.partition("?")[0])
        if answer is None:
            status, kind, body = _line(HTTPStatus.NOT_FOUND, f"there is nothing here but {', '.join(paths)}")
        else:
            try:
                status, kind, body = answer(self.headers.get("Accept") or "")
            except Exception:
                log.exception("metrics could not be worked out")
                status, kind, body = _line(HTTPStatus.INTERNAL_SERVER_ERROR, "the server failed unexpectedly; its log has details")
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, format: str, *values: Any) -> None:
        """Nothing: probes come every few seconds."""
