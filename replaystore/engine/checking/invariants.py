"""What must hold between the rows of a table: links, kinds, positions, leaves, episodes. Shared by `replaystore verify` and by the tests.

Works on plain arrays, a block of rows at a time in the order of their ids, and carries from block to block only what open episodes need.
Must not know files: whoever reads the rows says what they are.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from replaystore.core.links import DELETED, KEPT, USED_UP
from replaystore.schema.columns import is_reward
from replaystore.steps import TERMINATED, TRUNCATED
from replaystore.storage.layout import EPISODE_DTYPES

Array = npt.NDArray[Any]
Ids = npt.NDArray[np.int64]

STEP, CLOSING, LOST = 0, 1, 2
"""Values of ``meta/kind``. LOST rows are gone: `replaystore repair` put zeros in their place."""

SUCCESSOR = "replay/successor"
TIMES_SAMPLED = "replay/times_sampled"
REMOVED = "replay/removed"


def is_row_column(path: str) -> bool:
    """Whether a block of rows must hold this array; ``replay/…`` is checked where it is given."""
    return path.startswith("meta/") or _holds_rewards(path)


def _holds_rewards(path: str) -> bool:
    return path.startswith("steps/") and is_reward(path.removeprefix("steps/"))


RETURN_TOLERANCE = 1e-6
"""Of the sum of the absolute rewards: sums of float64 taken in another order."""

_TAIL = np.dtype([("step", "i8"), ("episode", "i8"), ("position", "i8"), ("successor", "i8"), ("removed", "u1")])
_OPEN = np.dtype(  # of an episode
    [
        ("episode", "i8"),
        ("first", "i8"),
        ("rows", "i8"),
        ("total", "f8"),
        ("weight", "f8"),
        ("actor", "i4"),
        ("start", "f8"),
        ("whole", "?"),
    ]
)


@dataclass(frozen=True, slots=True)
class Violation:
    """A promise that rows do not keep."""

    array: str
    """Path of the array below the table."""
    rows: tuple[int, int]
    """From the first such row to the end of the last one."""
    count: int
    """How many rows of these."""
    expected: str
    found: str
    """At the first one."""
    ids: Ids = field(compare=False, repr=False)
    """``(count,)`` the rows."""

    @property
    def live(self) -> bool:
        """Whether only columns are concerned that can be derived again."""
        return self.array.startswith("replay/")


@dataclass(frozen=True, slots=True)
class Leaves:
    """What the leaves of one selector may be."""

    path: str
    zero_allowed: bool
    """Whether an anchor's leaf may be 0: with epsilon 0, or when a pass had it."""
    is_pass: bool = False
    """Whether 1 and 0 are all that an anchor's leaf may be."""


