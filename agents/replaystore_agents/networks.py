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
