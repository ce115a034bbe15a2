"""Implicit Q-learning (Kostrikov et al. 2022): learns from saved steps without ever asking for the value of an action not in them.

A state's value is an upper expectile of its actions' values; the policy imitates actions, the more the better they are than that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from replaystore_agents.algorithms.base import Figures, Learner, LearnerConfig, Spaces
from replaystore_agents.algorithms.continuous import Critics
from replaystore_agents.algorithms.imitation import Imitator, describe_scores
from replaystore_agents.algorithms.policies import Policy
from replaystore_agents.trunk.devices import Tensors, faster, precision
from replaystore_agents.trunk.heads import build_network
from replaystore_agents.trunk.hyper import hyper
from replaystore_agents.trunk.networks import follow


@dataclass(frozen=True, slots=True)
class IQLConfig(LearnerConfig):
    """The paper's, section 5.1 and appendix B (locomotion)."""

    learning_rate: float = hyper(3e-4, "Adam's step size of all networks (Kostrikov et al. 2022).")
    tau: float = hyper(0.005, "Soft target update of the action values after each update (Kostrikov et al. 2022).")
    expectile: float = hyper(0.7, "Of action values, that a state's value is; 0.5 is their mean (Kostrikov et al. 2022: 0.7, mazes 0.9).")
    sharpness: float = hyper(3.0, "How much more a better action is imitated: exp(sharpness · advantage) (Kostrikov et al. 2022: beta, 3).")
    weight_limit: float = hyper(100.0, "The greatest such weight (Kostrikov et al. 2022, its code: 100).")


class IQL(Learner):
    """Two networks of action values, one of state values, and the policy. Discrete or continuous actions."""

    name: ClassVar[str] = "iql"

    def __init__(self, spaces: Spaces, config: IQLConfig) -> None:
        """Makes the networks."""
        super().__init__(spaces, config)
        self.imitator = Imitator(spaces, config, self.device)
        self.critics, self.targets = (self._critics().to(self.device) for _ in range(2))
        self.targets.load_state_dict(self.critics.state_dict())
        self.value = build_network(describe_scores(spaces, config, 1)).to(self.device)
        self._critic_parameters, self._target_parameters = list(self.critics.parameters()), list(self.targets.parameters())
        self.critic_optimizer = self.adam(self._critic_parameters, config.learning_rate)
        self.value_optimizer = self.adam(self.value.parameters(), config.learning_rate)
        self.actor_optimizer = self.adam(self.imitator.network.parameters(), config.learning_rate)
        self._run = faster(self._step, self.device, config.compile, config.graphs)

    def _critics(self) -> nn.Module:
        if self.spaces.actions:
            return nn.ModuleList(build_network(self.imitator.description) for _ in range(2))
        return Critics(2, self.imitator.description["body"], math.prod(self.spaces.action_shape))

    def policy(self) -> Policy:
        """The likeliest action."""
        return self.imitator.policy()

    def parts(self) -> dict[str, Any]:
        """What checkpoints keep."""
        names = ("critics", "targets", "value", "critic_optimizer", "value_optimizer", "actor_optimizer")
        return {"actor": self.imitator.network, **{name: getattr(self, name) for name in names}}

    def learn(self, data: Any, weighted: bool) -> tuple[torch.Tensor, Figures]:
        """See `base.Algorithm`. The errors are those of the first network of action values."""
        tensors: Tensors = {name: data[name] for name in ("observation", "next_observation", "action", "reward", "discount")}
        if weighted:
            tensors["weights"] = data["weights"]
        done = self._run(tensors)
        self.updates += 1
        names = ("value_loss", "critic_loss", "actor_loss", "value", "advantage")
        return done["errors"], lambda: {name: done[name].item() for name in names}

    def _step(self, data: Tensors) -> Tensors:
        """One gradient step of each network, in the paper's order: state values, action values, policy."""
        config, observation = self.config, data["observation"]
        action = self.imitator.actions(data["action"])
        weights = data.get("weights", 1.0)
        with torch.no_grad():
            best = self._values(self.targets, observation, action).amin(0)
        with precision(self.device, config.amp):
            value = self.value(observation).float().squeeze(1)
        advantage = best - value
        value_loss = (weights * expectile_loss(advantage, config.expectile)).mean()
        _descend(self.value_optimizer, value_loss)

        with torch.no_grad(), precision(self.device, config.amp):
            following = self.value(data["next_observation"]).float().squeeze(1)
        target = data["reward"].float() + data["discount"] * following
        values = self._values(self.critics, observation, action)
        critic_loss = (weights * (target - values).square().sum(0)).mean()
        _descend(self.critic_optimizer, critic_loss)
        follow(self._target_parameters, self._critic_parameters, config.tau)

        with precision(self.device, config.amp):
            imitation = self.imitator.losses(observation, action)
        better = (config.sharpness * advantage.detach()).exp().clamp(max=config.weight_limit)
        actor_loss = (weights * better * imitation).mean()
        _descend(self.actor_optimizer, actor_loss)
        figures = {"value_loss": value_loss, "critic_loss": critic_loss, "actor_loss": actor_loss}
        figures |= {"value": value.mean(), "advantage": advantage.mean()}
        return {"errors": (target - values[0].detach()).abs(), **{name: figure.detach() for name, figure in figures.items()}}

    def _values(self, critics: Any, observation: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        """Of both networks, ``(2, batch)``."""
        with precision(self.device, self.config.amp):
            if not self.spaces.actions:
                found: torch.Tensor = critics(observation, action).float()
                return found
            return torch.stack([critic(observation).float().gather(1, action.unsqueeze(1)).squeeze(1) for critic in critics])


def expectile_loss(difference: torch.Tensor, expectile: float) -> torch.Tensor:
    """``|expectile − 1(difference < 0)| · difference²`` (Kostrikov et al. 2022, equation 5), of the same shape."""
    return torch.where(difference < 0, 1 - expectile, expectile) * difference**2


def _descend(optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()


PRESETS: dict[str, Mapping[str, Any]] = {}
