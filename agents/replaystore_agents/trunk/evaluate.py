"""Evaluation: greedy episodes in fresh environments. Knows policies as functions; nothing of stores or training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from replaystore_agents.trunk.environments import fitted, make_vec

Policy = Callable[[Any], Any]
"""Observations ``(environments, *shape)`` to actions ``(environments, ...)``."""


class Episodes(NamedTuple):
    """What whole episodes earned, each ``(episodes,)``. In goal tasks a reward of 0 says that the goal is reached."""

    returns: npt.NDArray[np.float64]
    """Undiscounted."""
    last: npt.NDArray[np.float64]
    """Of each episode the last reward,"""
    highest: npt.NDArray[np.float64]
    """and the highest."""


def evaluate(
    policy: Policy, env: str, episodes: int, seed: int, frames: int = 1, max_steps: int = 100_000, options: dict[str, Any] | None = None
) -> npt.NDArray[np.float64]:
    """Undiscounted returns ``(episodes,)``; see `play`."""
    return play(policy, env, episodes, seed, frames, max_steps, options).returns


def play(
    policy: Policy, env: str, episodes: int, seed: int, frames: int = 1, max_steps: int = 100_000, options: dict[str, Any] | None = None
) -> Episodes:
    """Plays each environment of one vector for one whole episode, so that short ones count no more.

    Args:
        policy: chooses the actions.
        env: a Gymnasium environment id.
        episodes: how many, all at once.
        seed: of the environments.
        frames: how many the policy sees at once, oldest first; the first frame of an episode is repeated.
        max_steps: an episode is cut here when the environment has no time limit of its own.
        options: for the environment's constructor.
    """
    envs = make_vec(env, episodes, frames=frames, **(options or {}))
    try:
        observations, _ = envs.reset(seed=seed)
        returns, last, highest = np.zeros(episodes), np.zeros(episodes), np.full(episodes, -np.inf)
        playing = np.ones(episodes, bool)
        for _ in range(max_steps):
            observations, rewards, terminated, truncated, _ = envs.step(fitted(policy(observations), envs.single_action_space))
            last[playing] = np.asarray(rewards, np.float64)[playing]
            returns[playing] += last[playing]
            highest[playing] = np.maximum(highest, last)[playing]
            playing &= ~(terminated | truncated)
            if not playing.any():
                break
        return Episodes(returns, last, highest)
    finally:
        envs.close()
