"""What listens while a store is being opened: health says NOT_SERVING, every other call hears how far it is and may come again."""

from __future__ import annotations

import os
from typing import Any

import grpc
from grpc_health.v1 import health_pb2_grpc

from replaystore.errors import ReplayStoreError
from replaystore.server.access.listening import Access
from replaystore.server.address import claim_socket_path, join_address, parse_address
from replaystore.server.health import Health
from replaystore.server.peers import keepalive_options
from replaystore.wire.methods import SERVICE

PATIENCE_S = 2.0
"""Most stores are open before this; only others get to listen early."""


class Recovering:
    """A server without a store, at the addresses of the one to come. Also takes the progress of the recovery."""

    def __init__(self, *, names: bool = True) -> None:
        """`names`: whether callers hear names of tables; here nobody is asked who they are."""
        self._names = names
        self._server: Any = None
        self._socket_path: str | None = None
        self._state = "it is being opened"

    def compiling(self) -> None:
        """Notes that kernels are being compiled; called from another thread."""
        self._state = "kernels are being compiled, once after an installation; that takes about half a minute"

    def progress(self, table: str, checked: int, total: int) -> None:
        """Notes how far a table is; called from another thread."""
        of = f" of table {table!r}" if self._names else ""
        self._state = f"checked {checked} of {total} rows{of} after a crash"

    async def start(self, listen: str | None, unix: str | None, access: Access) -> None:
        """Listens where the server will, but not at a port that is yet to be chosen.

        An address that cannot be had is passed over: the server that comes after says what is wrong with it.
        """
        server = grpc.aio.server(options=[("grpc.so_reuseport", 0), *keepalive_options()])
        listening = 0
        try:
            if listen is not None:
                host, port = parse_address(listen)
                access.check(host)
                if port:
                    listening += access.add_port(server, join_address(host, port))
            if unix is not None:
                path = str(claim_socket_path(unix))
                listening += access.add_socket(server, path)
                self._socket_path = path
        except (RuntimeError, ReplayStoreError):
            pass
        if not listening:
            return
        health_pb2_grpc.add_HealthServicer_to_server(Health(lambda table: False, tuple, opened=False), server)
        server.add_generic_rpc_handlers((_Later(self),))
        await server.start()
        self._server = server

    async def answer(self, _: Any, context: Any) -> None:
        """Ends a call: not yet."""
        await context.abort(grpc.StatusCode.UNAVAILABLE, f"the store is not open yet: {self._state}; connect again soon")

    async def stop(self) -> None:
        """Makes room for the server."""
        if self._server is not None:
            await self._server.stop(0)  # whoever watches its health watches that of the server next
        if self._socket_path is not None and os.path.exists(self._socket_path):
            os.unlink(self._socket_path)


class _Later(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpcio has no type information
    """Every method of the service, whatever it takes."""

    def __init__(self, recovering: Recovering) -> None:
        self._recovering = recovering

    def service(self, details: Any) -> Any:
        if not details.method.startswith(f"/{SERVICE}/"):
            return None
        return grpc.stream_stream_rpc_method_handler(self._recovering.answer)