class RowChecker:
    """Feed it blocks of consecutive rows, then `finish`."""

    def __init__(self, first: int, leaves: Iterable[Leaves] = (), *, growing: bool = False, cut: bool = False) -> None:
        """A checker for rows from `first` on.

        Args:
            first: oldest row kept.
            leaves: the prioritized selectors.
            growing: rows go on after those shown, so the newest may have a successor that is not shown.
            cut: rows were lost here once, so an episode may go on without the row before.
        """
        self.first = self.next = first
        self._ended: list[dict[str, Array]] = []
        self.anchors = self.steps = 0
        self.highest: dict[str, float] = {}
        """Highest leaf seen, by path."""
        self._leaves = tuple(leaves)
        self._growing, self._cut = growing, cut
        self._tails = np.empty(0, _TAIL)
        self._open = np.empty(0, _OPEN)
        self._found: list[Violation] = []

    def feed(self, rows: Mapping[str, Array]) -> list[Violation]:
        """The next block: arrays by path, ``(rows,)`` each (``steps/reward`` may have more axes); returns what is wrong with it."""
        self._found = []
        count = len(rows["meta/kind"])
        if count:
            ids = np.arange(self.next, self.next + count)
            self._alone(ids, rows)
            self._links(ids, rows)
            self._sum_up(ids, rows)
            self.next += count
        return self._found

    def finish(self) -> list[Violation]:
        """What is wrong with the rows at the end: successors that never came."""
        self._found = []
        if not self._growing:
            left = self._tails[self._tails["successor"] != 0]
            self._report(SUCCESSOR, left["step"], np.ones(len(left), bool), "0, for no row follows", left["successor"])
        return self._found

    def _all_ended(self, name: str, dtype: Any) -> Array:
        return np.concatenate([np.empty(0, dtype), *(part[name].astype(dtype, copy=False) for part in self._ended)])

    @cached_property
    def closing(self) -> dict[str, Array]:
        """The finished episodes, as their rows say, in the order of their ends; ``first_step`` is -1 where its beginning is not kept."""
        return {name: self._all_ended(name, dtype) for name, dtype in EPISODE_DTYPES.items() if name != "seed"}

    @cached_property
    def weight(self) -> npt.NDArray[np.float64]:
        """(episodes,) sum of absolute rewards."""
        return self._all_ended("weight", np.float64)

    @cached_property
    def whole(self) -> npt.NDArray[np.bool_]:
        """(episodes,) whether every row was seen."""
        return self._all_ended("whole", np.bool_)

    def copy(self) -> RowChecker:
        """Another one that knows the same."""
        other = copy.copy(self)
        other._ended, other.highest = list(self._ended), dict(self.highest)
        return other

    def become(self, other: RowChecker) -> None:
        """Knows from now on what `other` does."""
        self.__dict__.update(other.__dict__)

    @property
    def open_episodes(self) -> dict[int, dict[str, Any]]:
        """Episodes without a closing row: number, then first (-1 unknown), last, rows, total, actor, start_time."""
        last = dict(zip(self._tails["episode"].tolist(), self._tails["step"].tolist(), strict=True))
        return {
            row["episode"].item(): {
                "first": row["first"].item(),
                "last": last[row["episode"].item()],
                "rows": row["rows"].item(),
                "total": row["total"].item(),
                "actor": row["actor"].item(),
                "start_time": row["start"].item(),
            }
            for row in self._open
            if row["episode"].item() in last
        }

    def _report(self, array: str, ids: Ids, wrong: Array, expected: str, values: Array) -> None:
        if wrong.any():
            bad = np.flatnonzero(wrong)
            found = Violation(array, (int(ids[bad[0]]), int(ids[bad[-1]]) + 1), len(bad), expected, str(values[bad[0]]), ids[bad])
            self._found.append(found)

    def _alone(self, ids: Ids, rows: Mapping[str, Array]) -> None:
        """What a row says by itself."""
        kind, position, previous, episode = (rows[f"meta/{name}"] for name in ("kind", "step_in_episode", "previous", "episode"))
        lost = kind == LOST
        self._report("meta/kind", ids, (kind > LOST) | (lost & (not self._cut)), "0 for a step or 1 for a closing row", kind)
        self._report("meta/episode", ids, (episode <= 0) & ~lost, "a positive number", episode)
        self._report("meta/step_in_episode", ids, (position < 0) & ~lost, "0 or more", position)
        self._report("meta/previous", ids, (previous < -1) | (previous >= ids), "an older row, or -1", previous)
        begins = (previous == -1) != (position == 0)
        if self._cut:
            begins &= (position == 0) & ~lost
        self._report("meta/previous", ids, begins, "-1 exactly where step_in_episode is 0", previous)
        times = rows["meta/insert_time"]
        self._report("meta/insert_time", ids, ~np.isfinite(times) & ~lost, "seconds since 1970", times)
        removed = rows.get(REMOVED, np.zeros(len(ids), np.uint8))
        self._report(REMOVED, ids, removed > USED_UP, "0 kept, 1 deleted or 2 used up", removed)
        self._report(REMOVED, ids, (removed == USED_UP) & (kind != STEP), "0 or 1, for the row is no step", removed)
        self.steps += int(np.count_nonzero((kind == STEP) & (removed == KEPT)))
        if SUCCESSOR not in rows:
            return
        successor = rows[SUCCESSOR]
        anchor = successor > 0
        self.anchors += int(np.count_nonzero(anchor))
        wrong = (anchor & (kind != STEP)) | ((successor < 0) & (removed != USED_UP))
        self._report(SUCCESSOR, ids, wrong, "0 for a row that is no step, else 0 or more unless used up", successor)
        self._report(SUCCESSOR, ids, anchor & (removed == USED_UP), "0 or less, for the row is used up", successor)
        self._report(SUCCESSOR, ids, (successor != 0) & (removed == DELETED), "0, for the row is deleted", successor)
        if TIMES_SAMPLED in rows:
            times_sampled = rows[TIMES_SAMPLED]
            self._report(TIMES_SAMPLED, ids, (kind != STEP) & (times_sampled != 0), "0, for the row is no step", times_sampled)
        for leaf in self._leaves:
            if leaf.path in rows:
                mass = rows[leaf.path]
                fine = np.isfinite(mass) & (mass >= 0)
                self._report(leaf.path, ids, ~fine, "a finite mass, 0 or more", mass)
                self._report(leaf.path, ids, fine & ~anchor & (mass != 0), "0, for the row is no anchor", mass)
                if leaf.is_pass:
                    self._report(leaf.path, ids, fine & anchor & (mass != 0) & (mass != 1), "1, to come, or 0, had by this pass", mass)
                if not leaf.zero_allowed:
                    self._report(leaf.path, ids, anchor & (mass == 0), "above 0, for the row is an anchor", mass)
                highest = float(np.max(mass, where=fine, initial=0.0))
                self.highest[leaf.path] = max(highest, self.highest.get(leaf.path, 0.0))

    def _links(self, ids: Ids, rows: Mapping[str, Array]) -> None:
        """Every row against the one before it in its episode, which may be in an earlier block."""
        start, count = self.next, len(ids)
        kind, episode = rows["meta/kind"], rows["meta/episode"]
        position = rows["meta/step_in_episode"].astype(np.int64)
        previous = rows["meta/previous"]
        successor = rows[SUCCESSOR].astype(np.int64) if SUCCESSOR in rows else None
        removed = rows.get(REMOVED, np.zeros(count, np.uint8))
        expected_successor = np.zeros(count, np.int64)

        linked = (previous >= self.first) & (previous < ids)
        straight = linked[1:] & (previous[1:] == ids[:-1])  # follows the row just before it, as most do: compared in place
        wrong = straight & (episode[1:] != episode[:-1])
        self._report("meta/episode", ids[1:], wrong, "the episode of the previous row", episode[1:])
        wrong = straight & (position[1:] != position[:-1] + 1)
        self._report("meta/step_in_episode", ids[1:], wrong, "one more than the previous row", position[1:])
        self._report("meta/previous", ids[1:], straight & (kind[:-1] != STEP), "a row that is a step", previous[1:])
        claimed = np.zeros(count, np.int32)
        claimed[:-1] = straight
        expected_successor[:-1] = straight

        elsewhere = linked & (previous >= start)
        elsewhere[1:] &= ~straight
        inside = np.flatnonzero(elsewhere)
        before = previous[inside] - start
        np.add.at(claimed, before, 1)
        self._report("meta/previous", ids, claimed > 1, "a row that only one row calls its previous", claimed)
        expected_successor[before] = ids[inside] - previous[inside]
        self._follow(ids[inside], episode[inside], position[inside], episode[before], position[before], kind[before])

        outside = np.flatnonzero(linked & (previous < start))
        places = np.searchsorted(self._tails["step"], previous[outside])
        known = places < len(self._tails)
        known[known] = self._tails["step"][places[known]] == previous[outside][known]
        self._report("meta/previous", ids[outside], ~known, "an open episode's newest row", previous[outside])
        outside, places = outside[known], places[known]
        tails = self._tails[places]
        kinds = np.zeros(len(tails), np.uint8)
        self._follow(ids[outside], episode[outside], position[outside], tails["episode"], tails["position"], kinds)
        if successor is not None:
            distance = ids[outside] - tails["step"]
            distance[(distance >= 2**31) | (removed[outside] == DELETED) | (tails["removed"] == DELETED)] = 0
            wrong = tails["successor"] != np.where(tails["removed"] == USED_UP, -distance, distance)
            self._report(SUCCESSOR, tails["step"], wrong, "the distance to the row that follows", tails["successor"])
            expected_successor[expected_successor >= 2**31] = 0
            expected_successor[previous[linked & (removed == DELETED) & (previous >= start)] - start] = 0
            expected_successor[removed == DELETED] = 0
            expected_successor[removed == USED_UP] *= -1
            ended = (claimed > 0) | (kind != STEP)
            self._report(SUCCESSOR, ids, ended & (successor != expected_successor), "the distance to the row that follows", successor)

        keep = np.ones(len(self._tails), bool)
        keep[places] = False
        fresh = np.flatnonzero((claimed == 0) & (kind == STEP))
        tail = np.empty(len(fresh), _TAIL)
        tail["step"], tail["episode"], tail["position"] = ids[fresh], episode[fresh], position[fresh]
        tail["successor"] = 0 if successor is None else successor[fresh]
        tail["removed"] = removed[fresh]
        self._tails = np.concatenate([self._tails[keep], tail])

    def _follow(self, ids: Ids, episode: Array, position: Array, episode_before: Array, position_before: Array, kind_before: Array) -> None:
        self._report("meta/episode", ids, episode != episode_before, "the episode of the previous row", episode)
        self._report("meta/step_in_episode", ids, position != position_before + 1, "one more than the previous row", position)
        self._report("meta/previous", ids, kind_before != STEP, "a row that is a step", kind_before)

    def _sum_up(self, ids: Ids, rows: Mapping[str, Array]) -> None:
        """Brings the sums of open episodes past the block and moves those that end in it to `closing`."""
        kind, episode, previous = rows["meta/kind"], rows["meta/episode"], rows["meta/previous"]
        starts = np.flatnonzero((previous != ids - 1) | (np.arange(len(ids)) == 0) | (kind == LOST))
        kept = kind[starts] != LOST
        stops = np.append(starts[1:], len(ids))
        rewards = [array.reshape(len(ids), -1) for path, array in rows.items() if _holds_rewards(path)]
        reward = rewards[0] if len(rewards) == 1 else np.concatenate(rewards, axis=1)
        flat = reward[:, 0].astype(np.float64) if reward.shape[1] == 1 else reward.sum(axis=1, dtype=np.float64)
        totals, weights = np.add.reduceat(flat, starts), np.add.reduceat(np.abs(flat), starts)
        starts, stops, totals, weights = starts[kept], stops[kept], totals[kept], weights[kept]
        if not len(starts):
            return
        numbers, opening, group = np.unique(episode[starts], return_index=True, return_inverse=True)
        head = starts[opening]
        begins = rows["meta/step_in_episode"][head] == 0
        broken = np.zeros(len(numbers), bool)
        np.logical_or.at(broken, group, (previous[starts] == -1) & (rows["meta/step_in_episode"][starts] > 0))

        joined = np.zeros(len(numbers), _OPEN)
        joined["episode"], joined["actor"], joined["start"] = numbers, rows["meta/actor"][head], rows["meta/insert_time"][head]
        joined["first"], joined["whole"] = np.where(begins, ids[head], -1), begins & ~broken
        at = np.searchsorted(self._open["episode"], numbers)
        known = at < len(self._open)
        known[known] = self._open["episode"][at[known]] == numbers[known]
        old = self._open[at[known]]
        for name in ("first", "actor", "start", "total", "weight"):
            joined[name][known] = old[name]
        joined["whole"][known] = old["whole"] & ~broken[known]
        np.add.at(joined["total"], group, totals)
        np.add.at(joined["weight"], group, weights)
        newest = np.zeros(len(numbers), np.int64)
        np.maximum.at(newest, group, stops - 1)
        joined["rows"] = rows["meta/step_in_episode"][newest].astype(np.int64) + 1

        ended = kind[newest] == CLOSING
        order = np.flatnonzero(ended)[np.argsort(newest[ended])]
        done, last = joined[order], newest[order]
        fresh: dict[str, Array] = {
            "episode": done["episode"],
            "first_step": done["first"],
            "last_step": ids[last],
            "length": done["rows"] - 1,
            "return": done["total"],
            "ending": np.where(rows["steps/terminated"][last], TERMINATED, TRUNCATED) if "steps/terminated" in rows else 0 * last,
            "actor": done["actor"],
            "policy_version": rows["meta/policy_version"][last],
            "start_time": done["start"],
            "end_time": rows["meta/insert_time"][last],
        }
        self._ended.append({**fresh, "weight": done["weight"], "whole": done["whole"]})
        gone = np.zeros(len(self._open), bool)
        gone[at[known]] = True
        merged = np.concatenate([self._open[~gone], joined[~ended]])
        self._open = merged[np.argsort(merged["episode"], kind="stable")]


