"""Writer: turns an actor's loop into blocks of rows. The same for the embedded store and the client; knows neither.

What a value needs is decided when the writer is made: one of the type, dtype and shape of its column is put into its place as it is, and
everything else goes through `fit`, which says what is wrong with it.
"""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np

from replaystore.errors import InvalidArgument, NotReady, SchemaMismatch
from replaystore.fitting import Fitting
from replaystore.schema.columns import Column, fit
from replaystore.staging import Staging
from replaystore.steps import OPEN, TERMINATED, TRUNCATED, StepBlock

BLOCK_TARGET_BYTES = 512 << 10
"""Rows are sent in blocks of about this size, 32 to 4096 rows, unless time or an episode's end comes first."""

EPISODE_END_GAP_S = 0.02
"""An episode's end sends the block at once, but not more often than this."""

_FLAGS = (bool, np.bool_)
_now = time.monotonic


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
    at once. With ``interval_s=math.inf`` only full blocks and `flush` do: which rows share a block never depends on the clock. A call
    that raises NotReady, Overloaded, DeadlineExceeded or StorageError has recorded nothing: it may simply be made again.
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
        self._gap_s = math.inf if interval_s == math.inf else EPISODE_END_GAP_S
        row_bytes = sum(column.row_bytes for column in columns.values())
        rows = min(max(BLOCK_TARGET_BYTES // row_bytes, 32), 4096) if block_rows is None else max(1, block_rows)
        self._block_rows = rows
        capacity = max(4, -(-rows // streams)) + 2  # a step row, and room for the closing row or the observation after it
        self._capacity = capacity
        self._staging = Staging(columns, streams, capacity)
        if not self._staging.observations:
            raise InvalidArgument("a table needs an 'observation' column (or nested ones below it) to be written by a Writer")
        self._fitting = Fitting(columns, self._staging)
        self._usual, self._batched = self._fitting.usual, self._fitting.batched
        self._own = self._fitting.own
        self._lanes: list[tuple[Any, Any, Any, Any, Any] | None] = [None] * streams
        self._wanted = len(self._staging.others)
        self._no_flags, self._all = bytes(streams), np.arange(streams)
        self._poll = sink.poll
        self._last_sent = _now()
        self._due_at = self._last_sent + interval_s
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
        values = self._fitting.nested("observation", observation)
        staging = self._staging
        staging.apart()
        self._make_room(s)
        if staging.is_running[s]:
            self._interrupt(s)
            self._make_room(s)
        self._begin(s, seed)
        slot = staging.count_of[s]
        for name, value in values.items():
            staging.buffers[name][slot, s] = value

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
        s = stream if type(stream) is int and 0 <= stream < self._streams and not self._closed else self._check_stream(stream)
        staging = self._staging
        if staging.together >= 0:
            staging.apart()
        if not staging.is_running[s]:
            raise InvalidArgument(f"stream {s} has no open episode: call reset(observation, stream={s}) first")
        slot = staging.count_of[s]  # until it counts, what is put into it is not recorded
        rows = staging.rows
        if slot + 3 > self._capacity or rows >= self._block_rows or (rows and _now() >= self._due_at):
            self._send()
            slot = staging.count_of[s]
        else:
            self._poll()
        to_actions, to_rewards, to_observations, actions, observations = self._lanes[s] or self._new_lane(s)
        listed = None
        a_types, a_dtype, a_shape, r_types, r_dtype, r_shape, o_types, o_dtype, o_shape = self._usual
        given = 4
        if type(action) in a_types and (not a_shape or (action.dtype is a_dtype and action.shape == a_shape)):
            if actions is None:
                to_actions[slot] = action
            else:
                listed = action.tobytes()
        else:
            given += self._fitting.put("action", action, s, slot) - 1
        if type(reward) in r_types and (not r_shape or (reward.dtype is r_dtype and reward.shape == r_shape)):
            to_rewards[slot] = reward
        else:
            given += self._fitting.put("reward", reward, s, slot) - 1
        if type(terminated) not in _FLAGS:
            terminated = bool(fit("terminated", self._columns["terminated"], terminated, None))
        if type(truncated) not in _FLAGS:
            truncated = bool(fit("truncated", self._columns["truncated"], truncated, None))
        if extras:
            if not self._own.isdisjoint(extras):
                raise self._fitting.not_extra(extras)
            for name, value in extras.items():
                given += self._fitting.put(name, value, s, slot)
        if given != self._wanted:
            names = {"action", "reward", "terminated", "truncated", *extras}
            given += self._fitting.leave_open(names, s, slot)
            if given != self._wanted:
                raise self._fitting.incomplete(names)
        if (
            type(next_observation) in o_types
            and (not o_shape or (next_observation.dtype is o_dtype and next_observation.shape == o_shape))
        ):  # fmt: skip
            if observations is None:
                to_observations[slot + 1] = next_observation
            else:
                observations.append(next_observation.tobytes())
        else:
            self._fitting.put("observation", next_observation, s, slot + 1)
        if listed is not None:
            actions.append(listed)
        staging.count_of[s] = slot + 1
        staging.rows += 1
        if terminated or truncated:
            staging.flag(s, slot, terminated=terminated, truncated=truncated)
            staging.close(s, TERMINATED if terminated else TRUNCATED, self._policy_version)
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
        n, staging = self._streams, self._staging
        if not self._own.isdisjoint(extras):
            raise self._fitting.not_extra(extras)
        arguments = (actions, rewards, terminateds, truncateds, next_observations, extras)
        if reset_mask is None and staging.together >= 0 and self._step_together(*arguments):
            return
        mask = np.zeros(n, bool) if reset_mask is None else np.asarray(reset_mask, bool)
        if mask.shape != (n,):
            raise SchemaMismatch(f"reset_mask takes shape ({n},), got {mask.shape}")
        idle = np.flatnonzero(~(staging.running | mask))
        if len(idle):
            raise InvalidArgument(f"stream {idle[0]} has no open episode: reset it, or set reset_mask[{idle[0]}]")
        given = {"reward": rewards, "terminated": terminateds, "truncated": truncateds, **extras}
        values = {**self._fitting.nested("action", actions, n), **self._fitting.extras(given, n)}
        following = self._fitting.nested("observation", next_observations, n)
        if len(values) != self._wanted:
            left = self._fitting.left_out(values)
            values |= {name: np.zeros((n, *self._columns[name].shape), self._columns[name].dtype) for name in left}
            if len(values) != self._wanted:
                raise self._fitting.incomplete(values)
        staging.apart()
        staging.settle_all()
        if int(staging.counts.max()) + 3 > self._capacity or self._due():
            self._send()
        begun = np.flatnonzero(mask)
        for s in begun.tolist():
            if staging.is_running[s]:
                self._interrupt(s)
            self._begin(s, None)
        terminated, truncated = values.pop("terminated"), values.pop("truncated")
        active: Any = slice(None) if not len(begun) else np.flatnonzero(~mask)
        slots, places = staging.counts[active], self._all[active]
        for name, value in values.items():
            staging.buffers[name][slots, places] = value[active]
        staging.counts[active] += 1
        staging.rows += len(slots)
        for name, value in following.items():
            staging.buffers[name][staging.counts, self._all] = value
        ended = places[(terminated | truncated)[active]].tolist()
        for s in ended:
            staging.flag(s, staging.count_of[s] - 1, terminated=terminated[s], truncated=truncated[s])
            staging.close(s, TERMINATED if terminated[s] else TRUNCATED, self._policy_version)
        if ended:
            self._send_at_episode_end()
        staging.join()

    def _step_together(
        self, actions: Any, rewards: Any, terminateds: Any, truncateds: Any, following: Any, extras: Mapping[str, Any]
    ) -> bool:
        """The usual case of `append_batch`: a row each of streams that stand alike, of arrays that fit as they are, with room for them.

        Returns:
            Whether it was that. If not, nothing was recorded.
        """
        staging = self._staging
        slot = staging.together
        rows = slot * self._streams
        if slot + 3 > self._capacity or rows >= self._block_rows or (rows and _now() >= self._due_at):
            return False
        if len(extras) + 4 != self._wanted:
            return False
        batched = self._batched
        for name, value in (("action", actions), ("reward", rewards), *extras.items()):
            target = batched.get(name)
            if target is None or type(value) is not np.ndarray or value.dtype is not target[1] or value.shape != target[2]:
                return False
            target[0][slot] = value
        flags, bits = self._no_flags, batched["terminated"]
        for value in (terminateds, truncateds):
            if type(value) is not np.ndarray or value.dtype is not bits[1] or value.shape != bits[2] or value.tobytes() != flags:
                return False
        target = batched.get("observation")
        if target is None or type(following) is not np.ndarray or following.dtype is not target[1] or following.shape != target[2]:
            return False
        target[0][slot + 1] = following
        staging.together = slot + 1
        return True

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
            self._staging.apart()
            for s in np.flatnonzero(self._staging.running).tolist():
                self._staging.cut(s, OPEN, self._policy_version)
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
        self._staging.apart()
        for s in np.flatnonzero(self._staging.running).tolist():
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

    def _new_lane(self, s: int) -> tuple[Any, Any, Any, Any, Any]:
        lane = self._lanes[s] = self._fitting.lane(s)
        return lane

    def _begin(self, s: int, seed: int | None) -> None:
        self._staging.begin(s, secrets.randbits(62) + 1, -1 if seed is None else seed)

    def _interrupt(self, s: int) -> None:
        staging = self._staging
        if staging.has_steps(s):
            staging.close(s, TRUNCATED, self._policy_version)
        else:
            staging.is_running[s] = False  # reset without a step: there is no episode to close

    def _due(self) -> bool:
        rows = self._staging.rows
        return rows >= self._block_rows or (rows > 0 and _now() >= self._due_at)

    def _make_room(self, s: int) -> None:
        if self._staging.count_of[s] + 3 > self._capacity or self._due():
            self._send()
        else:
            self._poll()

    def _send_at_episode_end(self) -> None:
        if _now() - self._last_sent >= self._gap_s:
            try:
                self._send()
            except NotReady:
                pass  # the step is recorded; the next call sends, waits and reports

    def _send(self, timeout_s: float | None = None) -> None:
        staging = self._staging
        staging.apart()
        if staging.rows:
            columns, runs = staging.block(self._policy_version)
            self._sink.send(StepBlock(columns, runs, self._actor), self.timeout_s if timeout_s is None else timeout_s)
            staging.sent()
        else:
            self._poll()
        self._last_sent = _now()
        self._due_at = self._last_sent + self._interval_s
