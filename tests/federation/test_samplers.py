"""What joined samplers stand on: samplers with schedules, and with batches that are asked for one by one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

import replaystore as rs
from replaystore.sample_log import SampleLog

from .conftest import fill


class Reach(gymnasium.Env[Any, Any]):
    """A goal environment as far as columns go."""

    def __init__(self) -> None:
        spot = gymnasium.spaces.Box(-np.inf, np.inf, (1,))
        self.observation_space = gymnasium.spaces.Dict(dict.fromkeys(("observation", "achieved_goal", "desired_goal"), spot))
        self.action_space = gymnasium.spaces.Discrete(2)


@pytest.fixture
def table(api: Any) -> Any:
    fill(api, "t", 1, 30, selector=rs.Prioritized(alpha=1.0, epsilon=0.0))
    api.update_priorities("t", np.arange(30), np.arange(30) + 1.0)
    return api


def test_a_schedule_is_called_with_the_index_of_the_batch(table: Any) -> None:
    asked: list[int] = []

    def beta(index: int) -> float:
        asked.append(index)
        return min(1.0, 0.25 * index)

    for schedule in (rs.Linear(0.0, 1.0, steps=4), beta):
        with table.sampler("t", 16, beta=schedule, seed=2, prefetch=3) as sampler:
            for index in range(6):
                batch = next(sampler)
                expected = batch.probabilities ** -min(1.0, 0.25 * index)
                np.testing.assert_allclose(batch.weights, expected / expected.max(), rtol=1e-5)
            sampler.beta = rs.Constant(0.5)
            assert sampler.beta == 0.5
            for _ in range(4):
                batch = next(sampler)
            np.testing.assert_allclose(batch.weights, (batch.probabilities / batch.probabilities.min()) ** -0.5, rtol=1e-5)
            with pytest.raises(rs.InvalidArgument, match="beta=101"):
                sampler.beta = 101.0
    assert set(asked) >= set(range(6))
    with pytest.raises(rs.InvalidArgument, match=r"beta=-1.0 .*at batch 0"):
        table.sampler("t", 16, beta=lambda index: -1.0)


def test_batches_of_any_size_are_asked_for(table: Any) -> None:
    with table.sampler("t", 8, seed=5, prefetch=0) as sampler:
        with pytest.raises(rs.InvalidArgument, match="call ask first"):
            next(sampler)
        for size in (3, None, 7, 1):
            sampler.ask(size)
        got = [next(sampler) for _ in range(4)]
        assert [len(batch) for batch in got] == [3, 8, 7, 1]
        with pytest.raises(rs.InvalidArgument, match="call ask first"):
            next(sampler)
        with pytest.raises(rs.InvalidArgument, match="batch_size=0"):
            sampler.ask(0)
        sampler.ask(2)
        assert len(next(sampler)) == 2
    with pytest.raises(rs.InvalidArgument, match="closed"):
        sampler.ask(1)
    with table.sampler("t", 8, seed=5, prefetch=2) as sampler:  # the size changes nothing about which seed a batch has
        sampler.ask(3)
        np.testing.assert_array_equal(next(sampler).step_ids, got[0].step_ids)
        np.testing.assert_array_equal(next(sampler).step_ids, got[1].step_ids)


def test_what_a_log_says_was_drawn(table: Any, tmp_path: Path) -> None:
    with table.sampler("t", 8, beta=rs.Linear(0.0, 1.0, steps=2), prefetch=3, log=str(tmp_path / "log")) as sampler:
        sampler.ask(5)
        got = [next(sampler) for _ in range(4)]
    noted = list(SampleLog.read(tmp_path / "log"))
    assert [len(entry.arrays["step_ids"]) for entry in noted] == [5, 8, 8, 8]
    assert [entry.index for entry in noted] == [0, 1, 2, 3]
    assert [entry.beta for entry in noted] == [0.0, 0.5, 1.0, 1.0]
    assert len({entry.seed for entry in noted}) == 4
    for entry, batch in zip(noted, got, strict=True):
        np.testing.assert_array_equal(entry.arrays["weights"], batch.weights)
        assert (entry.as_of, entry.candidates) == (31, 30)


def test_hindsight_through_mixtures_and_logs(api: Any, tmp_path: Path) -> None:
    columns = rs.columns_from_env(Reach())
    calls = []

    def reward_fn(achieved: Any, desired: Any, info: Any) -> Any:
        calls.append(len(achieved))
        return -np.abs(achieved - desired)[:, 0]

    for name, start in (("a", 0), ("b", 100)):
        api.create_table(name, rs.TableConfig(columns, seed=1))
        with api.writer(name) as writer:
            writer.reset({"observation": [start], "achieved_goal": [start], "desired_goal": [-1]})
            for t in range(start, start + 20):
                writer.append(1, -9.0, False, t == start + 19, {"observation": [t + 1], "achieved_goal": [t + 1], "desired_goal": [-1]})
    view = rs.Hindsight(rs.Transition(n_step=(1, 3), gamma=0.5), ratio=0.5)
    with api.sampler(rs.Mixture({"a": 1, "b": 1}), 40, view=view, seed=1, reward_fn=reward_fn) as sampler:
        batch = next(sampler)
    assert len(calls) == 1
    assert batch.source_names == ("a", "b")
    new = batch.relabelled
    assert 0 < new.sum() < 40
    here, goal = batch.observation["observation"][:, 0], batch.observation["desired_goal"][:, 0]
    assert np.all(goal[~new] == -1)
    assert np.all((goal[new] > here[new]) & (batch.sources[new] == (goal[new] > 50)))
    steps = np.arange(3)
    path = -np.abs(here[:, None] + 1 + steps - goal[:, None]) * 0.5**steps
    expected = np.where(steps < batch.steps_taken[:, None], path, 0).sum(axis=1)
    np.testing.assert_allclose(batch.reward[new], expected[new], rtol=1e-6)
    played = np.where(steps < batch.steps_taken[:, None], -9.0 * 0.5**steps, 0).sum(axis=1)
    np.testing.assert_allclose(batch.reward[~new], played[~new], rtol=1e-6)
    again = batch.relabel(reward_fn, everything=True)
    np.testing.assert_array_equal(again.sources, batch.sources)
    np.testing.assert_allclose(again.reward, expected, rtol=1e-6)
    with api.sampler("a", 40, view=view, seed=1, reward_fn=reward_fn, log=tmp_path / "log") as sampler:
        given = [next(sampler) for _ in range(3)]
    for one, other in zip(given, rs.replay_log(api, tmp_path / "log", reward_fn=reward_fn), strict=True):
        for name in one.keys():  # noqa: SIM118 - a Batch is no mapping
            np.testing.assert_array_equal(one[name], other[name], err_msg=name)
    with pytest.raises(rs.InvalidArgument, match="Hindsight"):
        api.sampler("a", 4, reward_fn=reward_fn)
