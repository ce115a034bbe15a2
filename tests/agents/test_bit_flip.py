"""Bit-flip with 15 bits: hindsight replay learns it, the same agent on the same kind of episodes without it does not."""

from __future__ import annotations

from pathlib import Path

import gymnasium
import numpy as np
import torch
from gymnasium.utils.env_checker import check_env

import replaystore as rs
from replaystore_agents.bit_flip import TABLE, BitFlip, BitFlipConfig, BitFlips, compute_reward, train_bit_flip


def test_the_world_is_a_goal_environment() -> None:
    check_env(BitFlip(5), skip_render_check=True)
    env: gymnasium.Env[dict[str, np.ndarray], np.int64] = BitFlip(4)
    observation, _ = env.reset(seed=3)
    again, _ = env.reset(seed=3)
    assert all(np.array_equal(observation[name], again[name]) for name in observation)
    wrong = np.flatnonzero(observation["achieved_goal"] != observation["desired_goal"])
    over = False
    for step in range(4):
        flip = wrong[step] if step < len(wrong) else 0
        before = observation
        observation, reward, terminated, over, info = env.step(flip)
        assert (observation["observation"] != before["observation"]).sum() == 1
        reached = np.array_equal(observation["achieved_goal"], observation["desired_goal"])
        assert (reward, info["is_success"]) == (0.0 if reached else -1.0, reached)
        assert reached == (step == len(wrong) - 1) or step >= len(wrong)
        assert not terminated
    assert over


def test_rewards_are_computed_for_many_at_once() -> None:
    goals = np.eye(3, dtype=np.int8)
    assert compute_reward(goals, goals[[0, 0, 2]]).tolist() == [0.0, -1.0, 0.0]
    assert compute_reward(np.zeros((2, 3, 4)), np.zeros((2, 3, 4)), {}).shape == (2, 3)


def test_many_worlds_are_as_many_single_ones() -> None:
    worlds = BitFlips(6, 5)
    first = worlds.reset(np.random.default_rng(1))
    actions = np.random.default_rng(2).integers(0, 5, (5, 6))
    for step, flips in enumerate(actions):
        observation, rewards, over = worlds.step(flips)
        expected = first["observation"].copy()
        for done in actions[: step + 1]:
            for world, flip in enumerate(done):
                expected[world, flip] ^= 1
        np.testing.assert_array_equal(observation["observation"], expected)
        np.testing.assert_array_equal(rewards == 0, (expected == first["desired_goal"]).all(axis=1))
        assert over == (step == 4)


def test_hindsight_learns_what_plain_dqn_does_not(tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with rs.open(tmp_path / "hindsight") as store:
            learned = train_bit_flip(store, BitFlipConfig(), enough=0.9)
            assert learned[-1] >= 0.9, learned
        with rs.open(tmp_path / "plain") as store:  # as many episodes and updates as the other needed
            plain = train_bit_flip(store, BitFlipConfig(hindsight=False, cycles=10 * len(learned)))
            assert max(plain) < 0.1, plain
            rows = store.read_steps(TABLE, 0, 1 << 40, columns=["reward"])
            assert rows["reward"].min() == -1.0
    finally:
        torch.set_num_threads(threads)
