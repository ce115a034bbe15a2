"""DDPG: a deterministic actor that climbs its critic (Lillicrap et al. 2016), with or without hindsight (goals.py)."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

import replaystore as rs
from replaystore_agents.algorithms.base import Spaces
from replaystore_agents.algorithms.continuous import ActorCritic, ActorCriticConfig, DeterministicPolicy
from replaystore_agents.trunk.devices import Tensors
from replaystore_agents.trunk.hyper import hyper


@dataclass(frozen=True, slots=True)
class DDPGConfig(ActorCriticConfig):
    """Defaults are those of "our DDPG" of Fujimoto et al. (2018), which is simpler and better than the first one."""

    learning_rate: float = hyper(1e-3, "Adam's step size (Fujimoto et al. 2018, table 3; Lillicrap et al. 2016: the critic's).")
    noise: float = hyper(0.1, "Standard deviation of exploration, actions in [-1, 1] (Fujimoto et al. 2018; HER: 0.05 to 0.2).")
    ou_theta: float = hyper(
        0.0,
        "Noise that wanders, and returns to 0 at this rate; noise is then its standard deviation per step (Lillicrap et al. 2016: 0.15).",
    )
    action_penalty: float = hyper(0.0, "Weight of the mean squared action in the actor's loss (Plappert et al. 2018, for goal tasks: 1).")
    sparse: bool = hyper(False, "Rewards are -1 and 0: targets are cut to what they can sum to (Andrychowicz et al. 2017, appendix A).")


class DDPG(ActorCritic):
    """Actor, critic, and a slowly following copy of each."""

    name: ClassVar[str] = "ddpg"
    policy_of = DeterministicPolicy
    critic_count = 1

    def __init__(self, spaces: Spaces, config: DDPGConfig) -> None:
        """Makes the networks. InvalidArgument: `ou_theta` is not from 0 to 1."""
        if not 0.0 <= config.ou_theta <= 1.0:
            raise rs.InvalidArgument(f"ou_theta={config.ou_theta} must be from 0 to 1; 0.15 is usual, 0 makes independent noise")
        super().__init__(spaces, config, config.noise, config.ou_theta)
        self.target_actor = deepcopy(self.actor)
        self._following.append((list(self.target_actor.parameters()), list(self.actor.parameters())))

    def parts(self) -> dict[str, Any]:
        """What checkpoints keep."""
        return {**super().parts(), "target_actor": self.target_actor}

    def targets(self, data: Tensors) -> torch.Tensor:
        """``reward + discount · Q'(s', μ'(s'))`` (Lillicrap et al. 2016, algorithm 1)."""
        later = data["next_observation"]
        values: torch.Tensor = data["reward"] + data["discount"] * self.target_critics(later, self.target_actor(later))[0]
        return values.clamp(-1.0 / (1.0 - self.config.gamma), 0.0) if self.config.sparse else values

    def actor_loss(self, data: Tensors) -> tuple[torch.Tensor, Tensors]:
        """``−Q(s, μ(s))``, and the penalty of large actions."""
        action = self.actor(data["observation"])
        loss = -self.critics(data["observation"], action)[0].mean()
        return loss + self.config.action_penalty * action.square().mean(), {}


PRESETS: dict[str, Mapping[str, Any]] = {
    "original": {
        "hidden": (400, 300),
        "actor_learning_rate": 1e-4,
        "tau": 0.001,
        "batch_size": 64,
        "alpha": 0.0,
        "samples_per_insert": 64.0,
    },
    "ou": {"noise": 0.2, "ou_theta": 0.15},
    "goals": {"gamma": 0.98, "sparse": True, "action_penalty": 1.0, "noise": 0.2, "tau": 0.05, "alpha": 0.0},
}
"""original: Lillicrap et al. (2016), section 7, one update per step; ou: its exploration; goals: Andrychowicz et al. (2017), Plappert et
al. (2018)."""
