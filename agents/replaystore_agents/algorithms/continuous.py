"""What DDPG, TD3 and SAC share: actors, critics, policies over bounded continuous actions, and the order of an update.

Networks see and give actions in [−1, 1]; `Bounds` leads to the environment's and back, so noise, entropies and critics' inputs mean
the same for every environment. Observations are read as anywhere else (trunk/networks.py).
"""

from __future__ import annotations

import itertools
import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from replaystore_agents.algorithms.base import Figures, Learner, LearnerConfig, Spaces, need_continuous
from replaystore_agents.algorithms.policies import Array, NetworkPolicy
from replaystore_agents.trunk.devices import Tensors, faster, precision
from replaystore_agents.trunk.hyper import hyper
from replaystore_agents.trunk.networks import Body, describe_body, follow

HIDDEN = (256, 256)
"""Widths after the reader in actors and critics (Fujimoto et al. 2018, the authors' code; Haarnoja et al. 2018b, table 1)."""

LOG_STD = (-20.0, 2.0)
"""Where log standard deviations are cut (Haarnoja et al. 2018b, the authors' code)."""


@dataclass(frozen=True, slots=True)
class ActorCriticConfig(LearnerConfig):
    """What the three have in common."""

    hidden: tuple[int, ...] = hyper(
        HIDDEN, "Widths of the hidden layers of actor and critics (Fujimoto et al. 2018, Haarnoja et al. 2018b)."
    )
    tau: float = hyper(0.005, "Soft target update after each update (Fujimoto et al. 2018, Haarnoja et al. 2018b).")
    actor_learning_rate: float = hyper(0.0, "Adam's step size for the actor; 0: as for the critics.")
    max_grad_norm: float = hyper(0.0, "Gradients are scaled down to this norm; 0: they are left alone, as in the papers.")


@dataclass(frozen=True, slots=True)
class Bounds:
    """Actions of a Box in [−1, 1] and back. Works on tensors and arrays."""

    low: float
    high: float

    def inward(self, actions: Any) -> Any:
        """The environment's as the networks'."""
        return (actions - (self.low + self.high) / 2) / ((self.high - self.low) / 2)

    def outward(self, actions: Any) -> Any:
        """The networks' as the environment's, never beyond the bounds."""
        return (actions * ((self.high - self.low) / 2) + (self.low + self.high) / 2).clip(self.low, self.high)


def describe_actor(
    spaces: Spaces, kind: str, hidden: tuple[int, ...] = HIDDEN, body: str = "auto", noise: float = 0.0, theta: float = 0.0
) -> dict[str, Any]:
    """An actor and its policy as JSON.

    Args:
        spaces: of the table; actions must be continuous.
        kind: ``"deterministic"`` or ``"gaussian"``.
        hidden: widths of its layers after the reader.
        body: the reader (trunk/networks.py).
        noise: standard deviation of a deterministic policy's exploration, where actions are in [−1, 1].
        theta: how fast that noise returns to 0, where it is an Ornstein-Uhlenbeck process; 0: it is independent from step to step.
    """
    read = describe_body(
        spaces.observation_shape, hidden, body, observations=spaces.observations, first_observation=spaces.first_observation
    )
    return {
        "kind": kind, "body": read, "action_shape": list(spaces.action_shape), "low": spaces.action_low, "high": spaces.action_high,
        "noise": noise, "frames": spaces.frames, **({"theta": theta} if theta else {}),
    }  # fmt: skip


class DeterministicActor(nn.Module):
    """``(batch, *shape) → (batch, dimensions)`` in [−1, 1]."""

    def __init__(self, description: Mapping[str, Any]) -> None:
        super().__init__()
        self.body = Body(description["body"])
        self.last = nn.Linear(self.body.features, math.prod(description["action_shape"]))

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        """Actions."""
        actions: torch.Tensor = self.last(self.body(observation)).float().tanh()
        return actions


