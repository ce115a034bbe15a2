"""Environments: shapes, seeds, preprocessing, and mazes whose optimum is the shortest way."""

from __future__ import annotations

import importlib.util
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st

import replaystore as rs
from replaystore_agents.trunk.environments import OneLife, check_installed, family_of, make, make_vec
from replaystore_agents.trunk.mazes import MOVES, Maze, carve, distances
from replaystore_agents.trunk.reach import PointReach

HERE = ("CartPole-v1", "Acrobot-v1", "MountainCar-v0", "Pendulum-v1", "FrozenLake-v1", "CliffWalking-v1")
OURS = ("replaystore/Maze-v0", "replaystore/MazeLarge-v0", "replaystore/BitFlip-v0", "replaystore/PointReach-v0")
EXTRAS = {
    "LunarLander-v3": "Box2D",
    "MinAtar/Breakout-v1": "minatar",
    "MinAtar/SpaceInvaders-v1": "minatar",
    "ALE/Pong-v5": "cv2",
    "HalfCheetah-v5": "mujoco",
    "FetchReach-v4": "gymnasium_robotics",
}


@pytest.fixture(params=[*HERE, *OURS, *EXTRAS])
def env_id(request: pytest.FixtureRequest) -> str:
    family = family_of(request.param)
    if any(importlib.util.find_spec(module) is None for module in family.needs):
        pytest.skip(f"{request.param}: {family.install}")
    name: str = request.param
    return name


def play(env_id: str, seed: int, steps: int, **options: Any) -> list[Any]:
    """What a vector of two environments shows under actions that depend on the seed alone."""
    envs = make_vec(env_id, 2, **options)
    try:
        envs.action_space.seed(seed)
        seen: list[Any] = [envs.reset(seed=seed)[0]]
        for _ in range(steps):
            observations, rewards, terminated, truncated, _ = envs.step(envs.action_space.sample())
            seen += [observations, rewards, terminated, truncated]
            assert observations in envs.observation_space
        return [{k: v.copy() for k, v in part.items()} if isinstance(part, dict) else np.array(part) for part in seen]
    finally:
        envs.close()


def same(one: list[Any], other: list[Any]) -> bool:
    def equal(a: Any, b: Any) -> bool:
        return all(np.array_equal(a[name], b[name]) for name in a) if isinstance(a, dict) else np.array_equal(a, b)

    return all(equal(a, b) for a, b in zip(one, other, strict=True))


def test_the_same_seed_plays_the_same(env_id: str) -> None:
    steps = 12 if env_id.startswith(("ALE", "Fetch")) else 60
    one = play(env_id, 3, steps)
    assert same(one, play(env_id, 3, steps))
    assert not same(one, play(env_id, 4, steps))


def test_tables_can_hold_what_they_give(env_id: str) -> None:
    env = make(env_id)
    columns = rs.columns_from_env(env)
    observation, _ = env.reset(seed=0)
    parts = observation if isinstance(observation, dict) else {"": observation}
    for name, part in parts.items():
        column = columns[f"observation/{name}".rstrip("/")]
        assert (np.shape(part), np.asarray(part).dtype.name) == (column.shape, column.dtype)
    env.close()


def test_every_environment_has_a_time_limit(env_id: str) -> None:
    env = make(env_id, max_steps=7)
    env.reset(seed=0)
    for step in range(7):
        *_, terminated, truncated, _ = env.step(env.action_space.sample())
        if terminated:
            break
        assert truncated == (step == 6)
    env.close()
    if not env_id.startswith(("ALE", "replaystore/BitFlip")):  # those count frames or steps themselves
        unlimited = make(env_id)
        assert unlimited.spec is not None
        assert unlimited.spec.max_episode_steps
        unlimited.close()


