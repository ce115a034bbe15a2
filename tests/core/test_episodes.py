"""The book of episodes: rows sent twice count once, gaps are refused, links join what belongs together."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replaystore.core.episodes import EpisodeBook, row_meta, runs_of_rows
from replaystore.errors import InvalidArgument
from replaystore.steps import OPEN, RUN_DTYPE, TERMINATED, TRUNCATED, StepBlock
from replaystore.storage.layout import META_DTYPES

Row = tuple[int, int]


def block_of(*runs: tuple[int, int, int, int]) -> StepBlock:
    """Runs of (episode, first, rows, ending); the reward of a row is its position in the episode."""
    table = np.zeros(len(runs), RUN_DTYPE)
    for name, values in zip(("episode", "first", "rows", "ending"), zip(*runs, strict=True), strict=True):
        table[name] = values
    table["seed"] = -1
    rewards = np.concatenate([np.arange(first, first + rows, dtype="float32") for _, first, rows, _ in runs])
    return StepBlock({"reward": rewards}, table)


class Log:
    """Appends to a list what a plan says is new."""

    def __init__(self) -> None:
        self.book, self.rows, self.previous, self.finished = EpisodeBook(), list[Row](), list[int](), list[Any]()

    def append(self, block: StepBlock) -> int:
        plan = self.book.plan(block, len(self.rows), 0.0)
        for run, before, start in zip(plan.block.runs, plan.previous, plan.starts, strict=True):
            assert start == len(self.rows)
            for i in range(int(run["rows"])):
                self.rows.append((int(run["episode"]), int(run["first"]) + i))
                self.previous.append(int(before) if i == 0 else len(self.rows) - 2)
        assert plan.block.columns["reward"].tolist() == [float(position) for _, position in self.rows[len(self.rows) - plan.block.rows :]]
        self.book.apply(plan)
        self.finished += plan.finished
        return plan.duplicate_rows


@st.composite
def histories(draw: st.DrawFn) -> list[StepBlock]:
    """Blocks of interleaved episodes, some of them sent again later."""
    lengths = draw(st.lists(st.integers(2, 9), min_size=1, max_size=5))
    positions, blocks = [0] * len(lengths), list[StepBlock]()
    while any(p < n for p, n in zip(positions, lengths, strict=True)):
        runs = []
        for e in draw(st.lists(st.integers(0, len(lengths) - 1), min_size=1, max_size=4)):
            rows = min(draw(st.integers(1, 4)), lengths[e] - positions[e])
            if rows:
                done = positions[e] + rows == lengths[e]
                runs.append((e + 1, positions[e], rows, (TERMINATED if e % 2 else TRUNCATED) if done else OPEN))
                positions[e] += rows
        if runs:
            blocks.append(block_of(*runs))
    return blocks


@settings(max_examples=200, deadline=None)
@given(histories(), st.data())
def test_each_row_once_however_often_blocks_are_sent_again(blocks: list[StepBlock], data: st.DataObject) -> None:
    log, sent = Log(), 0
    for position, block in enumerate(blocks):
        assert log.append(block) == 0
        sent += block.rows
        again = data.draw(st.integers(0, position + 1))
        for earlier in blocks[again : position + 1]:  # a writer that lost replies sends everything from there on again
            assert log.append(earlier) == earlier.rows
    assert len(log.rows) == sent == len(set(log.rows))
    for step, (episode, position) in enumerate(log.rows):
        before = log.previous[step]
        assert (before == -1) == (position == 0)
        assert position == 0 or log.rows[before] == (episode, position - 1)
    assert not log.book.open
    assert {done.episode for done in log.finished} == {episode for episode, _ in log.rows}
    for done in log.finished:
        rows = [position for episode, position in log.rows if episode == done.episode]
        assert (done.state.rows, done.state.total) == (len(rows), sum(rows))
        assert log.rows[done.state.first_step] == (done.episode, 0)
        assert log.rows[done.state.last_step] == (done.episode, len(rows) - 1)


def test_half_a_duplicate_is_cut_to_what_is_new() -> None:
    log = Log()
    log.append(block_of((1, 0, 3, OPEN)))
    assert log.append(block_of((1, 1, 5, TERMINATED), (2, 0, 2, OPEN))) == 2
    assert log.rows == [(1, i) for i in range(6)] + [(2, 0), (2, 1)]


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ([(1, 4, 2, OPEN)], r"runs.first\[0\]=4: episode 1 has 3 rows here"),
        ([(9, 1, 2, OPEN)], r"runs.first\[0\]=1: episode 9 has 0 rows here"),
        ([(1, 3, 2, OPEN), (1, 6, 1, OPEN)], r"runs.first\[1\]=6: episode 1 has 5 rows here"),
        ([(2, 2, 3, OPEN)], r"runs.rows\[0\]=3: episode 2 ended after 2 rows"),
        ([(1, 3, 2, TERMINATED), (1, 5, 1, OPEN)], r"runs.rows\[1\]=1: episode 1 ended after 5 rows"),
        ([(1, 0, 3, TERMINATED)], r"runs.ending\[0\]: episode 1 went on after row 2"),
    ],
)
def test_what_does_not_continue_is_refused_and_changes_nothing(runs: list[tuple[int, int, int, int]], message: str) -> None:
    log = Log()
    log.append(block_of((1, 0, 3, OPEN), (2, 0, 2, TERMINATED)))
    before = list(log.rows), dict(log.book.open)
    with pytest.raises(InvalidArgument, match=message):
        log.append(block_of(*runs))
    assert (log.rows, log.book.open) == before


def test_a_book_goes_through_json() -> None:
    log = Log()
    log.append(block_of((1, 0, 3, OPEN), (2, 0, 2, TERMINATED), (3, 0, 1, OPEN)))
    again = EpisodeBook()
    again.load(log.book.to_json())
    assert again.open == log.book.open


@settings(max_examples=100, deadline=None)
@given(histories())
def test_runs_are_found_again_in_rows(blocks: list[StepBlock]) -> None:
    rows = [
        (int(r["episode"]), int(r["first"]) + i, int(r["ending"] != OPEN and i + 1 == r["rows"]))
        for b in blocks
        for r in b.runs
        for i in range(int(r["rows"]))
    ]
    episode, position, kind = (np.array(column) for column in zip(*rows, strict=True))
    starts, lengths = runs_of_rows(episode, position.astype(np.int32), kind.astype(np.uint8))
    assert lengths.sum() == len(rows)
    for start, length in zip(starts, lengths, strict=True):
        assert len(set(episode[start : start + length])) == 1
        assert (np.diff(position[start : start + length]) == 1).all()
        assert not kind[start : start + length - 1].any()


@settings(max_examples=100, deadline=None)
@given(histories(), st.integers(0, 10**12))
def test_what_rows_say_of_themselves_follows_from_their_runs(blocks: list[StepBlock], next_step: int) -> None:
    book = EpisodeBook()
    for block in blocks:
        block.runs["policy_version"] = np.arange(len(block.runs))
        plan = book.plan(block, next_step, 0.0)
        rows = [
            (int(run["episode"]), int(run["first"]) + i, int(start) + i - 1 if i else int(before), last == i, int(run["policy_version"]))
            for run, start, before in zip(plan.block.runs, plan.starts, plan.previous, strict=True)
            for last in [int(run["rows"]) - 1 if run["ending"] != OPEN else -1]
            for i in range(int(run["rows"]))
        ]
        meta = row_meta(plan)
        names = ("episode", "step_in_episode", "previous", "kind", "policy_version")
        assert [meta[name].tolist() for name in names] == [list(column) for column in zip(*rows, strict=True)]
        assert [meta[name].dtype.name for name in names] == [META_DTYPES[name] for name in names]
        book.apply(plan)
        next_step += plan.rows
