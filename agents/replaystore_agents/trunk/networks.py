"""Bodies of networks: observations in, features out. Knows torch only: nothing of stores, environments, heads or losses.

A body is built from plain JSON (`describe_body`), so that an actor or a checkpoint can say which one it needs.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

import replaystore as rs

HIDDEN = {"mlp": (128, 128), "embedding": (64,), "nature": (512,), "impala": (256,), "small": (128,)}
"""Usual widths after each kind of reader: Mnih et al. (2015) 512, Espeholt et al. (2018) 256, Young and Tian (2019) 128."""

_SMALLEST = {"nature": 36, "impala": 8, "small": 3}
"""Rows and columns of an image; the convolutions leave nothing of a smaller one."""

_EMBEDDING = 64
"""Numbers that stand for one Discrete observation."""


def describe_body(
    shape: Sequence[int], hidden: Sequence[int], kind: str = "auto", observations: int = 0, first_observation: int = 0
) -> dict[str, Any]:
    """A body as JSON.

    Args:
        shape: of one observation as the network sees it, frames first.
        hidden: widths of the layers after the reader.
        kind: mlp, embedding (Discrete observations), nature (Mnih et al. 2015), impala (Espeholt et al. 2018), small (Young and Tian 2019);
            auto: embedding, or for images of at least 36 x 36 nature and of at least 5 x 5 small, else mlp.
        observations: how many, when they are Discrete.
        first_observation: the Discrete space's ``start``.
    """
    if kind == "auto":
        size = min(shape[-2:]) if len(shape) in (3, 4) else 0
        kind = "embedding" if observations else "nature" if size >= _SMALLEST["nature"] else "small" if size >= 5 else "mlp"
    if kind not in HIDDEN:
        raise rs.InvalidArgument(f"body {kind!r} must be auto or one of {', '.join(HIDDEN)}")
    if kind in _SMALLEST and (len(shape) not in (3, 4) or min(shape[-2:]) < _SMALLEST[kind]):
        least = _SMALLEST[kind]
        raise rs.InvalidArgument(f"body {kind!r} reads images of at least {least} x {least} with channels first; got shape {tuple(shape)}")
    if (kind == "embedding") != bool(observations):
        raise rs.InvalidArgument(f"body 'embedding' is for Discrete observations, and they need it; got {kind!r} for shape {tuple(shape)}")
    body: dict[str, Any] = {"kind": kind, "shape": list(shape), "hidden": list(hidden)}
    return body | ({"observations": observations, "first_observation": first_observation} if observations else {})


class Reader(nn.Module):
    """What a body begins with: ``(batch, *shape) → (batch, features)``."""

    features: int


class Body(nn.Module):
    """``(batch, *shape) → (batch, features)``, observations of any number dtype; bytes of images are taken for 0 to 255."""

    def __init__(self, description: Mapping[str, Any]) -> None:
        super().__init__()
        kind, shape = description["kind"], tuple(description["shape"])
        if kind == "embedding":
            self.reader: Reader = Embedding(shape, description["observations"], description["first_observation"])
        else:
            self.reader = {"mlp": Plain, "nature": Nature, "impala": Impala, "small": Small}[kind](shape)
        widths = [self.reader.features, *description["hidden"]]
        layers: list[nn.Module] = []
        for inputs, outputs in itertools.pairwise(widths):
            layers += [nn.Linear(inputs, outputs), nn.ReLU()]
        self.layers = nn.Sequential(*layers)
        self.features = widths[-1]

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        """The features."""
        features: torch.Tensor = self.layers(self.reader(observation))
        return features


class Plain(Reader):
    """All numbers of an observation, in a row."""

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.features = math.prod(shape)

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        """Flattened."""
        return observation.float().reshape(len(observation), -1)


class Embedding(Reader):
    """Learned numbers for each Discrete observation."""

    def __init__(self, shape: Sequence[int], observations: int, first: int) -> None:
        super().__init__()
        self.first = first
        self.table = nn.Embedding(observations, _EMBEDDING)
        self.features = _EMBEDDING * math.prod(shape)

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        """Looked up, flattened."""
        embedded: torch.Tensor = self.table(observation.long() - self.first)
        return embedded.reshape(len(observation), -1)


class _Images(Reader):
    """``(batch, frames, [channels,] height, width)``: frames and channels are all channels to the convolutions."""

    layers: nn.Module

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.channels, self.size = math.prod(shape[:-2]), tuple(shape[-2:])

    def _count(self) -> None:
        with torch.no_grad():
            self.features = int(self.layers(torch.zeros(1, self.channels, *self.size)).numel())

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        """Convolved, flattened."""
        images = observation.float().reshape(len(observation), self.channels, *self.size)
        if observation.dtype == torch.uint8:
            images = images / 255.0
        features: torch.Tensor = self.layers(images)
        return features


class Nature(_Images):
    """The convolutions of Mnih et al. (2015), Methods."""

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__(shape)
        layers: list[nn.Module] = []
        channels = self.channels
        for outputs, kernel, stride in ((32, 8, 4), (64, 4, 2), (64, 3, 1)):
            layers += [nn.Conv2d(channels, outputs, kernel, stride), nn.ReLU()]
            channels = outputs
        self.layers = nn.Sequential(*layers, nn.Flatten())
        self._count()


class Small(_Images):
    """One convolution of 16 filters of 3 x 3, for images of about 10 x 10 (Young and Tian 2019, appendix)."""

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__(shape)
        self.layers = nn.Sequential(nn.Conv2d(self.channels, 16, 3), nn.ReLU(), nn.Flatten())
        self._count()


class Impala(_Images):
    """The residual convolutions of Espeholt et al. (2018), figure 3, right."""

    def __init__(self, shape: Sequence[int], widths: Sequence[int] = (16, 32, 32)) -> None:
        super().__init__(shape)
        layers: list[nn.Module] = []
        channels = self.channels
        for outputs in widths:
            layers += [nn.Conv2d(channels, outputs, 3, padding=1), nn.MaxPool2d(3, 2, padding=1), _Residual(outputs), _Residual(outputs)]
            channels = outputs
        self.layers = nn.Sequential(*layers, nn.ReLU(), nn.Flatten())
        self._count()


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.ReLU(), nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(), nn.Conv2d(channels, channels, 3, padding=1)
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        changed: torch.Tensor = self.layers(images)
        return images + changed


def to_arrays(module: nn.Module) -> dict[str, npt.NDArray[np.float32]]:
    """The module's parameters as named arrays, copied, for the parameter channel."""
    return {name: tensor.detach().cpu().numpy().copy() for name, tensor in module.state_dict().items()}


def from_arrays(module: nn.Module, arrays: Mapping[str, npt.NDArray[np.float32]]) -> None:
    """Puts arrays made by `to_arrays` into a module of the same shape; names that the module has not are left out."""
    known = module.state_dict().keys()
    module.load_state_dict({name: torch.from_numpy(np.array(arrays[name])) for name in known})


@torch.no_grad()
def follow(target: Sequence[torch.Tensor], online: Sequence[torch.Tensor], tau: float) -> None:
    """Moves each target tensor by `tau` of the way to its online one (Lillicrap et al. 2016)."""
    for old, new in zip(target, online, strict=True):
        old.lerp_(new, tau)
