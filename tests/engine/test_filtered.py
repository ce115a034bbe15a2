"""Indexes over a part of the anchors: kept few, built anew when that is cheaper."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import replaystore as rs
from replaystore.engine.conditions import passes
from replaystore.engine.selection import filtered
from replaystore.engine.selectors import MOST_INDEXES
from tests.conformance.conftest import config, play


@pytest.fixture
def store(tmp_path: Path) -> Any:
    with rs.open(tmp_path / "data") as opened:
        opened.create_table("t", config(selector=rs.Prioritized(1.0, 0.0)))
        with opened.writer("t") as writer:
            play(writer, 30)
        yield opened


def test_only_the_newest_are_kept(store: Any) -> None:
    selectors = store.table("t")._selectors
    for age in range(2, 30):
        assert store.sample("t", 4, where=rs.Filter(max_age_steps=age)).candidates == age - 1
        store.sample("t", 4, selector=rs.Recency(age))
    assert len(selectors._filtered) == MOST_INDEXES
    assert len(selectors._whole) == MOST_INDEXES
    assert store.stats("t").index_bytes == selectors.nbytes > 0


def test_an_index_that_nobody_draws_from_stops_listening(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    where = rs.Filter(actors=(0,))
    store.sample("t", 4, where=where)
    (index,) = store.table("t")._selectors._filtered.values()
    assert index.nbytes > 0
    monkeypatch.setattr(filtered, "MOST_NOTED", 20)
    for _ in range(3):
        store.update_priorities("t", np.arange(10), np.full(10, 3.0))
    assert index.nbytes == 0
    batch = store.sample("t", 64, where=where)
    assert batch.mass == 10 * 3.0 + 20
    store.update_priorities("t", [29], [100.0])
    assert store.sample("t", 4, where=where).mass == 10 * 3.0 + 19 + 100


def test_priority_zero_keeps_a_place_in_the_filter(store: Any) -> None:
    where = rs.Filter(max_age_steps=11)
    assert store.sample("t", 4, where=where).candidates == 10
    store.update_priorities("t", np.arange(20, 30), np.zeros(10))
    with pytest.raises(rs.NotReady, match=r"10 of 30 steps .* every priority among them is zero: update_priorities must act"):
        store.sample("t", 4, where=where, timeout_s=0.0)
    store.update_priorities("t", [25], [0.5])
    batch = store.sample("t", 4, where=where, beta=1.0, normalise="table")
    assert batch.step_ids.tolist() == [25] * 4
    assert (batch.candidates, batch.mass, batch.weights.tolist()) == (10, 0.5, [1.0] * 4)


def test_many_actors_are_looked_up(store: Any) -> None:
    assert rs.Filter(actors=np.arange(3)) == rs.Filter(actors=(2, 1, 0))
    assert rs.Filter(actors=np.int64(3)).actors == (3,)
    for actors, candidates in ((range(-500, 500), 30), (range(1, 500), 0), (range(-500, 0), 0), ([-1, 0, 1], 30)):
        table = store.table("t")
        with table._lock:
            found = passes(table._population.rows(), rs.Filter(actors=tuple(actors)), table._drawing.facts())
        assert found[:30].sum() == candidates


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.sampled_from([(1 << 40, 0), (0, 1 << 14), (2000, 4096)]),
    first=st.sampled_from([0, 2**40]),
    moves=st.lists(st.tuples(st.sampled_from([1, 500, 1025, 3000]), st.sampled_from([0, 0, 0, 10, 900, 5000])), min_size=1, max_size=10),
)
def test_leaves_stay_where_they_belong_while_their_window_moves(sizes: tuple[int, int], first: int, moves: list[tuple[int, int]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(filtered, "MOST_COPIED", sizes[0])
        patch.setattr(filtered, "RESERVED", sizes[1])
        own, stop = filtered.OwnLeaves(), first
        own.begin(first, stop)
        for rows, gone in moves:
            first = min(first + gone, stop)
            own.cover(first, stop + rows)
            assert not own.array[stop - own.origin :].any()  # new ones are no members
            own.array[stop - own.origin : stop + rows - own.origin] = np.arange(stop, stop + rows) % 7
            stop += rows
            assert own.stop == stop
            live = np.arange(max(first, own.origin), stop)
            np.testing.assert_array_equal(own.array[live - own.origin], live % 7)
            assert own.origin <= first
            assert own.count(first, stop) == np.count_nonzero(live % 7)
