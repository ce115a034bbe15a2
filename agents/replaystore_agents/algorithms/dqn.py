"""The DQN family: Double, Dueling, n-step, prioritized, distributional and noisy, each a switch; all together are Rainbow.

Mnih et al. (2015); van Hasselt et al. (2016); Wang et al. (2016); Schaul et al. (2016); Bellemare et al. (2017); Fortunato et al. (2018);
Hessel et al. (2018). n-step returns come from the store's view, prioritized replay from the table's selector: see online.py. The learner
only: actors are processes of their own (actor.py).
"""

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
from replaystore_agents.trunk.networks import follow


@dataclass(frozen=True, slots=True)
class DQNConfig(LearnerConfig):
    """Double DQN with 3-step returns, tuned on CartPole-v1 (8 of 8 seeds); PRESETS are the papers' other members of the family."""

    n_step: int = hyper(3, "Rewards summed before bootstrapping (Rainbow, Hessel et al. 2018: 3).")
    learning_rate: float = hyper(4e-3, "Adam's step size (RL Zoo uses 2.3e-3 for CartPole with batches of 64).")
    adam_epsilon: float = hyper(1e-5, "Adam's epsilon (Rainbow: 1.5e-4; smaller for small networks).")
    tau: float = hyper(0.04, "Soft target update after each update (Lillicrap et al. 2016); used when target_every is 0.")
    target_every: int = hyper(0, "Hard target copy every so many updates (Mnih et al. 2015); 0 uses tau instead.")
    huber_delta: float = hyper(1.0, "Where the loss turns from square to straight (Mnih et al. 2015: errors clipped at 1).")
    max_grad_norm: float = hyper(10.0, "Gradients are scaled down to this norm (Wang et al. 2016).")
    double: bool = hyper(True, "The online network chooses the next action, the target network values it (van Hasselt et al. 2016).")
    dueling: bool = hyper(False, "Streams of their own for the state's value and the advantages (Wang et al. 2016).")
    noisy: bool = hyper(False, "Noisy layers explore, instead of epsilon (Fortunato et al. 2018).")
    sigma: float = hyper(0.5, "Noise of noisy layers at first (Fortunato et al. 2018; Rainbow: 0.5).")
    atoms: int = hyper(0, "Atoms of the distribution of returns (C51, Bellemare et al. 2017: 51); 0 learns their mean only.")
    v_min: float = hyper(-10.0, "The least return that atoms stand for (Bellemare et al. 2017: rewards within -1 and 1).")
    v_max: float = hyper(10.0, "The greatest.")
    reward_limit: float = hyper(0.0, "Sums of n rewards are cut to plus and minus this (Mnih et al. 2015: 1, with n = 1); 0 cuts nothing.")


