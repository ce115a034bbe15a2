"""Writer: turns an actor's loop into blocks of rows. The same for the embedded store and the client; knows neither.

Rows wait in one buffer per column, ``(streams, capacity, *shape)``, so that an append is one assignment per column however many streams
it is for. The observation that follows a step is written straight into the next slot, where it becomes that row's observation (or the
closing row's) without another copy.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Collection, Mapping
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from replaystore.errors import InvalidArgument, NotReady, SchemaMismatch
from replaystore.schema.columns import Column, fit
from replaystore.schema.spaces import flatten
from replaystore.steps import OPEN, RUN_DTYPE, TERMINATED, TRUNCATED, StepBlock

BLOCK_TARGET_BYTES = 512 << 10
"""Rows are sent in blocks of about this size, 32 to 4096 rows, unless time or an episode's end comes first."""

EPISODE_END_GAP_S = 0.02
"""An episode's end sends the block at once, but not more often than this."""

_IDLE, _RUNNING = 0, 1

_EXACT: Mapping[str, tuple[type, ...]] = {
    "float32": (float, np.float32, np.float64),
    "float64": (float, np.float64, np.float32),
    "bool": (bool, np.bool_),
    "int64": (np.int64,),
}
"""Types of scalars that a column takes as they are, without a look at their values."""


class BlockSink(Protocol):
    """Where blocks go: a table in this process, or a server."""

    def send(self, block: StepBlock, timeout_s: float) -> None:
        """Takes the block over (its arrays may be reused at once). Waits for room; NotReady or DeadlineExceeded say what for."""

    def flush(self, durable: bool, timeout_s: float) -> None:
        """Returns when all blocks sent are acknowledged, and on stable storage if `durable`."""

    def close(self, timeout_s: float) -> None:
        """Flushes and lets go of everything."""

    def poll(self) -> None:
        """Raises an error that happened in the background. Cheap."""


