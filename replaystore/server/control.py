"""Tables: making, changing, describing, reading. Whatever may touch the disk runs in a thread."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from replaystore.errors import PermissionDenied
from replaystore.schema.columns import check_name
from replaystore.server.access.roles import Role
from replaystore.server.bounds import Bounds, Hold
from replaystore.server.observing.events import happened
from replaystore.server.observing.figures import Figures
from replaystore.server.options import ServerOptions
from replaystore.server.quotas import QuotaBook
from replaystore.server.translate import Call
from replaystore.server.waiting import bounded_wait, in_thread, to_the_end
from replaystore.v1 import data_pb2 as data
from replaystore.v1 import service_pb2 as pb
from replaystore.wire.changes import decode_columns, decode_delete
from replaystore.wire.layout import encode_arrays
from replaystore.wire.methods import PART_BYTES
from replaystore.wire.records import decode_changes, encode_description, encode_report, encode_stats, parse_config
from replaystore.wire.samples import parse_message

if TYPE_CHECKING:
    from replaystore.store import Store

Array = npt.NDArray[Any]
T = TypeVar("T")

_META_ROW_BYTES = 64
"""More than a row of all bookkeeping columns takes."""


class ControlService:
    """Serves everything about tables that is not inserting or sampling."""

    def __init__(
        self,
        store: Store,
        options: ServerOptions,
        info: Any,
        disk: ThreadPoolExecutor,
        bounds: Bounds,
        quotas: QuotaBook,
        figures: Figures,
    ) -> None:
        self._store, self._options, self._info, self._disk = store, options, info, disk
        self._bounds, self._quotas, self._figures = bounds, quotas, figures

    async def _run(self, call: Callable[[], T]) -> T:
        return await in_thread(self._disk, call)

    async def _make(self, table: str, call: Call, made: Callable[[], None], make: Callable[[], object]) -> None:
        """Makes a table that the server's bounds and the caller's quotas allow; `made` is called then.

        It counts as the caller's also when that has left meanwhile: or whoever leaves early could make any number.
        """

        async def work() -> None:
            with self._bounds.making_table(table, self._store.tables()), self._quotas.making_table(call.caller, table):
                await self._run(make)
            self._figures.keep(self._store.tables())  # a stream may have counted for a table just dropped
            made()

        _ = call.peer  # for what `made` logs, when the call may be over
        await to_the_end(work())

    async def create_table(self, request: Any, call: Call) -> Any:
        """CreateTable."""
        config = parse_config(request.config_json)
        there = request.table in self._store.tables()

        def made() -> None:
            if not there:
                happened(call, "table created", table=request.table)

        await self._make(request.table, call, made, lambda: self._store.create_table(request.table, config, exist_ok=request.exist_ok))
        return await self._run(lambda: encode_description(self._store.describe(request.table)))

    async def alter_table(self, request: Any, call: Call) -> Any:
        """AlterTable."""
        call.table(self._store, request.table)
        changes = decode_changes(request)
        await self._run(lambda: self._store.alter_table(request.table, **changes))
        happened(call, "table altered", table=request.table, changed=sorted(changes))
        return await self._run(lambda: encode_description(self._store.describe(request.table)))

    async def drop_table(self, request: Any, call: Call) -> Any:
        """DropTable."""
        call.table(self._store, request.table)
        await self._run(lambda: self._store.drop_table(request.table))
        self._figures.keep(self._store.tables())
        happened(call, "table dropped", table=request.table)
        return pb.DropTableReply()

    async def snapshot(self, request: Any, call: Call) -> Any:
        """Snapshot."""
        call.table(self._store, request.table)
        folder = self._options.snapshots
        if folder is None:
            raise PermissionDenied("this server takes no snapshots: start it with --snapshots DIR, the folder that they are to lie in")
        out = folder / check_name(request.name, "snapshot")
        options = {"rebase": request.rebase, "episodes": request.episodes, "closing_rows": request.closing_rows}
        timeout_s = bounded_wait("timeout_s", request.timeout_s, self._options.max_wait_s)
        report = await self._run(lambda: self._store.snapshot(request.table, out, **options, timeout_s=timeout_s))
        happened(call, "snapshot taken", table=request.table, snapshot=request.name, seconds=round(report.seconds, 3))
        return encode_report(report)

    async def fork_table(self, request: Any, call: Call) -> Any:
        """ForkTable."""
        call.table(self._store, request.table)
        changes = decode_changes(request)
        timeout_s = bounded_wait("timeout_s", request.timeout_s, self._options.max_wait_s)

        def made() -> None:
            happened(call, "table forked", table=request.table, new_table=request.new_table)

        await self._make(
            request.new_table, call, made, lambda: self._store.fork(request.table, request.new_table, **changes, timeout_s=timeout_s)
        )
        return await self._run(lambda: encode_description(self._store.describe(request.new_table)))

    async def list_tables(self, request: Any, call: Call) -> Any:
        """ListTables."""
        caller = call.caller
        return pb.ListTablesReply(tables=[name for name in self._store.tables() if caller.role_for(name) >= Role.read])

    async def describe_table(self, request: Any, call: Call) -> Any:
        """DescribeTable."""
        return encode_description(call.table(self._store, request.table).describe())

    async def get_stats(self, request: Any, call: Call) -> Any:
        """GetStats."""
        if not call.caller.everything:
            call.table(self._store, request.table)
        return await self._run(lambda: encode_stats(self._store.stats(request.table)))

    async def flush(self, request: Any, call: Call) -> Any:
        """Flush."""
        table = call.table(self._store, request.table)
        step, timeout_s = table.next_step, bounded_wait("timeout_s", request.timeout_s, self._options.max_wait_s)
        return pb.FlushReply(durable_step=await self._run(lambda: table.wait_durable(step, timeout_s)))

    async def get_server_info(self, request: Any, call: Call) -> Any:
        """GetServerInfo."""
        if call.caller.everything:
            return self._info
        shown = pb.ServerInfo()
        shown.CopyFrom(self._info)
        shown.path = ""  # only for those to whom nothing is closed
        return shown

    async def update_columns(self, message: bytes, call: Call) -> bytes:
        """UpdateColumns."""
        name, step_ids, values = decode_columns(message)
        table = call.table(self._store, name)
        counts = await self._run(lambda: table.changing.update_columns(step_ids, values, self._options.max_wait_s))
        return bytes(data.UpdateCounts(applied=counts.applied, gone=counts.gone, rejected=counts.rejected).SerializeToString())

    async def delete(self, message: bytes, call: Call) -> bytes:
        """Delete."""
        asked = decode_delete(message)
        changing = call.table(self._store, asked.table).changing
        act = changing.delete_episodes if asked.episodes else changing.delete_steps
        counts = await self._run(lambda: act(asked.numbers, asked.where, self._options.max_wait_s))
        return bytes(data.DeleteReply(deleted=counts.deleted, gone=counts.gone).SerializeToString())

    async def read_steps(self, message: bytes, call: Call) -> None:
        """ReadSteps, a few megabytes per message."""
        request = parse_message(data.ReadStepsRequest, message, "request")
        table = call.table(self._store, request.table)
        columns = list(request.columns.names) if request.HasField("columns") else None
        row_bytes = sum(column.row_bytes for column in table.config.columns.values()) + _META_ROW_BYTES
        start = max(request.start, table.first_step)
        stop = max(start, min(request.stop, table.next_step))
        await self._stream_rows(call, start, stop, row_bytes, lambda a, b: table.read_steps(a, b, columns))

    async def read_episodes(self, message: bytes, call: Call) -> None:
        """ReadEpisodes."""
        request = parse_message(data.ReadEpisodesRequest, message, "request")
        table = call.table(self._store, request.table)
        given = (request.start if request.HasField("start") else None, request.stop if request.HasField("stop") else None)
        episodes = (await self._run(table.stats)).episodes
        start, stop, _ = slice(*given).indices(episodes)
        await self._stream_rows(call, start, max(start, stop), 2 * _META_ROW_BYTES, table.episodes)

    async def _stream_rows(self, call: Call, start: int, stop: int, row_bytes: int, read: Callable[[int, int], dict[str, Array]]) -> None:
        step, hold = max(1, PART_BYTES // row_bytes), Hold(self._bounds.others)
        try:
            for begin in range(start, max(stop, start + 1), step):
                end = min(begin + step, stop)
                await hold.wait((end - begin) * row_bytes, self._options.max_wait_s)
                await call.write(await self._run(lambda begin=begin, end=end: _rows(read(begin, end))))  # type: ignore[misc]
                hold.give((end - begin) * row_bytes)
        finally:
            hold.close()


def _rows(arrays: dict[str, Array]) -> bytes:
    rows = len(next(iter(arrays.values()))) if arrays else 0
    return encode_arrays(data.RowsHeader(rows=rows).SerializeToString(), {name: np.asarray(array) for name, array in arrays.items()})