class DQN(Learner):
    """Networks, optimiser and the update."""

    name: ClassVar[str] = "dqn"

    def __init__(self, spaces: Spaces, config: DQNConfig) -> None:
        """Makes both networks, equal."""
        super().__init__(spaces, config)
        need_discrete(spaces, self.name)
        self.description = describe_network(
            spaces.observation_shape, spaces.actions, config.hidden, body=config.body,
            observations=spaces.observations, first_observation=spaces.first_observation,
            dueling=config.dueling, noisy=config.noisy, sigma=config.sigma, atoms=config.atoms, v_min=config.v_min, v_max=config.v_max,
        )  # fmt: skip
        self.online: QNetwork = build_network(self.description).to(self.device)
        self.target: QNetwork = build_network(self.description).to(self.device)
        self.target.load_state_dict(self.online.state_dict())
        self._parameters = list(self.online.parameters())
        self._target_parameters = list(self.target.parameters())
        self.optimizer = self.adam(self._parameters, config.learning_rate, config.adam_epsilon)
        self._run = faster(self._step, self.device, config.compile, config.graphs)

    def policy(self) -> ScorePolicy:
        """Greedy on the online network."""
        return ScorePolicy(self.online, self.description, self.spaces.first_action, self.spaces.frames, self.device)

    def parts(self) -> dict[str, Any]:
        """What checkpoints keep."""
        return {"online": self.online, "target": self.target, "optimizer": self.optimizer}

    def learn(self, data: Any, weighted: bool) -> tuple[torch.Tensor, Figures]:
        """See `base.Algorithm`. The errors are |TD errors|, with atoms the divergence from the target distribution (Hessel et al. 2018)."""
        tensors: Tensors = {name: data[name] for name in ("observation", "next_observation", "action", "reward", "discount")}
        if weighted:
            tensors["weights"] = data["weights"]
        done = self._run(tensors)
        self.updates += 1
        if self.config.target_every and self.updates % self.config.target_every == 0:
            self.target.load_state_dict(self.online.state_dict())
        return done["errors"], lambda: {
            "loss": done["loss"].item(), "value": done["values"].mean().item(), "td_error": done["errors"].mean().item()
        }  # fmt: skip

    def _step(self, data: Tensors) -> Tensors:
        """One gradient step, and the soft step of the target network."""
        if self.config.noisy:
            self.online.draw_noise()
            self.target.draw_noise()
        action = data["action"].long() - self.spaces.first_action
        errors, losses, values, extra = self._losses(data, action)
        loss = (losses * data["weights"]).mean() if "weights" in data else losses.mean()
        self.optimizer.zero_grad()
        (loss + extra).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self._parameters, self.config.max_grad_norm)
        self.optimizer.step()
        if not self.config.target_every:
            follow(self._target_parameters, self._parameters, self.config.tau)
        return {"errors": errors, "loss": loss.detach(), "values": values.detach()}

    def _losses(self, data: Tensors, action: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | float]:
        """New priorities and losses, each ``(batch,)``, the values of the actions taken, and what else is to be made small."""
        reward, discount, config = data["reward"].float(), data["discount"], self.config
        if config.reward_limit:
            reward = reward.clamp(-config.reward_limit, config.reward_limit)
        with torch.no_grad(), precision(self.device, config.amp):
            next_target = self.target(data["next_observation"])
            next_online = self.online(data["next_observation"]) if config.double else next_target
        if config.noisy and config.double:
            self.online.draw_noise()  # who chooses the next action has noise of its own (Fortunato et al. 2018, NoisyNet-Dueling)
        with precision(self.device, config.amp):
            found = self.online(data["observation"])
        found, next_target, next_online = found.float(), next_target.float(), next_online.float()
        rows = torch.arange(len(action), device=action.device)
        if not config.atoms:
            target = (double_dqn_target if config.double else dqn_target)(reward, discount, next_online, next_target)
            values = found.gather(1, action.unsqueeze(1)).squeeze(1)
            losses = nn.functional.huber_loss(values, target, reduction="none", delta=config.huber_delta)
            return (target - values.detach()).abs(), losses, values, self._extra(found, action)
        best = self.online.mean(next_online).argmax(1)
        target = project(reward, discount, next_target[rows, best].softmax(-1), self.online.support)
        logs = found[rows, action].log_softmax(-1)
        losses = -(target * logs).sum(-1)
        surplus = losses.detach() - torch.special.entr(target).sum(-1)  # cross entropy less entropy: the divergence
        means = self.online.mean(found)
        return surplus.clamp(min=0), losses, means.gather(1, action.unsqueeze(1)).squeeze(1), self._extra(means, action)

    def _extra(self, scores: torch.Tensor, action: torch.Tensor) -> torch.Tensor | float:
        """What `cql.py` adds to the loss, from the scores of all actions ``(batch, actions)``."""
        return 0.0


def dqn_target(reward: torch.Tensor, discount: torch.Tensor, next_online: torch.Tensor, next_target: torch.Tensor) -> torch.Tensor:
    """``reward + discount · max_a Q_target(s', a)`` (Mnih et al. 2015); arguments as for `double_dqn_target`."""
    return reward + discount * next_target.amax(1)


