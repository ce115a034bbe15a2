"""Staging: the rows of a writer's streams until they go into a block. Knows no types, no clocks and no tables.

There is one buffer per column, ``(slots, streams, *shape)``: a step of all streams is one assignment per column, and goes to one stretch of
memory. The observation that follows a step lies in the next slot already, where it becomes that row's (or the closing row's) without
another copy. A block has the rows of each stream next to each other, so it is where rows are put in the other order, once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from replaystore.schema.columns import Column, is_observation
from replaystore.steps import OPEN, RUN_DTYPE, TERMINATED, TRUNCATED

Array = npt.NDArray[Any]
Ids = npt.NDArray[np.int64]

_FLAGS = ("terminated", "truncated")


class Staging:
    """Buffers, and where each stream stands in them. `counts`, `running` and the like are ``(streams,)``.

    Attributes:
        buffers: by column, ``(capacity, streams, *shape)``; those of the flags are False wherever no flag was set.
        counts, count_of: rows finished, as int64 and as a memoryview of it; slot ``counts[s]`` holds the pending observation.
        running, is_running: whether the stream's episode goes on, likewise.
        rows: rows finished in all streams.
        listed: small arrays that streams gave one by one and that are not in the buffers yet, as bytes: by column, a list per stream.
            The last is for row ``counts[s]`` − 1; of observations it is the pending one.
        together: when all streams run and have as many rows, how many, and `counts` and `rows` are not kept meanwhile; else −1.
    """

    def __init__(self, columns: Mapping[str, Column], streams: int, capacity: int) -> None:
        self.streams, self.capacity = streams, capacity
        self.buffers: dict[str, Array] = {name: np.zeros((capacity, streams, *c.shape), c.dtype) for name, c in columns.items()}
        self.observations = [name for name in columns if is_observation(name)]
        self.others = [name for name in columns if name not in self.observations]
        self.counts = np.zeros(streams, np.int64)
        self.count_of = memoryview(self.counts.data)
        self.running = np.zeros(streams, np.bool_)
        self.is_running = memoryview(self.running.data)
        self.rows = 0
        self.together = -1
        self.listed: dict[str, list[list[bytes]]] = {}
        self._start = np.zeros(streams, np.int64)  # slot at which the current run of the stream begins
        self._episode = np.zeros(streams, np.int64)
        self._position = np.zeros(streams, np.int64)  # step in episode of the row in that slot
        self._seed = np.full(streams, -1, np.int64)
        self._cut: list[tuple[int, int, int, int, int, int]] = []  # runs that are over, as RUN_DTYPE
        self._cut_streams: list[int] = []
        self._flagged = False
        self._out: dict[str, Array] = {}

    # -- where streams stand

    def apart(self) -> None:
        """From here on `counts` and `rows` are kept."""
        if self.together >= 0:
            self.counts.fill(self.together)
            self.rows = self.together * self.streams
            self.together = -1

    def settle_all(self) -> None:
        """Puts all that is listed into the buffers."""
        for name, lists in self.listed.items():
            for s, rows in enumerate(lists):
                if rows:
                    self.settle(name, s)

    def settle(self, name: str, s: int) -> None:
        """Puts what is listed of a column and a stream into its buffer."""
        rows, buffer = self.listed[name][s], self.buffers[name]
        stop = self.count_of[s] + (name in self.observations)
        buffer[stop - len(rows) : stop, s] = np.frombuffer(b"".join(rows), buffer.dtype).reshape(len(rows), *buffer.shape[2:])
        rows.clear()

    def join(self) -> None:
        """Streams that stand alike go on together. Nothing is listed."""
        count = self.count_of[0]
        if self.running.all() and (self.counts == count).all():
            self.together = count

    def begin(self, s: int, episode: int, seed: int) -> None:
        """An episode begins; its first observation is to be put into slot ``counts[s]``."""
        self._episode[s], self._position[s], self._seed[s] = episode, 0, seed
        self._start[s] = self.counts[s]
        self.running[s] = True

    def has_steps(self, s: int) -> bool:
        """Whether the running episode of a stream has a row."""
        return bool(self._position[s] > 0 or self.counts[s] > self._start[s])

    def flag(self, s: int, slot: int, *, terminated: bool, truncated: bool) -> None:
        """Sets the flags of a row."""
        self._flagged = True
        self.buffers["terminated"][slot, s], self.buffers["truncated"][slot, s] = terminated, truncated

    def close(self, s: int, ending: int, version: int) -> None:
        """The episode ends: the pending observation becomes its closing row."""
        for name, lists in self.listed.items():
            if lists[s]:
                self.settle(name, s)
        slot = self.count_of[s]
        for name in self.others:
            self.buffers[name][slot, s] = 0
        self.flag(s, slot, terminated=ending == TERMINATED, truncated=ending == TRUNCATED)
        self.count_of[s] = slot + 1
        self.rows += 1
        self.cut(s, ending, version)
        self.running[s] = False

    def cut(self, s: int, ending: int, version: int) -> None:
        """Ends the current run of a stream at its last finished row; the episode goes on in the next run if `ending` is OPEN."""
        start, stop = int(self._start[s]), self.count_of[s]
        if stop > start:
            self._cut.append((int(self._episode[s]), int(self._position[s]), stop - start, ending, version, int(self._seed[s])))
            self._cut_streams.append(s)
        self._position[s] += stop - start
        self._start[s] = stop

    # -- blocks

    def block(self, version: int) -> tuple[dict[str, Array], npt.NDArray[np.void]]:
        """The rows finished, stream by stream: by column ``(rows, *shape)``, and their runs. The arrays are used again by the next block.

        Nothing counts as sent before `sent`. Runs that go on are of policy `version`.
        """
        self.settle_all()
        tails = np.flatnonzero(self.running & (self.counts > self._start))
        runs = np.empty(len(tails), RUN_DTYPE)
        runs["episode"], runs["first"], runs["rows"] = self._episode[tails], self._position[tails], (self.counts - self._start)[tails]
        runs["ending"], runs["policy_version"], runs["seed"] = OPEN, version, self._seed[tails]
        if self._cut:
            runs = np.concatenate([np.array(self._cut, RUN_DTYPE), runs])
            if self.streams > 1:
                runs = runs[np.argsort(np.concatenate([self._cut_streams, tails]), kind="stable")]
        return self._columns(), runs

    def _columns(self) -> dict[str, Array]:
        rows, streams, count = self.rows, self.streams, self.count_of[0]
        if streams == 1:
            return {name: buffer[:rows, 0] for name, buffer in self.buffers.items()}
        if not self._out:
            self._out = {name: np.empty((b.shape[0] * streams, *b.shape[2:]), b.dtype) for name, b in self.buffers.items()}
        found = {name: out[:rows] for name, out in self._out.items()}
        if (self.counts == count).all():
            for name, out in found.items():
                buffer = self.buffers[name]
                out.reshape(streams, count, *buffer.shape[2:])[...] = buffer[:count].swapaxes(0, 1)
            return found
        stops = np.cumsum(self.counts)
        places = (np.arange(rows) - np.repeat(stops - self.counts, self.counts)) * streams + np.repeat(np.arange(streams), self.counts)
        for name, out in found.items():
            buffer = self.buffers[name]
            np.take(buffer.reshape(-1, *buffer.shape[2:]), places, axis=0, out=out, mode="clip")
        return found

    def sent(self) -> None:
        """What `block` gave is on its way: begins anew, with the pending observations."""
        counts = self.counts
        pending = np.flatnonzero(self.running & (counts > 0))
        for name in self.observations:
            buffer = self.buffers[name]
            buffer[0, pending] = buffer[counts[pending], pending]
        self._position += np.where(self.running, counts - self._start, 0)
        self._start[:] = 0
        counts[:] = 0
        self.rows = 0
        self._cut.clear()
        self._cut_streams.clear()
        if self._flagged:
            self._flagged = False
            for name in _FLAGS:
                self.buffers[name].fill(False)
