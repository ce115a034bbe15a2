"""Which row follows which: the book of open episodes, and the plan for a block of runs. A plan changes nothing until it is applied."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from replaystore.core.finished import FinishedEpisodes
from replaystore.core.jit import kernel
from replaystore.errors import InvalidArgument
from replaystore.schema.columns import is_reward
from replaystore.steps import OPEN, RUN_DTYPE, StepBlock

Ids = npt.NDArray[np.int64]

REMEMBERED_EPISODES = 1 << 16
"""Finished episodes remembered, so that a block sent again after a lost reply is known. A writer never has more in flight."""

MAX_OPEN_EPISODES = 1 << 20
"""Beyond this the episodes that have waited longest are given up: their writers died without closing them."""


class OpenEpisode(NamedTuple):
    """An episode that is going on."""

    first_step: int
    """Step id of its first row."""
    last_step: int
    """Step id of its newest row."""
    rows: int
    total: float
    """Sum of its rewards so far."""
    actor: int
    seed: int
    start_time: float


@dataclass(frozen=True, slots=True)
class FinishedEpisode:
    """An episode that a block finishes: one row of episodes/."""

    episode: int
    ending: int
    policy_version: int
    end_time: float
    state: OpenEpisode


@dataclass(slots=True)
class Plan:
    """What appending a block would do."""

    block: StepBlock
    """The block without the rows that the table already has."""
    rows: int
    """How many rows it has."""
    duplicate_rows: int
    previous: Ids
    """(runs,) step id of the row before each run's first, -1 at an episode's start."""
    starts: Ids
    """(runs,) step id of each run's first row."""
    changes: dict[int, OpenEpisode | None]
    """Open episodes as they will be; None: finished."""
    finished: list[FinishedEpisode]
    runs: list[tuple[int, int, int, int, int, int]]
    """The block's runs as numbers, field by field as in `RUN_DTYPE`."""
    numbers: npt.NDArray[np.int64]
    """``(fields, runs)``: the same as an array."""


class EpisodeBook:
    """Open episodes by number, and the newest finished ones with their number of rows."""

    def __init__(self) -> None:
        self.open: dict[int, OpenEpisode] = {}
        self._finished = FinishedEpisodes(REMEMBERED_EPISODES)

    def remember(self, episode: int, rows: int) -> None:
        """Notes a finished episode of so many rows, the closing row counted in."""
        self._finished.add(episode, rows)

    def plan(self, block: StepBlock, next_step: int, now: float, seeds: Mapping[int, int] | None = None) -> Plan:
        """What appending `block` at `next_step` would do.

        Raises:
            InvalidArgument: a run does not continue its episode; says which position was expected.
        """
        runs = block.runs
        described = runs.tolist()
        skips = None if self._continue(described) else self._skips(runs)
        duplicates = 0
        if skips is not None:
            duplicates = int(skips.sum())
            block = _without(block, skips)
            runs = block.runs
            described = runs.tolist()
        numbers = _numbers(runs, described)
        if len(described) == 1:
            rows_of_all, starts = described[0][2], np.array([next_step])
        else:
            rows_of_all, starts = int(numbers[2].sum()), np.cumsum(numbers[2]) - numbers[2] + next_step
        totals = _sums(row_rewards(block.columns), starts - next_step) if described else []
        before_runs: list[int] = []
        changes: dict[int, OpenEpisode | None] = {}
        finished: list[FinishedEpisode] = []
        for (episode, _, rows, ending, version, seed), start, total in zip(described, starts.tolist(), totals, strict=True):
            known = changes[episode] if episode in changes else self.open.get(episode)
            last = start + rows - 1
            if known is None:
                before_runs.append(-1)
                chosen = seed if seeds is None else seeds.get(episode, -1)
                state = OpenEpisode(start, last, rows, total, block.actor, chosen, now)
            else:
                begun, before, rows_before, total_before, actor, known_seed, since = known
                before_runs.append(before)
                state = OpenEpisode(begun, last, rows_before + rows, total_before + total, actor, known_seed, since)
            if ending == OPEN:
                changes[episode] = state
            else:
                changes[episode] = None
                finished.append(FinishedEpisode(episode, ending, version, now, state))
        previous = np.array(before_runs, np.int64)
        return Plan(block, rows_of_all, duplicates, previous, starts, changes, finished, described, numbers)

    def _continue(self, runs: list[tuple[int, int, int, int, int, int]]) -> bool:
        """Whether each run is of an episode of its own and begins where that one stands, as nearly all do: nothing to skip or to refuse."""
        if len(runs) > 1 and len({run[0] for run in runs}) < len(runs):
            return False
        begun = []
        for episode, first, *_ in runs:
            known = self.open.get(episode)
            if first != (0 if known is None else known.rows):
                return False
            if known is None:
                begun.append(episode)
        return not (begun and self._finished.has_any(begun))

    def _skips(self, runs: npt.NDArray[np.void]) -> Ids | None:
        """Rows at the head of each run that the table already has; None when there are none."""
        skips: dict[int, int] = {}
        ahead: dict[int, int] = {}  # rows of episodes, as they will be after the runs before this one
        ended: set[int] = set()
        for index, (episode, first, rows, ending) in enumerate(
            zip(runs["episode"].tolist(), runs["first"].tolist(), runs["rows"].tolist(), runs["ending"].tolist(), strict=True)
        ):
            have, finished = ahead.get(episode, -1), self._finished.rows_of(episode)
            if have < 0:
                known = self.open.get(episode)
                have = known.rows if known is not None else finished or 0
            if first > have:
                raise InvalidArgument(
                    f"runs.first[{index}]={first}: episode {episode} has {have} rows here, so its next run must begin at or before {have}; "
                    "send the rows in between first"
                )
            over = finished is not None or episode in ended
            if over and first + rows > have:
                raise InvalidArgument(f"runs.rows[{index}]={rows}: episode {episode} ended after {have} rows; begin a new episode")
            skip = min(rows, have - first)
            if skip:
                skips[index] = skip
                if skip == rows and ending != OPEN and not over:
                    raise InvalidArgument(
                        f"runs.ending[{index}]: episode {episode} went on after row {have - 1}, which this run calls its last"
                    )
            ahead[episode] = max(have, first + rows)
            if ending != OPEN:
                ended.add(episode)
        if not skips:
            return None
        out = np.zeros(len(runs), np.int64)
        out[list(skips)] = list(skips.values())
        return out

    def apply(self, plan: Plan) -> None:
        """Makes a plan's changes."""
        for episode, state in plan.changes.items():
            if state is None:
                self.open.pop(episode, None)
            else:
                self.open[episode] = state
        for done in plan.finished:
            self.remember(done.episode, done.state.rows)
        while len(self.open) > MAX_OPEN_EPISODES:
            self.open.pop(next(iter(self.open)))

    def to_json(self) -> list[list[Any]]:
        """The open episodes, for a checkpoint."""
        return [[e, s.first_step, s.last_step, s.rows, s.total, s.actor, s.seed, s.start_time] for e, s in self.open.items()]

    def load(self, data: list[list[Any]]) -> None:
        """The inverse of `to_json`."""
        self.open = {row[0]: OpenEpisode(*row[1:]) for row in data}


