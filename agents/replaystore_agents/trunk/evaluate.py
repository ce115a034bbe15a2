"""Evaluation: greedy episodes in fresh environments. Knows policies as functions; nothing of stores or training."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
import torch
from gymnasium.wrappers import FrameStackObservation
from torch import nn

Policy = Callable[[Any], Any]
"""Observations ``(environments, *shape)`` to actions ``(environments, ...)``."""


def greedy(network: nn.Module, device: torch.device, first_action: int = 0) -> Policy:
    """The policy that takes the action of highest value; `first_action` is the Discrete space's ``start``."""

    def policy(observations: Any) -> npt.NDArray[np.int64]:
        with torch.inference_mode():
            values = network(torch.as_tensor(observations, device=device))
        actions: npt.NDArray[np.int64] = values.argmax(1).cpu().numpy() + first_action
        return actions

    return policy


def evaluate(
    policy: Policy, env: str, episodes: int, seed: int, frames: int = 1, max_steps: int = 100_000, options: dict[str, Any] | None = None
) -> npt.NDArray[np.float64]:
    """Undiscounted returns ``(episodes,)``: every environment of one vector plays one whole episode, so that short ones count no more.

    Args:
        policy: chooses the actions.
        env: a Gymnasium environment id.
        episodes: how many, all at once.
        seed: of the environments.
        frames: how many the policy sees at once, oldest first; the first frame of an episode is repeated.
        max_steps: an episode is cut here when the environment has no time limit of its own.
        options: for the environment's constructor.
    """
    wrappers = [partial(FrameStackObservation, stack_size=frames)] if frames > 1 else None
    mode = "sync" if wrappers else None
    envs = gymnasium.make_vec(env, num_envs=episodes, vectorization_mode=mode, wrappers=wrappers, **(options or {}))
    try:
        observations, _ = envs.reset(seed=seed)
        returns = np.zeros(episodes)
        playing = np.ones(episodes, bool)
        for _ in range(max_steps):
            observations, rewards, terminated, truncated, _ = envs.step(policy(observations))
            returns[playing] += np.asarray(rewards, np.float64)[playing]
            playing &= ~(terminated | truncated)
            if not playing.any():
                break
        return returns
    finally:
        envs.close()