def test_frames_are_stacked_oldest_first() -> None:
    env = make("CartPole-v1", frames=3)
    first, _ = env.reset(seed=1)
    second, *_ = env.step(0)
    assert first.shape == (3, 4)
    assert np.array_equal(first[0], first[2])  # the first one is repeated
    assert np.array_equal(second[:2], first[1:])
    assert not np.array_equal(second[2], second[1])
    assert make_vec("CartPole-v1", 2, frames=3).single_observation_space.shape == (3, 4)


def test_options_reach_the_environment() -> None:
    assert make("replaystore/Maze-v0", size=7).observation_space.n == 49  # type: ignore[attr-defined]
    assert make_vec("replaystore/Maze-v0", 2, size=7).single_observation_space.n == 49  # type: ignore[attr-defined]
    with pytest.raises(rs.InvalidArgument, match="odd"):
        make("replaystore/Maze-v0", size=8)


def test_processes_play_what_one_process_plays() -> None:
    assert same(play("replaystore/Maze-v0", 5, 20), play("replaystore/Maze-v0", 5, 20, processes=True))


def test_what_is_missing_is_said_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "mujoco" else found(name))
    with pytest.raises(rs.InvalidArgument, match=r'HalfCheetah-v5 needs mujoco.*: pip install "gymnasium\[mujoco\]"'):
        make("HalfCheetah-v5")
    check_installed("CartPole-v1")


@pytest.mark.parametrize("name", ["CartPolo-v1", "nowhere/Thing-v0", "CartPole-v77"])
def test_an_unknown_id_is_refused(name: str) -> None:
    with pytest.raises(rs.InvalidArgument, match=r"CartPole-, Acrobot-"):
        make(name)
    with pytest.raises(rs.InvalidArgument, match=r"CartPole-, Acrobot-"):
        make_vec(name, 2)


def test_the_longest_name_decides_the_family() -> None:
    assert "continuous" in family_of("MountainCarContinuous-v0").what
    assert "Discrete" in family_of("MountainCar-v0").what
    assert family_of("somewhere:ALE/Pong-v5").install.startswith("pip install ale-py")
    assert family_of("Unheard-v0").ids == ()


@pytest.mark.parametrize("env", [Maze(), Maze(7, layout=3, random_start=True, slip=0.3), PointReach()])
def test_our_worlds_keep_gymnasiums_rules(env: gymnasium.Env[Any, Any]) -> None:
    check_env(env, skip_render_check=True)


def naive_distance(free: Any, goal: tuple[int, int], start: tuple[int, int]) -> int:
    """By repeated relaxation."""
    far = 10**6
    best = dict.fromkeys(map(tuple, np.argwhere(free).tolist()), far)
    best[goal] = 0
    for _ in range(len(best)):
        for (r, c), steps in list(best.items()):
            best[r, c] = min([steps, *(best.get((r + int(d), c + int(e)), far) + 1 for d, e in MOVES)])
    return best[start]


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 5).map(lambda half: 2 * half + 1), st.integers(0, 1000), st.sampled_from([0.0, 0.1, 1.0]))
def test_mazes_are_connected_and_distances_are_shortest(size: int, layout: int, loops: float) -> None:
    free = carve(size, loops, np.random.default_rng(layout))
    assert not np.concatenate([free[0], free[-1], free[:, 0], free[:, -1]]).any()
    steps = distances(free, (1, 1))
    assert ((steps >= 0) == free).all()
    if loops == 0:
        assert free.sum() == 2 * ((size - 1) // 2) ** 2 - 1  # a tree: one opening less than cells
    far = divmod(int(steps.argmax()), size)
    assert steps[far] == naive_distance(free, (1, 1), far)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.booleans())
def test_walking_downhill_earns_the_optimum(layout: int, random_start: bool) -> None:
    maze = Maze(9, layout, random_start=random_start)
    seen, info = maze.reset(seed=layout)
    earned, over = 0.0, False
    while not over:
        here = divmod(int(seen), maze.size)
        near = [maze.distances[here[0] + d, here[1] + e] for d, e in MOVES.tolist()]
        action = next(a for a, steps in enumerate(near) if 0 <= steps == maze.distances[here] - 1)
        seen, reward, over, _, _ = maze.step(action)
        earned += reward
    assert earned == info["optimum"]
    assert divmod(int(seen), maze.size) == maze.goal


