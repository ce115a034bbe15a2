"""Bit-flip, learned by DQN with and without hindsight experience replay (Andrychowicz et al. 2017, section 4.1).

n bits are to become n others, one flip per step; the reward is −1 until they are. With n = 15 a random walk meets the goal in one of two
thousand episodes, so plain DQN learns nothing; with hindsight every episode has reached something. Goals come from the store: rows are
written once, as they were played, and `replaystore.Hindsight` puts other goals into them when they are read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
import torch
from gymnasium import spaces
from torch import nn

import replaystore as rs
from replaystore_agents.trunk.heads import q_network

Bits = npt.NDArray[np.int8]

TABLE = "bit-flip"


def compute_reward(achieved_goal: Any, desired_goal: Any, info: Any = None) -> npt.NDArray[np.float32]:
    """0 where all bits are as desired, else −1; ``(…, n)`` bits in, ``(…,)`` float32 out."""
    return np.where((np.asarray(achieved_goal) == np.asarray(desired_goal)).all(axis=-1), 0.0, -1.0).astype(np.float32)


class BitFlip(gymnasium.Env[Any, np.int64]):
    """One world of n bits. An episode is n steps long and then truncated: reaching the goal earns 0 per step and ends nothing."""

    def __init__(self, n: int = 15) -> None:
        self.n = n
        bits = spaces.MultiBinary(n)
        self.observation_space = spaces.Dict({"observation": bits, "achieved_goal": bits, "desired_goal": bits})
        self.action_space = spaces.Discrete(n)
        self._worlds = BitFlips(1, n)

    def compute_reward(self, achieved_goal: Any, desired_goal: Any, info: Any = None) -> npt.NDArray[np.float32]:
        """See `compute_reward` of this module."""
        return compute_reward(achieved_goal, desired_goal, info)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict[str, Bits], dict[str, Any]]:
        """Random bits and a random goal."""
        super().reset(seed=seed)
        return _first(self._worlds.reset(self.np_random)), {}

    def step(self, action: Any) -> tuple[dict[str, Bits], float, bool, bool, dict[str, Any]]:
        """Flips bit `action`."""
        observation, reward, over = self._worlds.step(np.array([action]))
        return _first(observation), float(reward[0]), False, over, {"is_success": bool(reward[0] == 0)}


class BitFlips:
    """Many worlds at once, as arrays with one row per world; their episodes begin and end together."""

    def __init__(self, worlds: int, n: int) -> None:
        self.worlds, self.n = worlds, n
        self._bits = self._goal = np.zeros((worlds, n), np.int8)
        self._steps = 0

    def reset(self, rng: np.random.Generator) -> dict[str, Bits]:
        """Random bits and random goals."""
        self._bits, self._goal = rng.integers(0, 2, (2, self.worlds, self.n), np.int8)
        self._steps = 0
        return self._observation()

    def step(self, actions: npt.NDArray[np.int64]) -> tuple[dict[str, Bits], npt.NDArray[np.float32], bool]:
        """Flips one bit in each world; observations, rewards ``(worlds,)`` and whether the episodes are over."""
        self._bits = self._bits.copy()
        self._bits[np.arange(self.worlds), actions] ^= 1
        self._steps += 1
        return self._observation(), compute_reward(self._bits, self._goal), self._steps == self.n

    def _observation(self) -> dict[str, Bits]:
        return {"observation": self._bits, "achieved_goal": self._bits, "desired_goal": self._goal}


@dataclass(frozen=True, slots=True)
class BitFlipConfig:
    """One training."""

    n: int = 15
    hindsight: bool = True
    """False: the same agent on the rows as they were played."""
    cycles: int = 100
    """Of playing episodes, and then learning from the store."""
    episodes: int = 32
    """Played at once in each cycle."""
    updates: int = 20
    """Gradient steps per cycle."""
    batch_size: int = 128
    gamma: float = 0.98
    learning_rate: float = 3e-3
    tau: float = 0.04
    """Of the target network, per update."""
    epsilon: float = 0.1
    """Share of random actions while playing."""
    hidden: tuple[int, ...] = (256,)
    eval_episodes: int = 200
    seed: int = 0


def train_bit_flip(store: Any, config: BitFlipConfig, enough: float = 2.0) -> list[float]:
    """Learns bit-flip in the table `TABLE` of a store or client, which is made.

    Args:
        store: an open store, or a client.
        config: one training.
        enough: stops when this share of the evaluation episodes reaches the goal.

    Returns:
        After each tenth cycle, the share of greedy episodes that reach their goals.
    """
    rng = np.random.default_rng(config.seed)
    torch.manual_seed(config.seed)
    agent = _Agent(config)
    worlds = BitFlips(config.episodes, config.n)
    store.create_table(TABLE, rs.TableConfig(rs.columns_from_env(BitFlip(config.n)), seed=config.seed))
    transition = rs.Transition(gamma=config.gamma)
    view = rs.Hindsight(transition) if config.hindsight else transition
    options = {"reward_fn": compute_reward} if config.hindsight else {}
    successes: list[float] = []
    with (
        store.writer(TABLE, streams=config.episodes) as writer,
        store.sampler(TABLE, config.batch_size, view=view, seed=config.seed, prefetch=1, **options) as sampler,
    ):
        for cycle in range(1, config.cycles + 1):
            _play(worlds, agent, writer, config.epsilon, rng)
            for _ in range(config.updates):
                agent.learn(next(sampler))
            if cycle % 10 == 0:
                successes.append(evaluate(agent, config))
                if successes[-1] >= enough:
                    break
    return successes


def _play(worlds: BitFlips, agent: _Agent, writer: rs.Writer, epsilon: float, rng: np.random.Generator) -> None:
    """One episode in each world, into the store."""
    observation, over = worlds.reset(rng), False
    for world in range(worlds.worlds):
        writer.reset({name: bits[world] for name, bits in observation.items()}, stream=world)
    none = np.zeros(worlds.worlds, bool)
    while not over:
        greedy, explore = agent.act(observation), rng.random(worlds.worlds) < epsilon
        actions = np.where(explore, rng.integers(0, worlds.n, worlds.worlds), greedy)
        observation, rewards, over = worlds.step(actions)
        writer.append_batch(actions, rewards, none, none | over, observation)
    writer.flush()


def evaluate(agent: _Agent, config: BitFlipConfig) -> float:
    """Share of greedy episodes that reach their goals, at whichever step; always the same episodes."""
    worlds, over = BitFlips(config.eval_episodes, config.n), False
    observation = worlds.reset(np.random.default_rng(config.seed + 1_000_003))
    reached = np.zeros(config.eval_episodes, bool)
    while not over:
        observation, rewards, over = worlds.step(agent.act(observation))
        reached |= rewards == 0
    return float(reached.mean())


class _Agent:
    """Double DQN over (bits, goal), with a soft target network."""

    def __init__(self, config: BitFlipConfig) -> None:
        self._config = config
        self._online = q_network((2 * config.n,), config.n, config.hidden)
        self._target = q_network((2 * config.n,), config.n, config.hidden)
        self._target.load_state_dict(self._online.state_dict())
        self._optimizer = torch.optim.Adam(self._online.parameters(), lr=config.learning_rate, fused=True)
        self._pairs = list(zip(self._target.parameters(), self._online.parameters(), strict=True))

    @torch.no_grad()
    def act(self, observation: dict[str, Bits]) -> npt.NDArray[np.int64]:
        actions: npt.NDArray[np.int64] = self._online(_inputs(observation)).argmax(1).numpy()
        return actions

    def learn(self, batch: rs.Batch) -> None:
        action = torch.from_numpy(batch.action).unsqueeze(1)
        with torch.no_grad():
            later = _inputs(batch.next_observation)
            best = self._online(later).argmax(1, keepdim=True)
            value = self._target(later).gather(1, best).squeeze(1)
            target = torch.from_numpy(batch.reward) + torch.from_numpy(batch.discount) * value
            target = target.clamp(-1.0 / (1.0 - self._config.gamma), 0.0)
        loss = nn.functional.smooth_l1_loss(self._online(_inputs(batch.observation)).gather(1, action).squeeze(1), target)
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        with torch.no_grad():
            for old, new in self._pairs:
                old.lerp_(new, self._config.tau)


def _inputs(observation: dict[str, Bits]) -> torch.Tensor:
    both = np.concatenate([observation["observation"], observation["desired_goal"]], axis=1)
    return torch.from_numpy(both).float()


def _first(observation: dict[str, Bits]) -> dict[str, Bits]:
    return {name: bits[0].copy() for name, bits in observation.items()}
