"""Bit-flip, a goal task that DQN learns with hindsight and not without (Andrychowicz et al. 2017, section 4.1).

n bits are to become n others, one flip per step; the reward is −1 until they are. With n = 15 a random walk meets the goal in one of two
thousand episodes, so plain DQN learns nothing; with hindsight every episode has reached something.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

Bits = npt.NDArray[np.int8]


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


def _first(observation: dict[str, Bits]) -> dict[str, Bits]:
    return {name: bits[0].copy() for name, bits in observation.items()}
