"""A table in plain lists and dictionaries: what it must hold, answer and refuse, step by step. Knows no files, links or trees."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

import replaystore as rs
from replaystore.steps import OPEN, RUN_DTYPE, TERMINATED, StepBlock
from tests.naive import Episode, Step

CONTEXT_ROWS = 1024
"""Spent rows that stay before the oldest step left."""

SMALLEST, LARGEST = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Row:
    """One row as it must stand on disk."""

    episode: int
    t: int
    observation: tuple[int, int]
    action: int
    reward: float
    terminated: bool
    truncated: bool
    kind: int
    previous: int


@dataclass(frozen=True)
class Piece:
    """A stretch of one episode on its way in: rows [first, first + rows), and how they leave it."""

    episode: int
    first: int
    rows: int
    ending: int = OPEN
    flagged: bool = True
    """Whether the last step says how the episode ended; an interrupted one does not."""

    def steps(self) -> range:
        return range(self.first, self.first + self.rows - (self.ending != OPEN))


def observation(episode: int, t: int) -> tuple[int, int]:
    return episode, t


def action(episode: int, t: int) -> int:
    return 1000 * episode + t


def reward(episode: int, t: int) -> float:
    return float((3 * episode + t) % 7 - 3)


def episode_note(episode: int, t: int) -> int:
    return (7 * episode + t) % 100


def flags(piece: Piece, t: int) -> tuple[bool, bool]:
    """Terminated and truncated of row t, which may be the closing row."""
    closing = piece.ending != OPEN and t == piece.first + piece.rows - 1
    last = piece.ending != OPEN and t == piece.first + piece.rows - 2
    shown = closing or (last and piece.flagged)
    return shown and piece.ending == TERMINATED, shown and piece.ending not in (OPEN, TERMINATED)


def block_of(pieces: list[Piece]) -> StepBlock:
    """The pieces as a writer would send them."""
    places = [(piece, t) for piece in pieces for t in range(piece.first, piece.first + piece.rows)]
    real = [t in piece.steps() for piece, t in places]
    columns = {
        "observation": np.array([observation(p.episode, t) for p, t in places], "f4").reshape(-1, 2),
        "action": np.array([action(p.episode, t) if is_step else 0 for (p, t), is_step in zip(places, real, strict=True)], "i8"),
        "reward": np.array([reward(p.episode, t) if is_step else 0 for (p, t), is_step in zip(places, real, strict=True)], "f4"),
        "terminated": np.array([flags(p, t)[0] for p, t in places], bool),
        "truncated": np.array([flags(p, t)[1] for p, t in places], bool),
        "note": np.array([episode_note(p.episode, t) for p, t in places], "i2"),
    }
    runs = np.array([(p.episode, p.first, p.rows, p.ending, p.episode % 5, p.episode % 3 - 1) for p in pieces], RUN_DTYPE)
    return StepBlock(columns, runs, 7)


@dataclass
class Finished:
    episode: int
    first_step: int
    last_step: int
    length: int
    total: float
    ending: int
    seed: int


@dataclass
class Model:
    """What the table must be like."""

    config: rs.TableConfig
    rows: list[Row] = field(default_factory=list)
    first: int = 0
    episodes: dict[int, Episode] = field(default_factory=dict)
    ids: dict[int, list[int]] = field(default_factory=dict)
    """Step ids of each episode's rows."""
    open: set[int] = field(default_factory=set)
    finished: list[Finished] = field(default_factory=list)
    masses: dict[int, float] = field(default_factory=dict)
    """Of every anchor."""
    drawn: Counter[int] = field(default_factory=Counter)
    inserted: int = 0
    sampled: int = 0
    since: tuple[int, int] = (0, 0)
    """Inserted and sampled that the limiter does not count."""
    highest: float = 0.0
    removed: dict[int, int] = field(default_factory=dict)
    """1 deleted, 2 used up; other rows are not in it."""
    notes: dict[int, int] = field(default_factory=dict)
    """What was written into rows that were there."""

    def __post_init__(self) -> None:
        self.highest = self.mass(1.0)

    # -- numbers

    @property
    def prioritized(self) -> rs.Prioritized:
        selector = self.config.selectors["td"]
        assert isinstance(selector, rs.Prioritized)
        return selector

    def mass(self, priority: float) -> float:
        return bounded(priority + self.prioritized.epsilon, self.prioritized.alpha)

    @property
    def anchors(self) -> list[int]:
        return sorted(self.masses)

    @property
    def size(self) -> int:
        return sum(row.kind == 0 and step not in self.removed for step, row in enumerate(self.rows[self.first :], self.first))

    def successor(self, step: int) -> int:
        row = self.rows[step]
        later = self.ids[row.episode][row.t + 1 :]
        if not later or 1 in (self.removed.get(step), self.removed.get(later[0])):
            return 0
        return step - later[0] if self.removed.get(step) == 2 else later[0] - step

    def note(self, step: int) -> int:
        return self.notes.get(step, episode_note(self.rows[step].episode, self.rows[step].t))

    def cut(self, step: int) -> tuple[Episode, int]:
        """The episode of a step as far as it goes until a row that was deleted, and the place of the last such row before the step."""
        row = self.rows[step]
        gone = [t for t, other in enumerate(self.ids[row.episode]) if self.removed.get(other) == 1]
        episode = self.episodes[row.episode]
        ahead = [t for t in gone if t > row.t]
        return (replace(episode, steps=episode.steps[: ahead[0]], ended=False) if ahead else episode), max(
            [t for t in gone if t < row.t], default=-1
        )

    # -- the limiter

    def _bounds(self) -> tuple[int, float, float, float]:
        limiter = self.config.rate_limiter
        ratio, buffer = 1.0, math.inf
        if isinstance(limiter, rs.SampleToInsertRatio):
            ratio, buffer = limiter.samples_per_insert, limiter.error_buffer
        start = ratio * limiter.min_size_to_sample
        return limiter.min_size_to_sample, ratio, start - buffer, start + buffer

    def may_insert(self) -> bool:
        least, ratio, _, high = self._bounds()
        return self.size < least or not self.masses or (self.inserted + 1 - self.since[0]) * ratio - (self.sampled - self.since[1]) <= high

    def may_sample(self, n: int, prioritized: bool) -> bool:
        least, ratio, low, _ = self._bounds()
        allowed = self.size >= least and (self.inserted - self.since[0]) * ratio - (self.sampled - self.since[1]) - n >= low
        return allowed and bool(self.masses) and (not prioritized or sum(self.masses.values()) > 0)

    # -- what happens

    def have(self, episode: int) -> int:
        return len(self.ids.get(episode, ()))

    def append(self, pieces: list[Piece]) -> tuple[int, int]:
        """Rows that are new, and rows known before."""
        applied = duplicates = 0
        for piece in pieces:
            episode, ids = self.episodes.setdefault(piece.episode, Episode()), self.ids.setdefault(piece.episode, [])
            for t in range(piece.first, piece.first + piece.rows):
                if t < len(ids):
                    duplicates += 1
                    continue
                self._row(piece, t, episode, ids)
                applied += 1
        if applied:
            self.age()
        return applied, duplicates

    def _row(self, piece: Piece, t: int, episode: Episode, ids: list[int]) -> None:
        step, is_step = len(self.rows), t in piece.steps()
        seen, (terminated, truncated) = observation(piece.episode, t), flags(piece, t)
        before = ids[-1] if ids else -1
        if is_step:
            earned, did = reward(piece.episode, t), action(piece.episode, t)
            episode.steps.append(Step(seen, did, earned, terminated, truncated))
            self.inserted += 1
            self.open.add(piece.episode)
        else:
            earned, did = 0.0, 0
            episode.following, episode.ended, episode.interrupted = seen, True, not piece.flagged
            self.open.discard(piece.episode)
            total = sum(one.reward for one in episode.steps)
            first = ids[0] if ids else step
            self.finished.append(Finished(piece.episode, first, step, len(episode.steps), total, piece.ending, piece.episode % 3 - 1))
        self.rows.append(Row(piece.episode, t, seen, did, earned, terminated, truncated, int(not is_step), before))
        ids.append(step)
        if before >= self.first and before not in self.removed:  # it has become an anchor
            self.masses[before] = self.highest

    def age(self) -> None:
        """What retention takes."""
        retention = self.config.retention
        if self.first < len(self.rows) and (retention.max_times_sampled is not None or self.removed.get(self.first)):
            head = self.first
            while head < len(self.rows) and self.spent(head):
                head += 1
            self.evict(head - CONTEXT_ROWS)
        if retention.max_steps is not None:
            self.evict(len(self.rows) - retention.max_steps)

    def spent(self, step: int) -> bool:
        """Whether it can be sampled no more."""
        row = self.rows[step]
        newest = row.episode in self.open and self.ids[row.episode][-1] == step
        return row.kind == 1 or step in self.removed or (step not in self.masses and not newest)

    def draw(self, ids: list[int]) -> None:
        """Anchors that were drawn; some were drawn for the last time."""
        self.sampled += len(ids)
        self.drawn.update(ids)
        self.use_up(set(ids))

    def use_up(self, ids: set[int]) -> None:
        most = self.config.retention.max_times_sampled
        for step in ids:
            if most is not None and self.drawn[step] >= most:
                self.removed[step] = 2
                del self.masses[step]

    def delete(self, ids: set[int]) -> int:
        """Rows that were there."""
        there = {step for step in ids if self.first <= step < len(self.rows) and self.removed.get(step) != 1}
        for step in there:
            self.removed[step] = 1
            self.masses.pop(step, None)
            self.masses.pop(self.rows[step].previous, None)
        self.age()
        return len(there)

    def write(self, ids: list[int], values: list[int]) -> tuple[int, int]:
        """Rows written, and ids that are gone."""
        there = [self.first <= step < len(self.rows) and self.removed.get(step) != 1 for step in ids]
        self.notes.update({step: value for step, value, good in zip(ids, values, there, strict=True) if good})
        return sum(there), len(ids) - sum(there)

    def evict(self, first: int) -> None:
        for step in range(self.first, first):
            self.masses.pop(step, None)
        self.first = max(self.first, first)

    def update(self, ids: list[int], priorities: list[float]) -> tuple[int, int, int]:
        applied = gone = rejected = 0
        for step, priority in zip(ids, priorities, strict=True):
            if not 0 <= priority < math.inf:
                rejected += 1
            elif step not in self.masses:
                gone += 1
            else:
                self.masses[step] = self.mass(priority)
                self.highest = max(self.highest, self.masses[step])
                applied += 1
        return applied, gone, rejected

    def crash(self) -> None:
        """Nobody can tell a mass of 0 from one that was lost, so the step counts as new (docs/FORMAT.md, recovering)."""
        self.masses = {step: mass or self.highest for step, mass in self.masses.items()}

    def alter(self, **changes: Any) -> None:
        before = self.prioritized
        self.config = replace(self.config, **changes)
        after = self.prioritized
        if "rate_limiter" in changes:
            self.since = self.inserted - min(self.size, changes["rate_limiter"].min_size_to_sample), self.sampled
        if after != before:
            self.masses = {step: under(mass, before, after) for step, mass in self.masses.items()}
            self.highest = under(self.highest, before, after)
        self.use_up(set(self.masses))
        self.age()


def bounded(base: float, alpha: float) -> float:
    if base == 0 and alpha > 0:
        return 0.0
    try:
        mass = base**alpha
    except OverflowError:
        mass = LARGEST
    return float(np.float32(min(max(mass, SMALLEST), LARGEST)))


def under(mass: float, before: rs.Prioritized, after: rs.Prioritized) -> float:
    """A mass under another exponent: that of the same priority."""
    priority = 1.0 if before.alpha == 0 else max(mass ** (1 / before.alpha) - before.epsilon, 0.0)
    return bounded(priority + after.epsilon, after.alpha)