class GaussianActor(nn.Module):
    """``(batch, *shape) →`` mean and log standard deviation before the tanh, each ``(batch, dimensions)``."""

    def __init__(self, description: Mapping[str, Any]) -> None:
        super().__init__()
        self.body = Body(description["body"])
        self.last = nn.Linear(self.body.features, 2 * math.prod(description["action_shape"]))

    def forward(self, observation: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and log standard deviation."""
        mean, log_std = self.last(self.body(observation)).float().chunk(2, dim=1)
        return mean, log_std.clamp(*LOG_STD)

    def sample(self, observation: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Actions ``(batch, dimensions)`` drawn with torch's generator, with gradients, and their log-densities ``(batch,)``."""
        mean, log_std = self(observation)
        return squashed(mean, log_std, torch.randn_like(mean))


def squashed(mean: torch.Tensor, log_std: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """``tanh(mean + std · noise)`` ``(batch, dimensions)`` and its log-density ``(batch,)`` (Haarnoja et al. 2018a, appendix C).

    ``log(1 − tanh²u)`` is written as ``2 (log 2 − u − softplus(−2u))``, which stays exact where tanh is 1.
    """
    before = mean + log_std.exp() * noise
    normal = -0.5 * noise.square() - log_std - 0.5 * math.log(2 * math.pi)
    stretch = 2.0 * (math.log(2.0) - before - nn.functional.softplus(-2.0 * before))
    return before.tanh(), (normal - stretch).sum(1)


class Critics(nn.Module):
    """Several networks that share nothing: ``(batch, *shape), (batch, dimensions) → (critics, batch)``. Actions join after the reader."""

    def __init__(self, count: int, body: Mapping[str, Any], dimensions: int) -> None:
        super().__init__()
        readers = [Body({**body, "hidden": []}) for _ in range(count)]
        self.readers = nn.ModuleList(readers)
        self.layers = nn.ModuleList(_plain([reader.features + dimensions, *body["hidden"], 1]) for reader in readers)

    def forward(self, observation: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        """Values."""
        pairs = zip(self.readers, self.layers, strict=True)
        return torch.stack([layers(torch.cat([reader(observation), action], 1)).squeeze(1).float() for reader, layers in pairs])


def _plain(widths: list[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class DeterministicPolicy(NetworkPolicy):
    """What the actor says; explores with Gaussian noise of its own standard deviation times `explore`.

    With a `theta` the noise is an Ornstein-Uhlenbeck process in unit time steps, ``x ← (1 − theta) x + noise · N(0, 1)``, one for each
    environment and component (Lillicrap et al. 2016, section 7). It goes on over the ends of episodes, where only a few steps remember it.
    """

    kind: ClassVar[str] = "deterministic"
    network_of: ClassVar[type[nn.Module]] = DeterministicActor

    def __init__(self, network: nn.Module, description: dict[str, Any], device: torch.device) -> None:
        super().__init__(network, description, int(description["frames"]), device)
        self._bounds, self._shape = Bounds(description["low"], description["high"]), tuple(description["action_shape"])
        self._drift: Array | None = None

    @classmethod
    def from_description(cls, description: dict[str, Any], device: torch.device) -> DeterministicPolicy:
        """See `build_policy`."""
        return cls(cls.network_of(description).to(device), description, device)

    def describe(self) -> dict[str, Any]:
        """See `Policy`."""
        return dict(self._description)

    @torch.no_grad()
    def act(self, observations: Any, rng: np.random.Generator, explore: float = 0.0) -> Array:
        """See `Policy`: float32 ``(environments, *action_shape)`` within the environment's bounds."""
        seen = torch.as_tensor(np.asarray(observations), device=self._device)
        actions: Array = self._bounds.outward(self._chosen(seen, rng, explore))
        return actions.astype(np.float32).reshape(-1, *self._shape)

    def _chosen(self, seen: torch.Tensor, rng: np.random.Generator, explore: float) -> Array:
        actions: Array = self._network(seen).cpu().numpy()
        if explore > 0:
            actions = actions + self._noise(actions.shape, rng, explore)
        return actions.clip(-1.0, 1.0)

    def _noise(self, shape: tuple[int, ...], rng: np.random.Generator, explore: float) -> Array:
        theta, noise, fresh = self._description.get("theta", 0.0), self._description["noise"], rng.standard_normal(shape, np.float32)
        if not theta:
            return np.float32(explore * noise) * fresh
        before = np.zeros(shape, np.float32) if self._drift is None or self._drift.shape != shape else self._drift
        self._drift = np.float32(1 - theta) * before + np.float32(noise) * fresh
        return np.float32(explore) * self._drift


class GaussianPolicy(DeterministicPolicy):
    """The squashed mean; explores by drawing, with the actor's standard deviation times `explore`."""

    kind = "gaussian"
    network_of = GaussianActor

    def _chosen(self, seen: torch.Tensor, rng: np.random.Generator, explore: float) -> Array:
        mean, log_std = (part.cpu().numpy() for part in self._network(seen))
        if explore > 0:
            mean = mean + np.float32(explore) * np.exp(log_std) * rng.standard_normal(mean.shape, np.float32)
        actions: Array = np.tanh(mean)
        return actions


class ActorCritic(Learner):
    """An update: the critics towards `targets`, then, when it is due, the actor against `actor_loss`, and all targets follow.

    Weights of prioritized replay scale the critics' losses alone. New priorities are the critics' mean absolute errors.
    """

    policy_of: ClassVar[type[DeterministicPolicy]]
    critic_count: ClassVar[int] = 2

    def __init__(self, spaces: Spaces, config: Any, noise: float = 0.0, theta: float = 0.0) -> None:
        """Makes actor, critics and target critics; `noise` and `theta` are the policy's."""
        super().__init__(spaces, config)
        need_continuous(spaces, self.name)
        self.bounds = Bounds(spaces.action_low, spaces.action_high)
        self.description = describe_actor(spaces, self.policy_of.kind, config.hidden, config.body, noise, theta)
        self.dimensions = math.prod(spaces.action_shape)
        self.actor: Any = self.policy_of.network_of(self.description).to(self.device)
        self.critics, self.target_critics = (
            Critics(self.critic_count, self.description["body"], self.dimensions).to(self.device) for _ in range(2)
        )
        self.target_critics.load_state_dict(self.critics.state_dict())
        self.actor_optimizer = self.adam(list(self.actor.parameters()), config.actor_learning_rate or config.learning_rate)
        self.critic_optimizer = self.adam(list(self.critics.parameters()), config.learning_rate)
        self._following = [(list(self.target_critics.parameters()), list(self.critics.parameters()))]
        self._critic_step = faster(self._learn_critics, self.device, config.compile, config.graphs)
        self._actor_step = faster(self._learn_actor, self.device, config.compile, config.graphs)
        self._last: Tensors = {}

    @abstractmethod
    def targets(self, data: Tensors) -> torch.Tensor:
        """What the critics should say of each item ``(batch,)``; called without gradients."""

    @abstractmethod
    def actor_loss(self, data: Tensors) -> tuple[torch.Tensor, Tensors]:
        """What the actor makes small, a scalar, and figures by name."""

    def policy(self) -> DeterministicPolicy:
        """Shares the live actor."""
        return self.policy_of(self.actor, self.description, self.device)

    def parts(self) -> dict[str, Any]:
        """What checkpoints keep."""
        return {
            "actor": self.actor, "critics": self.critics, "target_critics": self.target_critics,
            "actor_optimizer": self.actor_optimizer, "critic_optimizer": self.critic_optimizer,
        }  # fmt: skip

    def learn(self, data: Any, weighted: bool) -> tuple[torch.Tensor, Figures]:
        """See `base.Algorithm`."""
        tensors: Tensors = {name: data[name] for name in ("observation", "next_observation", "discount")}
        tensors["reward"] = data["reward"].float()
        tensors["action"] = self.bounds.inward(data["action"].float()).reshape(-1, self.dimensions)
        if weighted:
            tensors["weights"] = data["weights"]
        done = self._critic_step(tensors)
        self.updates += 1
        if self.updates % self.delay == 0:
            self._last = self._actor_step(tensors)
        figures = {"loss": done["loss"], "value": done["values"], "td_error": done["errors"], **self._last}
        return done["errors"], lambda: {name: numbers.mean().item() for name, numbers in figures.items()}

    @property
    def delay(self) -> int:
        """Updates of the critics for one of the actor and the targets."""
        return 1

    def _learn_critics(self, data: Tensors) -> Tensors:
        with torch.no_grad(), precision(self.device, self.config.amp):
            targets = self.targets(data)
        with precision(self.device, self.config.amp):
            values = self.critics(data["observation"], data["action"])
        errors = targets - values
        losses = errors.square().sum(0)
        loss = (losses * data["weights"]).mean() if "weights" in data else losses.mean()
        self._descend(self.critic_optimizer, self.critics, loss)
        return {"errors": errors.detach().abs().mean(0), "loss": loss.detach(), "values": values.detach()}

    def _learn_actor(self, data: Tensors) -> Tensors:
        self.critics.requires_grad_(False)  # their gradients are not needed here
        with precision(self.device, self.config.amp):
            loss, figures = self.actor_loss(data)
        self._descend(self.actor_optimizer, self.actor, loss)
        self.critics.requires_grad_(True)
        for target, online in self._following:
            follow(target, online, self.config.tau)
        return {"actor_loss": loss.detach(), **figures}

    def _descend(self, optimizer: torch.optim.Optimizer, module: nn.Module, loss: torch.Tensor) -> None:
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if self.config.max_grad_norm:
            nn.utils.clip_grad_norm_(module.parameters(), self.config.max_grad_norm)
        optimizer.step()
