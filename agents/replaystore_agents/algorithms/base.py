"""What every algorithm is to the loops that train it: it learns from tensors, has a policy, and its state carries on bit by bit.

Knows columns and views by name; nothing of samplers, environments, files or the network.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self

import numpy as np
import numpy.typing as npt
import torch

import replaystore as rs
from replaystore_agents.algorithms.policies import Policy
from replaystore_agents.trunk.devices import pick_device
from replaystore_agents.trunk.hyper import hyper, to_json

Figures = Callable[[], dict[str, float]]
"""Numbers to log, made on demand: most updates are not logged, and each number is a wait for the device."""

COLUMNS = ("observation", "action", "reward", "terminated")


@dataclass(frozen=True, slots=True)
class LearnerConfig:
    """What all algorithms have in common."""

    gamma: float = hyper(0.99, "Discount per step (Mnih et al. 2015).")
    n_step: int = hyper(1, "Rewards summed before bootstrapping (Rainbow, Hessel et al. 2018: 3).")
    hindsight: float = hyper(
        0.8, "Goal tasks: share of items whose goal becomes one reached later (Andrychowicz et al. 2017: 0.8); 0: none."
    )
    batch_size: int = hyper(256, "Items per update; larger than the usual 32 to 128 because one call costs the same.")
    learning_rate: float = hyper(3e-4, "Adam's step size (Haarnoja et al. 2018b, Fujimoto et al. 2018).")
    hidden: tuple[int, ...] = hyper((), "Widths of the hidden layers; empty: what is usual for the body (trunk/networks.py).")
    body: str = hyper("auto", "What reads observations: auto, mlp, nature, impala, small or embedding (trunk/networks.py).")
    frame_stack: int = hyper(1, "Frames that the network sees at once (Mnih et al. 2015: 4); kept once, stacked when sampled.")
    eval_every: int = hyper(500, "Updates between evaluations.")
    eval_episodes: int = hyper(100, "Greedy episodes per evaluation (CartPole-v1 counts as solved at 475 over 100).")
    seed: int = hyper(0, "Of the network, the evaluation environments and offline sampling.")
    device: str = hyper("auto", "auto, cuda, mps or cpu.")
    threads: int = hyper(1, "CPU threads of torch; small networks are fastest with one.")
    amp: bool = hyper(False, "Networks compute in bfloat16 on CUDA; nothing changes elsewhere.")
    compile: bool = hyper(False, "torch.compile on CUDA; nothing changes elsewhere.")
    graphs: bool = hyper(False, "An update is recorded once and replayed as a CUDA graph; for small networks. Not with --compile.")


@dataclass(frozen=True, slots=True)
class Spaces:
    """What an algorithm needs to know of an environment, taken from a table."""

    observation_shape: tuple[int, ...]
    """As the network sees it: with more than one frame, they come first. () for Discrete observations."""
    actions: int
    """How many; 0 where they are continuous."""
    first_action: int = 0
    frames: int = 1
    """How many are stacked."""
    observations: int = 0
    """How many, where they are Discrete; else 0."""
    first_observation: int = 0
    action_shape: tuple[int, ...] = ()
    action_low: float = -1.0
    """The smallest bound of all components of a continuous action."""
    action_high: float = 1.0

    def to_json(self) -> dict[str, Any]:
        """As kept in checkpoints."""
        return to_json(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """The inverse of `to_json`."""
        known: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
        return cls(**known)


def spaces_of(table: rs.TableConfig, frames: int = 1) -> Spaces:
    """The spaces of a table, from those that its columns were made of; with more than one frame, of stacks of so many.

    Raises:
        InvalidArgument: the table has no plain `observation` column, or no `action` column made of a Discrete or a bounded Box space.
    """
    observation, action = table.columns.get("observation"), table.columns.get("action")
    space = dict(action.space or {}) if action is not None else {}
    if observation is None or action is None or space.get("kind") not in ("Discrete", "Box"):
        raise rs.InvalidArgument(
            "an algorithm needs one 'observation' column and an 'action' column made of a Discrete or Box space "
            f"(replaystore.columns_from_env keeps it); this table has {', '.join(table.columns)}"
        )
    shape = (frames, *observation.shape) if frames > 1 else observation.shape
    seen = dict(observation.space or {})
    discrete = seen.get("kind") == "Discrete"
    known: dict[str, Any] = {"frames": frames, "observations": seen["n"] if discrete else 0, "first_observation": seen.get("start", 0)}
    if space["kind"] == "Discrete":
        return Spaces(shape, int(space["n"]), int(space.get("start", 0)), **known)
    if space.get("low") is None or space.get("high") is None:
        raise rs.InvalidArgument("the action space has no bounds: wrap the environment in gymnasium.wrappers.RescaleAction or ClipAction")
    return Spaces(shape, 0, **known, action_shape=action.shape, action_low=space["low"], action_high=space["high"])


def need_discrete(spaces: Spaces, name: str) -> None:
    """Raises InvalidArgument where actions are continuous."""
    if not spaces.actions:
        raise rs.InvalidArgument(f"{name} needs Discrete actions; for continuous ones there are ddpg, td3 and sac (offline: iql and bc)")


def need_continuous(spaces: Spaces, name: str) -> None:
    """Raises InvalidArgument where actions are Discrete."""
    if spaces.actions:
        raise rs.InvalidArgument(f"{name} needs continuous actions; for Discrete ones there is dqn (offline: cql, iql and bc)")


class Algorithm(Protocol):
    """What the loops of online.py and offline.py use."""

    name: ClassVar[str]
    config: Any
    device: torch.device
    updates: int

    def learn(self, data: Any, weighted: bool) -> tuple[torch.Tensor, Figures]:
        """One update from tensors by name. Absolute errors ``(batch,)``, left on the device: the new priorities; and figures on demand."""

    def policy(self) -> Policy:
        """What actors and evaluation use; it shares the live weights."""

    def columns(self) -> tuple[str, ...]:
        """The columns that batches need."""

    def view(self) -> rs.Transition:
        """The view that it learns from."""

    def sampling(self) -> dict[str, Any]:
        """Arguments of samplers and of ``sample``: the view, and what else is particular to it (`goals.py`: ``reward_fn``)."""

    def state(self) -> dict[str, Any]:
        """Everything that an exact continuation needs, and the policy's description: tensors and plain values only."""

    def restore(self, state: dict[str, Any]) -> None:
        """Carries on where `state` was taken."""


