"""The server object: a store on a grpc.aio server, with health and reflection. Starts and stops; signals are not its business."""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

import replaystore
from replaystore.errors import InvalidArgument
from replaystore.server.access.gate import Reflection
from replaystore.server.access.listening import Access
from replaystore.server.address import claim_socket_path, join_address, parse_address
from replaystore.server.append import AppendService
from replaystore.server.bounds import Bounds
from replaystore.server.control import ControlService
from replaystore.server.health import Health
from replaystore.server.local import Lending
from replaystore.server.observing.figures import Figures
from replaystore.server.observing.observing import Observing
from replaystore.server.observing.standing import StandingService
from replaystore.server.options import ServerOptions
from replaystore.server.parameters import ParameterService
from replaystore.server.peers import keepalive_options
from replaystore.server.quotas import QuotaBook
from replaystore.server.sample import SampleService
from replaystore.server.translate import Calls, Handler, unary
from replaystore.v1 import service_pb2 as pb
from replaystore.wire.methods import PROTOCOL, SERVICE

if TYPE_CHECKING:
    from replaystore.server.observing.metrics.http import Pages
    from replaystore.store import Store

_DRAINING = 0.8
"""Of the grace that calls get: what is left is for those that are cut off then."""

_SPARE_STREAMS = 64
"""For health, reflection, and refusals on their way out."""