def _numbers(runs: npt.NDArray[np.void], described: list[Any]) -> npt.NDArray[np.int64]:
    """Runs, and the same as tuples, as ``(fields, runs)``."""
    if len(described) == 1:
        return np.array(described, np.int64).reshape(-1, 1)
    names = RUN_DTYPE.names or ()
    numbers = np.empty((len(names), len(runs)), np.int64)
    for field, name in zip(numbers, names, strict=True):
        field[:] = runs[name]
    return numbers


@kernel
def _meta(numbers: Any, starts: Any, previous: Any, wide: Any, position: Any, kind: Any) -> None:
    at = 0
    for run in range(len(starts)):
        row, rows = starts[run], numbers[2, run]
        for i in range(rows):
            wide[0, at] = numbers[0, run]
            wide[1, at] = row + i - 1
            wide[2, at] = numbers[4, run]
            position[at] = numbers[1, run] + i
            kind[at] = 0
            at += 1
        wide[1, at - rows] = previous[run]
        if numbers[3, run] != 0:
            kind[at - 1] = 1


def row_meta(plan: Plan) -> dict[str, npt.NDArray[Any]]:
    """What the rows of a plan have in ``meta/``, as far as it follows from their runs: by name, ``(rows,)`` each."""
    rows = plan.rows
    wide, position, kind = np.empty((3, rows), np.int64), np.empty(rows, np.int32), np.empty(rows, np.uint8)
    _meta(plan.numbers, plan.starts, plan.previous, wide, position, kind)
    return {"episode": wide[0], "step_in_episode": position, "previous": wide[1], "kind": kind, "policy_version": wide[2]}


def row_rewards(columns: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """``(rows,)``: the reward of each row; components of a vector reward, and the rewards of several agents, are added up."""
    parts = [columns[name] for name in _rewards(tuple(columns))]
    flat = [part.reshape(len(part), -1).sum(axis=1, dtype=np.float64) if part.ndim > 1 else part for part in parts]
    return flat[0] if len(flat) == 1 else np.asarray(np.sum(flat, axis=0, dtype=np.float64))


@lru_cache(maxsize=512)
def _rewards(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in names if is_reward(name))


def _sums(rewards: npt.NDArray[Any], offsets: Ids) -> list[float]:
    """Sum of rewards of each run."""
    if len(rewards) == 1:
        return [float(rewards[0])]
    return np.add.reduceat(rewards, offsets, dtype=np.float64).tolist()  # type: ignore[no-any-return]


def _without(block: StepBlock, skips: Ids) -> StepBlock:
    """The block without the first ``skips[i]`` rows of run i."""
    runs = block.runs.copy()
    stops = np.cumsum(runs["rows"])
    keep = np.ones(int(stops[-1]), bool)
    for index in np.flatnonzero(skips):
        begin = int(stops[index] - runs["rows"][index])
        keep[begin : begin + int(skips[index])] = False
    runs["first"] += skips
    runs["rows"] -= skips
    return StepBlock({name: array[keep] for name, array in block.columns.items()}, runs[runs["rows"] > 0], block.actor)


def runs_of_rows(episode: Ids, step_in_episode: npt.NDArray[np.int32], kind: npt.NDArray[np.uint8]) -> tuple[Ids, Ids]:
    """Start offset and number of rows of each run in rows read back from disk."""
    if not len(episode):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    breaks = (episode[1:] != episode[:-1]) | (step_in_episode[1:] != step_in_episode[:-1] + 1) | (kind[:-1] == 1)
    starts = np.concatenate([[0], np.flatnonzero(breaks) + 1]).astype(np.int64)
    return starts, np.diff(np.append(starts, len(episode)))
