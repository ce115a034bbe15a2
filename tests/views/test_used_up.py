"""Steps that are used up are drawn no more, but what begins elsewhere still holds them; a past moment is seen as it was."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import replaystore as rs
from replaystore.store import Store
from tests.conformance.conftest import config, play


def fill(store: Store, **changes: object) -> None:
    store.create_table("t", config(**changes))
    with store.writer("t") as writer:
        play(writer, 20)


def check(store: Store) -> None:
    assert store.stats("t").anchors == 14
    batch = store.sample("t", 8, view=rs.Transition(n_step=20, gamma=1.0), seed=1, selector="newest")
    np.testing.assert_array_equal(np.sort(batch.step_ids), np.arange(6, 14))
    np.testing.assert_array_equal(batch.steps_taken, 20 - batch.step_ids)
    assert batch.terminated.all()
    np.testing.assert_allclose(batch.reward, [sum(range(step + 1, 21)) for step in batch.step_ids.tolist()])


def test_walks_pass_through(store: Store, tmp_path: Path) -> None:
    selectors = {"newest": rs.Lifo(), "even": rs.Uniform()}
    fill(store, selector=selectors, retention=rs.Retention(max_times_sampled=1))
    assert sorted(store.sample("t", 6, selector="newest").step_ids.tolist()) == [14, 15, 16, 17, 18, 19]
    sequence = store.sample_at("t", [0, 10, 13], view=rs.Sequence(12))
    assert sequence.row_ids[0].tolist() == list(range(12))
    assert sequence.row_ids[1].tolist() == [*range(10, 20), -1, -1]
    assert sequence.mask.sum(axis=1).tolist() == [12, 10, 7]
    store.close()
    with rs.open(tmp_path / "data") as again:
        check(again)


def test_rows_that_were_not_there_yet_are_not_seen(store: Store) -> None:
    fill(store)
    for as_of in (5, 9, 21):
        for view in (rs.Transition(n_step=30), rs.Sequence(30), rs.Sequence(30, frame_stack=3)):
            batch = store.sample_at("t", [0, 3], view=view, as_of=as_of)
            last = min(as_of - 1, 20)  # the newest row then: an observation, not yet a step
            assert batch.steps_taken.tolist() == [last, last - 3]
        if as_of > 9:
            continue
        goals = store.sample_at("t", [0] * 500, view=rs.Hindsight(achieved="observation", desired="observation", ratio=1.0), as_of=as_of)
        assert set(goals.goal_ids.tolist()) == set(range(1, as_of))