def check_episodes(
    table: Mapping[str, Array], rows: RowChecker, lost: Iterable[tuple[int, int]] = (), offset: int = 0, *, returns: bool = True
) -> list[Violation]:
    """The rows of ``episodes/`` against those of the table, and against each other.

    Args:
        table: arrays by name (``first_step``, ``return``, …), ``(episodes,)`` each, in the order of the episodes' ends.
        rows: has seen all rows of the table.
        lost: ranges of rows of ``episodes/`` that were lost once and are not checked.
        offset: number of the first episode given.
        returns: whether returns are to be the sums of rewards: not where rewards may be written anew.
    """
    found: list[Violation] = []
    count = len(table["episode"])
    numbers = np.arange(offset, offset + count)
    kept = np.ones(count, bool)
    for begin, end in lost:
        kept[max(0, begin - offset) : max(0, end - offset)] = False

    def report(name: str, at: Array, wrong: Array, expected: str) -> None:
        bad = np.flatnonzero(wrong)
        if len(bad):
            where = numbers[at[bad]]
            value = str(table[name][at[bad[0]]])
            found.append(Violation(f"episodes/{name}", (int(where.min()), int(where.max()) + 1), len(bad), expected, value, where))

    every = np.flatnonzero(kept)
    last = table["last_step"][every]
    report("last_step", every[1:], np.diff(last) <= 0, "above that of the episode before")
    report("first_step", every, (table["first_step"][every] > last) | (table["first_step"][every] < 0), "from 0 to last_step")
    report("length", every, (table["length"][every] < 0) | (table["length"][every] > last - table["first_step"][every]), "0 to its rows")
    report("ending", every, (table["ending"][every] < TERMINATED) | (table["ending"][every] > TRUNCATED), "1 or 2")
    report("episode", every, table["episode"][every] <= 0, "a positive number")
    report("return", every, np.isnan(table["return"][every]) & (table["length"][every] == 0), "a number")

    closing = rows.closing
    inside = every[(last >= rows.first) & (last < rows.next)]
    at = np.searchsorted(closing["last_step"], table["last_step"][inside])
    there = at < len(closing["last_step"])
    there[there] = closing["last_step"][at[there]] == table["last_step"][inside][there]
    # a closing row may be among those that were lost: then there is nothing to compare with
    report("last_step", inside[~there], np.ones(int((~there).sum()), bool) & (not rows._cut), "a closing row")
    inside, at = inside[there], at[there]
    unlisted = np.ones(len(closing["last_step"]), bool)
    unlisted[at] = False
    if unlisted.any() and kept.all():
        ids = closing["last_step"][unlisted]
        found.append(
            Violation(
                "meta/kind", (int(ids[0]), int(ids[-1]) + 1), len(ids), "a row of episodes/ for each closing row", "there is none", ids
            )
        )
    for name in ("episode", "length", "policy_version", "end_time", *(("ending",) if closing["ending"].all() else ())):
        report(name, inside, table[name][inside] != closing[name][at], "what the closing row says")
    begun = closing["first_step"][at] >= 0
    report("first_step", inside[begun], table["first_step"][inside[begun]] != closing["first_step"][at[begun]], "the episode's first row")
    whole = rows.whole[at]
    inside, at = inside[whole], at[whole]
    for name in ("actor", "start_time"):
        report(name, inside, table[name][inside] != closing[name][at], "what the first row says")
    sums, stored = closing["return"][at], table["return"][inside]
    with np.errstate(invalid="ignore", over="ignore"):
        near = np.abs(stored - sums) <= RETURN_TOLERANCE * (1e-30 + rows.weight[at])
    fine = near | (stored == sums) | (np.isnan(stored) & np.isnan(sums))
    if returns:
        report("return", inside, ~fine, "the sum of the episode's rewards")
    return found


def merged(violations: Iterable[Violation]) -> list[Violation]:
    """One violation for each kind of it: blocks of one table report them one by one."""
    out: dict[tuple[str, str], Violation] = {}
    for violation in violations:
        key = violation.array, violation.expected
        known = out.get(key)
        if known is None:
            out[key] = violation
        else:
            span = min(known.rows[0], violation.rows[0]), max(known.rows[1], violation.rows[1])
            out[key] = replace(known, rows=span, count=known.count + violation.count, ids=np.concatenate([known.ids, violation.ids]))
    return list(out.values())
