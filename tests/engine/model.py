"""Which anchors may be drawn, and how likely: plain Python over rows as they are read from a table. Knows no indexes, leaves or windows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

import replaystore as rs
from replaystore.engine.table import Table
from replaystore.schema.views import AnchorRule

LEAST, MOST = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)
NAMES = (
    "meta/episode",
    "meta/step_in_episode",
    "meta/insert_time",
    "meta/actor",
    "meta/policy_version",
    "replay/successor",
    "replay/removed",
)


@dataclass(frozen=True)
class Row:
    id: int
    episode: int
    place: int
    time: float
    actor: int
    version: int
    successor: int
    removed: int


@dataclass(frozen=True)
class Finished:
    episode: int
    first: int
    length: int
    total: float
    ending: int


@dataclass(frozen=True)
class World:
    """A table at one moment."""

    rows: list[Row]
    episodes: dict[int, Finished]
    stop: int
    now: float
    highest_version: int

    @classmethod
    def of(cls, table: Table, now: float, highest_version: int) -> World:
        read = table.read_steps(0, table.next_step, NAMES)
        rows = [Row(*values) for values in zip(*(read[name].tolist() for name in ("step_id", *NAMES)), strict=True)]
        done = table.episodes()
        names = ("episode", "first_step", "length", "return", "ending")
        episodes = {values[0]: Finished(*values) for values in zip(*(done[name].tolist() for name in names), strict=True)}
        return cls(rows, episodes, table.next_step, now, highest_version)

    def anchors(self) -> list[int]:
        return [row.id for row in self.rows if row.successor > 0]

    def eligible(self, where: rs.Filter | None, rule: AnchorRule = AnchorRule()) -> list[int]:  # noqa: B008 - frozen
        """Ids that pass, ascending."""
        return [row.id for row in self.rows if row.successor > 0 and self._fits(row, rule) and (where is None or self._passes(row, where))]

    def _fits(self, row: Row, rule: AnchorRule) -> bool:
        if row.place % rule.period:
            return False
        if not rule.episode_start:
            return True
        spoilt = any(other.episode == row.episode and other.removed == 1 for other in self.rows)
        return row.place == 0 and row.episode in self.episodes and not spoilt

    def _passes(self, row: Row, where: rs.Filter) -> bool:
        age = self.stop - row.id
        done = self.episodes.get(row.episode)
        of_episode = [
            (where.min_return, where.max_return, lambda: done.total),  # type: ignore[union-attr]
            (where.min_length, where.max_length, lambda: done.length),  # type: ignore[union-attr]
        ]
        versions = (where.min_age_versions, where.max_age_versions)
        return all(
            [
                _within(age, where.min_age_steps, where.max_age_steps),
                _within(self.now - row.time, where.min_age_s, where.max_age_s),
                versions == (None, None) or (row.version >= 0 and _within(self.highest_version - row.version, *versions)),
                _within(row.version, where.min_policy_version, where.max_policy_version),
                where.actors is None or row.actor in where.actors,
                not where.about_episodes or done is not None,
                *((low, high) == (None, None) or (done is not None and _within(value(), low, high)) for low, high, value in of_episode),
                where.ended is None or (done is not None and done.ending == {"terminated": 1, "truncated": 2}[where.ended]),
            ]
        )


def _within(value: float, low: float | None, high: float | None) -> bool:
    return (low is None or value >= low) and (high is None or value <= high)


def masses(selector: Any, ids: list[int], priorities: dict[int, float]) -> dict[int, float]:
    """What a proportional selector draws in proportion to."""
    found = {}
    for step in ids:
        base = priorities[step] + selector.epsilon
        found[step] = float(np.float32(min(max(base**selector.alpha, LEAST), MOST))) if base > 0 or selector.alpha == 0 else 0.0
    return found


def chances(selector: Any, ids: list[int], priorities: dict[int, float], stop: int, n: int) -> dict[int, float]:
    """The probability of each of the eligible `ids`, ascending; ranks as if the order were exact."""
    if isinstance(selector, rs.Prioritized):
        mass = masses(selector, ids, priorities)
        total = sum(mass.values())
        return {step: mass[step] / total for step in ids}
    if isinstance(selector, rs.RankPrioritized):
        order = sorted(ids, key=lambda step: -priorities[step])
        weights = {step: (place + 1.0) ** -selector.alpha for place, step in enumerate(order)}
        return {step: weights[step] / sum(weights.values()) for step in ids}
    if isinstance(selector, rs.Recency):
        half_life = selector.half_life_steps
        weights = {step: 1.0 if half_life is None else 2.0 ** ((step - ids[-1]) / half_life) for step in ids}
        k = min(selector.newest, n, len(ids))
        total = sum(weights.values())
        return {step: ((step in ids[len(ids) - k :]) + (n - k) * weights[step] / total) / n for step in ids}
    return dict.fromkeys(ids, 1.0 / len(ids))


def in_order(selector: Any, ids: list[int], priorities: dict[int, float]) -> list[int] | None:
    """All eligible ids in the order in which the selector takes them, None when it draws."""
    if isinstance(selector, rs.Fifo):
        return ids
    if isinstance(selector, rs.Lifo):
        return ids[::-1]
    if isinstance(selector, rs.MinHeap):
        return sorted(ids, key=lambda step: (max(np.float32(priorities[step]), np.float32(LEAST)), step))
    if isinstance(selector, rs.MaxHeap):
        return sorted(ids, key=lambda step: (-max(np.float32(priorities[step]), np.float32(LEAST)), step))
    return None
