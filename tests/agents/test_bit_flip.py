"""Bit-flip with 15 bits: hindsight replay learns it, the same agent on the same kind of episodes without it does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.utils.env_checker import check_env

import replaystore as rs
from replaystore_agents.algorithms import goals
from replaystore_agents.algorithms.dqn import DQN, DQNConfig
from replaystore_agents.bit_flip import BitFlip, BitFlips, compute_reward


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


def play(worlds: BitFlips, policy: Any, seed: Any, epsilon: float, writer: Any = None) -> float:
    """One episode in each world, into a table if there is a writer; the share of them that reach their goals at some step."""
    rng = np.random.default_rng(seed)
    seen, over = worlds.reset(rng), False
    reached, none = np.zeros(worlds.worlds, bool), np.zeros(worlds.worlds, bool)
    for world in range(worlds.worlds if writer else 0):
        writer.reset({name: bits[world] for name, bits in seen.items()}, stream=world)
    while not over:
        actions = policy.act(seen, rng, epsilon)
        seen, rewards, over = worlds.step(actions)
        reached |= rewards == 0
        if writer:
            writer.append_batch(actions, rewards, none, none | over, seen)
    return float(reached.mean())


def learn(folder: Path, hindsight: float, cycles: int, enough: float = 2.0) -> list[float]:
    """After each tenth cycle of 32 episodes and 20 updates, the share of 200 greedy episodes that reach their goals."""
    config = DQNConfig(device="cpu", n_step=1, gamma=0.98, learning_rate=3e-3, batch_size=128, hidden=(256,), hindsight=hindsight)
    shares: list[float] = []
    with rs.open(folder) as store:
        store.create_table("t", rs.TableConfig(rs.columns_from_env(BitFlip(15)), seed=0))
        agent = goals.make(DQN, store.describe("t").config, config, "replaystore/BitFlip-v0")
        policy = agent.policy()
        with store.writer("t", streams=32, interval_s=1e6) as writer:  # blocks of the same rows every time
            for cycle in range(cycles):
                play(BitFlips(32, 15), policy, [1, cycle], 0.1, writer)
                writer.flush()
                for update in range(20):
                    batch = store.sample("t", 128, seed=20 * cycle + update, **agent.sampling())
                    agent.learn(batch.to_torch(), weighted=False)
                if cycle % 10 == 9:
                    shares.append(play(BitFlips(200, 15), policy, 2, 0.0))
                    if shares[-1] >= enough:
                        break
        assert store.read_steps("t", 0, 1 << 40, columns=["reward"])["reward"].min() == -1.0
    return shares


def test_hindsight_learns_what_plain_dqn_does_not(tmp_path: Path) -> None:
    learned = learn(tmp_path / "hindsight", 0.8, 100, enough=0.9)
    assert learned[-1] >= 0.9, learned
    plain = learn(tmp_path / "plain", 0.0, 10 * len(learned))  # as many episodes and updates as the other needed
    assert max(plain) < 0.1, plain