class Writer:
    """Writes the steps of one actor's environments (its streams). Not for use by several threads at once.

    Rows are sent when a block is full, when `interval_s` has passed (looked at on each call) or at an episode's end; `flush` sends
    at once. A call that raises NotReady, Overloaded, DeadlineExceeded or StorageError has recorded nothing: it may simply be made again.
    """

    def __init__(
        self,
        columns: Mapping[str, Column],
        sink: BlockSink,
        *,
        streams: int = 1,
        actor: int = 0,
        policy_version: int = -1,
        block_rows: int | None = None,
        interval_s: float = 0.05,
        timeout_s: float = 60.0,
    ) -> None:
        if not 1 <= streams <= 65536:
            raise InvalidArgument(f"streams={streams} must be from 1 to 65536")
        self._columns, self._sink, self._streams, self._actor = columns, sink, streams, actor
        self._policy_version = policy_version
        self._interval_s, self.timeout_s = interval_s, timeout_s
        row_bytes = sum(column.row_bytes for column in columns.values())
        rows = min(max(BLOCK_TARGET_BYTES // row_bytes, 32), 4096) if block_rows is None else max(1, block_rows)
        self._block_rows = rows
        capacity = max(4, -(-rows // streams)) + 2  # a step row, and room for the closing row or the observation after it
        self._capacity = capacity
        self._buffers = {name: np.zeros((streams, capacity, *c.shape), c.dtype) for name, c in columns.items()}
        self._observations = [name for name in columns if name == "observation" or name.startswith("observation/")]
        if not self._observations:
            raise InvalidArgument("a table needs an 'observation' column (or nested ones below it) to be written by a Writer")
        self._others = [name for name in columns if name not in self._observations]
        self._plain = {name: (c, self._buffers[name], _EXACT.get(c.dtype, ()) if not c.shape else ()) for name, c in columns.items()}
        self._state = np.full(streams, _IDLE, np.int8)
        self._counts = np.zeros(streams, np.int64)  # rows finished in the buffer; slot counts[s] holds the pending observation
        self._run_start = np.zeros(streams, np.int64)  # slot at which the current run of the stream begins
        self._episode = np.zeros(streams, np.int64)
        self._position = np.zeros(streams, np.int64)  # step in episode of the row in slot run_start
        self._seed = np.full(streams, -1, np.int64)
        self._runs: list[list[tuple[int, int, int, int, int, int]]] = [[] for _ in range(streams)]
        self._all = np.arange(streams)
        self._last_sent = time.monotonic()
        self._closed = False

    # -- one stream at a time

    def reset(self, observation: Any, stream: int = 0, seed: int | None = None) -> None:
        """Begins an episode with its first observation. An episode still open in that stream is closed as truncated.

        Args:
            observation: as in the environment; nested observations as dicts or tuples.
            stream: which environment, 0 to streams − 1.
            seed: the seed that the environment was reset with, kept with the episode.
        """
        s = self._check_stream(stream)
        values = self._fit_nested("observation", observation)
        self._make_room(s)
        if self._state[s] == _RUNNING:
            self._interrupt(s)
            self._make_room(s)
        self._begin(s, seed)
        slot = self._counts[s]
        for name, value in values.items():
            self._buffers[name][s, slot] = value

    def append(
        self, action: Any, reward: Any, terminated: bool, truncated: bool, next_observation: Any, stream: int = 0, **extras: Any
    ) -> None:
        """Records one step: what was done in the current observation and what came of it.

        Args:
            action: as in the environment; nested ones, and those of several agents, as dicts.
            reward: of this action; of several agents a dict.
            terminated: whether the episode ended by itself, for all agents.
            truncated: whether it was cut.
            next_observation: what the action led to, like that of `reset`.
            stream: which environment.
            extras: further columns, nested ones as dicts; writable ones that are left out begin as zeros.

        Raises:
            SchemaMismatch: a value does not fit its column, a column is missing or unknown. Nothing was recorded.
            InvalidArgument: the stream has no open episode.
        """
        s = self._check_stream(stream)
        if self._state[s] != _RUNNING:
            raise InvalidArgument(f"stream {s} has no open episode: call reset(observation, stream={s}) first")
        self._make_room(s)
        slot = int(self._counts[s])  # until it counts, what is put into it is not recorded
        put = self._put
        given = put("action", action, s, slot) + put("reward", reward, s, slot)
        given += put("terminated", terminated, s, slot) + put("truncated", truncated, s, slot)
        for name, value in extras.items():
            given += put(name, value, s, slot)
        if given != len(self._others):
            names = {"action", "reward", "terminated", "truncated", *extras}
            given += self._leave_open(names, (s, slot))
            if given != len(self._others):
                raise self._incomplete(names)
        put("observation", next_observation, s, slot + 1)
        self._counts[s] = slot + 1
        if terminated or truncated:
            self._close_episode(s, TERMINATED if terminated else TRUNCATED)
            self._send_at_episode_end()

    # -- all streams at once

    def append_batch(
        self,
        actions: Any,
        rewards: Any,
        terminateds: Any,
        truncateds: Any,
        next_observations: Any,
        reset_mask: Any = None,
        **extras: Any,
    ) -> None:
        """Records one step of every stream; all arguments have the streams as first axis.

        Args:
            actions: array, or nested like the action space, of arrays.
            rewards: one per stream.
            terminateds: bool per stream.
            truncateds: bool per stream.
            next_observations: array, or nested like the observation space, of arrays.
            reset_mask: where True, that stream begins a new episode: its next_observations row is the first observation and the rest of
                its row is ignored.
            extras: further columns; writable ones that are left out begin as zeros.

        Raises:
            SchemaMismatch: a value does not fit. Nothing was recorded.
            InvalidArgument: a stream whose episode is over was neither reset nor masked.
        """
        n = self._streams
        mask = np.zeros(n, bool) if reset_mask is None else np.asarray(reset_mask, bool)
        if mask.shape != (n,):
            raise SchemaMismatch(f"reset_mask takes shape ({n},), got {mask.shape}")
        idle = np.flatnonzero((self._state != _RUNNING) & ~mask)
        if len(idle):
            raise InvalidArgument(f"stream {idle[0]} has no open episode: reset it, or set reset_mask[{idle[0]}]")
        given = {"reward": rewards, "terminated": terminateds, "truncated": truncateds, **extras}
        values = {**self._fit_nested("action", actions, n), **self._fit_extras(given, n)}
        following = self._fit_nested("observation", next_observations, n)
        if len(values) != len(self._others):
            left = self._left_out(values)
            values |= {name: np.zeros((n, *self._columns[name].shape), self._columns[name].dtype) for name in left}
            if len(values) != len(self._others):
                raise self._incomplete(values)
        if int(self._counts.max()) + 3 > self._capacity or self._due(int(self._counts.sum())):
            self._send()
        for s in np.flatnonzero(mask):
            if self._state[s] == _RUNNING:
                self._interrupt(int(s))
            self._begin(int(s), None)
        active = self._all if not mask.any() else np.flatnonzero(~mask)
        slots = self._counts[active]
        whole = len(active) == n
        for name, value in values.items():
            self._buffers[name][active, slots] = value if whole else value[active]
        self._counts[active] += 1
        for name, value in following.items():
            self._buffers[name][self._all, self._counts] = value
        ended = active[(values["terminated"] | values["truncated"])[active]]
        if len(ended):
            for s in ended.tolist():
                self._close_episode(s, TERMINATED if values["terminated"][s] else TRUNCATED)
            self._send_at_episode_end()

    # -- sending

    @property
    def streams(self) -> int:
        """How many environments this writer records."""
        return self._streams

    @property
    def policy_version(self) -> int:
        """Version of the parameters that choose the actions now; recorded with the steps that follow."""
        return self._policy_version

    @policy_version.setter
    def policy_version(self, version: int) -> None:
        if version != self._policy_version:
            for s in np.flatnonzero(self._state == _RUNNING).tolist():
                self._cut(s, OPEN)
            self._policy_version = int(version)

    def flush(self, durable: bool = False, timeout_s: float | None = None) -> None:
        """Sends what is buffered and waits until the table acknowledged it, or with `durable` until it survives power loss.

        Raises:
            NotReady, DeadlineExceeded, Overloaded, StorageError: not (all) acknowledged; what was buffered is kept: flush again.
        """
        limit = self.timeout_s if timeout_s is None else timeout_s
        started = time.monotonic()
        self._send(limit)
        self._sink.flush(durable, max(0.0, limit - (time.monotonic() - started)))

    def close(self, timeout_s: float | None = None) -> None:
        """Closes open episodes as truncated (their last observation is kept as closing row), flushes, and lets go of the connection."""
        if self._closed:
            return
        limit = self.timeout_s if timeout_s is None else timeout_s
        started = time.monotonic()
        for s in np.flatnonzero(self._state == _RUNNING).tolist():
            self._make_room(s)
            self._interrupt(s)
        self._send(limit)
        self._closed = True
        self._sink.close(max(1.0, limit - (time.monotonic() - started)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self.close()
            return
        try:  # the error on its way out matters more than another one from closing
            self.close(timeout_s=min(5.0, self.timeout_s))
        except Exception as closing:
            if error is not None:
                error.add_note(f"closing the writer failed as well: {closing}")

    # -- inside

    def _check_stream(self, stream: int) -> int:
        if self._closed:
            raise InvalidArgument("this writer is closed")
        if not 0 <= stream < self._streams:
            raise InvalidArgument(
                f"stream={stream} must be from 0 to {self._streams - 1}; the writer was opened with streams={self._streams}"
            )
        return int(stream)

    def _fit_nested(self, name: str, value: Any, rows: int | None = None) -> dict[str, npt.NDArray[Any]]:
        column = self._columns.get(name)
        if column is not None and not isinstance(value, Mapping):
            return {name: fit(name, column, value, rows)}
        flat = flatten(name, value, self._columns)
        wanted = {path for path in self._columns if path == name or path.startswith(f"{name}/")}
        if flat.keys() != wanted:
            raise SchemaMismatch(f"{name!r} must have {', '.join(sorted(wanted))}; got {', '.join(sorted(flat))}")
        return {path: fit(path, self._columns[path], part, rows) for path, part in flat.items()}

    def _fit_extras(self, given: Mapping[str, Any], rows: int | None) -> dict[str, npt.NDArray[Any]]:
        values: dict[str, npt.NDArray[Any]] = {}
        for name, value in given.items():
            if name in self._columns:
                values[name] = fit(name, self._columns[name], value, rows)
            else:
                values.update(self._fit_nested(name, value, rows))
        return values

    def _put(self, name: str, value: Any, s: int, slot: int) -> int:
        """Puts one value, or the parts of a nested one, into a slot; returns how many columns that were."""
        plain = self._plain.get(name)
        if plain is None:
            parts = self._fit_nested(name, value)
            for path, part in parts.items():
                self._buffers[path][s, slot] = part
            return len(parts)
        column, buffer, exact = plain
        if type(value) in exact or (type(value) is np.ndarray and value.dtype == buffer.dtype and value.shape == column.shape):
            buffer[s, slot] = value
        else:
            buffer[s, slot] = fit(name, column, value, None)
        return 1

    def _left_out(self, given: Collection[str]) -> list[str]:
        """Writable columns that are not among the names `given`."""
        able = [name for name in self._others if self._columns[name].writable and name.split("/")[0] not in ("action", "reward")]
        return [name for name in able if not any(name == part or name.startswith(f"{part}/") for part in given)]

    def _leave_open(self, given: Collection[str], place: tuple[int, int]) -> int:
        """Puts zeros into them; returns how many they are."""
        left = self._left_out(given)
        for name in left:
            self._buffers[name][place] = 0
        return len(left)

    def _incomplete(self, given: Collection[str]) -> SchemaMismatch:
        missing = [name for name in self._others if not any(name == part or name.startswith(f"{part}/") for part in given)]
        return SchemaMismatch(f"column {', '.join(map(repr, missing))} was not given; pass it as a keyword argument")

    def _begin(self, s: int, seed: int | None) -> None:
        self._episode[s] = secrets.randbits(62) + 1
        self._position[s] = 0
        self._run_start[s] = self._counts[s]
        self._seed[s] = -1 if seed is None else seed
        self._state[s] = _RUNNING

    def _cut(self, s: int, ending: int) -> None:
        """Ends the current run of a stream at its last finished row; the episode goes on in the next run if `ending` is OPEN."""
        start, stop = int(self._run_start[s]), int(self._counts[s])
        if stop > start:
            run = (int(self._episode[s]), int(self._position[s]), stop - start, ending, self._policy_version, int(self._seed[s]))
            self._runs[s].append(run)
        self._position[s] += stop - start
        self._run_start[s] = stop

    def _close_episode(self, s: int, ending: int) -> None:
        """The pending observation becomes the closing row."""
        slot = int(self._counts[s])
        for name in self._others:
            self._buffers[name][s, slot] = 0
        self._buffers["terminated" if ending == TERMINATED else "truncated"][s, slot] = True
        self._counts[s] = slot + 1
        self._cut(s, ending)
        self._state[s] = _IDLE

    def _interrupt(self, s: int) -> None:
        if int(self._position[s]) == 0 and self._counts[s] == self._run_start[s]:
            self._state[s] = _IDLE  # reset without a step: there is no episode to close
        else:
            self._close_episode(s, TRUNCATED)

    def _due(self, rows: int) -> bool:
        return rows >= self._block_rows or (rows > 0 and time.monotonic() - self._last_sent >= self._interval_s)

    def _make_room(self, s: int) -> None:
        count = int(self._counts[s])
        if count + 2 >= self._capacity or self._due(count if self._streams == 1 else int(self._counts.sum())):
            self._send()
        else:
            self._sink.poll()

    def _send_at_episode_end(self) -> None:
        if time.monotonic() - self._last_sent >= EPISODE_END_GAP_S:
            try:
                self._send()
            except NotReady:
                pass  # the step is recorded; the next call sends, waits and reports

    def _send(self, timeout_s: float | None = None) -> None:
        for s in np.flatnonzero(self._state == _RUNNING).tolist():
            self._cut(s, OPEN)
        counts = self._counts
        filled = np.flatnonzero(counts)
        if len(filled):
            runs = np.array([run for s in filled.tolist() for run in self._runs[s]], RUN_DTYPE)
            columns = {name: self._gather(buffer, filled) for name, buffer in self._buffers.items()}
            self._sink.send(StepBlock(columns, runs, self._actor), self.timeout_s if timeout_s is None else timeout_s)
            pending = filled[self._state[filled] == _RUNNING]
            for name in self._observations:
                self._buffers[name][pending, 0] = self._buffers[name][pending, counts[pending]]
            for s in filled.tolist():
                self._runs[s].clear()
            counts[:] = 0
            self._run_start[:] = 0
        else:
            self._sink.poll()
        self._last_sent = time.monotonic()

    def _gather(self, buffer: npt.NDArray[Any], filled: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        if len(filled) == 1:
            s = int(filled[0])
            return buffer[s, : self._counts[s]]
        return np.concatenate([buffer[s, : self._counts[s]] for s in filled.tolist()])
