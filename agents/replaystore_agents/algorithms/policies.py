"""Policies: what actors and evaluation need of an algorithm, and nothing more. Each can be built from its own description alone.

A learner publishes `publishable(policy)`: the weights, and the description as JSON among them, so that an actor needs no flags.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import import_module
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

import replaystore as rs
from replaystore_agents.trunk.heads import build_network
from replaystore_agents.trunk.networks import from_arrays, to_arrays

Array = npt.NDArray[Any]

DESCRIPTION = "policy.description"
"""The parameter array that holds the description: JSON as uint8."""

STOP = "control.stop"
"""A parameter array of this name tells the actors to end."""

BUILDERS = {
    "scores": "replaystore_agents.algorithms.policies:ScorePolicy",
    "deterministic": "replaystore_agents.algorithms.continuous:DeterministicPolicy",
    "gaussian": "replaystore_agents.algorithms.continuous:GaussianPolicy",
    "goals": "replaystore_agents.algorithms.goals:GoalPolicy",
}
"""Classes by kind; each has ``from_description(description, device)``."""


class Policy(Protocol):
    """Chooses actions."""

    frames: int
    """How many it sees at once."""

    def describe(self) -> dict[str, Any]:
        """Plain JSON from which `build_policy` makes one like it: its kind, spaces and network."""

    def arrays(self) -> dict[str, Array]:
        """The weights, copied."""

    def load(self, arrays: Mapping[str, Array]) -> None:
        """Takes weights from `arrays`; names that it has not are left out."""

    def act(self, observations: Any, rng: np.random.Generator, explore: float = 0.0) -> Array:
        """Actions ``(environments, ...)`` for observations ``(environments, *shape)``, frames stacked.

        With `explore` 0 the best known; otherwise the share of random actions, or the scale of the policy's own noise.
        """


def build_policy(description: Mapping[str, Any], device: torch.device | str = "cpu") -> Policy:
    """The policy that describes itself so, with weights that mean nothing yet."""
    kind = description.get("kind")
    if kind not in BUILDERS:
        raise rs.InvalidArgument(f"a policy of kind {kind!r} is not known here; known: {', '.join(sorted(BUILDERS))}")
    module, _, name = BUILDERS[kind].partition(":")
    policy: Policy = getattr(import_module(module), name).from_description(dict(description), torch.device(device))
    return policy


def policy_in(state: Mapping[str, Any], device: torch.device | str = "cpu") -> Policy:
    """The policy of a checkpoint (`load_checkpoint`), with its weights."""
    policy = build_policy(state["policy"], device)
    policy.load({name: array.numpy() for name, array in state["policy_arrays"].items()})
    return policy


def publishable(policy: Policy) -> dict[str, Array]:
    """Its weights and its description, as named arrays."""
    text = json.dumps(policy.describe()).encode()
    return {**policy.arrays(), DESCRIPTION: np.frombuffer(text, np.uint8).copy()}


def description_in(arrays: Mapping[str, Array]) -> dict[str, Any] | None:
    """The description among published arrays; None when there is none."""
    found = arrays.get(DESCRIPTION)
    description: dict[str, Any] | None = None if found is None else json.loads(bytes(np.asarray(found, np.uint8)))
    return description


class NetworkPolicy:
    """What policies of one network have in common: its weights."""

    def __init__(self, network: nn.Module, description: dict[str, Any], frames: int, device: torch.device) -> None:
        self._network, self._description, self.frames, self._device = network, description, frames, device

    def arrays(self) -> dict[str, Array]:
        """See `Policy`."""
        return to_arrays(self._network)

    def load(self, arrays: Mapping[str, Array]) -> None:
        """See `Policy`."""
        from_arrays(self._network, arrays)


class ScorePolicy(NetworkPolicy):
    """Takes the action of the highest score: action values, or the log-probabilities of a policy over Discrete actions.

    Explores epsilon-greedily; a network with noisy layers explores with their noise instead, whatever `explore` above 0 says.
    """

    kind = "scores"

    def __init__(self, network: nn.Module, description: dict[str, Any], first_action: int, frames: int, device: torch.device) -> None:
        super().__init__(network, description, frames, device)
        self._first = first_action
        self._actions = int(description["head"]["actions"])
        self._noisy = bool(description["head"]["noisy"])

    @classmethod
    def from_description(cls, description: dict[str, Any], device: torch.device) -> ScorePolicy:
        """See `build_policy`."""
        network = build_network(description["network"]).to(device)
        return cls(network, description["network"], int(description["first_action"]), int(description["frames"]), device)

    def describe(self) -> dict[str, Any]:
        """See `Policy`."""
        return {"kind": self.kind, "network": self._description, "first_action": self._first, "frames": self.frames}

    @torch.no_grad()
    def act(self, observations: Any, rng: np.random.Generator, explore: float = 0.0) -> Array:
        """See `Policy`."""
        if self._noisy:
            self._network.train(explore > 0)
            if explore > 0:
                self._network.draw_noise(rng)  # type: ignore[operator]
        try:
            seen = torch.as_tensor(np.asarray(observations), device=self._device)
            best: Array = self._network.scores(seen).argmax(1).cpu().numpy() + self._first  # type: ignore[operator]
        finally:
            if self._noisy:
                self._network.train()
        if self._noisy or explore <= 0:
            return best
        random = rng.integers(self._first, self._first + self._actions, len(best))
        return np.where(rng.random(len(best)) < explore, random, best)
