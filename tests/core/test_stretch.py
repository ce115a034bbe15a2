"""Walks over rows of which some are used up, deleted, not yet there or no more: stretches, packed ones, and goals, against plain Python."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replaystore.core import goals, stretch, walk
from replaystore.core.random import seed_state
from tests.core.statistics import check_counts

ORIGIN = 10**12


@dataclass
class Rows:
    """Interleaved streams as a table links them; ids from 0."""

    previous: list[int]
    successor: list[int]
    kind: list[int]
    terminated: list[bool]
    removed: list[int]
    first: int
    stop: int

    def links(self, *, old: bool = False) -> walk.Links:
        """`old`: of a table that has no column of what was removed."""
        return walk.Links(
            np.array(self.successor, np.int32), np.array([p + ORIGIN if p >= 0 else -1 for p in self.previous], np.int64),
            np.array(self.kind, np.uint8), np.array(self.terminated, np.bool_), np.array([] if old else self.removed, np.uint8),
            ORIGIN, ORIGIN + self.first, ORIGIN + self.stop,
        )  # fmt: skip

    @property
    def anchors(self) -> list[int]:
        """What a view may begin at, for one who sees the rows [first, stop) only."""
        return [i for i in range(self.first, self.stop) if self.after(i) is not None and self.removed[i] == 0]

    def after(self, i: int) -> int | None:
        """The row after row i, if there is one to be seen."""
        following = i + abs(self.successor[i])
        return None if following == i or following >= self.stop else following

    def before(self, i: int) -> int | None:
        step = self.previous[i]
        return None if step < self.first or self.removed[step] == 1 else step

    def steps(self, anchor: int, limit: int) -> tuple[list[int], int]:
        """The steps taken from an anchor, and the row after the last."""
        taken, end = [anchor], self.after(anchor)
        assert end is not None
        while len(taken) < limit and not self.terminated[taken[-1]] and self.kind[end] == 0 and self.after(end) is not None:
            taken.append(end)
            end = self.after(end)
            assert end is not None
        return taken, end

    def frames(self, i: int, back: int, edge: bool) -> list[int | None]:
        """The rows before row i, oldest first."""
        found: list[int | None] = []
        oldest, here = i, self.before(i)
        for _ in range(back):
            if here is None:
                found.insert(0, oldest if edge else None)
            else:
                found.insert(0, here)
                oldest, here = here, self.before(here)
        return found


def build(events: list[tuple[int, str]], used: set[int], deleted: set[int], first: int, hidden: int) -> Rows:
    rows = Rows([], [], [], [], [], 0, 0)
    tails: dict[int, int] = {}

    def add(stream: int, kind: int, terminated: bool) -> None:
        step, before = len(rows.kind), tails.get(stream, -1)
        rows.previous.append(before)
        rows.successor.append(0)
        rows.kind.append(kind)
        rows.terminated.append(terminated)
        rows.removed.append(0)
        if before >= 0:
            rows.successor[before] = step - before
        tails[stream] = step

    for stream, event in events:
        if event == "closed":
            if stream in tails:
                add(stream, 1, False)
                del tails[stream]
            continue
        add(stream, 0, event == "terminated")
        if event == "terminated":
            add(stream, 1, True)
            del tails[stream]
    count = len(rows.kind)
    for step in used:
        if step < count:
            rows.successor[step] = -rows.successor[step]
            rows.removed[step] = 2
    for step in deleted:
        if step < count:
            rows.successor[step], rows.removed[step] = 0, 1
            if rows.previous[step] >= 0:
                rows.successor[rows.previous[step]] = 0
    rows.stop = max(min(1, count), count - hidden)
    rows.first = min(first, max(0, rows.stop - 1))
    return rows


SOME = st.sets(st.integers(0, 60), max_size=8)
ROWS = st.builds(
    build,
    st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["step"] * 7 + ["terminated", "closed"])), min_size=3, max_size=60),
    SOME,
    SOME,
    st.integers(0, 10),
    st.integers(0, 8),
)


def ids(values: list[int]) -> walk.Ids:
    return np.array(values, np.int64) + ORIGIN


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(ROWS, st.integers(1, 6))
def test_transitions_pass_what_is_used_up_and_end_at_what_is_deleted_or_hidden(rows: Rows, n_step: int) -> None:
    path, taken, end = walk.forward(rows.links(), ids(rows.anchors), np.array([n_step]), n_step)
    for item, anchor in enumerate(rows.anchors):
        steps, following = rows.steps(anchor, n_step)
        assert (path[item] - ORIGIN).tolist() == steps + [steps[-1]] * (n_step - len(steps))
        assert (taken[item], end[item] - ORIGIN) == (len(steps), following)
        assert not any(rows.removed[step] == 1 for step in [*steps, following])


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(ROWS, st.integers(1, 6))
def test_frames_end_at_what_is_deleted(rows: Rows, length: int) -> None:
    window = walk.backward(rows.links(), ids(rows.anchors), length)
    for item, anchor in enumerate(rows.anchors):
        expected = [*rows.frames(anchor, length - 1, False), anchor]
        assert window[item].tolist() == [-1 if step is None else step + ORIGIN for step in expected]


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(ROWS, st.integers(1, 9), st.integers(0, 4), st.booleans())
def test_stretches(rows: Rows, length: int, back: int, edge: bool) -> None:
    anchors = rows.anchors
    found = stretch.stretches(rows.links(), ids(anchors), length, back, edge)
    window, blank, taken = found.window + ORIGIN, found.blank, found.taken
    assert window.shape == blank.shape == (len(anchors), back + length + 1)
    assert found.steps.shape == found.row_ids.shape == (len(anchors), length)
    for item, anchor in enumerate(anchors):
        steps, end = rows.steps(anchor, length)
        expected = [*rows.frames(anchor, back, edge), *steps, end, *[None] * (length - len(steps))]
        assert (taken[item], found.end[item]) == (len(steps), end)
        assert (found.row_ids[item] - ORIGIN).tolist()[: len(steps)] == found.steps[item].tolist()[: len(steps)] == steps
        assert set(found.row_ids[item].tolist()[len(steps) :]) <= {-1}
        got = [None if hidden else step - ORIGIN for step, hidden in zip(window[item].tolist(), blank[item].tolist(), strict=True)]
        assert got == expected
    if len(anchors):  # what is blank is read all the same
        assert window.min() >= rows.first + ORIGIN
        assert window.max() < rows.stop + ORIGIN


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(ROWS, st.integers(1, 9), st.integers(0, 4), st.booleans())
def test_packed_ones_are_the_same_one_after_the_other(rows: Rows, limit: int, back: int, edge: bool) -> None:
    anchors = rows.anchors
    taken = stretch.lengths(rows.links(), ids(anchors), limit, 10_000)
    assert taken is not None
    found = stretch.packed(rows.links(), ids(anchors), taken, back, edge)
    got = [None if hidden else step for step, hidden in zip(found.window.tolist(), found.blank.tolist(), strict=True)]
    expected: list[Any] = []
    taken_steps: list[int] = []
    for item, anchor in enumerate(anchors):
        steps, end = rows.steps(anchor, limit)
        assert taken[item] == len(steps)
        expected += [*rows.frames(anchor, back, edge), *steps, end]
        taken_steps += steps
        assert found.end[item] == end
    assert got == expected
    assert found.steps.tolist() == (found.row_ids - ORIGIN).tolist() == taken_steps


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(ROWS, st.integers(1, 9))
def test_lengths_stop_when_they_are_too_many(rows: Rows, limit: int) -> None:
    total = sum(len(rows.steps(anchor, limit)[0]) for anchor in rows.anchors)
    assert stretch.lengths(rows.links(), ids(rows.anchors), limit, total) is not None
    if total:
        assert stretch.lengths(rows.links(), ids(rows.anchors), limit, total - 1) is None


def candidates(rows: Rows, anchor: int, strategy: int) -> list[int]:
    later, row = [], anchor
    while (following := rows.after(row)) is not None:
        row = following
        later.append(row)
    if strategy == goals.FINAL:
        return later[-1:]
    if strategy == goals.EPISODE:
        earlier = [row for row in rows.frames(anchor, 100, False) if row is not None]
        return [*earlier, anchor, *later]
    return later


STRATEGIES = (goals.FUTURE, goals.FINAL, goals.EPISODE)


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(ROWS, st.sampled_from(STRATEGIES), st.integers(0, 2**63))
def test_goals_are_from_rows_that_can_be_seen(rows: Rows, strategy: int, seed: int) -> None:
    anchors = rows.anchors
    chosen = np.zeros(len(anchors), np.int64)
    chosen[1::3] = -1
    assert goals.draw_goals(rows.links(), ids(anchors), chosen, strategy, seed_state(seed), 10_000)
    assert (chosen[1::3] == -1).all()
    for anchor, goal in zip(anchors, chosen.tolist(), strict=True):
        assert goal == -1 or goal - ORIGIN in candidates(rows, anchor, strategy)


EVENTS = [(i % 3, "step") for i in range(40)] + [(0, "terminated"), (1, "closed")]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_goals_are_uniform_among_them(strategy: int) -> None:
    rows = build(EVENTS, {3, 10}, {19}, 4, 1)
    per_anchor = 60_000
    anchors = rows.anchors
    assert len(anchors) * per_anchor > 10**6
    chosen = np.zeros(len(anchors) * per_anchor, np.int64)
    state = seed_state(11 + strategy)
    assert goals.draw_goals(rows.links(), np.repeat(ids(anchors), per_anchor), chosen, strategy, state, 2**40)
    for item, anchor in enumerate(anchors):
        counts = np.bincount(chosen[item * per_anchor : (item + 1) * per_anchor] - ORIGIN, minlength=rows.stop)
        among = candidates(rows, anchor, strategy)
        expected = np.zeros(rows.stop)
        expected[among] = 1 / len(among)
        check_counts(counts, expected)


@pytest.mark.parametrize("rare", [False, True])
def test_random_goals_are_uniform_among_anchors(rare: bool) -> None:
    rows = build(EVENTS, set(range(38)) - {7, 21} if rare else {3, 10}, {19}, 4, 3)
    links = rows.links()
    if rare:  # more rows than tries: the rest is found by counting
        empty = 40_000
        links = links._replace(successor=np.concatenate([links.successor, np.zeros(empty, np.int32)]), stop=links.stop + empty)
        rows.stop, rows.successor, rows.removed = rows.stop + empty, rows.successor + [0] * empty, rows.removed + [0] * empty
    among = [i for i in range(rows.first, rows.stop) if rows.successor[i] > 0 and i + rows.successor[i] < rows.stop]
    chosen = goals.draw_anchors(links, seed_state(4), 10**6) - ORIGIN
    expected = np.zeros(rows.stop)
    expected[among] = 1 / len(among)
    check_counts(np.bincount(chosen, minlength=rows.stop), expected)


@pytest.mark.parametrize("ratio", [0.0, 0.3, 0.8, 1.0])
def test_items_are_relabelled_with_that_probability(ratio: float) -> None:
    marks = goals.choose_items(seed_state(5), ratio, 10**6)
    assert set(marks.tolist()) <= {0, -1}
    check_counts(np.bincount(marks + 1, minlength=2), np.array([1 - ratio, ratio]))


def test_looking_for_goals_has_a_bound() -> None:
    rows = build(EVENTS, set(), set(), 0, 0)
    links, anchors = rows.links(), ids(rows.anchors[:10])
    for strategy in STRATEGIES:
        among = [candidates(rows, anchor, goals.EPISODE if strategy == goals.EPISODE else goals.FUTURE) for anchor in rows.anchors[:10]]
        looked = sum(map(len, among))
        assert goals.draw_goals(links, anchors, np.zeros(10, np.int64), strategy, seed_state(1), looked + 1)
        assert not goals.draw_goals(links, anchors, np.zeros(10, np.int64), strategy, seed_state(1), looked // 2)


@pytest.mark.parametrize(("low", "high"), [(1, 3), (2, 2), (5, 1024)])
def test_random_numbers_of_steps_are_uniform(low: int, high: int) -> None:
    limits = walk.draw_limits(seed_state(3), low, high, 10**6)
    assert (limits.min(), limits.max()) == (low, high)
    check_counts(np.bincount(limits - low), np.full(high - low + 1, 1 / (high - low + 1)))


def test_a_table_that_never_had_deletions_has_no_column_for_them() -> None:
    rows = build(EVENTS, set(), set(), 0, 0)
    for links in (rows.links(), rows.links(old=True)):
        assert stretch.stretches(links, ids([10]), 3, 2, False).window.tolist() == [[4, 7, 10, 13, 16, 19]]
