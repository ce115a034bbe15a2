"""The standard health service (grpc.health.v1): of the server, and of each table under a name of its own.

``""`` and the service's name stand for the server: SERVING until it stops. ``replaystore.table/NAME`` stands for a table: NOT_SERVING while
its disk refuses what is written, also while the server is fine. States are looked up when somebody asks; nothing is pushed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from replaystore.errors import NotFound, PermissionDenied
from replaystore.server.access.callers import ANYBODY, Caller
from replaystore.wire.methods import SERVICE, TABLE_HEALTH

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN

LOOK_EVERY_S = 0.5
"""Between two looks at what a Watch watches."""

MAX_WATCHES = 256
"""At once, of all clients; each costs a look every `LOOK_EVERY_S`."""


class Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc]  # grpcio has no type information
    """Answers Check, List and Watch. Asks for no token, as probes have none; of tables a caller hears whom it may read."""

    def __init__(self, well: Callable[[str], bool], tables: Callable[[], Iterable[str]], *, opened: bool = True) -> None:
        """See the module.

        Args:
            well: whether a table takes what is written; NotFound for no such table.
            tables: their names.
            opened: False while there is nothing to serve yet: all is NOT_SERVING.
        """
        self._well, self._tables, self._opened = well, tables, opened
        self.identify: Callable[[Any], Caller] = lambda context: ANYBODY
        """Who makes a call; see `Calls.identify`."""
        self._stopping = asyncio.Event()
        self._watches = 0

    def stop(self) -> None:
        """All is NOT_SERVING from now on; those who watch are told so, and their calls end."""
        self._stopping.set()

    def _status(self, service: str, caller: Caller) -> Any:
        """SERVICE_UNKNOWN for what there is not."""
        table = service.removeprefix(TABLE_HEALTH)
        if service in ("", SERVICE):
            well = True
        elif table == service or not caller.role_for(table):
            return UNKNOWN
        else:
            try:
                well = self._well(table)
            except NotFound:
                return UNKNOWN
        return SERVING if well and self._opened and not self._stopping.is_set() else NOT_SERVING

    def _caller(self, context: Any) -> Caller:
        try:
            return self.identify(context)
        except PermissionDenied:
            return _NOBODY

    async def Check(self, request: Any, context: Any) -> Any:  # noqa: N802
        """The state of one service; NOT_FOUND when there is none of that name, as the standard has it."""
        status = self._status(request.service, self._caller(context))
        if status == UNKNOWN:
            await context.abort(grpc.StatusCode.NOT_FOUND, _unknown(request.service))
        return health_pb2.HealthCheckResponse(status=status)

    async def List(self, request: Any, context: Any) -> Any:  # noqa: N802
        """The states of the server and of all tables."""
        caller = self._caller(context)
        names = ("", SERVICE, *(TABLE_HEALTH + table for table in self._tables()))
        states = {name: self._status(name, caller) for name in names}
        return health_pb2.HealthListResponse(
            statuses={name: health_pb2.HealthCheckResponse(status=state) for name, state in states.items() if state != UNKNOWN}
        )

    async def Watch(self, request: Any, context: Any) -> None:  # noqa: N802
        """The state of one service, now and whenever it changes."""
        if self._watches >= MAX_WATCHES:
            await context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED, f"{self._watches} health watches are open, the bound: end some, or use Check"
            )
        caller, told = self._caller(context), None
        self._watches += 1
        try:
            while True:
                stopping = self._stopping.is_set()  # what is found afterwards is told
                if caller is not _NOBODY:
                    caller = self._caller(context)  # whose token may have been taken back
                status = self._status(request.service, caller)
                if status != told:
                    await context.write(health_pb2.HealthCheckResponse(status=status))
                    told = status
                if stopping:
                    return
                try:
                    await asyncio.wait_for(self._stopping.wait(), LOOK_EVERY_S)
                except TimeoutError:
                    pass
        finally:
            self._watches -= 1


_NOBODY = Caller("", ())


def _unknown(service: str) -> str:
    name = service if len(service) <= 200 else f"{service[:200]}…"
    return f"health knows no service {name!r}: ask for '' (the server) or '{TABLE_HEALTH}NAME' (a table that there is)"
