"""Networks shared by the algorithms. Knows torch only: nothing of stores, environments or losses."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import nn


class QNetwork(nn.Module):
    """Action values of vector observations: ``(batch, *observation_shape) → (batch, actions)``, a plain ReLU network."""

    def __init__(self, observation_shape: Sequence[int], actions: int, hidden: Sequence[int] = (128, 128)) -> None:
        super().__init__()
        widths = [math.prod(observation_shape), *hidden]
        layers: list[nn.Module] = [nn.Flatten()]
        for inputs, outputs in itertools.pairwise(widths):
            layers += [nn.Linear(inputs, outputs), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], actions))

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        """Values of all actions; observations of any number dtype."""
        values: torch.Tensor = self.layers(observation.float())
        return values


class NatureQNetwork(nn.Module):
    """Action values of images: ``(batch, frames, height, width) → (batch, actions)``, bytes from 0 to 255 (Mnih et al. 2015, Methods)."""

    def __init__(self, observation_shape: Sequence[int], actions: int, width: int = 512) -> None:
        super().__init__()
        frames, *size = observation_shape
        self.images = nn.Sequential(
            nn.Conv2d(frames, 32, 8, 4), nn.ReLU(), nn.Conv2d(32, 64, 4, 2), nn.ReLU(), nn.Conv2d(64, 64, 3, 1), nn.ReLU(), nn.Flatten()
        )
        for kernel, stride in ((8, 4), (4, 2), (3, 1)):
            size = [(length - kernel) // stride + 1 for length in size]
        self.values = nn.Sequential(nn.Linear(64 * math.prod(size), width), nn.ReLU(), nn.Linear(width, actions))

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        """Values of all actions."""
        values: torch.Tensor = self.values(self.images(observation.float() / 255.0))
        return values


_SMALLEST_IMAGE = 36
"""The convolutions leave nothing of a smaller one."""


def q_network(observation_shape: Sequence[int], actions: int, hidden: Sequence[int] = (128, 128)) -> nn.Module:
    """The network for an observation: convolutions for stacks of images of at least 36 x 36, else a plain one."""
    if len(observation_shape) == 3 and min(observation_shape[1:]) >= _SMALLEST_IMAGE:
        return NatureQNetwork(observation_shape, actions)
    return QNetwork(observation_shape, actions, hidden)


def to_arrays(module: nn.Module) -> dict[str, npt.NDArray[np.float32]]:
    """The module's parameters as named arrays, copied, for the parameter channel."""
    return {name: tensor.detach().cpu().numpy().copy() for name, tensor in module.state_dict().items()}


def from_arrays(module: nn.Module, arrays: Mapping[str, npt.NDArray[np.float32]]) -> None:
    """Puts arrays made by `to_arrays` into a module of the same shape; names that the module has not are left out."""
    known = module.state_dict().keys()
    module.load_state_dict({name: torch.from_numpy(np.array(arrays[name])) for name in known})


def pick_device(wish: str = "auto") -> torch.device:
    """``"auto"`` is CUDA, else Apple's MPS, else the CPU; anything else is taken literally."""
    if wish != "auto":
        return torch.device(wish)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
