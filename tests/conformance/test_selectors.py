"""Every selector, filters and reading again on both sides."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import replaystore as rs
from tests.conformance.conftest import Side, config, play
from tests.conformance.test_sampling import fields

Fill = Callable[..., str]

KINDS: dict[str, Any] = {
    "uniform": rs.Uniform(),
    "prioritized": rs.Prioritized(),
    "rank": rs.RankPrioritized(),
    "fifo": rs.Fifo(),
    "lifo": rs.Lifo(),
    "low": rs.MinHeap(),
    "high": rs.MaxHeap(),
    "recent": rs.Recency(30.0, newest=2),
    "pass": rs.WithoutReplacement(),
}
FILTERS = [None, rs.Filter(max_age_steps=40, actors=(0,)), rs.Filter(min_return=1.0, ended="terminated")]


def test_seeds_give_the_same_batches_with_every_selector(sides: dict[str, Side]) -> None:
    found = []
    for side in sides.values():
        side.api.create_table("t", config(selector=KINDS))
        with side.api.writer("t") as writer:
            play(writer, 60)
            play(writer, 40)
        for name in ("prioritized", "rank", "low", "high"):  # all change: ranks are sorted, in whichever blocks the steps came
            side.api.update_priorities("t", np.arange(101), np.arange(101) % 7 + 2, selector=name)
        batches = []
        for name in (*KINDS, rs.Recency(5.0), rs.Fifo()):
            for where in FILTERS:
                view = rs.Transition(n_step=(1, 4), frame_stack=2)
                batches += [
                    side.api.sample("t", 16, view=view, beta=0.5, seed=seed, selector=name, where=where, normalise="table")
                    for seed in (0, 1)
                ]
                with side.api.sampler("t", 16, view=view, seed=11, selector=name, where=where, prefetch=1) as sampler:
                    batches += [next(sampler) for _ in range(2)]
        found.append([(fields(batch), batch.candidates, batch.mass, batch.next_step) for batch in batches])
    for embedded, remote in zip(*found, strict=True):
        embedded[0].pop("times_sampled"), remote[0].pop("times_sampled")  # a sampler asks ahead
        assert embedded == remote


def test_a_batch_says_what_it_was_drawn_from(filled: Fill, api: Any) -> None:
    name = filled(20, selector={"p": rs.Prioritized(1.0, 0.0), "low": rs.MinHeap()})
    api.update_priorities(name, np.arange(20), np.full(20, 2.0))
    batch = api.sample(name, 4)
    assert (batch.candidates, batch.mass, batch.next_step) == (20, 40.0, 21)
    batch = api.sample(name, 4, where=rs.Filter(max_age_steps=6))
    assert (batch.candidates, batch.mass, batch.next_step) == (5, 10.0, 21)
    batch = api.sample(name, 4, selector="low", where=rs.Filter(max_age_steps=6))
    assert (batch.candidates, batch.mass) == (5, 5.0)


def test_ordered_selectors_take_in_order(filled: Fill, api: Any) -> None:
    name = filled(10, selector=KINDS)
    for kind in ("low", "high"):
        api.update_priorities(name, np.arange(10), [5, 1, 4, 0, 2, 2, 9, 0, 3, 8], selector=kind)
    assert api.sample(name, 3, selector="fifo").step_ids.tolist() == [0, 1, 2]
    assert api.sample(name, 3, selector=rs.Lifo()).step_ids.tolist() == [9, 8, 7]
    assert api.sample(name, 4, selector="low").step_ids.tolist() == [3, 7, 1, 4]
    batch = api.sample(name, 3, selector="high", beta=1.0)
    assert batch.step_ids.tolist() == [6, 9, 0]
    assert batch.priorities.tolist() == [9, 8, 5]
    assert batch.weights.tolist() == [1, 1, 1]


def test_weights_by_the_tables_largest(filled: Fill, api: Any) -> None:
    name = filled(4, selector=rs.Prioritized(1.0, 0.0))
    api.update_priorities(name, [0, 1, 2, 3], [1.0, 2.0, 4.0, 8.0])
    batch = api.sample(name, 32, beta=0.5, normalise="table")
    np.testing.assert_allclose(batch.weights, (1.0 / 2.0**batch.step_ids) ** 0.5, rtol=1e-6)
    api.update_priorities(name, [0], [0.25])
    batch = api.sample(name, 32, beta=0.5, normalise="table", where=rs.Filter(max_age_steps=5))
    weights = (0.25 / np.array([0.25, 2.0, 4.0, 8.0])) ** 0.5
    np.testing.assert_allclose(batch.weights, weights[batch.step_ids], rtol=1e-6)


@pytest.mark.parametrize("save", [True, False])
def test_a_pass_goes_on_after_a_restart(side: Side, save: bool) -> None:
    side.api.create_table("t", config(selector=rs.WithoutReplacement()))
    with side.api.writer("t") as writer:
        play(writer, 50)
    before = side.api.sample("t", 20).step_ids.tolist()
    old = side.api.sample("t", 10, where=rs.Filter(min_age_steps=20)).step_ids.tolist()
    if not save:
        side._store.table("t").close(save=False)
    side.reopen()
    after = side.api.sample("t", 20).step_ids.tolist()
    assert sorted(before + old + after) == list(range(50))
    assert sorted(side.api.sample("t", 50).step_ids.tolist()) == list(range(50))


def test_priorities_of_every_kind_come_through_a_crash(side: Side) -> None:
    kinds = {"rank": rs.RankPrioritized(), "low": rs.MinHeap(), "high": rs.MaxHeap(), "p": rs.Prioritized(1.0, 0.0)}
    side.api.create_table("t", config(selector=kinds))
    with side.api.writer("t") as writer:
        play(writer, 20)
    for kind in kinds:
        side.api.update_priorities("t", np.arange(20), np.arange(20) % 10, selector=kind)
    side._store.table("t").close(save=False)
    side.reopen()
    assert side.api.sample("t", 3, selector="low").step_ids.tolist() == [0, 10, 1]
    assert side.api.sample("t", 3, selector="high").step_ids.tolist() == [9, 19, 8]
    ranks = side.api.sample("t", 64, selector="rank")
    np.testing.assert_array_equal(ranks.priorities, ranks.step_ids % 10)
    assert side.api.stats("t").max_priority == dict.fromkeys(kinds, 9.0)
    assert side.api.stats("t").total_priority == {"p": 108.0}  # a mass of 0 may be one that was lost: 2 × 9 more than was set
    with side.api.writer("t") as writer:
        play(writer, 2)
    assert side.api.sample("t", 4, selector="high").priorities.tolist() == [9, 9, 9, 9]


def test_parameters_change_and_forks_take_priorities_over(side: Side) -> None:
    side.api.create_table("t", config(selector={"a": rs.RankPrioritized(0.7), "b": rs.Recency(10.0), "c": rs.WithoutReplacement()}))
    with side.api.writer("t") as writer:
        play(writer, 30)
    side.api.update_priorities("t", np.arange(30), np.arange(30.0), selector="a")
    side.api.alter_table("t", selector={"a": rs.RankPrioritized(0.0), "b": rs.Recency(1e9), "c": rs.WithoutReplacement()})
    np.testing.assert_allclose(side.api.sample("t", 8, selector="a").probabilities, 1 / 30)
    np.testing.assert_allclose(side.api.sample("t", 8, selector="b").probabilities, 1 / 30, rtol=1e-6)
    first = side.api.sample("t", 20, selector="c").step_ids.tolist()
    side.api.fork("t", "u", selector={"a": rs.MaxHeap(), "c": rs.WithoutReplacement(), "new": rs.MinHeap(), "p": rs.Prioritized()})
    assert side.api.sample("u", 3, selector="a").step_ids.tolist() == [29, 28, 27]
    assert sorted(first + side.api.sample("u", 10, selector="c").step_ids.tolist()) == list(range(30))
    assert side.api.sample("u", 3, selector="new").step_ids.tolist() == [0, 1, 2]
    side.api.fork("u", "v", selector={"a": rs.Prioritized(0.5, 0.25)})
    batch = side.api.sample("v", 64)
    np.testing.assert_allclose(batch.priorities, batch.step_ids, rtol=1e-4, atol=1e-4)
    with pytest.raises(rs.InvalidArgument, match="stay as created"):
        side.api.alter_table("v", selector={"a": rs.MaxHeap()})


def test_filters_that_nothing_passes_say_which_condition_it_is(filled: Fill, api: Any) -> None:
    name = filled(10)
    with pytest.raises(rs.NotReady, match=r"none of 10 steps .* Filter\(max_age_steps=5, actors=\(7,\)\): actors=\(7,\) alone leaves none"):
        api.sample(name, 4, where=rs.Filter(max_age_steps=5, actors=7), timeout_s=0.05)
    with pytest.raises(rs.NotReady, match=r"4 different steps, 2 of 10 .* pass .*2 more are missing"):
        api.sample(name, 4, selector=rs.Fifo(), where=rs.Filter(max_age_steps=3), timeout_s=0.05)
    with pytest.raises(rs.NotReady, match="Lifo draws 11 different steps, 10 steps can be sampled: 1 more is missing"):
        api.sample(name, 11, selector=rs.Lifo(), timeout_s=0.05)
    with pytest.raises(rs.NotReady, match="together none"):
        api.sample(name, 1, where=rs.Filter(min_age_steps=5, max_age_steps=6), timeout_s=0.05, view=rs.Sequence(2, period=4))


def test_who_waits_for_a_filter_lets_others_pass(filled: Fill, api: Any) -> None:
    name = filled(10)
    found: list[Any] = []
    waiting = threading.Thread(target=lambda: found.append(api.sample(name, 2, where=rs.Filter(min_age_steps=12), timeout_s=60.0)))
    waiting.start()
    deadline = time.monotonic() + 30
    while not api.stats(name).waiting_samples and time.monotonic() < deadline:
        time.sleep(0.005)
    assert len(api.sample(name, 4, timeout_s=30.0)) == 4
    assert not found
    with api.writer(name) as writer:
        play(writer, 1)
    waiting.join(60)
    assert set(found[0].step_ids.tolist()) <= {0, 1}


def test_age_in_seconds_comes_by_itself(filled: Fill, api: Any) -> None:
    name = filled(5)
    batch = api.sample(name, 3, where=rs.Filter(min_age_s=0.3), timeout_s=60.0)  # nothing else happens meanwhile
    assert 1 <= batch.candidates <= 5  # a slow writer sends them in pieces
    with pytest.raises(rs.NotReady, match=r"max_age_s=1e-06 alone leaves none"):
        api.sample(name, 3, where=rs.Filter(max_age_s=1e-6), timeout_s=0.0)


def test_reading_given_anchors_again(filled: Fill, api: Any) -> None:
    name = filled(30, selector=rs.Prioritized(1.0, 0.0))
    view = rs.Transition(n_step=(1, 5), frame_stack=3)
    batch = api.sample(name, 16, view=view, seed=4)
    sampled = api.stats(name).sampled_items
    with api.writer(name) as writer:
        play(writer, 5)
    api.update_priorities(name, [3], [6.5])
    again = api.sample_at(name, batch.step_ids, view=view, seed=4, as_of=batch.next_step)
    for field in ("observation", "next_observation", "reward", "discount", "steps_taken", "ages", "policy_version", "step_ids"):
        np.testing.assert_array_equal(again[field], batch[field])
    assert not again.probabilities.any()
    assert (again.weights == 1).all()
    assert api.stats(name).sampled_items == sampled
    assert api.sample_at(name, [3, 3, 0]).priorities.tolist() == [6.5, 6.5, 1.0]
    assert api.sample_at(name, [7], columns=["action"]).action.tolist() == [7]
    assert api.sample_at(name, [31, 4], view=rs.Transition(4)).steps_taken.tolist() == [4, 4]
    assert api.sample_at(name, [4], view=rs.Transition(4), as_of=7).steps_taken.tolist() == [2]


def test_what_cannot_be_read_again_is_named(filled: Fill, api: Any) -> None:
    name = filled(30, retention=rs.Retention(max_steps=20))
    with pytest.raises(rs.NotFound, match=r"step_ids: 3 is not kept: rows 11 to 30 are \(and 1 more\)"):
        api.sample_at(name, [12, 3, 99])
    with pytest.raises(rs.NotFound, match="30 is no anchor"):
        api.sample_at(name, [12, 30])
    with pytest.raises(rs.NotFound, match=r"15 is no anchor: .* before step 16"):
        api.sample_at(name, [14, 15], as_of=16)
    with pytest.raises(rs.NotFound, match="13 is step 13 of its episode: Sequence begins at multiples of 4"):
        api.sample_at(name, [12, 13], view=rs.Sequence(4, period=4))
    with pytest.raises(rs.NotFound, match="first step of a finished episode"):
        api.sample_at(name, [12], view=rs.Episode())
    with pytest.raises(rs.InvalidArgument, match="as_of"):
        api.sample_at(name, [12], as_of=0)
    with pytest.raises(rs.InvalidArgument, match="whole numbers"):
        api.sample_at(name, [1.5])
    with pytest.raises(rs.InvalidArgument, match="step_ids is empty"):
        api.sample_at(name, [])


def test_updates_are_only_for_selectors_with_priorities(filled: Fill, api: Any) -> None:
    name = filled(5, selector=KINDS)
    for kind in ("uniform", "fifo", "pass", "recent"):
        with pytest.raises(rs.InvalidArgument, match="keeps no priorities"):
            api.update_priorities(name, [0], [1.0], selector=kind)
    with pytest.raises(rs.InvalidArgument, match=r"selector.*MinHeap\(\)"):
        api.update_priorities(name, [0], [1.0], selector=rs.MinHeap())
    counts = api.update_priorities(name, [0, 5, 1, 2], [1.0, 1.0, np.nan, 0.0], selector="low")
    assert (counts.applied, counts.gone, counts.rejected) == (2, 1, 1)
    assert api.sample(name, 1, selector="low").step_ids.tolist() == [2]
