"""Client: the verbs of a store, over the network. Thread-safe; after a fork the child connects anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from replaystore.batch import Batch, RewardFunction, check_reward_function
from replaystore.errors import InvalidArgument
from replaystore.federated.sampler import MixtureSampler, sample_mixture
from replaystore.sample_log import Log
from replaystore.sampling import SampleRequest, anchors_of
from replaystore.schedules import Beta, beta_at
from replaystore.schema.columns import check_name
from replaystore.schema.filters import Filter
from replaystore.schema.limiters import RateLimiter
from replaystore.schema.mixture import Mixture
from replaystore.schema.selectors import FreeSelector, Selector
from replaystore.schema.table_config import Retention, TableConfig
from replaystore.schema.views import Transition, View
from replaystore.status import ServerStatus, SnapshotReport, TableDescription, TableStats
from replaystore.steps import DeleteCounts, UpdateCounts
from replaystore.v1 import data_pb2 as data
from replaystore.v1 import service_pb2 as pb
from replaystore.wire.changes import encode_columns, encode_delete
from replaystore.wire.framing import split
from replaystore.wire.layout import arrays_of
from replaystore.wire.methods import MAX_PARAMETERS_BYTES
from replaystore.wire.parameters import Assembly, check_parameters, encode_parts
from replaystore.wire.records import (
    config_json,
    decode_description,
    decode_report,
    decode_stats,
    decode_status,
    encode_changes,
    encode_fork,
)
from replaystore.wire.samples import Updates, encode_query, encode_sample_request, encode_update
from replaystore.writer import Writer
from replaystore_client.connection import Connection
from replaystore_client.local.path import check_mode
from replaystore_client.sampler import Sampler
from replaystore_client.single import SingleDraws
from replaystore_client.sink import RemoteSink

Array = npt.NDArray[Any]

_SLOWEST_DISK_BYTES_PER_S = 20e6
"""A published set is answered once it is on disk."""
_COPY_TIMEOUT_S = 60.0


class Client:
    """A connection to a replaystore server: ``with Client("localhost:7777") as client: …``.

    Nothing is sent before the first call. While the server cannot be reached, calls try again until their timeout, then raise
    DeadlineExceeded.
    """

    def __init__(self, address: str, token: str | None = None, tls: Any = None, timeout_s: float = 10.0, local: bool | None = None) -> None:
        """See the class.

        Args:
            address: ``host:port`` or ``unix:PATH``.
            token: sent with every call; needs `tls` unless the server is on this machine. None: that of REPLAYSTORE_TOKEN, or of the file
                REPLAYSTORE_TOKEN_FILE.
            tls: True trusts what this machine does, a path the certificates in that file; a `TLS` may also show one of the client's own.
                A ``grpc.ChannelCredentials`` is taken as it is. None: what REPLAYSTORE_TLS_CA says; False: not encrypted.
            timeout_s: for every call that is not given another.
            local: None reads what is sampled from the table's files where server and client prove to see the same ones, and has it sent
                elsewhere; True takes anything else for an error; False has it sent always.
        """
        self._local = check_mode(local)
        self._connection = Connection(address, token, tls)
        self._timeout_s = timeout_s
        self._single = SingleDraws(self._connection, self._local)

    @property
    def address(self) -> str:
        """The server's address as it was given."""
        return self._connection.address

    def __repr__(self) -> str:
        return f"Client({self.address!r})"

    def _call(self, method: str, request: Any, reply: Any, timeout_s: float | None = None, again: Any = None) -> Any:
        repeat = None if again is None else again.SerializeToString()
        message = self._connection.unary(method, request.SerializeToString(), timeout_s or self._timeout_s, repeat)
        return reply.FromString(message)

    # -- tables

    def create_table(self, name: str, config: TableConfig, exist_ok: bool = False) -> None:
        """Creates a table.

        Args:
            name: letters, digits, ``_ . -``.
            config: columns, selector, rate limiter, retention.
            exist_ok: with True an existing table of an equal configuration is fine.

        Raises:
            AlreadyExists: there is one; with `exist_ok`, one of another configuration (the message says what differs).
        """
        check_name(name, "table")
        if not isinstance(config, TableConfig):
            raise InvalidArgument(f"config must be a replaystore.TableConfig, got {type(config).__name__}")
        request = pb.CreateTableRequest(table=name, config_json=config_json(config), exist_ok=exist_ok)
        # when the first reply was lost, the table may be there already, made by this very call
        again = pb.CreateTableRequest(table=name, config_json=config_json(config), exist_ok=True)
        self._call("CreateTable", request, pb.TableDescription, again=again)

    def tables(self) -> list[str]:
        """Names of the tables, sorted."""
        return list(self._call("ListTables", pb.ListTablesRequest(), pb.ListTablesReply).tables)

    def describe(self, name: str) -> TableDescription:
        """What a table is: columns, configuration, chunking."""
        return decode_description(self._call("DescribeTable", pb.DescribeTableRequest(table=name), pb.TableDescription))

    def stats(self, name: str) -> TableStats:
        """How a table stands: sizes, counters, what blocks."""
        return decode_stats(self._call("GetStats", pb.GetStatsRequest(table=name), pb.TableStats))

    def alter_table(
        self,
        name: str,
        *,
        rate_limiter: RateLimiter | None = None,
        retention: Retention | None = None,
        selector: Selector | Mapping[str, Selector] | None = None,
    ) -> TableConfig:
        """Changes rate limiter, retention or selector parameters, at once and for good; returns the new configuration."""
        request = encode_changes(name, rate_limiter, retention, selector)
        return decode_description(self._call("AlterTable", request, pb.TableDescription)).config

    def snapshot(
        self,
        name: str,
        out: str,
        *,
        rebase: bool = False,
        episodes: bool = False,
        closing_rows: bool = False,
        timeout_s: float = _COPY_TIMEOUT_S,
    ) -> SnapshotReport:
        """Copies a table as it is now into a store of its own on the server's machine, while writers and samplers go on.

        Args:
            name: the table.
            out: name of a folder below the one that the server was started with (``serve --snapshots DIR``); never a path.
            rebase: numbers the steps from 0: every row is copied, episodes whose beginning is gone are left out.
            episodes: writes a plain dataset of the finished episodes instead, ``data/…`` and ``meta/episode_ends``, in Zarr v2 and v3.
            closing_rows: with `episodes`, keeps the row after each episode's last step.
            timeout_s: how long to wait for it. What was begun is finished by the server all the same.

        Raises:
            PermissionDenied: the server takes no snapshots.
            AlreadyExists: there is something of that name, perhaps the snapshot itself, when a first reply was lost with the connection.
        """
        request = pb.SnapshotRequest(table=name, name=out, rebase=rebase, episodes=episodes, closing_rows=closing_rows, timeout_s=timeout_s)
        return decode_report(self._call("Snapshot", request, pb.SnapshotReport, timeout_s))

    def fork(
        self,
        name: str,
        new_name: str,
        *,
        selector: Selector | Mapping[str, Selector] | None = None,
        rate_limiter: RateLimiter | None = None,
        retention: Retention | None = None,
        timeout_s: float = _COPY_TIMEOUT_S,
    ) -> TableConfig:
        """Makes the table `new_name` over the rows that `name` has now, sharing its sealed files; both go on by themselves.

        Args:
            name: the table; it is not changed.
            new_name: of the new one.
            selector: other selectors, of any kind; a prioritized one of a name that `name` has too takes its priorities over, others begin
                with the same priority everywhere.
            rate_limiter: another one; it counts from now on.
            retention: another one.
            timeout_s: how long to wait for it.

        Returns:
            The new table's configuration.
        """
        request = encode_fork(name, new_name, rate_limiter, retention, selector, timeout_s)
        return decode_description(self._call("ForkTable", request, pb.TableDescription, timeout_s)).config

    def drop_table(self, name: str) -> None:
        """Removes a table and its files."""
        self._call("DropTable", pb.DropTableRequest(table=name), pb.DropTableReply)

    def server_info(self) -> dict[str, Any]:
        """About the server: version, protocol, instance, started, path, max_message_bytes."""
        info = self._call("GetServerInfo", pb.GetServerInfoRequest(), pb.ServerInfo)
        return {field.name: getattr(info, field.name) for field in pb.ServerInfo.DESCRIPTOR.fields}

    def server_status(self) -> ServerStatus:
        """How the server and its tables stand now. An older server knows no such call: ReplayStoreError."""
        return decode_status(self._call("GetServerStatus", pb.GetServerStatusRequest(), pb.ServerStatus))

    # -- writing and sampling

    def writer(self, name: str, *, streams: int = 1, actor: int = 0, policy_version: int = -1, **options: Any) -> Writer:
        """A writer for one actor's `streams` environments; a context manager. See `replaystore.Writer` for the options.

        It carries on by itself when the server is restarted; nothing is lost or doubled.
        """
        columns = self.describe(name).config.columns
        sink = RemoteSink(self._connection, name)
        try:
            return Writer(columns, sink, streams=streams, actor=actor, policy_version=policy_version, **options)
        except BaseException:
            sink.close(0.1)
            raise

    def sample(
        self,
        name: str | Mixture,
        batch_size: int,
        view: View | None = None,
        beta: float = 0.0,
        seed: int | None = None,
        selector: str | FreeSelector | None = None,
        columns: Sequence[str] | None = None,
        where: Filter | None = None,
        normalise: str = "batch",
        timeout_s: float | None = None,
        reward_fn: RewardFunction | None = None,
    ) -> Batch:
        """Draws a batch. A `sampler` is faster for many.

        Args:
            name: the table, or a `replaystore.Mixture` of several.
            batch_size: items.
            view: what each anchor expands to; `Transition()` by default.
            beta: exponent of the importance weights.
            seed: draws with this seed instead of the table's own stream of random numbers.
            selector: name of one of the table's selectors, or one that needs no priorities, such as ``Uniform()``.
            columns: reads only these.
            where: draws only anchors that pass this filter; probabilities are those among them.
            normalise: divides the weights by the batch's largest, or (``"table"``) by the largest that any anchor could have.
            timeout_s: how long to wait for the rate limiter.
            reward_fn: gives `Hindsight` batches their rewards: ``reward_fn(achieved_goal, desired_goal, info)``, called once.

        Raises:
            NotReady: the rate limiter blocked for `timeout_s`; the text says why and who has to act.
            DeadlineExceeded: the server could not be reached.
        """
        limit = self._timeout_s if timeout_s is None else timeout_s
        if isinstance(name, Mixture):
            return sample_mixture(
                self, name, batch_size, view=view, beta=beta, seed=seed, selector=selector, columns=columns, where=where,
                normalise=normalise, timeout_s=limit, reward_fn=reward_fn,
            )  # fmt: skip
        request = SampleRequest(batch_size, view or Transition(), selector, beta, seed, _names(columns), where, normalise)
        check_reward_function(request.view, reward_fn)
        query = encode_query(name, request)
        batch = self._single.ask(name, request, lambda local: encode_sample_request(1, query, beta, seed, limit, local=local), limit)
        return batch if reward_fn is None else batch.relabel(reward_fn)

    def sample_at(
        self,
        name: str,
        step_ids: Any,
        view: View | None = None,
        seed: int | None = None,
        columns: Sequence[str] | None = None,
        as_of: int | None = None,
    ) -> Batch:
        """Reads exactly these anchors, in this order: no draw, nothing counted, no limiter. Probabilities are 0, weights 1.

        Args:
            name: the table.
            step_ids: ``(n,)`` integers, as in ``batch.step_ids``.
            view: what each expands to; `Transition()` by default.
            seed: for what the view chooses at random, as of the batch that the ids are from; None is 0.
            columns: reads only these.
            as_of: rows from this id on are not seen, as if they had not been written yet: ``batch.next_step`` of that batch.

        Raises:
            NotFound: one of them is no anchor that is kept, or none that the view can begin at; names the first such.
        """
        ids = anchors_of(step_ids)
        request = SampleRequest(len(ids), view or Transition(), seed=seed, columns=_names(columns))
        query = encode_query(name, request)

        def message(local: bytes) -> bytes:
            return encode_sample_request(1, query, 0.0, seed, 0.0, step_ids=ids, as_of=as_of, local=local)

        return self._single.ask(name, request, message, self._timeout_s)

    def sampler(
        self,
        name: str | Mixture,
        batch_size: int,
        view: View | None = None,
        beta: Beta = 0.0,
        seed: int | None = None,
        selector: str | FreeSelector | None = None,
        columns: Sequence[str] | None = None,
        where: Filter | None = None,
        normalise: str = "batch",
        prefetch: int = 4,
        timeout_s: float | None = None,
        log: Log | None = None,
        reward_fn: RewardFunction | None = None,
    ) -> Sampler | MixtureSampler:
        """An endless iterator of batches with `update_priorities`; a context manager. Arguments as for `sample`, and:

        Args:
            name: the table, or a `replaystore.Mixture` of several.
            batch_size: items per batch.
            view: what each anchor expands to.
            beta: exponent of the importance weights, or a schedule that is called with the batch's index; `Sampler.beta` may be set later.
            seed: batch i is drawn with `derive_seed(seed, i)`.
            selector: name of one of the table's selectors, or one that needs no priorities, such as ``Uniform()``.
            columns: reads only these.
            where: draws only anchors that pass this filter; probabilities are those among them.
            normalise: divides the weights by the batch's largest, or (``"table"``) by the largest that any anchor could have.
            prefetch: batches in flight; of small ones up to half of them travel in one message. Priority updates reach the draw of the
                batch that many iterations later, or an earlier one. 0: only what `ask` asks for.
            timeout_s: how long an iteration waits.
            log: a path or a `replaystore.SampleLog`: every batch is drawn with a seed and noted, so that it can be read again.
            reward_fn: gives `Hindsight` batches their rewards: ``reward_fn(achieved_goal, desired_goal, info)``, called once per batch.
        """
        limit = self._timeout_s if timeout_s is None else timeout_s
        if isinstance(name, Mixture):
            return MixtureSampler(
                self, name, batch_size, log=log, view=view, beta=beta, seed=seed, selector=selector, columns=columns, where=where,
                normalise=normalise, prefetch=prefetch, timeout_s=limit, reward_fn=reward_fn,
            )  # fmt: skip
        request = SampleRequest(batch_size, view or Transition(), selector, beta_at(beta, 0), seed, _names(columns), where, normalise)
        return Sampler(self._connection, name, request, prefetch, limit, beta, log, reward_fn, self._local)

    def update_priorities(self, name: str, step_ids: Any, priorities: Any, selector: str | None = None) -> UpdateCounts:
        """Sets the priorities of steps; counts how many were applied, are gone (evicted) or were rejected (NaN, negative)."""
        message = encode_update(name, Updates.of(step_ids, priorities, selector))
        counts = data.UpdateCounts.FromString(self._connection.unary("UpdatePriorities", message, self._timeout_s))
        return UpdateCounts(counts.applied, counts.gone, counts.rejected)

    # -- changing rows that are there

    def update_columns(self, name: str, step_ids: Any, values: Mapping[str, Any]) -> UpdateCounts:
        """Writes columns declared with ``Column(..., writable=True)`` of rows that are there. See `Store.update_columns`."""
        message = encode_columns(name, step_ids, values)
        counts = data.UpdateCounts.FromString(self._connection.unary("UpdateColumns", message, self._timeout_s))
        return UpdateCounts(counts.applied, counts.gone, counts.rejected)

    def delete_steps(self, name: str, step_ids: Any = None, where: Filter | None = None) -> DeleteCounts:
        """Deletes steps, by id or those that meet `where`: they are sampled no more from now on. See `Store.delete_steps`."""
        return self._delete(encode_delete(name, episodes=False, numbers=step_ids, where=where))

    def delete_episodes(self, name: str, episodes: Any = None, where: Filter | None = None) -> DeleteCounts:
        """Deletes the rows of whole episodes, by number or those that meet `where`. See `Store.delete_episodes`."""
        return self._delete(encode_delete(name, episodes=True, numbers=episodes, where=where))

    def _delete(self, message: bytes) -> DeleteCounts:
        counts = data.DeleteReply.FromString(self._connection.unary("Delete", message, self._timeout_s))
        return DeleteCounts(counts.deleted, counts.gone)

    # -- reading

    def why_blocked(self, name: str) -> str:
        """Whether inserting and sampling wait now, and why: which limiter, its cursor and bounds, what is missing, and who must act."""
        return self.stats(name).why_blocked()

    def read_steps(self, name: str, start: int, stop: int, columns: Sequence[str] | None = None) -> dict[str, Array]:
        """Rows [start, stop) as far as they are kept: ``step_id`` and an array per column; bookkeeping under ``meta/…``."""
        request = data.ReadStepsRequest(table=name, start=start, stop=stop)
        wanted = _names(columns)
        if wanted is not None:
            request.columns.SetInParent()
            request.columns.names.extend(wanted)
        return self._read("ReadSteps", request)

    def episodes(self, name: str, start: int | None = None, stop: int | None = None) -> dict[str, Array]:
        """Finished episodes in the order of their ends; negative positions count from the newest."""
        return self._read("ReadEpisodes", data.ReadEpisodesRequest(table=name, start=start, stop=stop))

    def _read(self, method: str, request: Any) -> dict[str, Array]:
        messages = self._connection.collect(method, request.SerializeToString(), self._timeout_s)
        pieces = [arrays_of(split(message), writable=True) for message in messages]
        if len(pieces) == 1:
            return pieces[0]
        return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}

    # -- parameters

    def publish_parameters(self, name: str, arrays: Mapping[str, Any]) -> int:
        """Keeps named arrays under `name` for actors to fetch; returns their version, which only ever grows."""
        checked = check_parameters(arrays)
        limit = self._timeout_s + sum(array.nbytes for array in checked.values()) / _SLOWEST_DISK_BYTES_PER_S
        reply = self._connection.upload("PublishParameters", lambda: encode_parts(checked, name=name), limit)
        return int(pb.PublishParametersReply.FromString(reply).version)

    def fetch_parameters(self, name: str, newer_than: int = 0, timeout_s: float = 0.0) -> tuple[dict[str, Array], int] | None:
        """The newest arrays and their version, or None when nothing newer than `newer_than` appeared within `timeout_s`."""
        request = pb.FetchParametersRequest(name=name, newer_than=newer_than, timeout_s=timeout_s)
        messages = self._connection.collect("FetchParameters", request.SerializeToString(), timeout_s + self._timeout_s)
        if not messages:
            return None
        assembly = Assembly(MAX_PARAMETERS_BYTES)
        for message in messages:
            assembly.add(message)
        return assembly.arrays(), int(assembly.header.version)

    # -- life

    def close(self) -> None:
        """Ends the connection, and with it every writer and sampler made by this client: close those first."""
        self._single.close()
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _names(columns: Sequence[str] | None) -> tuple[str, ...] | None:
    return (columns,) if isinstance(columns, str) else None if columns is None else tuple(columns)
