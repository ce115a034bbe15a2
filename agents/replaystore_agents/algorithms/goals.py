"""Goal tasks for any algorithm: dictionaries are flattened, hindsight gives steps the goals that were reached (Andrychowicz et al. 2017).

Tables keep ``observation/observation``, ``observation/achieved_goal`` and ``observation/desired_goal`` as they were played. The view puts
later goals into batches, rewards are computed anew by the environment's vectorised `compute_reward`, and networks see observation and
desired goal in a row.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

import replaystore as rs
from replaystore_agents.algorithms.base import Algorithm, Figures, Spaces, spaces_of
from replaystore_agents.algorithms.policies import Array, Policy, build_policy
from replaystore_agents.trunk import environments

PARTS = ("observation", "desired_goal")
"""What networks see, in this order."""


def make(kind: Callable[[Spaces, Any], Algorithm], table: rs.TableConfig, config: Any, env: str | None = None) -> Goals:
    """An algorithm of class `kind` for a table of goal dictionaries.

    Args:
        kind: ``DDPG``, ``SAC``, ``DQN``, …
        table: its configuration.
        config: the algorithm's; ``config.hindsight`` is the share of items that get another goal.
        env: Gymnasium id of the environment, for its `compute_reward`; only without hindsight there need be none.

    Raises:
        InvalidArgument: the table is not of a goal environment, or the environment cannot compute rewards.
    """
    reward = None if env is None or config.hindsight == 0 else reward_of(env)
    return Goals(kind(goal_spaces(table, config.frame_stack), config), reward)


def goal_spaces(table: rs.TableConfig, frames: int = 1) -> Spaces:
    """The spaces of a table of goal dictionaries as the flattening shows them."""
    parts = [table.columns.get(f"observation/{part}") for part in (*PARTS, "achieved_goal")]
    found = [part for part in parts if part is not None]
    if len(found) < len(parts):
        raise rs.InvalidArgument(
            f"a goal task has the columns observation/observation, observation/achieved_goal and observation/desired_goal; "
            f"this table has {', '.join(table.columns)}"
        )
    if frames > 1:
        raise rs.InvalidArgument(f"frame_stack={frames}: goal dictionaries are not stacked; give 1")
    size = sum(math.prod(part.shape) for part in found[:2])
    others = {name: column for name, column in table.columns.items() if not name.startswith("observation/")}
    return spaces_of(rs.TableConfig(columns={"observation": rs.Column((size,), "float32"), **others}))


def reward_of(env: str) -> Callable[..., Any]:
    """``compute_reward(achieved_goal, desired_goal, info)`` of an environment, for many goals at once."""
    reward: Callable[..., Any] | None = getattr(environments.make(env).unwrapped, "compute_reward", None)
    if reward is None:
        raise rs.InvalidArgument(f"{env} has no compute_reward(achieved_goal, desired_goal, info): hindsight needs it; give --hindsight 0")
    return reward


class Goals:
    """An `Algorithm` around one that knows no goals."""

    def __init__(self, inner: Algorithm, reward: Callable[..., Any] | None) -> None:
        self.inner, self._reward = inner, reward
        self.name = inner.name

    @property
    def config(self) -> Any:
        """The inner one's."""
        return self.inner.config

    @property
    def device(self) -> torch.device:
        """The inner one's."""
        return self.inner.device

    @property
    def updates(self) -> int:
        """The inner one's."""
        return self.inner.updates

    def learn(self, data: Any, weighted: bool) -> tuple[torch.Tensor, Figures]:
        """See `Algorithm`."""
        return self.inner.learn(_Joined(data), weighted)

    def policy(self) -> GoalPolicy:
        """See `Algorithm`."""
        return GoalPolicy(self.inner.policy())

    def columns(self) -> tuple[str, ...]:
        """See `Algorithm`."""
        return (*(f"observation/{part}" for part in PARTS), *(name for name in self.inner.columns() if name != "observation"))

    def view(self) -> rs.Transition:
        """See `Algorithm`: without hindsight."""
        return self.inner.view()

    def sampling(self) -> dict[str, Any]:
        """See `Algorithm`: the view with hindsight, future strategy, and the reward function.

        Raises:
            InvalidArgument: there is none.
        """
        share = self.config.hindsight
        if share == 0:
            return self.inner.sampling()
        if self._reward is None:
            raise rs.InvalidArgument("hindsight computes rewards with the environment: say which it is, or give --hindsight 0")
        return {"view": rs.Hindsight(self.view(), ratio=share), "reward_fn": self._reward}

    def state(self) -> dict[str, Any]:
        """See `Algorithm`."""
        return {**self.inner.state(), "policy": self.policy().describe()}

    def restore(self, state: dict[str, Any]) -> None:
        """See `Algorithm`."""
        described = state["policy"]
        self.inner.restore({**state, "policy": described["inner"] if described["kind"] == GoalPolicy.kind else described})


class GoalPolicy:
    """A policy over goal dictionaries: flattens them for another one."""

    kind = "goals"
    frames = 1

    def __init__(self, inner: Policy) -> None:
        self._inner = inner

    @classmethod
    def from_description(cls, description: dict[str, Any], device: torch.device) -> GoalPolicy:
        """See `build_policy`."""
        return cls(build_policy(description["inner"], device))

    def describe(self) -> dict[str, Any]:
        """See `Policy`."""
        return {"kind": self.kind, "inner": self._inner.describe()}

    def arrays(self) -> dict[str, Array]:
        """See `Policy`."""
        return self._inner.arrays()

    def load(self, arrays: Mapping[str, Array]) -> None:
        """See `Policy`."""
        self._inner.load(arrays)

    def act(self, observations: Mapping[str, Any], rng: np.random.Generator, explore: float = 0.0) -> Array:
        """See `Policy`; `observations` are a dictionary of arrays ``(environments, *shape)``."""
        parts = [np.asarray(observations[part]) for part in PARTS]
        return self._inner.act(np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1, dtype=np.float32), rng, explore)


class _Joined:
    """A batch whose observations are flattened when they are asked for."""

    def __init__(self, data: Any) -> None:
        self._data = data

    def __getitem__(self, name: str) -> torch.Tensor:
        if name not in ("observation", "next_observation"):
            column: torch.Tensor = self._data[name]
            return column
        parts = [self._data[f"{name}/{part}"] for part in PARTS]
        return torch.cat([part.reshape(len(part), -1).float() for part in parts], 1)
