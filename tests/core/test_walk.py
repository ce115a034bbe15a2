"""Walks along streams against plain Python, over random interleaved streams; and the cases of a paper's margin, one by one."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from replaystore.core import reference, walk

ORIGIN = 10**12


@dataclass
class Rows:
    """Rows as a table links them: several streams interleaved, each episode ending in a closing row."""

    previous: list[int] = field(default_factory=list)
    successor: list[int] = field(default_factory=list)
    kind: list[int] = field(default_factory=list)
    terminated: list[bool] = field(default_factory=list)
    removed: list[int] = field(default_factory=list)
    tails: dict[int, int] = field(default_factory=dict)
    stop: int = 0

    def add(self, stream: int, event: str) -> None:
        """`event`: step, terminated (that step and its closing row), closed (truncated or interrupted: the closing row only)."""
        if event == "closed":
            if stream in self.tails:
                self._row(stream, 1, False)
                del self.tails[stream]
            return
        self._row(stream, 0, event == "terminated")
        if event == "terminated":
            self._row(stream, 1, True)
            del self.tails[stream]

    def _row(self, stream: int, kind: int, terminated: bool) -> None:
        step, before = ORIGIN + len(self.kind), self.tails.get(stream, -1)
        self.previous.append(before)
        self.successor.append(0)
        self.kind.append(kind)
        self.terminated.append(terminated)
        if before >= 0:
            self.successor[before - ORIGIN] = step - before
        self.tails[stream] = step

    def links(self, first: int = ORIGIN) -> walk.Links:
        return walk.Links(
            np.array(self.successor, np.int32), np.array(self.previous, np.int64), np.array(self.kind, np.uint8),
            np.array(self.terminated, np.bool_), np.array(self.removed, np.uint8), ORIGIN, first, self.stop or ORIGIN + len(self.kind),
        )  # fmt: skip

    def forward(self, ids: list[int], n_step: int) -> list[tuple[list[int], int, int]]:
        path, taken, end = walk.forward(self.links(), np.array(ids, np.int64), np.array([n_step]), n_step)
        assert path.shape == (len(ids), n_step)
        return list(zip(path.tolist(), taken.tolist(), end.tolist(), strict=True))

    def backward(self, first: int, ids: list[int], length: int) -> walk.Ids:
        return walk.backward(self.links(first), np.array(ids, np.int64), length)


EVENTS = st.lists(
    st.tuples(st.integers(0, 3), st.sampled_from(["step"] * 6 + ["terminated", "closed"])), min_size=2, max_size=80
)  # fmt: skip


def numbered(values: list[int] | list[bool]) -> dict[int, int]:
    return {ORIGIN + i: value for i, value in enumerate(values)}


@settings(max_examples=200, deadline=None)
@given(EVENTS, st.integers(1, 8))
def test_forward_equals_the_reference(events: list[tuple[int, str]], n_step: int) -> None:
    rows = Rows()
    for stream, event in events:
        rows.add(stream, event)
    anchors = [ORIGIN + i for i, distance in enumerate(rows.successor) if distance]
    links, kinds = numbered(rows.successor), numbered(rows.kind)
    ended = {step: bool(value) for step, value in numbered(rows.terminated).items()}
    got = rows.forward(anchors, n_step)
    assert got == [reference.forward(links, kinds, ended, anchor, n_step) for anchor in anchors]
    for path, taken, end in got:
        assert 1 <= taken <= n_step
        assert all(kinds[step] == 0 for step in path)
        assert end == path[-1] + links[path[-1]]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.booleans()), min_size=1, max_size=40), st.integers(1, 8))
def test_forward_equals_the_reference_on_any_flags(flags: list[tuple[int, bool, bool]], n_step: int) -> None:
    """Also where no table would put them: a step after a terminated one, a closing row with a successor."""
    size = len(flags)
    rows = Rows(
        successor=[min(distance, size - 1 - i) for i, (distance, _, _) in enumerate(flags)],
        kind=[int(closing) for _, closing, _ in flags],
        terminated=[ended for _, _, ended in flags],
    )
    anchors = [ORIGIN + i for i, distance in enumerate(rows.successor) if distance]
    ended = {step: bool(value) for step, value in numbered(rows.terminated).items()}
    links, kinds = numbered(rows.successor), numbered(rows.kind)
    assert rows.forward(anchors, n_step) == [reference.forward(links, kinds, ended, anchor, n_step) for anchor in anchors]


@settings(max_examples=200, deadline=None)
@given(EVENTS, st.integers(1, 8), st.integers(0, 40))
def test_backward_and_padding_equal_the_reference(events: list[tuple[int, str]], length: int, dropped: int) -> None:
    rows = Rows()
    for stream, event in events:
        rows.add(stream, event)
    first = ORIGIN + min(dropped, len(rows.kind) - 1) if rows.kind else ORIGIN
    ids = list(range(first, ORIGIN + len(rows.kind)))
    before = numbered(rows.previous)
    for step in range(ORIGIN, first):
        rows.previous[step - ORIGIN] = ORIGIN  # what is dropped may hold anything
    window = rows.backward(first, ids, length)
    expected = [reference.backward(before, first, step, length) for step in ids]
    assert window.tolist() == expected
    walk.pad_edge(window)
    assert window.tolist() == [reference.pad_edge(row) for row in expected]


def episode(*events: str) -> Rows:
    rows = Rows()
    for event in events:
        rows.add(0, event)
    return rows


def test_a_terminated_step_is_the_last_taken() -> None:
    rows = episode("step", "step", "terminated", "step", "step")
    assert rows.forward([ORIGIN + 1], 5) == [([ORIGIN + 1] + [ORIGIN + 2] * 4, 2, ORIGIN + 3)]


def test_a_closing_row_is_an_end_and_never_a_step() -> None:
    rows = episode("step", "step", "closed", "step", "step")
    assert rows.forward([ORIGIN, ORIGIN + 1], 3) == [
        ([ORIGIN, ORIGIN + 1, ORIGIN + 1], 2, ORIGIN + 2),
        ([ORIGIN + 1] * 3, 1, ORIGIN + 2),
    ]


def test_the_newest_row_is_an_end_and_not_yet_a_step() -> None:
    rows = episode("step", "step", "step")
    assert rows.forward([ORIGIN], 4) == [([ORIGIN, ORIGIN + 1, ORIGIN + 1, ORIGIN + 1], 2, ORIGIN + 2)]


def test_frames_do_not_reach_into_the_episode_before_or_below_the_oldest_row() -> None:
    rows = episode("step", "step", "closed", "step", "step")
    assert rows.backward(ORIGIN, [ORIGIN + 4], 4).tolist() == [[-1, -1, ORIGIN + 3, ORIGIN + 4]]
    assert rows.backward(ORIGIN + 4, [ORIGIN + 4], 3).tolist() == [[-1, -1, ORIGIN + 4]]


def test_nothing_asked_nothing_walked() -> None:
    rows = episode("step", "step")
    assert rows.forward([], 3) == []
    assert rows.backward(ORIGIN, [], 3).shape == (0, 3)
