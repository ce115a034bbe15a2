"""Sampling on both sides: selectors, seeds, columns, priorities, limiters, samplers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import replaystore as rs
from tests.conformance.conftest import Side, config, play

Fill = Callable[..., str]


def fields(batch: rs.Batch) -> dict[str, list[Any]]:
    return {name: batch[name].tolist() for name in batch.keys()}  # noqa: SIM118 - a Batch is no mapping


def test_uniform(filled: Fill, api: Any) -> None:
    name = filled(10)
    batch = api.sample(name, 20_000, seed=5)
    counts = np.bincount(batch.step_ids, minlength=10)
    assert len(counts) == 10  # not the closing row
    assert abs(counts - 2000).max() < 250  # 6 standard deviations
    np.testing.assert_allclose(batch.probabilities, 0.1)
    np.testing.assert_array_equal(batch.weights, 1.0)
    np.testing.assert_array_equal(batch.ages, 11 - batch.step_ids)
    np.testing.assert_array_equal(batch.times_sampled, counts[batch.step_ids])


def test_prioritized(filled: Fill, api: Any) -> None:
    name = filled(10, selector=rs.Prioritized(alpha=0.5, epsilon=0.0))
    priorities = np.arange(10.0) ** 2
    counts = api.update_priorities(name, np.arange(10), priorities)
    assert (counts.applied, counts.gone, counts.rejected) == (10, 0, 0)
    batch = api.sample(name, 45_000, beta=0.4, seed=9)
    drawn = np.bincount(batch.step_ids, minlength=10)
    assert drawn[0] == 0
    assert abs(drawn - 1000 * np.arange(10)).max() < 400
    probabilities = np.arange(10) / 45
    np.testing.assert_allclose(batch.probabilities, probabilities[batch.step_ids], rtol=1e-5)
    np.testing.assert_allclose(batch.priorities, priorities[batch.step_ids], rtol=1e-4)
    raw = (10 * batch.probabilities) ** -0.4
    np.testing.assert_allclose(batch.weights, raw / raw.max(), rtol=1e-5)


def test_new_steps_enter_at_the_highest_priority_seen(filled: Fill, api: Any) -> None:
    name = filled(4, selector=rs.Prioritized(alpha=1.0, epsilon=0.0))
    api.update_priorities(name, [0, 1, 2, 3], [8.0, 1.0, 1.0, 1.0])
    api.update_priorities(name, [0], [0.5])
    with api.writer(name) as writer:
        play(writer, 2)
    stats = api.stats(name)
    assert stats.max_priority["default"] == pytest.approx(8.0)
    assert stats.total_priority["default"] == pytest.approx(0.5 + 3 + 16)


def test_updates_are_counted_as_applied_gone_or_rejected(filled: Fill, api: Any) -> None:
    name = filled(20, selector=rs.Prioritized(alpha=1.0, epsilon=0.0), retention=rs.Retention(11))
    assert api.stats(name).first_step == 10
    ids = [9, 10, 11, 12, 13, 14, 20, 21, 10**12, -1, 10]
    values = [1.0, 2.0, np.nan, -1.0, np.inf, 3.0, 1.0, 1.0, 1.0, 1.0, 4.0]
    counts = api.update_priorities(name, ids, values)
    # gone: 9 evicted, 20 the closing row, 21 and 10**12 not written yet, -1 never; rejected: NaN, negative, infinite
    assert (counts.applied, counts.gone, counts.rejected) == (3, 5, 3)
    leaves = api.read_steps(name, 10, 21, ["replay/priority"])["replay/priority"]
    assert leaves.tolist() == [4, 1, 1, 1, 3, 1, 1, 1, 1, 1, 0]  # of an id given twice the last value counts
    assert api.update_priorities(name, [], []) == rs.UpdateCounts(0, 0, 0)


def test_several_selectors_over_the_same_steps(filled: Fill, api: Any) -> None:
    name = filled(4, selector={"td": rs.Prioritized(1.0, 0.0), "novelty": rs.Prioritized(1.0, 0.0), "flat": rs.Uniform()})
    api.update_priorities(name, [0, 1, 2, 3], [1.0, 0.0, 0.0, 0.0])
    api.update_priorities(name, [0, 1, 2, 3], [0.0, 0.0, 0.0, 5.0], selector="novelty")
    assert set(api.sample(name, 50).step_ids.tolist()) == {0}
    assert set(api.sample(name, 50, selector="td").step_ids.tolist()) == {0}
    assert set(api.sample(name, 50, selector="novelty").step_ids.tolist()) == {3}
    assert set(api.sample(name, 200, selector="flat", seed=1).step_ids.tolist()) == {0, 1, 2, 3}
    assert set(api.sample(name, 200, selector=rs.Uniform(), seed=1).step_ids.tolist()) == {0, 1, 2, 3}
    with pytest.raises(rs.InvalidArgument, match="keeps no priorities"):
        api.update_priorities(name, [0], [1.0], selector="flat")


def test_columns_read_only_what_is_asked_for(filled: Fill, api: Any) -> None:
    name = filled(10)
    batch = api.sample(name, 4, columns=["action", "reward"])
    assert {"action", "reward"} <= set(batch.keys())
    assert "observation" not in batch
    assert "next_observation" not in batch
    np.testing.assert_array_equal(batch.reward, batch.action + 1)
    with pytest.raises(AttributeError, match="observation"):
        _ = batch.observation
    assert "next_observation" in api.sample(name, 4, columns=["observation"])


def test_seeds_give_the_same_batches_on_both_sides(sides: dict[str, Side]) -> None:
    found = []
    for side in sides.values():
        side.api.create_table("t", config(selector={"p": rs.Prioritized(), "u": rs.Uniform()}))
        with side.api.writer("t") as writer:
            play(writer, 100)
        ids = np.arange(100)
        side.api.update_priorities("t", ids, ids % 7)
        view = rs.Transition(n_step=3, frame_stack=2)
        batches = [side.api.sample("t", 32, view=view, beta=0.5, seed=seed, selector=s) for s in ("p", "u") for seed in (0, 1, 1)]
        with side.api.sampler("t", 32, view=view, seed=11, selector="u") as sampler:
            batches += [next(sampler) for _ in range(3)]
        contents = [fields(batch) for batch in batches]
        for content in contents:
            content.pop("times_sampled")  # prefetched batches count too
        assert contents[1] == contents[2]
        assert contents[0]["step_ids"] != contents[1]["step_ids"]
        assert contents[6]["step_ids"] != contents[7]["step_ids"]
        found.append(contents)
    assert found[0] == found[1]


def test_policy_versions_come_along(api: Any, table: str) -> None:
    api.create_table(table, config())
    with api.writer(table, policy_version=3) as writer:
        writer.reset([0, 0])
        for t in range(6):
            if t == 4:
                writer.policy_version = 9
            writer.append(t, 1.0, t == 5, False, [0, t + 1])
    batch = api.sample(table, 100, seed=0)
    np.testing.assert_array_equal(batch.policy_version, np.where(batch.step_ids < 4, 3, 9))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"batch_size": 0}, "batch_size=0"),
        ({"batch_size": 1 << 21}, "batch_size"),
        ({"beta": -1.0}, "beta"),
        ({"seed": -1}, "seed=-1"),
        ({"view": "Transition"}, "view 'Transition'"),
        ({"selector": "none"}, "has no 'none'; it has default"),
        ({"columns": ["none"]}, "no column 'none'"),
        ({"columns": [1]}, "names of columns"),
        ({"batch_size": np.int64(2)}, r"pass int\(…\)"),
        ({"beta": rs.Linear(0.4, 1.0, 10)}, "a schedule is for samplers"),
    ],
    ids=str,
)
def test_wrong_requests(filled: Fill, api: Any, changes: dict[str, Any], said: str) -> None:
    name = filled(5)
    with pytest.raises(rs.InvalidArgument, match=said):
        api.sample(**{"name": name, "batch_size": 2, **changes})


@pytest.mark.parametrize(
    ("ids", "values"),
    [([0, 1], [1.0]), ([[0]], [[1.0]]), ([0.5], [1.0]), ([[0], [1, 2]], [1.0, 1.0]), ([0], ["a"]), ([0], [1j]), ([0], [None])],
    ids=["lengths", "axes", "fraction", "ragged", "text", "complex", "nothing"],
)
def test_wrong_updates(filled: Fill, api: Any, ids: Any, values: Any) -> None:
    name = filled(5, selector=rs.Prioritized())
    with pytest.raises(rs.InvalidArgument):
        api.update_priorities(name, ids, values)


def test_who_waits_for_ever_is_served(api: Any, table: str) -> None:
    api.create_table(table, config())
    with api.writer(table) as writer, ThreadPoolExecutor(1) as pool:
        found = pool.submit(api.sample, table, 1, columns="reward", timeout_s=float("inf"))
        play(writer, 5)
        writer.flush()
        assert found.result(60)["reward"].shape == (1,)


def test_an_empty_table_says_why(api: Any, table: str) -> None:
    api.create_table(table, config(rate_limiter=rs.MinSize(100)))
    with api.writer(table) as writer:
        play(writer, 40)
    started = time.monotonic()
    with pytest.raises(rs.NotReady, match=r"MinSize .* 40 of min_size_to_sample=100 .* actors must insert 60 more"):
        api.sample(table, 4, timeout_s=0.2)
    assert 0.2 <= time.monotonic() - started < 60
    with pytest.raises(rs.NotReady, match="60 more"), api.sampler(table, 4, timeout_s=0.2) as sampler:
        next(sampler)


def test_a_step_without_successor_cannot_be_sampled(api: Any, table: str) -> None:
    api.create_table(table, config())
    with api.writer(table) as writer:
        writer.reset([0, 0])
        writer.append(0, 1.0, False, False, [0, 1])
        writer.flush()
        with pytest.raises(rs.NotReady, match="becomes an anchor when its stream's next row arrives"):
            api.sample(table, 1, timeout_s=0.1)
        writer.append(1, 1.0, False, False, [0, 2])
        writer.flush()
        assert set(api.sample(table, 5).step_ids.tolist()) == {0}


def test_the_ratio_holds_both_sides_back(api: Any, table: str) -> None:
    # sampling begins at 10 steps, where the cursor is 20; it may go from 10 to 30
    api.create_table(table, config(rate_limiter=rs.SampleToInsertRatio(2.0, 10, 10.0)))
    with api.writer(table, block_rows=1, timeout_s=4.0) as writer:
        writer.reset([0, 0])
        inserted: list[int] = []

        def insert_until_refused() -> None:
            for t in range(40):
                writer.append(t, 1.0, False, False, [0, t + 1])
                writer.flush()
                inserted.append(t)

        with pytest.raises(rs.NotReady, match=r"SampleToInsertRatio holds inserts back: cursor .* learners must sample"):
            insert_until_refused()
        assert inserted == list(range(15))
        assert "learners must sample" in api.stats(table).blocked_insert
        with pytest.raises(rs.InvalidArgument, match=r"batch_size=21 .*error_buffer=10"):
            api.sample(table, 21)
        api.sample(table, 18)
        with pytest.raises(rs.NotReady, match=r"SampleToInsertRatio holds sampling back: cursor .* actors must insert"):
            api.sample(table, 18, timeout_s=0.2)
        writer.flush()  # there is room again: what was refused goes through
        writer.append(99, 1.0, True, False, [0, 99])
    actions = api.read_steps(table, 0, 1000, ["action", "meta/kind"])
    written = actions["action"][actions["meta/kind"] == 0].tolist()
    assert written == [*range(16), 99]  # once each, none lost


def test_a_waiting_sample_goes_on_when_steps_arrive_or_the_limiter_is_altered(api: Any, table: str) -> None:
    api.create_table(table, config(rate_limiter=rs.MinSize(10)))
    results: list[Any] = []

    def sample() -> None:
        try:
            results.append(api.sample(table, 3, timeout_s=20))
        except BaseException as error:
            results.append(error)

    def waiting() -> threading.Thread:
        thread = threading.Thread(target=sample)
        thread.start()
        deadline = time.monotonic() + 60
        while api.stats(table).waiting_samples == 0:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return thread

    thread = waiting()
    with api.writer(table) as writer:
        play(writer, 15)
    thread.join(120)
    api.alter_table(table, rate_limiter=rs.MinSize(1000))
    thread = waiting()
    api.alter_table(table, rate_limiter=rs.MinSize(1))
    thread.join(120)
    assert [len(result) for result in results] == [3, 3]
    assert api.stats(table).waiting_samples == 0


def test_retention_is_exact_and_ids_never_return(api: Any, table: str) -> None:
    api.create_table(table, config(retention=rs.Retention(50), selector=rs.Prioritized()))
    with api.writer(table) as writer:
        for _ in range(10):
            play(writer, 29)
            writer.flush()
    stats = api.stats(table)
    assert (stats.first_step, stats.next_step, stats.steps, stats.inserted_steps) == (250, 300, 50, 290)
    steps = api.read_steps(table, 0, 10_000)
    assert steps["step_id"].tolist() == list(range(250, 300))
    assert steps["observation"][:, 1].tolist() == [*range(10, 30), *range(30)]
    assert stats.anchors == 48
    batch = api.sample(table, 2000, seed=1)
    assert set(batch.step_ids.tolist()) == set(range(250, 300)) - {269, 299}
    assert api.update_priorities(table, [249, 250], [1.0, 1.0]) == rs.UpdateCounts(1, 1, 0)


def test_a_sampler_goes_on_and_carries_updates_and_beta(filled: Fill, api: Any) -> None:
    name = filled(8, selector=rs.Prioritized(1.0, 0.0))
    with api.sampler(name, 16, beta=0.0, prefetch=2) as sampler:
        for number, batch in enumerate(sampler):
            assert len(batch) == 16
            sampler.update_priorities(np.arange(8), [0, 0, 0, 7.0, 0, 0, 0, 1.0])
            sampler.beta = 1.0
            if number == 9:
                break
        assert sampler.beta == 1.0
        assert set(batch.step_ids.tolist()) <= {3, 7}
        np.testing.assert_allclose(batch.weights, np.where(batch.step_ids == 7, 1.0, 1 / 7) if 7 in batch.step_ids else 1.0, rtol=1e-4)
        sampler.update_priorities([3], [2.0])
    assert api.stats(name).total_priority["default"] == pytest.approx(3.0)  # also the last update arrived
    with pytest.raises(rs.InvalidArgument, match="closed"):
        next(sampler)


def test_several_threads_sample_and_write_at_once(filled: Fill, api: Any) -> None:
    name = filled(200, selector=rs.Prioritized())
    failures: list[BaseException] = []

    def sample() -> None:
        try:
            for _ in range(30):
                batch = api.sample(name, 32)
                np.testing.assert_array_equal(batch.next_observation[:, 1], batch.observation[:, 1] + 1)
                np.testing.assert_array_equal(batch.action, batch.observation[:, 1])
                api.update_priorities(name, batch.step_ids, np.ones(32))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=sample) for _ in range(3)]
    for thread in threads:
        thread.start()
    with api.writer(name) as writer:
        for _ in range(20):
            play(writer, 30)
    for thread in threads:
        thread.join(60)
    assert not failures, failures[0]
    assert api.stats(name).sampled_items == 3 * 30 * 32
