"""GetServerStatus: how the server, its machine and its tables stand at one moment."""

from __future__ import annotations

import dataclasses
import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from replaystore.errors import NotFound, ReplayStoreError, StorageError
from replaystore.server.access.callers import Caller
from replaystore.server.bounds import Bounds
from replaystore.server.observing import surroundings
from replaystore.server.observing.figures import LOOKED_EVERY_S, Figures, TableFigures
from replaystore.server.options import ServerOptions
from replaystore.server.translate import Call
from replaystore.server.waiting import in_thread
from replaystore.status import ServerStatus, TableStats, TableStatus
from replaystore.v1 import service_pb2 as pb
from replaystore.wire.records import encode_status
from replaystore.wire.samples import parse_message

if TYPE_CHECKING:
    from replaystore.engine.table import Table
    from replaystore.store import Store


class StandingService:
    """Serves GetServerStatus. Takes a table's lock as shortly as its statistics do, and counts nothing itself."""

    def __init__(
        self,
        store: Store,
        options: ServerOptions,
        figures: Figures,
        bounds: Bounds,
        info: Any,
        addresses: tuple[str, ...],
        disk: ThreadPoolExecutor,
    ) -> None:
        self._store, self._options, self._figures, self._bounds = store, options, figures, bounds
        self._info, self._addresses, self._disk = info, addresses, disk
        self._started = time.monotonic()

    async def status(self, message: bytes, call: Call) -> bytes:
        """GetServerStatus."""
        parse_message(pb.GetServerStatusRequest, message, "request")
        caller = call.caller
        return bytes(encode_status(await in_thread(self._disk, lambda: self._status(caller))).SerializeToString())

    def _status(self, caller: Caller) -> ServerStatus:
        options, figures, disk = self._options, self._figures, surroundings.disk_of(self._store.path)
        tables = []
        for name in filter(caller.role_for, self._store.tables()):
            try:
                tables.append(self._table(self._store.table(name)))
            except NotFound:
                continue  # dropped meanwhile
        return ServerStatus(
            version=self._info.version,
            protocol=self._info.protocol,
            instance=self._info.instance,
            path=self._info.path if caller.everything else "",
            time=time.time(),
            uptime_s=time.monotonic() - self._started,
            addresses=self._addresses,
            pid=os.getpid(),
            rss_bytes=surroundings.rss_bytes(),
            memory_limit_bytes=surroundings.memory_limit_bytes(),
            open_files=surroundings.open_files(),
            max_open_files=surroundings.max_open_files(),
            threads=surroundings.thread_count(),
            append_streams=figures.append_streams,
            sample_streams=figures.sample_streams,
            max_streams=options.max_streams,
            in_flight_bytes=self._bounds.blocks.used + self._bounds.others.used,
            max_in_flight_bytes=options.max_in_flight_bytes,
            disk_free_bytes=disk.free_bytes,
            disk_total_bytes=disk.total_bytes,
            filesystem=disk.filesystem,
            durability=self._store.durability,
            commit_interval_s=self._store.commit_interval_s,
            encrypted=options.tls_cert is not None,
            authenticated=bool(options.token_file or options.tokens or options.tls_client_ca),
            metrics=options.metrics or "",
            strict_overcommit=surroundings.strict_overcommit(),
            tables=tuple(tables),
        )

    def _table(self, table: Table) -> TableStatus:
        failure = table.failure
        try:
            stats = table.stats()
        except StorageError as error:  # its files must not be touched any more
            stats, failure = _positions(table), str(error)
        figures = self._figures.tables.get(table.name) or TableFigures()
        waits = list(figures.waits.items())
        return TableStatus(
            stats=stats,
            received_bytes=figures.received_bytes,
            sent_bytes=figures.sent_bytes,
            commit_lag_s=commit_lag_s(table, stats.durable_step),
            blocked_insert_s=sum(wait.seconds for (side, _), wait in waits if side == "insert"),
            blocked_sample_s=sum(wait.seconds for (side, _), wait in waits if side == "sample"),
            failure=failure,
            # when the next message is to be looked at says when the last one was
            idle_s=max(0.0, time.perf_counter() - figures.look_at + LOOKED_EVERY_S) if figures.look_at else None,
        )


def _positions(table: Table) -> TableStats:
    """What is known of a table without its files."""
    nothing: dict[str, Any] = {field.name: 0 for field in dataclasses.fields(TableStats)} | {"total_priority": {}, "max_priority": {}}
    unknown = dict.fromkeys(("oldest_time", "newest_time", "blocked_insert", "blocked_sample"))
    known = {"name": table.name, "first_step": table.first_step, "next_step": table.next_step, "durable_step": table.durable_step}
    return TableStats(**{**nothing, **unknown, **known})


def commit_lag_s(table: Table, durable_step: int) -> float:
    """For how long the oldest row that is not durable has been there."""
    try:
        times = table.read_steps(durable_step, durable_step + 1, ["meta/insert_time"])["meta/insert_time"]
    except ReplayStoreError:
        return 0.0
    return max(0.0, time.time() - float(times[0])) if len(times) and table.durable_step <= durable_step else 0.0