class Learner(ABC):
    """An `Algorithm` but for what it learns. Attributes with a ``state_dict`` that `parts` names are kept in checkpoints."""

    name: ClassVar[str]

    def __init__(self, spaces: Spaces, config: Any) -> None:
        """Seeds torch: networks are made after it."""
        self.spaces, self.config, self.device, self.updates = spaces, config, pick_device(config.device), 0
        torch.manual_seed(config.seed)

    @abstractmethod
    def learn(self, data: Any, weighted: bool) -> tuple[torch.Tensor, Figures]:
        """See `Algorithm`."""

    @abstractmethod
    def policy(self) -> Policy:
        """See `Algorithm`."""

    @abstractmethod
    def parts(self) -> dict[str, Any]:
        """Networks, optimisers and whatever else has `state_dict` and `load_state_dict`, by their names in the checkpoint."""

    def columns(self) -> tuple[str, ...]:
        """See `Algorithm`."""
        return COLUMNS

    def view(self) -> rs.Transition:
        """See `Algorithm`."""
        return rs.Transition(n_step=self.config.n_step, gamma=self.config.gamma, frame_stack=self.spaces.frames)

    def sampling(self) -> dict[str, Any]:
        """See `Algorithm`."""
        return {"view": self.view()}

    def update(self, batch: rs.Batch, weighted: bool = True) -> tuple[npt.NDArray[np.float32], Figures]:
        """`learn` from a batch of the store; the errors come back as an array."""
        errors, figures = self.learn(batch.to_torch(self.device), weighted)
        return errors.cpu().numpy(), figures

    def adam(self, parameters: Any, learning_rate: float, eps: float = 1e-8) -> torch.optim.Adam:
        """Adam, all tensors in one call where torch can."""
        fused = self.device.type in ("cuda", "cpu")  # not everywhere on MPS
        capturable = self.device.type == "cuda" and self.config.graphs
        return torch.optim.Adam(parameters, lr=learning_rate, eps=eps, fused=fused, capturable=capturable)

    def state(self) -> dict[str, Any]:
        """See `Algorithm`."""
        policy = self.policy()
        return {
            **{name: part.state_dict() for name, part in self.parts().items()},
            "algorithm": self.name,
            "spaces": self.spaces.to_json(),
            "config": to_json(self.config),
            "policy": policy.describe(),
            "policy_arrays": {name: torch.from_numpy(array) for name, array in policy.arrays().items()},
            "updates": self.updates,
            "torch_rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state_all() if self.device.type == "cuda" else [],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """See `Algorithm`. InvalidArgument: the checkpoint is of another algorithm or another network."""
        mine, theirs = self.policy().describe(), state["policy"]
        if state["algorithm"] != self.name or mine != theirs:
            raise rs.InvalidArgument(
                f"the checkpoint is of another network: {state['algorithm']} with {theirs}, wanted {self.name} with {mine}; "
                "give the options that it was made with"
            )
        for name, part in self.parts().items():
            found = state[name]
            if isinstance(part, torch.optim.Optimizer):  # rates and switches are those of now
                found = {**found, "param_groups": part.state_dict()["param_groups"]}
            part.load_state_dict(found)
        self.updates = state["updates"]
        torch.set_rng_state(state["torch_rng"])
        if self.device.type == "cuda" and state["cuda_rng"]:
            torch.cuda.set_rng_state_all(state["cuda_rng"])
