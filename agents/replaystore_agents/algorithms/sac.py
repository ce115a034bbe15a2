"""SAC: a stochastic actor that is also paid for its entropy, at a price that is learned (Haarnoja et al. 2018b, arXiv:1812.05905)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

import replaystore as rs
from replaystore_agents.algorithms.base import Spaces
from replaystore_agents.algorithms.continuous import ActorCritic, ActorCriticConfig, GaussianPolicy
from replaystore_agents.trunk.devices import Tensors
from replaystore_agents.trunk.hyper import hyper


@dataclass(frozen=True, slots=True)
class SACConfig(ActorCriticConfig):
    """Defaults are those of Haarnoja et al. (2018b), table 1."""

    temperature: float = hyper(1.0, "Price of entropy, alpha in the paper: where it begins, or stays (the authors' code begins at 1).")
    tune_temperature: bool = hyper(True, "The temperature is learned so that entropy meets its target (Haarnoja et al. 2018b, section 5).")
    target_entropy: float = hyper(
        0.0, "In nats, actions in [-1, 1]; 0: minus the number of action dimensions (Haarnoja et al. 2018b, table 1)."
    )
    temperature_learning_rate: float = hyper(0.0, "Adam's step size for the temperature; 0: as for the critics.")


class Temperature(nn.Module):
    """The logarithm of one positive number."""

    def __init__(self, start: float) -> None:
        super().__init__()
        self.log = nn.Parameter(torch.tensor(math.log(start)))

    def forward(self) -> torch.Tensor:
        """The number, without gradient."""
        return self.log.detach().exp()


class SAC(ActorCritic):
    """Actor, two critics with slowly following copies, and the temperature."""

    name: ClassVar[str] = "sac"
    policy_of = GaussianPolicy

    def __init__(self, spaces: Spaces, config: SACConfig) -> None:
        """Makes the networks."""
        if config.temperature <= 0:
            raise rs.InvalidArgument(f"temperature={config.temperature} must be above 0: its logarithm is learned")
        super().__init__(spaces, config)
        self.temperature = Temperature(config.temperature).to(self.device)
        self.temperature_optimizer = self.adam([self.temperature.log], config.temperature_learning_rate or config.learning_rate)
        self.target_entropy = config.target_entropy or -float(self.dimensions)

    def parts(self) -> dict[str, Any]:
        """What checkpoints keep."""
        return {**super().parts(), "temperature": self.temperature, "temperature_optimizer": self.temperature_optimizer}

    def targets(self, data: Tensors) -> torch.Tensor:
        """With actions drawn with torch's generator, see `sac_target`."""
        later = data["next_observation"]
        action, log_density = self.actor.sample(later)
        return sac_target(data["reward"], data["discount"], self.target_critics(later, action), log_density, self.temperature())

    def actor_loss(self, data: Tensors) -> tuple[torch.Tensor, Tensors]:
        """``α log π(a|s) − min_i Q_i(s, a)`` with a drawn (Haarnoja et al. 2018b, equation 9); the temperature takes its step here."""
        action, log_density = self.actor.sample(data["observation"])
        price = self.temperature()
        loss = (price * log_density - self.critics(data["observation"], action).amin(0)).mean()
        if self.config.tune_temperature:
            off = temperature_loss(self.temperature.log, log_density.detach(), self.target_entropy)
            self._descend(self.temperature_optimizer, self.temperature, off)
        return loss, {"temperature": price, "entropy": -log_density.detach().mean()}


def sac_target(
    reward: torch.Tensor, discount: torch.Tensor, values: torch.Tensor, log_density: torch.Tensor, temperature: torch.Tensor | float
) -> torch.Tensor:
    """``reward + discount · (min_i Q'_i(s', a') − α log π(a'|s'))`` (Haarnoja et al. 2018b, equations 2 and 3).

    `values` is ``(critics, batch)``, the others are ``(batch,)``. With n-step returns the entropies of the steps between are left out, as
    is usual: they would be those of the actions taken then.
    """
    return reward + discount * (values.amin(0) - temperature * log_density)


def temperature_loss(log_temperature: torch.Tensor, log_density: torch.Tensor, target_entropy: float) -> torch.Tensor:
    """``−log α · mean(log π + H)``: too little entropy makes alpha larger (Haarnoja et al. 2018b, equation 18; log α as in their code)."""
    return -log_temperature * (log_density + target_entropy).mean()


PRESETS: dict[str, Mapping[str, Any]] = {
    "paper": {"alpha": 0.0, "samples_per_insert": 256.0, "max_steps": 1_000_000, "min_size": 10_000},
    "pendulum": {"alpha": 0.0, "learning_rate": 1e-3, "hidden": (256, 256), "samples_per_insert": 256.0, "min_size": 1_000},
}
"""paper: Haarnoja et al. (2018b), table 1, one update per step and uniform replay; pendulum: RL Zoo's learning rate for Pendulum-v1."""
