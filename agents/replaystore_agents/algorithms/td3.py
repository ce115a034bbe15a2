"""TD3: DDPG with the smaller of two critics, smoothed targets and a delayed actor (Fujimoto et al. 2018)."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from replaystore_agents.algorithms.base import Spaces
from replaystore_agents.algorithms.continuous import ActorCritic, ActorCriticConfig, DeterministicPolicy
from replaystore_agents.trunk.devices import Tensors
from replaystore_agents.trunk.hyper import hyper


@dataclass(frozen=True, slots=True)
class TD3Config(ActorCriticConfig):
    """Defaults are those of the authors' code; the paper's table 3 has 1e-3 and batches of 100."""

    noise: float = hyper(0.1, "Standard deviation of exploration, actions in [-1, 1] (Fujimoto et al. 2018).")
    target_noise: float = hyper(0.2, "Standard deviation of the noise on target actions (Fujimoto et al. 2018, section 5.3).")
    noise_limit: float = hyper(0.5, "Where that noise is cut (Fujimoto et al. 2018, section 5.3).")
    policy_delay: int = hyper(2, "Updates of the critics for one of the actor and the targets (Fujimoto et al. 2018, section 5.2).")


class TD3(ActorCritic):
    """Actor, two critics, and a slowly following copy of each."""

    name: ClassVar[str] = "td3"
    policy_of = DeterministicPolicy

    def __init__(self, spaces: Spaces, config: TD3Config) -> None:
        """Makes the networks."""
        super().__init__(spaces, config, config.noise)
        self.target_actor = deepcopy(self.actor)
        self._following.append((list(self.target_actor.parameters()), list(self.actor.parameters())))

    @property
    def delay(self) -> int:
        """See `ActorCritic`."""
        return int(self.config.policy_delay)

    def parts(self) -> dict[str, Any]:
        """What checkpoints keep."""
        return {**super().parts(), "target_actor": self.target_actor}

    def targets(self, data: Tensors) -> torch.Tensor:
        """With noise from torch's generator, see `td3_target`."""
        later = data["next_observation"]
        action = self.target_actor(later)
        smooth = smoothed(action, torch.randn_like(action), self.config.target_noise, self.config.noise_limit)
        return td3_target(data["reward"], data["discount"], self.target_critics(later, smooth))

    def actor_loss(self, data: Tensors) -> tuple[torch.Tensor, Tensors]:
        """``−Q₁(s, μ(s))``."""
        return -self.critics(data["observation"], self.actor(data["observation"]))[0].mean(), {}


def smoothed(action: torch.Tensor, noise: torch.Tensor, scale: float, limit: float) -> torch.Tensor:
    """``clip(a + clip(scale · noise, −limit, limit), −1, 1)`` (Fujimoto et al. 2018, section 5.3); `noise` is standard normal."""
    return (action + (noise * scale).clamp(-limit, limit)).clamp(-1.0, 1.0)


def td3_target(reward: torch.Tensor, discount: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """``reward + discount · min_i Q'_i`` ``(batch,)`` from values ``(critics, batch)`` (Fujimoto et al. 2018, equation 10).

    `reward` is the n-step sum and `discount` gamma^k · (1 − terminated), as replaystore delivers them: a truncated episode bootstraps.
    """
    return reward + discount * values.amin(0)


PRESETS: dict[str, Mapping[str, Any]] = {
    "paper": {"learning_rate": 1e-3, "batch_size": 100, "hidden": (400, 300), "alpha": 0.0, "samples_per_insert": 100.0},
    "td3": {"alpha": 0.0, "samples_per_insert": 256.0, "max_steps": 1_000_000},
}
"""paper: Fujimoto et al. (2018), table 3; td3: the authors' code. Both with one update per step and uniform replay."""
