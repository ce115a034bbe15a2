"""The writer on both sides: what arrives is what was given; what does not fit is refused and nothing is recorded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import replaystore as rs
from replaystore_client import RecordExperience
from tests.client_record.worlds import NESTED, CountingEnv, makers, plain
from tests.conformance.conftest import config, play


def test_rows_links_and_episodes(api: Any, table: str) -> None:
    api.create_table(table, config(extras={"log_prob": rs.Column()}))
    with api.writer(table, actor=5, policy_version=1) as writer:
        writer.reset([0.0, 0.0], seed=77)
        writer.append(10, 1.0, False, False, [0.0, 1.0], log_prob=-1.0)
        writer.policy_version = 2
        writer.append(11, 2.0, False, False, [0.0, 2.0], log_prob=-2.0)
        writer.append(12, 4.0, True, False, [0.0, 3.0], log_prob=-3.0)
        writer.reset([1.0, 0.0])
        writer.append(13, 8.0, False, False, [1.0, 1.0], log_prob=-4.0)
        writer.reset([2.0, 0.0])  # in the middle: the episode before is closed as truncated
        writer.append(14, 16.0, False, True, [2.0, 1.0], log_prob=-5.0)
    steps = api.read_steps(table, 0, 100)
    assert steps["step_id"].tolist() == list(range(8))
    assert steps["observation"].tolist() == [[0, 0], [0, 1], [0, 2], [0, 3], [1, 0], [1, 1], [2, 0], [2, 1]]
    assert steps["action"].tolist() == [10, 11, 12, 0, 13, 0, 14, 0]
    assert steps["reward"].tolist() == [1, 2, 4, 0, 8, 0, 16, 0]
    assert steps["log_prob"].tolist() == [-1, -2, -3, 0, -4, 0, -5, 0]
    assert steps["terminated"].tolist() == [False, False, True, True, False, False, False, False]
    assert steps["truncated"].tolist() == [False] * 5 + [True] * 3
    assert steps["meta/kind"].tolist() == [0, 0, 0, 1, 0, 1, 0, 1]
    assert steps["meta/previous"].tolist() == [-1, 0, 1, 2, -1, 4, -1, 6]
    assert steps["meta/step_in_episode"].tolist() == [0, 1, 2, 3, 0, 1, 0, 1]
    assert steps["meta/policy_version"].tolist() == [1, 2, 2, 2, 2, 2, 2, 2]
    assert set(steps["meta/actor"].tolist()) == {5}
    assert len(set(steps["meta/episode"].tolist())) == 3
    episodes = api.episodes(table)
    assert episodes["first_step"].tolist() == [0, 4, 6]
    assert episodes["last_step"].tolist() == [3, 5, 7]
    assert episodes["length"].tolist() == [3, 1, 1]
    assert episodes["return"].tolist() == [7, 8, 16]
    assert episodes["ending"].tolist() == [1, 2, 2]
    assert episodes["seed"].tolist() == [77, -1, -1]
    assert episodes["actor"].tolist() == [5, 5, 5]


def test_interleaved_streams_keep_their_order(api: Any, table: str) -> None:
    api.create_table(table, config())
    rng = np.random.default_rng(0)
    with api.writer(table, streams=3, block_rows=8) as writer:
        t = [0, 0, 0]
        for stream in range(3):
            writer.reset([stream, 0], stream=stream)
        for _ in range(200):
            stream = int(rng.integers(3))
            t[stream] += 1
            writer.append(t[stream], 1.0, False, False, [stream, t[stream]], stream=stream)
    steps = api.read_steps(table, 0, 1000)
    for stream in range(3):
        mine = steps["observation"][:, 0] == stream
        assert steps["observation"][mine, 1].tolist() == list(range(t[stream] + 1))
        assert len(set(steps["meta/episode"][mine].tolist())) == 1
        ids = steps["step_id"][mine]
        assert steps["meta/previous"][mine].tolist() == [-1, *ids[:-1].tolist()]


def test_append_batch_with_masks(api: Any, table: str) -> None:
    api.create_table(table, config())
    with api.writer(table, streams=2) as writer:
        for stream in range(2):
            writer.reset([stream, 0], stream=stream)
        no = np.zeros(2, bool)
        writer.append_batch([1, 1], [1.0, 1.0], np.array([True, False]), no, np.array([[0, 1], [1, 1]], "f4"))
        writer.append_batch([2, 2], [9.0, 1.0], no, no, np.array([[0, 100], [1, 2]], "f4"), reset_mask=np.array([True, False]))
        writer.append_batch([3, 3], [1.0, 1.0], no, np.array([False, True]), np.array([[0, 101], [1, 3]], "f4"))
        with pytest.raises(rs.InvalidArgument, match="stream 1 has no open episode"):
            writer.append_batch([4, 4], [1.0, 1.0], no, no, np.zeros((2, 2), "f4"))
    steps = api.read_steps(table, 0, 100)
    by_stream = [steps["observation"][steps["observation"][:, 0] == stream, 1].tolist() for stream in range(2)]
    assert by_stream == [[0, 1, 100, 101], [0, 1, 2, 3]]
    assert sorted(api.episodes(table)["length"].tolist()) == [1, 1, 3]


def test_nested_spaces_from_an_environment(api: Any, table: str) -> None:
    world = CountingEnv(space=NESTED)
    api.create_table(table, rs.TableConfig(rs.columns_from_env(world)))
    with api.writer(table) as writer:
        env = RecordExperience(world, writer)
        env.action_space.seed(1)
        for _ in range(3):
            env.reset()
            over = False
            while not over:
                _, _, terminated, truncated, _ = env.step(env.action_space.sample())
                over = terminated or truncated
    steps = api.read_steps(table, 0, 100)
    row = 0
    for episode in world.truth:
        observation = episode.first
        for action, reward, terminated, truncated, following in [*episode.steps, (None,) * 5]:
            assert steps["observation/where"][row].tolist() == observation["where"]
            assert steps["observation/clock/0"][row] == observation["clock"][0]
            assert steps["observation/clock/1"][row].tolist() == observation["clock"][1]
            if action is not None:
                assert steps["action/move"][row] == action["move"]
                assert steps["action/force"][row].tolist() == action["force"]
                assert (steps["reward"][row], steps["terminated"][row], steps["truncated"][row]) == (reward, terminated, truncated)
            observation = following
            row += 1
    batch = api.sample(table, 8)
    assert batch.observation["clock"]["1"].shape == (8, 2, 2)
    np.testing.assert_array_equal(batch.next_observation["where"][:, 1], batch.observation["where"][:, 1])


@pytest.mark.parametrize("mode", list(AutoresetMode), ids=lambda mode: mode.name)
def test_a_recorded_vector_environment(api: Any, table: str, mode: AutoresetMode) -> None:
    worlds = SyncVectorEnv(makers(4), autoreset_mode=mode)
    api.create_table(table, rs.TableConfig(rs.columns_from_env(worlds)))
    with api.writer(table, streams=4) as writer:
        env = RecordExperience(worlds, writer)
        env.action_space.seed(0)
        env.reset(seed=3)
        for _ in range(30):
            result = env.step(env.action_space.sample())
            ended = result[2] | result[3]
            if mode is AutoresetMode.DISABLED and ended.any():
                env.reset(options={"reset_mask": ended})
    steps = api.read_steps(table, 0, 10_000)
    for world in worlds.envs:
        assert isinstance(world, CountingEnv)
        expected = []
        for episode in world.truth:
            if episode.steps:  # a reset without a step leaves nothing
                expected += [episode.first, *(plain(step[4]) for step in episode.steps)]
        mine = steps["observation"][:, 0] == world.number
        assert steps["observation"][mine].tolist() == expected
        kinds = steps["meta/kind"][mine]
        assert steps["reward"][mine][kinds == 0].tolist() == [step[1] for episode in world.truth for step in episode.steps]
        assert steps["action"][mine][kinds == 0].tolist() == [step[0] for episode in world.truth for step in episode.steps]


def test_a_plain_gymnasium_environment(api: Any, table: str) -> None:
    world = gymnasium.make("CartPole-v1")
    api.create_table(table, rs.TableConfig(rs.columns_from_env(world)))
    lengths = []
    with api.writer(table) as writer:
        env = RecordExperience(world, writer)
        env.action_space.seed(0)
        for episode in range(5):
            env.reset(seed=episode)
            length, over = 0, False
            while not over:
                _, _, terminated, truncated, _ = env.step(env.action_space.sample())
                length, over = length + 1, terminated or truncated
            lengths.append(length)
    episodes = api.episodes(table)
    assert episodes["length"].tolist() == lengths
    assert episodes["return"].tolist() == lengths
    assert episodes["seed"].tolist() == list(range(5))
    world.close()


WRONG: dict[str, tuple[type[Exception], str, Callable[[Any], Any]]] = {
    "shape": (rs.SchemaMismatch, r"'observation' takes shape \(2,\), got \(3,\)", lambda w: w.append(1, 1.0, False, False, [0, 0, 0])),
    "float-for-int": (rs.SchemaMismatch, "'action' is int64", lambda w: w.append(0.5, 1.0, False, False, [0, 0])),
    "unknown-column": (rs.SchemaMismatch, "there is no column 'extra'", lambda w: w.append(1, 1.0, False, False, [0, 0], extra=1)),
    "nested": (rs.SchemaMismatch, "'observation'", lambda w: w.append(1, 1.0, False, False, {"deep": [0, 0]})),
    "out-of-range": (rs.SchemaMismatch, "'action'", lambda w: w.append(2**63, 1.0, False, False, [0, 0])),
    "no-such-stream": (rs.InvalidArgument, "stream=5", lambda w: w.append(1, 1.0, False, False, [0, 0], stream=5)),
    "not-reset": (rs.InvalidArgument, r"stream 1 has no open episode", lambda w: w.append(1, 1.0, False, False, [0, 0], stream=1)),
    "batch-rows": (rs.SchemaMismatch, r"'reward'|'action'", lambda w: w.append_batch([1], [1.0], [False], [False], [[0, 0]])),
    "mask": (rs.SchemaMismatch, "reset_mask", lambda w: w.append_batch([1, 1], [1, 1], [0, 0], [0, 0], np.ones((2, 2)), [True])),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_is_refused_and_nothing_of_it_recorded(api: Any, table: str, case: str) -> None:
    error, said, call = WRONG[case]
    api.create_table(table, config())
    with api.writer(table, streams=2) as writer:
        writer.reset([0, 0])
        writer.append(1, 1.0, False, False, [0, 1])
        if case != "not-reset":
            writer.reset([1, 0], stream=1)  # without a step it leaves nothing
        with pytest.raises(error, match=said):
            call(writer)
        writer.append(2, 2.0, True, False, [0, 2])
    steps = api.read_steps(table, 0, 100)
    assert steps["observation"].tolist() == [[0, 0], [0, 1], [0, 2]]
    assert steps["action"].tolist() == [1, 2, 0]


def test_a_missing_column_is_named(api: Any, table: str) -> None:
    api.create_table(table, config(extras={"log_prob": rs.Column()}))
    with api.writer(table) as writer:
        writer.reset([0, 0])
        with pytest.raises(rs.SchemaMismatch, match="'log_prob' was not given"):
            writer.append(1, 1.0, False, False, [0, 1])


def test_a_closed_writer_says_so(api: Any, table: str) -> None:
    api.create_table(table, config())
    writer = api.writer(table)
    writer.close()
    writer.close()
    with pytest.raises(rs.InvalidArgument, match="closed"):
        writer.reset([0, 0])
    assert api.stats(table).next_step == 0


@pytest.mark.parametrize("options", [{"streams": 0}, {"streams": 1_000_000}], ids=str)
def test_wrong_writer_options(api: Any, table: str, options: dict[str, Any]) -> None:
    api.create_table(table, config())
    with pytest.raises(rs.InvalidArgument, match="streams="):
        api.writer(table, **options)


def test_several_writers_at_once(api: Any, table: str) -> None:
    api.create_table(table, config())
    with api.writer(table, actor=0) as one, api.writer(table, actor=1) as two:
        for writer in (one, two, one, two):
            play(writer, 20)
    episodes = api.episodes(table)
    assert sorted(episodes["actor"].tolist()) == [0, 0, 1, 1]
    assert episodes["length"].tolist() == [20] * 4


def test_a_durable_flush_reaches_the_watermark(api: Any, table: str) -> None:
    api.create_table(table, config())
    with api.writer(table) as writer:
        play(writer, 30)
        writer.flush(durable=True)
        stats = api.stats(table)
        assert stats.durable_step == stats.next_step == 31
