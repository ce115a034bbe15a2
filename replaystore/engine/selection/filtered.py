"""An index over some of a table's anchors, with leaves of its own in memory: those that pass a filter and that a view can begin at.

The leaves reach from the oldest row that may pass to the newest: 4 bytes per row. A member's leaf is never the bits of 0: one that cannot
be drawn now, having priority 0 or been drawn in this pass, is −0.0. What happens to steps is only noted; `sync` sees to it before a draw,
by looking at those steps again, so neither inserts nor updates wait for indexes that nobody draws from.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from replaystore.core.indexes import HeapIndex, PassIndex
from replaystore.engine.conditions import Facts, episodes_pass, passes, passes_at, rows_back
from replaystore.engine.rows import Rows
from replaystore.engine.selection.kept import KeptPass
from replaystore.engine.selection.masses import DISTINCT, DRAWN, TO_COME, index_for, priorities_of
from replaystore.growing import reserve
from replaystore.schema.filters import Filter
from replaystore.schema.selectors import Prioritized, RankPrioritized, Recency, Selector, WithoutReplacement
from replaystore.schema.views import AnchorRule

Array = npt.NDArray[Any]
Ids = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

MOST_NOTED = 1 << 16
"""Steps noted for one index: beyond this many and a sixteenth of its rows, or so many notes, it is built anew when it is wanted again."""

MOST_COPIED = 1 << 18
"""Leaves up to which more of them are a copy."""

RESERVED = 1 << 28
"""Leaves that an index of more has addresses for: while few are gone, more of them are added where they are."""

_NO_IDS: Ids = np.empty(0, np.int64)
_BLOCK_ROWS = 1 << 20


class OwnLeaves:
    """float32 leaves by id in a window that moves forward."""

    def __init__(self) -> None:
        self.array: Array = np.zeros(0, np.float32)
        self.origin = self.stop = 0
        self._reserved: Array = self.array

    @property
    def members(self) -> npt.NDArray[np.uint32]:
        """The bits of the leaves: above 0 for members. ``members[i]`` is id ``origin + i``."""
        return self.array.view(np.uint32)

    def begin(self, first: int, stop: int) -> None:
        """Room for [first, stop), all 0."""
        room = _room(stop - first)
        self._reserved = reserve(room, RESERVED if room > MOST_COPIED else room, np.float32)
        self.array = self._reserved[:room]
        self.origin, self.stop = first, stop

    def cover(self, first: int, stop: int) -> None:
        """Makes room up to `stop`; what is below `first` may go."""
        if stop - self.origin > len(self.array):
            gone, longer = first - self.origin, _room(stop - self.origin)
            if 8 * gone < stop - first and longer <= len(self._reserved):
                self.array = self._reserved[:longer]  # zeros, never in use
            else:
                old, kept, until = self.array, slice(gone, self.stop - self.origin), self.stop
                self.begin(first, stop)
                if first < until:
                    self.array[: until - first] = old[kept]
        self.stop = max(self.stop, stop)

    def count(self, start: int, stop: int) -> int:
        """Members in [start, stop)."""
        return int(np.count_nonzero(self.members[start - self.origin : stop - self.origin])) if stop > start else 0


def _room(rows: int) -> int:
    return max(1024, rows + rows // 2)


class Filtered:
    """Draws as `selector` does, as if only the anchors that pass existed."""

    def __init__(self, selector: Selector, where: Filter | None, rule: AnchorRule, source: str | None, kept: KeptPass | None) -> None:
        """See the class.

        Args:
            selector: how to draw.
            where: conditions, or None.
            rule: what the view asks of anchors.
            source: path of the table's leaves for the selector, None when it has none.
            kept: for a selector without replacement the pass over all anchors, which goes on with what is drawn here.
        """
        self.selector, self._where, self._rule = selector, where or Filter(), rule
        self.even = isinstance(selector, (*DISTINCT, WithoutReplacement))
        self._source, self._kept = source, kept
        ages = dict.fromkeys(("min_age_steps", "max_age_steps", "min_age_s", "max_age_s"))
        self._conditions: Filter = replace(self._where, **ages)
        self._by_version = self._where.min_age_versions is not None or self._where.max_age_versions is not None
        self._own = OwnLeaves()
        self._index: Any = None
        self._least: HeapIndex | None = None
        self._low = self._high = 0
        self._version = -1
        self._seen = -1, -1
        self.candidates = 0
        """Members in the window: what can be drawn, but for priorities of 0."""
        self.refilled = False
        """Whether the draw before, from a pass, began it anew for those that pass."""
        self._stale = True
        self._entered: list[Ids] = []
        self._left: list[Ids] = []
        self._revalued: list[Ids] = []
        self._finished: list[Ids] = []
        self._noted = 0

    # -- what happens to steps

    def enter(self, ids: Ids) -> None:
        """`ids` became anchors."""
        if not self._where.about_episodes and not self._rule.episode_start:  # their episodes go on
            self._note(self._entered, ids)

    def leave(self, ids: Ids) -> None:
        """`ids` are no anchors any more."""
        self._note(self._left, ids)

    def spoil(self) -> None:
        """Some row was deleted: the first step of an episode goes with any of its rows."""
        if self._rule.episode_start:
            self.forget()

    def revalue(self, ids: Ids) -> None:
        """The table's leaves of `ids` changed."""
        self._note(self._revalued, ids)

    def finish(self, lasts: Ids) -> None:
        """The episodes of the closing rows `lasts` have finished."""
        if self._where.about_episodes or self._rule.episode_start:
            self._note(self._finished, lasts)

    def _note(self, where: list[Ids], ids: Ids) -> None:
        if self._stale or not len(ids):
            return
        where.append(ids)
        self._noted += len(ids)
        if len(where) > MOST_NOTED or (self._noted > MOST_NOTED and 16 * self._noted > self._own.stop - self._low):
            self.forget()

    def forget(self) -> None:
        """Everything is to be looked at anew."""
        self._stale = True
        self._clear_notes()
        self._own, self._index, self._least = OwnLeaves(), None, None

    def _clear_notes(self) -> None:
        for notes in (self._entered, self._left, self._revalued, self._finished):
            notes.clear()
        self._noted = 0

    # -- keeping up

    def stands(self, rows: Rows) -> bool:
        """Whether nothing has happened since `sync`, which may then be left out."""
        timed = self._by_version or self._where.max_age_s is not None or self._where.min_age_s is not None
        return not (timed or self._stale or self._noted) and (rows.first, rows.stop) == self._seen

    def sync(self, rows: Rows, facts: Facts) -> None:
        """Brings leaves and index to this moment."""
        if self._by_version and facts.highest_version != self._version:
            self._version = facts.highest_version
            self.forget()
        low, high = self._window(rows, facts)
        self._seen = rows.first, rows.stop
        if self._stale:
            self._build(rows, facts, low, high)
            return
        if low < self._low or high < self._high:  # rows that have gone: a window only ever moves forward
            low, high = max(low, self._low), max(high, self._high)
        own = self._own
        self.candidates -= own.count(self._low, min(low, self._high))
        own.cover(low, rows.stop)
        changed = self._apply(rows, facts, low, high)
        if high > self._high:
            start = max(self._high, low)
            self.candidates += own.count(start, high)
            fresh = start + np.flatnonzero(own.members[start - own.origin : high - own.origin])
            changed = np.concatenate([changed, fresh])
        self._index.extend(own.array, own.origin, low, high)
        self._move(self._index, low, changed)
        if self._least is not None:
            self._least.extend(own.array, own.origin, low, high)
            self._move(self._least, low, changed)
        self._low, self._high = low, high

    def _move(self, index: Any, low: int, changed: Ids) -> None:
        index.drop(self._own.array, self._own.origin, low)
        if len(changed):
            index.refresh(self._own.array, self._own.origin, changed)

    def _window(self, rows: Rows, facts: Facts) -> tuple[int, int]:
        """Ids that are neither too old nor too young."""
        where, low, high = self._where, rows.first, rows.stop
        if where.max_age_steps is not None:
            low = max(low, rows.stop - where.max_age_steps)
        if where.min_age_steps is not None:
            high = min(high, rows.stop - where.min_age_steps + 1)
        if (where.max_age_s is not None or where.min_age_s is not None) and rows.stop > rows.first:
            times = rows.live("meta/insert_time")  # never decreases
            if where.max_age_s is not None:
                low = max(low, rows.first + int(np.searchsorted(times, facts.now - where.max_age_s, "left")))
            if where.min_age_s is not None:
                high = min(high, rows.first + int(np.searchsorted(times, facts.now - where.min_age_s, "right")))
        return low, max(low, high)

    def _build(self, rows: Rows, facts: Facts, low: int, high: int) -> None:
        self._clear_notes()
        own = self._own = OwnLeaves()
        own.begin(low, rows.stop)
        part = replace(rows, first=low)
        mask = self._mask(part, facts)
        values = own.array[: rows.stop - low]
        for start in range(0, len(values), _BLOCK_ROWS):
            block = slice(start, start + _BLOCK_ROWS)
            inside = np.flatnonzero(mask[block])
            values[block][inside] = self._values(rows, low + start + inside)
        self.candidates = own.count(low, high)
        self._index = PassIndex() if self._kept is not None else index_for(self.selector)
        self._index.rebuild(own.array, own.origin, low, high)
        self._least = None
        self._low, self._high, self._stale = low, high, False

    def _mask(self, rows: Rows, facts: Facts) -> Mask:
        """Whether each live row is a member, ages aside."""
        mask = passes(rows, self._conditions, facts) if self._conditions != Filter() else np.ones(rows.stop - rows.first, np.bool_)
        successor, place = rows.live("replay/successor"), rows.live("meta/step_in_episode")
        for start in range(0, len(mask), _BLOCK_ROWS):
            block = slice(start, start + _BLOCK_ROWS)
            mask[block] &= successor[block] > 0
            if self._rule.period > 1:
                mask[block] &= place[block] % self._rule.period == 0
        if self._rule.episode_start:
            starts = np.zeros(len(mask), np.bool_)
            starts[whole_episodes(rows, facts) - rows.first] = True
            mask &= starts
        return mask

    def _apply(self, rows: Rows, facts: Facts, low: int, high: int) -> Ids:
        """Looks again at the steps noted; returns those in the index's window."""
        if not self._noted:
            return _NO_IDS
        own = self._own
        entered, left, revalued, finished = (
            np.unique(np.concatenate(notes)) if notes else _NO_IDS for notes in (self._entered, self._left, self._revalued, self._finished)
        )
        self._clear_notes()
        if len(finished):
            entered = np.concatenate([entered, self._finished_members(rows, facts, finished[finished >= low])])
        entered = entered[(entered >= low) & (entered < rows.stop)]
        if len(entered):
            entered = entered[self._passes_at(rows, facts, entered)]
        left = left[(left >= low) & (left < own.stop)]
        revalued = revalued[(revalued >= low) & (revalued < own.stop)]
        revalued = revalued[own.members[revalued - own.origin] > 0]
        changed = np.unique(np.concatenate([entered, left, revalued]))
        inside = changed[changed < self._high]
        before = np.count_nonzero(own.members[inside - own.origin])
        for ids in (entered, revalued):
            own.array[ids - own.origin] = self._values(rows, ids)
        own.array[left - own.origin] = 0
        self.candidates += int(np.count_nonzero(own.members[inside - own.origin]) - before)
        found: Ids = changed[changed < high]
        return found

    def _passes_at(self, rows: Rows, facts: Facts, ids: Ids) -> Mask:
        """Conditions on single rows; those on episodes have been seen to."""
        mask = passes_at(rows, ids, self._conditions, facts) & (rows.array("replay/successor")[ids - rows.origin] > 0)
        if self._rule.period > 1:
            mask &= rows.array("meta/step_in_episode")[ids - rows.origin] % self._rule.period == 0
        return mask

    def _finished_members(self, rows: Rows, facts: Facts, lasts: Ids) -> Ids:
        """Rows of episodes just finished that may be members, judged by the episode alone."""
        all_lasts = facts.episodes("last_step")
        places = np.searchsorted(all_lasts, lasts)
        if self._where.about_episodes:
            good = episodes_pass(
                self._where, facts.episodes("return")[places], facts.episodes("length")[places], facts.episodes("ending")[places]
            )
            places = places[good]
        if not len(places):
            return _NO_IDS
        firsts: Ids = facts.episodes("first_step")[places]
        if not self._rule.episode_start:
            return rows_back(replace(rows, first=max(rows.first, int(firsts.min()))), all_lasts[places])
        known = firsts >= rows.first
        return without_deleted(rows, firsts[known], facts.episodes("episode")[places][known])

    def _values(self, rows: Rows, ids: Ids) -> npt.NDArray[np.float32]:
        """Leaves of members."""
        if self._source is None:
            return np.full(len(ids), TO_COME)
        values = rows.array(self._source)[ids - rows.origin]
        return np.where(values > 0, values, DRAWN)

    # -- drawing

    def lacks(self, anchors: int, n: int) -> bool:
        """Whether `n` cannot be drawn now."""
        if isinstance(self.selector, DISTINCT):
            return n > self.candidates
        return not self.candidates if self._kept is not None else not self._index.total > 0

    def mass(self, anchors: int) -> float:
        """Sum of what is drawn in proportion to."""
        return float(self._index.total) if isinstance(self.selector, Prioritized) else float(self.candidates)

    def draw(self, rows: Rows, anchors: int, rng: Array, n: int) -> tuple[Ids, npt.NDArray[np.float64]]:
        """`n` anchors and the probability of each."""
        if self._kept is not None:
            return self._draw_from_pass(rows, rng, n)
        found: tuple[Ids, npt.NDArray[np.float64]] = self._index.draw(self._own.array, self._own.origin, rng, n)
        return found

    def _draw_from_pass(self, rows: Rows, rng: Array, n: int) -> tuple[Ids, npt.NDArray[np.float64]]:
        own, index, kept = self._own, self._index, self._kept
        assert kept is not None
        passes = index.refills
        ids: Ids
        probabilities: npt.NDArray[np.float64]
        ids, probabilities = index.draw(own.array, own.origin, own.members, rng, n, self.candidates)
        self.refilled = index.refills > passes  # of those that pass, all were had: they began anew, by themselves
        if self.refilled:
            members = self._low + np.flatnonzero(own.members[self._low - own.origin : self._high - own.origin])
            rows.array(kept.path)[members - rows.origin] = own.array[members - own.origin]
            kept.rebuild(rows)
        else:
            kept.drawn(rows, ids)
        return ids, probabilities

    def priorities(self, rows: Rows, ids: Ids) -> npt.NDArray[np.float32]:
        """Raw priorities as they are now; 1 where they mean nothing."""
        return priorities_of(self.selector, self._own.array[ids - self._own.origin])

    def least(self, rows: Rows, anchors: int, n: int) -> float:
        """The smallest probability that any member has."""
        own = self._own
        if isinstance(self.selector, RankPrioritized):
            return float(self._index.least)
        if isinstance(self.selector, Recency):
            return float(self._index.least(own.array, own.origin, n))
        if not isinstance(self.selector, Prioritized):
            return 1.0 / self.candidates
        if self._least is None:
            self._least = HeapIndex(largest=False)
            self._least.rebuild(own.array, own.origin, self._low, self._high)
        return float(self._least.value / self._index.total)

    @property
    def nbytes(self) -> int:
        """RAM of leaves and indexes."""
        parts = (self._index, self._least)
        return self._own.array.nbytes + sum(part.nbytes for part in parts if part is not None)


def whole_episodes(rows: Rows, facts: Facts) -> Ids:
    """First steps, in [first, stop), of finished episodes of which no row was deleted."""
    firsts = facts.episodes("first_step")
    kept = (firsts >= rows.first) & (facts.episodes("last_step") < rows.stop)
    return without_deleted(rows, firsts[kept], facts.episodes("episode")[kept])


def without_deleted(rows: Rows, firsts: Ids, episodes: Ids) -> Ids:
    """Those first steps whose episodes, by number, have no deleted row from the oldest of them on."""
    if not len(firsts):
        return firsts
    begin = int(firsts.min())
    deleted = np.flatnonzero(rows.array("replay/removed")[begin - rows.origin : rows.stop - rows.origin] == 1)
    if not len(deleted):
        return firsts
    spoilt = np.unique(rows.array("meta/episode")[begin + deleted - rows.origin])
    return firsts[~np.isin(episodes, spoilt)]
