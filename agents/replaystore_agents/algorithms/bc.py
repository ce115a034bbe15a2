"""Behaviour cloning: imitates the actions of the data, whatever they earned. The floor that offline algorithms are to be better than."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from replaystore_agents.algorithms.base import Figures, Learner, LearnerConfig, Spaces
from replaystore_agents.algorithms.imitation import Imitator
from replaystore_agents.algorithms.policies import Policy
from replaystore_agents.trunk.devices import Tensors, faster, precision
from replaystore_agents.trunk.hyper import hyper


@dataclass(frozen=True, slots=True)
class BCConfig(LearnerConfig):
    """All that there is."""

    learning_rate: float = hyper(1e-3, "Adam's step size (its default, Kingma and Ba 2015).")


class BC(Learner):
    """A policy that learns the data's actions."""

    name: ClassVar[str] = "bc"

    def __init__(self, spaces: Spaces, config: BCConfig) -> None:
        """Makes the network."""
        super().__init__(spaces, config)
        self.imitator = Imitator(spaces, config, self.device)
        self.optimizer = self.adam(self.imitator.network.parameters(), config.learning_rate)
        self._run = faster(self._step, self.device, config.compile, config.graphs)

    def policy(self) -> Policy:
        """The likeliest action."""
        return self.imitator.policy()

    def parts(self) -> dict[str, Any]:
        """What checkpoints keep."""
        return {"actor": self.imitator.network, "optimizer": self.optimizer}

    def learn(self, data: Any, weighted: bool) -> tuple[torch.Tensor, Figures]:
        """See `base.Algorithm`. The errors are the losses of `Imitator`."""
        tensors: Tensors = {name: data[name] for name in ("observation", "action")}
        if weighted:
            tensors["weights"] = data["weights"]
        done = self._run(tensors)
        self.updates += 1
        return done["errors"], lambda: {"loss": done["loss"].item()}

    def _step(self, data: Tensors) -> Tensors:
        """One gradient step."""
        with precision(self.device, self.config.amp):
            losses = self.imitator.losses(data["observation"], self.imitator.actions(data["action"]))
        loss = (losses * data["weights"]).mean() if "weights" in data else losses.mean()
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return {"errors": losses.detach(), "loss": loss.detach()}


PRESETS: dict[str, Mapping[str, Any]] = {}
