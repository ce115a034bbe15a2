"""RecordExperience: what is written is what the environments themselves know to have happened, in every autoreset mode."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import Autoreset, TimeLimit

from replaystore.errors import InvalidArgument, NotReady, SchemaMismatch
from replaystore_client.record import RecordedEnv, RecordedVectorEnv, RecordExperience
from tests.client_record.worlds import FLAT, NESTED, CountingEnv, Episode, FakeWriter, makers

SPACES = pytest.mark.parametrize("space", [FLAT, NESTED], ids=["flat", "nested"])
MODES = pytest.mark.parametrize("mode", list(AutoresetMode), ids=lambda mode: mode.name)


def content(episodes: list[Episode]) -> list[Any]:
    return [(episode.first, episode.seed, episode.steps) for episode in episodes]


def without_seeds_of_autoresets(episodes: list[Episode]) -> list[Any]:
    return [(episode.first, episode.steps) for episode in episodes]


@SPACES
def test_plain_environment(space: spaces.Space[Any]) -> None:
    world, writer = CountingEnv(7, space=space, reuse=True), FakeWriter(3)
    env = RecordExperience(world, writer, stream=2)
    assert isinstance(env, RecordedEnv)
    env.action_space.seed(0)
    for episode in range(6):
        env.reset(seed=episode if episode % 2 else None)
        over = False
        while not over:
            _, _, terminated, truncated, _ = env.step(env.action_space.sample())
            over = terminated or truncated
    assert [len(episode.steps) for episode in writer.episodes[2]] == [3, 1, 2, 3, 1, 2]
    assert content(writer.episodes[2]) == content(world.truth)
    assert writer.episodes[0] == writer.episodes[1] == []


def test_a_reset_in_the_middle_begins_another_episode() -> None:
    world, writer = CountingEnv(lengths=(9,)), FakeWriter()
    env = RecordExperience(world, writer)
    env.reset(seed=1)
    env.step(0)
    env.reset(seed=2)
    env.step(1)
    assert content(writer.episodes[0]) == content(world.truth)
    assert [len(episode.steps) for episode in writer.episodes[0]] == [1, 1]


def test_a_time_limit_around_or_inside_is_recorded_as_truncation_only_when_inside() -> None:
    writer = FakeWriter()
    env = RecordExperience(TimeLimit(CountingEnv(lengths=(9,)), 2), writer)
    env.reset()
    env.step(0)
    env.step(0)
    assert [step[2:4] for step in writer.episodes[0][0].steps] == [(False, False), (False, True)]


def test_extras_from_the_info_and_noted_before_the_step() -> None:
    world, writer = CountingEnv(), FakeWriter()
    env = RecordExperience(world, writer, extras=lambda info: {"speed": info["speed"]})
    env.reset()
    env.note(log_prob=-0.5)
    env.step(1)
    env.step(2)
    assert writer.episodes[0][0].extras == [{"log_prob": -0.5, "speed": 0.5}, {"speed": 1.0}]


def test_stepping_past_the_end_raises_before_the_environment_moves() -> None:
    world = CountingEnv(lengths=(1,))
    env = RecordExperience(world, FakeWriter())
    with pytest.raises(InvalidArgument, match=r"reset\(\) before step"):
        env.step(0)
    env.reset()
    env.step(0)
    with pytest.raises(InvalidArgument, match="no open episode"):
        env.step(0)
    assert world.steps_taken == 1


def test_an_autoreset_wrapper_around_the_recorder_works() -> None:
    world, writer = CountingEnv(), FakeWriter()
    env = Autoreset(RecordExperience(world, writer))
    env.reset()
    for _ in range(20):
        env.step(0)
    assert content(writer.episodes[0]) == content(world.truth)


@MODES
@SPACES
def test_vector_environment(mode: AutoresetMode, space: spaces.Space[Any]) -> None:
    worlds = SyncVectorEnv(makers(4, space=space), autoreset_mode=mode, copy=False)
    writer = FakeWriter(4)
    env = RecordExperience(worlds, writer)
    assert isinstance(env, RecordedVectorEnv)
    env.action_space.seed(0)
    env.reset(seed=[11, 12, None, 14])
    for _ in range(40):
        _, _, terminateds, truncateds, _ = env.step(env.action_space.sample())
        ended = terminateds | truncateds
        if mode is AutoresetMode.DISABLED and ended.any():
            options = {"reset_mask": ended}
            env.reset(seed=50, options=options)
    for i, world in enumerate(worlds.envs):
        assert isinstance(world, CountingEnv)
        truth, written = world.truth, writer.episodes[i]
        assert without_seeds_of_autoresets(written) == without_seeds_of_autoresets(truth)
        seeds = [episode.seed for episode in written]
        again = 50 + i if mode is AutoresetMode.DISABLED else None
        assert seeds == [[11, 12, None, 14][i]] + [again] * (len(truth) - 1)
    lengths = [len(episode.steps) for episode in writer.episodes[1]]
    assert len(lengths) >= 20  # the one whose episodes end at the first step …
    assert set(lengths[:-1]) == {1}  # … with nothing of the resets in between counted as a step
    steps = sum(len(episode.steps) for episodes in writer.episodes for episode in episodes)
    assert steps == sum(world.steps_taken for world in worlds.envs)  # type: ignore[attr-defined]


@MODES
def test_a_whole_reset_in_the_middle(mode: AutoresetMode) -> None:
    worlds = SyncVectorEnv(makers(3), autoreset_mode=mode)
    writer = FakeWriter(3)
    env = RecordExperience(worlds, writer)
    env.reset(seed=5)
    env.step(np.array([1, 2, 3]))
    env.reset(seed=100)
    env.step(np.array([4, 5, 6]))
    for i, world in enumerate(worlds.envs):
        assert isinstance(world, CountingEnv)
        assert without_seeds_of_autoresets(writer.episodes[i]) == without_seeds_of_autoresets(world.truth)
    assert [episode.seed for episode in writer.episodes[2]] == [7, 102]


def test_disabled_and_not_reset_raises_before_anything_moves() -> None:
    worlds = SyncVectorEnv(makers(3), autoreset_mode=AutoresetMode.DISABLED)
    writer = FakeWriter(3)
    env = RecordExperience(worlds, writer)
    with pytest.raises(InvalidArgument, match=r"sub-environments \[0, 1, 2\] have no open episode"):
        env.step(np.zeros(3, int))
    env.reset()
    env.step(np.zeros(3, int))
    calls = writer.calls
    with pytest.raises(InvalidArgument, match=r"sub-environments \[1\] have no open episode.*reset_mask"):
        env.step(np.zeros(3, int))
    assert writer.calls == calls


class ForgetfulVectorEnv(gymnasium.vector.VectorWrapper[Any, Any, Any, Any, Any]):
    """Loses the final observations."""

    def step(self, actions: Any) -> Any:
        observations, rewards, terminateds, truncateds, infos = self.env.step(actions)
        infos.pop("final_obs", None)
        return observations, rewards, terminateds, truncateds, infos


def test_a_missing_final_observation_or_mode_is_an_error_and_not_a_guess() -> None:
    worlds = ForgetfulVectorEnv(SyncVectorEnv(makers(2), autoreset_mode=AutoresetMode.SAME_STEP))
    env = RecordExperience(worlds, FakeWriter(2))
    env.reset()
    with pytest.raises(InvalidArgument, match=r"\[1\] were reset in the same step, but info has no 'final_obs'"):
        env.step(np.zeros(2, int))
    silent = SyncVectorEnv(makers(1))
    silent.metadata["autoreset_mode"] = "Sometimes"
    with pytest.raises(InvalidArgument, match="does not say how it resets"):
        RecordExperience(silent, FakeWriter())


@MODES
def test_calls_that_were_refused_can_be_made_again_and_nothing_is_lost_or_doubled(mode: AutoresetMode) -> None:
    worlds = SyncVectorEnv(makers(4), autoreset_mode=mode)
    writer = FakeWriter(4, refusals=set(range(2, 400, 3)))
    env = RecordExperience(worlds, writer)
    twin = SyncVectorEnv(makers(4), autoreset_mode=mode)

    def insist(call: Any) -> Any:
        for _ in range(20):
            try:
                return call()
            except NotReady:
                continue
        raise AssertionError("refused too often")

    insist(lambda: env.reset(seed=1))
    twin.reset(seed=1)
    for step in range(20):
        result = insist(lambda step=step: env.step(np.full(4, step)))
        ended = result[2] | result[3]
        for given, expected in zip(result[:4], twin.step(np.full(4, step))[:4], strict=True):
            np.testing.assert_array_equal(given, expected)
        if mode is AutoresetMode.DISABLED and ended.any():
            insist(lambda ended=ended: env.reset(options={"reset_mask": ended.copy()}))
            twin.reset(options={"reset_mask": ended.copy()})
    for i, world in enumerate(worlds.envs):
        assert isinstance(world, CountingEnv)
        assert without_seeds_of_autoresets(writer.episodes[i]) == without_seeds_of_autoresets(world.truth)
    assert sum(world.steps_taken for world in worlds.envs) >= 40  # type: ignore[attr-defined]


def test_plain_steps_refused_are_written_by_the_call_made_again_or_by_close() -> None:
    world, writer = CountingEnv(lengths=(9,)), FakeWriter(refusals={1, 3, 6})
    env = RecordExperience(world, writer)
    with pytest.raises(NotReady):
        env.reset(seed=4)
    _, info = env.reset(seed=4)
    assert info == {"speed": 0.0}
    assert len(world.truth) == 1
    with pytest.raises(NotReady):
        env.step(1)
    assert env.step(1)[1] == 1.0
    env.step(2)
    with pytest.raises(NotReady):
        env.step(3)
    env.close()
    assert world.steps_taken == 3
    assert content(writer.episodes[0]) == content(world.truth)


def test_what_is_noted_after_a_refused_step_goes_with_the_next() -> None:
    world, writer = CountingEnv(lengths=(9,)), FakeWriter(refusals={2})
    env = RecordExperience(world, writer)
    env.reset(seed=4)
    with pytest.raises(NotReady):
        env.step(1)
    env.note(log_prob=0.5)
    env.step(1)
    env.step(2)
    env.step(3)
    assert writer.episodes[0][0].extras == [{}, {"log_prob": 0.5}, {}]


def test_after_a_step_that_does_not_fit_only_a_reset_goes_on() -> None:
    class Strict(FakeWriter):
        def append(self, action: Any, *arguments: Any, **extras: Any) -> None:
            if action == 13:
                raise SchemaMismatch("column 'action' does not take 13")
            super().append(action, *arguments, **extras)

    world, writer = CountingEnv(lengths=(9,)), Strict()
    env = RecordExperience(world, writer)
    env.reset()
    env.step(1)
    with pytest.raises(SchemaMismatch, match="13"):
        env.step(13)
    with pytest.raises(InvalidArgument, match="no open episode"):
        env.step(1)
    env.reset()
    env.step(1)
    assert [len(episode.steps) for episode in writer.episodes[0]] == [1, 1]


def test_wrong_environments() -> None:
    with pytest.raises(InvalidArgument, match=r"must be a gymnasium\.Env"):
        RecordExperience("CartPole-v1", FakeWriter())  # type: ignore[call-overload]
    with pytest.raises(InvalidArgument, match="stream=1"):
        RecordExperience(SyncVectorEnv(makers(2)), FakeWriter(2), stream=1)


def test_the_client_loads_gymnasium_only_for_this() -> None:
    code = (
        "import sys, replaystore_client\nassert 'gymnasium' not in sys.modules\n"
        "replaystore_client.RecordExperience\nassert 'gymnasium' in sys.modules and 'torch' not in sys.modules\nprint('fine')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout.strip() == "fine", done.stderr
