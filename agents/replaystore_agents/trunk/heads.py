"""Heads over a body's features that score Discrete actions: plain, dueling, distributional, noisy, and any of these together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

import replaystore as rs
from replaystore_agents.trunk.networks import HIDDEN, Body, describe_body


class NoisyLinear(nn.Module):
    """A linear layer whose weights have learned noise (Fortunato et al. 2018, section 3, factorised).

    Training mode adds sigma times the noise last drawn, evaluation mode adds none. Noise is neither saved nor published.
    """

    noise_in: torch.Tensor
    noise_out: torch.Tensor

    def __init__(self, inputs: int, outputs: int, sigma: float = 0.5) -> None:
        super().__init__()
        bound = 1.0 / math.sqrt(inputs)
        self.weight = nn.Parameter(torch.empty(outputs, inputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(outputs).uniform_(-bound, bound))
        self.weight_sigma = nn.Parameter(torch.full((outputs, inputs), sigma * bound))
        self.bias_sigma = nn.Parameter(torch.full((outputs,), sigma * bound))
        self.register_buffer("noise_in", torch.zeros(inputs), persistent=False)
        self.register_buffer("noise_out", torch.zeros(outputs), persistent=False)

    @torch.no_grad()
    def draw_noise(self, rng: np.random.Generator | None = None) -> None:
        """New noise, from torch's generator of the device or from `rng`."""
        for buffer in (self.noise_in, self.noise_out):
            noise = torch.randn_like(buffer) if rng is None else torch.from_numpy(rng.standard_normal(len(buffer), np.float32)).to(buffer)
            buffer.copy_(noise.sign() * noise.abs().sqrt())

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """``(batch, inputs) → (batch, outputs)``."""
        if not self.training:
            return nn.functional.linear(features, self.weight, self.bias)
        weight = self.weight + self.weight_sigma * torch.outer(self.noise_out, self.noise_in)
        return nn.functional.linear(features, weight, self.bias + self.bias_sigma * self.noise_out)


def describe_head(
    actions: int, width: int = 0, *, dueling: bool = False, noisy: bool = False, sigma: float = 0.5, atoms: int = 0,
    v_min: float = -10.0, v_max: float = 10.0,
) -> dict[str, Any]:  # fmt: skip
    """A head as JSON.

    Args:
        actions: how many are scored.
        width: of the hidden layer of each stream; 0 for none.
        dueling: one stream for the state's value, one for the advantages (Wang et al. 2016).
        noisy: all its layers are noisy (Fortunato et al. 2018).
        sigma: the noise at first.
        atoms: of the distribution of returns, evenly from `v_min` to `v_max` (Bellemare et al. 2017); 0 for values instead.
        v_min: the least return.
        v_max: the greatest.
    """
    if atoms and (atoms < 2 or not v_min < v_max):
        raise rs.InvalidArgument(f"atoms={atoms} from v_min={v_min} to v_max={v_max}: needs at least 2 atoms and v_min below v_max")
    return {
        "actions": actions, "width": width, "dueling": dueling, "noisy": noisy, "sigma": sigma,
        "atoms": atoms, "v_min": v_min, "v_max": v_max,
    }  # fmt: skip


class Head(nn.Module):
    """``(batch, features) → (batch, actions)`` scores, or ``(batch, actions, atoms)`` logits."""

    def __init__(self, features: int, description: Mapping[str, Any]) -> None:
        super().__init__()
        self.actions, self.atoms = int(description["actions"]), int(description["atoms"])
        width, noisy, sigma = int(description["width"]), bool(description["noisy"]), float(description["sigma"])

        def linear(inputs: int, outputs: int) -> nn.Module:
            return NoisyLinear(inputs, outputs, sigma) if noisy else nn.Linear(inputs, outputs)

        def stream(outputs: int) -> nn.Module:
            if not width:
                return linear(features, outputs)
            return nn.Sequential(linear(features, width), nn.ReLU(), linear(width, outputs))

        each = max(self.atoms, 1)
        self.advantage = stream(self.actions * each)
        self.value = stream(each) if description["dueling"] else None

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Scores or logits."""
        scores: torch.Tensor = self.advantage(features)
        scores = scores.view(len(features), self.actions, *([self.atoms] if self.atoms else []))
        if self.value is None:
            return scores
        value = self.value(features).view(len(features), 1, *([self.atoms] if self.atoms else []))
        return dueling(value, scores)


def dueling(value: torch.Tensor, advantage: torch.Tensor) -> torch.Tensor:
    """``value + advantage − mean over actions of advantage`` (Wang et al. 2016, equation 9); ``(batch, 1, …)``, ``(batch, actions, …)``."""
    return value + advantage - advantage.mean(1, keepdim=True)


class QNetwork(nn.Module):
    """A body and a head."""

    support: torch.Tensor

    def __init__(self, description: Mapping[str, Any]) -> None:
        super().__init__()
        self.body = Body(description["body"])
        head = description["head"]
        self.head = Head(self.body.features, head)
        self.register_buffer("support", torch.linspace(head["v_min"], head["v_max"], max(head["atoms"], 1)), persistent=False)
        self._noisy = [module for module in self.modules() if isinstance(module, NoisyLinear)]

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        """What the head gives: scores, or logits of the atoms."""
        scores: torch.Tensor = self.head(self.body(observation))
        return scores

    def scores(self, observation: torch.Tensor) -> torch.Tensor:
        """Scores ``(batch, actions)``; of a distribution of returns, its mean."""
        scores: torch.Tensor = self(observation)
        return self.mean(scores) if self.head.atoms else scores

    def mean(self, logits: torch.Tensor) -> torch.Tensor:
        """Means of the distributions with these logits, ``(…, atoms) → (…)``."""
        return (logits.float().softmax(-1) * self.support).sum(-1)

    def draw_noise(self, rng: np.random.Generator | None = None) -> None:
        """New noise for all noisy layers."""
        for layer in self._noisy:
            layer.draw_noise(rng)


def describe_network(
    shape: Sequence[int], actions: int, hidden: Sequence[int] = (), *, body: str = "auto", observations: int = 0,
    first_observation: int = 0, **head: Any,
) -> dict[str, Any]:  # fmt: skip
    """A body and a head as JSON; the last of the `hidden` layers is the head's, one for each of its streams.

    `hidden` empty is what is usual for the body. The rest as for `describe_body` and `describe_head`.
    """
    described = describe_body(shape, (), body, observations, first_observation)
    widths = tuple(hidden) or HIDDEN[described["kind"]]
    return {"body": {**described, "hidden": list(widths[:-1])}, "head": describe_head(actions, widths[-1], **head)}


def build_network(description: Mapping[str, Any]) -> QNetwork:
    """The network that `describe_network` described."""
    return QNetwork(description)
