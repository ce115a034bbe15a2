"""Behaviour cloning: imitates the actions of the data, whatever they earned. The floor that offline algorithms are to be better than."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from replaystore_agents.algorithms.base import Figures, Learner, LearnerConfig, Spaces, need_discrete
from replaystore_agents.algorithms.policies import ScorePolicy
from replaystore_agents.trunk.devices import Tensors, faster, precision
from replaystore_agents.trunk.heads import QNetwork, build_network, describe_network
from replaystore_agents.trunk.hyper import hyper


@dataclass(frozen=True, slots=True)
class BCConfig(LearnerConfig):
    """All that there is."""

    learning_rate: float = hyper(1e-3, "Adam's step size (its default, Kingma and Ba 2015).")


class BC(Learner):
    """A classifier of observations by action."""

    name: ClassVar[str] = "bc"

    def __init__(self, spaces: Spaces, config: BCConfig) -> None:
        """Makes the network."""
        super().__init__(spaces, config)
        need_discrete(spaces, self.name)
        self.description = describe_network(
            spaces.observation_shape, spaces.actions, config.hidden, body=config.body,
            observations=spaces.observations, first_observation=spaces.first_observation,
        )  # fmt: skip
        self.actor: QNetwork = build_network(self.description).to(self.device)
        self.optimizer = self.adam(self.actor.parameters(), config.learning_rate)
        self._run = faster(self._step, self.device, config.compile, config.graphs)

    def policy(self) -> ScorePolicy:
        """The likeliest action."""
        return ScorePolicy(self.actor, self.description, self.spaces.first_action, self.spaces.frames, self.device)

    def parts(self) -> dict[str, Any]:
        """What checkpoints keep."""
        return {"actor": self.actor, "optimizer": self.optimizer}

    def learn(self, data: Any, weighted: bool) -> tuple[torch.Tensor, Figures]:
        """See `base.Algorithm`. The errors are the surprise at each action, in nats."""
        tensors: Tensors = {name: data[name] for name in ("observation", "action")}
        if weighted:
            tensors["weights"] = data["weights"]
        done = self._run(tensors)
        self.updates += 1
        return done["errors"], lambda: {"loss": done["loss"].item(), "imitated": done["imitated"].item()}

    def _step(self, data: Tensors) -> Tensors:
        """One gradient step."""
        action = data["action"].long() - self.spaces.first_action
        with precision(self.device, self.config.amp):
            scores = self.actor(data["observation"])
        scores = scores.float()
        losses = nn.functional.cross_entropy(scores, action, reduction="none")
        loss = (losses * data["weights"]).mean() if "weights" in data else losses.mean()
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        imitated = (scores.detach().argmax(1) == action).float().mean()
        return {"errors": losses.detach(), "loss": loss.detach(), "imitated": imitated}


PRESETS: dict[str, Mapping[str, Any]] = {}
