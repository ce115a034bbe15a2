"""A policy that learns to take given actions: all of behaviour cloning, and the last part of implicit Q-learning."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from replaystore_agents.algorithms.base import Spaces
from replaystore_agents.algorithms.continuous import Bounds, DeterministicActor, DeterministicPolicy, describe_actor
from replaystore_agents.algorithms.policies import Policy, ScorePolicy
from replaystore_agents.trunk.heads import build_network, describe_network
from replaystore_agents.trunk.networks import HIDDEN, describe_body


class Imitator:
    """Discrete actions: a classifier, whose loss is the surprise in nats. Continuous ones: a mean, whose loss is the squared distance,
    that is the surprise under a normal distribution of constant width, with actions in [−1, 1]."""

    def __init__(self, spaces: Spaces, config: Any, device: torch.device) -> None:
        """Makes the network; `config` has ``hidden`` and ``body``."""
        self._spaces, self._device = spaces, device
        self._bounds = Bounds(spaces.action_low, spaces.action_high)
        if spaces.actions:
            self.description = describe_scores(spaces, config, spaces.actions)
            self.network: Any = build_network(self.description).to(device)
        else:
            self.description = describe_actor(spaces, "deterministic", widths(spaces, config), config.body)
            self.network = DeterministicActor(self.description).to(device)

    def policy(self) -> Policy:
        """The likeliest action."""
        if not self._spaces.actions:
            return DeterministicPolicy(self.network, self.description, self._device)
        return ScorePolicy(self.network, self.description, self._spaces.first_action, self._spaces.frames, self._device)

    def actions(self, action: torch.Tensor) -> torch.Tensor:
        """A batch's actions as networks take them: int64 ``(batch,)`` from 0, or float32 ``(batch, dimensions)`` in [−1, 1]."""
        if self._spaces.actions:
            return action.long() - self._spaces.first_action
        inward: torch.Tensor = self._bounds.inward(action.float())
        return inward.reshape(len(action), -1)

    def losses(self, observation: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        """Of actions as `actions` gives them, ``(batch,)``."""
        found = self.network(observation).float()
        if self._spaces.actions:
            return nn.functional.cross_entropy(found, action, reduction="none")
        distance: torch.Tensor = (found - action).square().sum(1)
        return distance


def describe_scores(spaces: Spaces, config: Any, outputs: int) -> dict[str, Any]:
    """A network of so many outputs for these observations, as JSON."""
    return describe_network(
        spaces.observation_shape, outputs, config.hidden, body=config.body,
        observations=spaces.observations, first_observation=spaces.first_observation,
    )  # fmt: skip


def widths(spaces: Spaces, config: Any) -> tuple[int, ...]:
    """The hidden layers: those of the configuration, or what is usual for the body."""
    kind = describe_body(spaces.observation_shape, (), config.body, spaces.observations, spaces.first_observation)["kind"]
    return tuple(config.hidden) or HIDDEN[kind]
