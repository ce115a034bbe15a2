"""Evaluation counts whole episodes, one per environment."""

from typing import Any

import gymnasium
import numpy as np
import pytest

from replaystore_agents.trunk.environments import fitted
from replaystore_agents.trunk.evaluate import evaluate, play

SEED = 20


class SeedLong(gymnasium.Env[Any, Any]):
    """Lasts as many steps as its seed says; the reward is the action."""

    observation_space = gymnasium.spaces.Box(0, 100, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2, start=3)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.length = 1 if seed is None else seed - SEED + 1
        self.t = 0
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.t += 1
        over = self.t >= self.length
        return np.full(1, self.t, np.float32), float(action), over and self.length % 2 == 0, over and self.length % 2 == 1, {}


@pytest.fixture(autouse=True)
def _registered() -> Any:
    gymnasium.register("SeedLong-v0", SeedLong, disable_env_checker=True)
    yield
    del gymnasium.registry["SeedLong-v0"]


def policy(observations: Any) -> Any:
    """Action 4 once an episode has lasted three steps, 3 before."""
    return np.where(observations[:, 0] > 2.5, 4, 3)


def test_each_environment_plays_one_whole_episode() -> None:
    returns = evaluate(policy, "SeedLong-v0", 6, seed=SEED)
    # actions 3, 3, 3 for observations 0, 1, 2, and 4 from then on
    assert returns.tolist() == [3, 6, 9, 13, 17, 21]


def test_last_and_highest_rewards_are_those_of_the_episode() -> None:
    played = play(lambda seen: np.where(seen[:, 0] == 1.0, 4, 3), "SeedLong-v0", 4, seed=SEED)  # the second action is a 4
    assert played.returns.tolist() == [3, 7, 10, 13]
    assert played.last.tolist() == [3, 4, 3, 3]
    assert played.highest.tolist() == [3, 4, 4, 4]


def test_endless_episodes_are_cut() -> None:
    assert evaluate(policy, "SeedLong-v0", 2, seed=SEED + 50, max_steps=4).tolist() == [13, 13]


def test_actions_are_played_within_the_bounds_of_each_component() -> None:
    space = gymnasium.spaces.Box(np.array([-1.0, 0.0]), np.array([1.0, 3.0]), dtype=np.float64)
    played = fitted(np.array([[-3.0, -3.0], [3.0, 2.0]], np.float32), space)
    assert (played.tolist(), played.dtype) == ([[-1.0, 0.0], [1.0, 2.0]], np.float64)
    assert fitted(np.array([7]), gymnasium.spaces.Discrete(2)).tolist() == [7]