class Server:
    """Serves an open store. The store stays the caller's: it is to be closed after `stop`."""

    def __init__(self, store: Store, options: ServerOptions | None = None, pages: Pages | None = None) -> None:
        """`pages`: metrics that are being served already; without, `start` sees to them."""
        self._options = options or ServerOptions()
        self.figures = Figures()
        """What it counts."""
        self.observing = Observing(self._options, self.figures, pages)
        """Where its metrics and traces go."""
        self._calls = Calls(self.figures)
        self.instance = secrets.token_hex(8)
        """Random name of this run of the server."""
        self.bounds = Bounds(self._options)
        """What it takes on at once, and how much of that is taken."""
        self._copying = ThreadPoolExecutor(self._options.threads, "replaystore-copy")
        self._disk = ThreadPoolExecutor(self._options.waiting_threads, "replaystore-disk")
        self._store = store
        self._health = Health(lambda name: store.table(name).trouble is None, store.tables)
        self._server: Any = None
        self._parameters: ParameterService | None = None
        self._lending: Lending | None = None
        self._socket_path: str | None = None
        self._watching: asyncio.Task[None] | None = None
        self.encrypted = self.asks = False
        """Whether connections are, but for unix sockets; whether callers must be known. Decided at the start."""
        self.addresses: tuple[str, ...] = ()
        """As clients type them; the real port where 0 was asked for."""

    async def start(self, listen: str | None = "127.0.0.1:7777", unix: str | None = None) -> None:
        """Listens on `listen` (``host:port``) and on the unix socket `unix`, each unless None.

        Raises:
            InvalidArgument: an address is malformed or taken.
            InvalidArgument: the token file or a certificate cannot be used.
            PermissionDenied: others could reach it without TLS or unasked, and `ServerOptions.insecure` is not set; or could read secrets.
        """
        options, access = self._options, Access(self._options)
        self._server = grpc.aio.server(options=_channel_options(options))
        addresses = []
        if listen is not None:
            host, port = parse_address(listen)
            access.check(host)
            addresses.append(join_address(host, self._bind(lambda: access.add_port(self._server, join_address(host, port)), listen)))
        if unix is not None:
            path = claim_socket_path(unix)
            self._bind(lambda: access.add_socket(self._server, str(path)), unix)
            self._socket_path = str(path)
            addresses.append(f"unix:{path}")
        if not addresses:
            raise InvalidArgument("listen and unix are both None: a server needs somewhere to listen")
        self.addresses = tuple(addresses)
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, self._handlers()),))
        self._health.identify = access.gate.find
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(Reflection(names, access.gate), self._server)
        self._calls.identify = access.gate.identify
        self.encrypted, self.asks = access.encrypts, access.gate.asks
        await self._server.start()
        self.observing.begin(self, self._store)
        self._watching = asyncio.create_task(access.gate.watch(self._calls.judge))

    @staticmethod
    def _bind(bind: Callable[[], int], asked: str) -> int:
        try:
            return bind()
        except RuntimeError as error:
            raise InvalidArgument(f"cannot listen on {asked}: the address is in use or not this machine's ({error})") from error

    def _handlers(self) -> dict[str, Any]:
        store, options = self._store, self._options
        info = pb.ServerInfo(
            version=replaystore.__version__,
            protocol=PROTOCOL,
            instance=self.instance,
            started=time.time(),
            path=str(store.path.absolute()),
            max_message_bytes=options.max_message_bytes,
        )
        quotas = QuotaBook(store)
        append = AppendService(store, options, self.instance, self._copying, self._disk, self.figures, self.bounds, quotas)
        self._lending = Lending(store, enabled=options.local, longest_s=options.local_keep_s, least_bytes=options.local_least_bytes)
        sample = SampleService(store, options, self._copying, self._lending, self.figures, self.bounds)
        control = ControlService(store, options, info, self._disk, self.bounds, quotas, self.figures)
        standing = StandingService(store, options, self.figures, self.bounds, info, self.addresses, self._disk)
        parameters = self._parameters = ParameterService(store, options, self._disk, self.figures, self.bounds)
        simple: dict[str, tuple[Any, Handler]] = {
            "CreateTable": (pb.CreateTableRequest, control.create_table),
            "AlterTable": (pb.AlterTableRequest, control.alter_table),
            "DropTable": (pb.DropTableRequest, control.drop_table),
            "Snapshot": (pb.SnapshotRequest, control.snapshot),
            "ForkTable": (pb.ForkTableRequest, control.fork_table),
            "ListTables": (pb.ListTablesRequest, control.list_tables),
            "DescribeTable": (pb.DescribeTableRequest, control.describe_table),
            "GetStats": (pb.GetStatsRequest, control.get_stats),
            "Flush": (pb.FlushRequest, control.flush),
            "GetServerInfo": (pb.GetServerInfoRequest, control.get_server_info),
        }

        def guard(method: str, handler: Handler) -> Callable[[Any, Any], Awaitable[Any]]:
            return self._calls.guard(method, self.bounds.admitting(method, handler))

        handlers = {name: grpc.unary_unary_rpc_method_handler(guard(name, unary(*parts))) for name, parts in simple.items()}
        return {
            **handlers,
            "UpdatePriorities": grpc.unary_unary_rpc_method_handler(guard("UpdatePriorities", sample.update_priorities)),
            "GetServerStatus": grpc.unary_unary_rpc_method_handler(guard("GetServerStatus", standing.status)),
            "UpdateColumns": grpc.unary_unary_rpc_method_handler(guard("UpdateColumns", control.update_columns)),
            "Delete": grpc.unary_unary_rpc_method_handler(guard("Delete", control.delete)),
            "Append": grpc.stream_stream_rpc_method_handler(guard("Append", append.append)),
            "Sample": grpc.stream_stream_rpc_method_handler(guard("Sample", sample.sample)),
            "ReadSteps": grpc.unary_stream_rpc_method_handler(guard("ReadSteps", control.read_steps)),
            "ReadEpisodes": grpc.unary_stream_rpc_method_handler(guard("ReadEpisodes", control.read_episodes)),
            "PublishParameters": grpc.stream_unary_rpc_method_handler(guard("PublishParameters", parameters.publish)),
            "FetchParameters": grpc.unary_stream_rpc_method_handler(guard("FetchParameters", parameters.fetch)),
        }

    async def stop(self) -> None:
        """Ends every call with a clear status, the listening first of all. Calls that hang are cut off after `ServerOptions.grace_s`."""
        if self._server is None:
            return
        self._health.stop()
        self.observing.stop()
        if self._watching is not None:
            self._watching.cancel()
        ends = time.monotonic() + self._options.grace_s
        await self._calls.drain(_DRAINING * self._options.grace_s)
        await self._server.stop(max(0.0, ends - time.monotonic()))
        self.observing.end(self._store)
        if self._parameters is not None:
            self._parameters.close()
        if self._lending is not None:
            self._lending.close()
        self._copying.shutdown()
        self._disk.shutdown(wait=False, cancel_futures=True)
        if self._socket_path is not None and os.path.exists(self._socket_path):
            os.unlink(self._socket_path)
        self._server = None


def _channel_options(options: ServerOptions) -> list[tuple[str, int]]:
    return [
        ("grpc.so_reuseport", 0),  # two servers on one port would each get some of the calls, silently
        ("grpc.max_receive_message_length", options.max_message_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_concurrent_streams", 2 * options.max_streams + _SPARE_STREAMS),  # of one connection; more wait at the client
        *keepalive_options(),
    ]
