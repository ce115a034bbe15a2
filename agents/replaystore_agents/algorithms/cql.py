"""Double DQN with the conservative penalty of CQL (Kumar et al. 2020, equation 4, CQL(H)), for offline data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from replaystore_agents.algorithms.dqn import DQN, DQNConfig
from replaystore_agents.trunk.hyper import hyper


@dataclass(frozen=True, slots=True)
class CQLConfig(DQNConfig):
    """Double DQN's, and the penalty."""

    n_step: int = hyper(1, "Rewards summed before bootstrapping; more than 1 believes in what the data's policy did in between.")
    learning_rate: float = hyper(1e-3, "Adam's step size (Kumar et al. 2020 use 6.25e-5 on Atari; small networks bear more).")
    tau: float = hyper(0.01, "Soft target update after each update; used when target_every is 0.")
    conservatism: float = hyper(1.0, "Weight of the penalty, alpha in the paper (discrete tasks: 1, and 4 where the data is narrow).")


class CQL(DQN):
    """Pushes down the values of all actions and up those of the data's."""

    name: ClassVar[str] = "cql"

    def _extra(self, scores: torch.Tensor, action: torch.Tensor) -> torch.Tensor | float:
        """The weighted penalty."""
        penalty: torch.Tensor = self.config.conservatism * conservative_penalty(scores, action)
        return penalty


def conservative_penalty(scores: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
    """``mean(logsumexp_a Q(s, a) − Q(s, action))``, a number; `scores` ``(batch, actions)``, `action` ``(batch,)`` from 0."""
    return (scores.logsumexp(1) - scores.gather(1, action.unsqueeze(1)).squeeze(1)).mean()


PRESETS: dict[str, Mapping[str, Any]] = {}