def double_dqn_target(reward: torch.Tensor, discount: torch.Tensor, next_online: torch.Tensor, next_target: torch.Tensor) -> torch.Tensor:
    """``reward + discount · Q_target(s', argmax_a Q_online(s', a))`` (van Hasselt et al. 2016, equation 4).

    `reward` is the n-step sum ``(batch,)`` and `discount` is gamma^k · (1 − terminated) ``(batch,)``, both as replaystore delivers them: a
    truncated episode still bootstraps. The values are ``(batch, actions)``.
    """
    best = next_online.argmax(1, keepdim=True)
    return reward + discount * next_target.gather(1, best).squeeze(1)


def project(reward: torch.Tensor, discount: torch.Tensor, probabilities: torch.Tensor, support: torch.Tensor) -> torch.Tensor:
    """The distribution of ``reward + discount · z`` on the atoms `support`, z being as `probabilities` say (Bellemare et al. 2017, eq. 7).

    Each moved atom is cut to the support and gives to its two neighbours by its distance to them. ``(batch,)``, ``(batch,)``,
    ``(batch, atoms)`` and ``(atoms,)`` to ``(batch, atoms)``.
    """
    moved = (reward.unsqueeze(1) + discount.unsqueeze(1) * support).clamp(support[0], support[-1])
    places = ((moved - support[0]) / (support[1] - support[0])).clamp(max=len(support) - 1)  # rounding may lead beyond
    if probabilities.device.type == "cpu":
        below = places.floor().clamp(max=len(support) - 2)
        upper = (places - below) * probabilities
        at = below.long()
        return torch.zeros_like(probabilities).scatter_add_(1, at, probabilities - upper).scatter_add_(1, at + 1, upper)
    return project_densely(places, probabilities)


def project_densely(places: torch.Tensor, probabilities: torch.Tensor) -> torch.Tensor:
    """`project` from places in atoms, as a product: scattered sums on CUDA are not the same twice. 20 times dearer on a CPU."""
    atoms = torch.arange(places.shape[1], device=places.device)
    shares = (1 - (places.unsqueeze(1) - atoms.unsqueeze(1)).abs()).clamp(min=0)
    return torch.bmm(shares, probabilities.unsqueeze(2)).squeeze(2)


_ATARI = {"batch_size": 32, "frame_stack": 4, "hidden": (512,), "gamma": 0.99, "max_grad_norm": 10.0}

PRESETS: dict[str, Mapping[str, Any]] = {
    "dqn": {"double": False, "n_step": 1, "alpha": 0.0},
    "double": {"n_step": 1, "alpha": 0.0},
    "dueling": {"n_step": 1, "alpha": 0.0, "dueling": True},
    "per": {"n_step": 1, "alpha": 0.6},
    "c51": {"double": False, "n_step": 1, "alpha": 0.0, "atoms": 51},
    "noisy": {"double": False, "n_step": 1, "alpha": 0.0, "noisy": True},
    "rainbow": {"dueling": True, "noisy": True, "atoms": 51, "n_step": 3, "alpha": 0.5, "adam_epsilon": 1.5e-4},
    # Learning rates and periods of the papers, in updates: one update for four steps (samples_per_insert = 32 / 4).
    "minatar": {
        "batch_size": 32, "hidden": (128,), "learning_rate": 2.5e-4, "target_every": 1000, "samples_per_insert": 32.0, "min_size": 5000,
        "max_steps": 100_000,
    },
    "atari": {
        **_ATARI, "learning_rate": 6.25e-5, "target_every": 2000, "samples_per_insert": 8.0, "min_size": 20_000, "max_steps": 1_000_000,
        "reward_limit": 1.0,
    },
}  # fmt: skip
"""Changes of the defaults, of this configuration and of the loop's; joined by commas on the command line, later ones win.

dqn, double, dueling, per, c51, noisy: one paper's addition each; rainbow: all of them (Hessel et al. 2018, table 1). minatar: Young and
Tian (2019); atari: Rainbow's table 1. C51 and Rainbow also need `v_min` and `v_max` of the task.
"""