def test_walls_stop_and_slips_happen() -> None:
    maze = Maze()
    seen, _ = maze.reset()
    assert maze.step(0)[:3] == (seen, -1.0, False)  # up, from the top left
    assert maze.render().count("A") == 1
    slippery = Maze(slip=1.0)
    slippery.reset(seed=0)
    places = {int(slippery.step(0)[0]) for _ in range(50)}
    assert len(places) > 3  # up alone would stay


def test_rewards_of_reaching_are_those_of_goals() -> None:
    env = make("replaystore/PointReach-v0")
    observation, _ = env.reset(seed=2)
    reached = False
    for _ in range(30):
        action = np.clip((observation["desired_goal"] - observation["achieved_goal"]) / 0.15, -1, 1)
        observation, reward, terminated, _, info = env.step(action.astype(np.float32))
        again = env.unwrapped.compute_reward(observation["achieved_goal"][None], observation["desired_goal"][None])  # type: ignore[attr-defined]
        assert again.tolist() == [reward]
        assert info["is_success"] == (reward == 0.0)
        assert not terminated
        reached = info["is_success"]
    assert reached


def test_minatar_forgets_the_episode_before() -> None:
    pytest.importorskip("minatar")
    env = make("MinAtar/Breakout-v1")
    assert (env.observation_space.shape, env.action_space.n) == ((4, 10, 10), 3)  # type: ignore[attr-defined]
    assert make("MinAtar/Breakout-v1", minimal=False).action_space.n == 6  # type: ignore[attr-defined]

    def game(last: int) -> list[Any]:
        env.reset(seed=9)
        seen = [env.step(1)[0].copy() for _ in range(8)]
        env.step(last)
        return seen

    assert same(game(0), game(2))
    assert same(game(1), game(0))


class ThreeLives(gymnasium.Env[Any, Any]):
    """A game of three lives, one of which is lost with every second step; observations are (game, step)."""

    observation_space = gymnasium.spaces.Box(0, 100, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self) -> None:
        self.ale, self.game, self.steps = self, 0, 0

    def lives(self) -> int:
        return 3 - self.steps // 2

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        self.game, self.steps = self.game + 1, 0
        return (self.game, self.steps), {}

    def step(self, action: Any) -> Any:
        self.steps += 1
        return (self.game, self.steps), 1.0, self.steps == 6, False, {}


def test_the_game_goes_on_after_a_lost_life() -> None:
    env = OneLife(ThreeLives())
    episodes = []
    for seed in (None, None, None, None, 7):
        episode, over = [env.reset(seed=seed)[0]], False
        while not over:
            seen, _, over, _, _ = env.step(1)
            episode.append(seen)
        episodes.append(episode)
    assert episodes[:3] == [[(1, 0), (1, 1), (1, 2)], [(1, 3), (1, 4)], [(1, 5), (1, 6)]]
    assert [episode[0] for episode in episodes[3:]] == [(2, 0), (3, 0)]  # one where the last was over, one for the seed
    assert env.step(1)[0] == (3, 3)
    assert env.reset()[0] == (4, 0)  # nothing was lost: whoever resets wants a new game


def test_a_lost_life_ends_an_atari_episode_when_asked() -> None:
    pytest.importorskip("ale_py")
    pytest.importorskip("cv2")

    def steps(life_loss: bool) -> int:
        env = make("ALE/Breakout-v5", life_loss=life_loss)
        observation, _ = env.reset(seed=1)
        assert (observation.shape, observation.dtype) == ((84, 84), np.uint8)
        for step in range(1_000):
            if env.step(1)[2]:
                return step
        return 1_000

    assert steps(life_loss=True) < steps(life_loss=False)
