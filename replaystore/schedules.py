"""Schedules: numbers that change with progress, such as the beta of importance weights. Pure functions of an index."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from replaystore.errors import InvalidArgument
from replaystore.schema.record import check_number

MAX_STEPS = 1 << 62


@dataclass(frozen=True, slots=True)
class Constant:
    """``value``, whatever the index."""

    value: float

    def __post_init__(self) -> None:
        check_number("value", self.value, -math.inf)

    def __call__(self, index: int) -> float:
        """The number at `index`."""
        return float(self.value)


@dataclass(frozen=True, slots=True)
class Linear:
    """From ``start`` at index 0 in a straight line to ``end`` at index ``steps``, and ``end`` from then on.

    ``beta=Linear(0.4, 1.0, steps=100_000)`` anneals as in Schaul et al. 2016, section 3.4.
    """

    start: float
    end: float
    steps: int
    """0: ``end`` at once."""

    def __post_init__(self) -> None:
        check_number("start", self.start, -math.inf)
        check_number("end", self.end, -math.inf)
        check_number("steps", self.steps, 0, MAX_STEPS, whole=True)

    def __call__(self, index: int) -> float:
        """The number at `index`."""
        if index >= self.steps:
            return float(self.end)
        return self.start + (self.end - self.start) * max(index, 0) / self.steps


@dataclass(frozen=True, slots=True)
class Exponential:
    """From ``start`` at index 0 by equal factors to ``end`` at index ``steps``, and ``end`` from then on; both above 0."""

    start: float
    end: float
    steps: int
    """0: ``end`` at once."""

    def __post_init__(self) -> None:
        check_number("start", self.start, 1e-300, 1e300)
        check_number("end", self.end, 1e-300, 1e300)
        check_number("steps", self.steps, 0, MAX_STEPS, whole=True)

    def __call__(self, index: int) -> float:
        """The number at `index`."""
        if index >= self.steps:
            return float(self.end)
        share = max(index, 0) / self.steps
        return float(self.start ** (1.0 - share) * self.end**share)


Beta: TypeAlias = float | Callable[[int], float]
"""A number, or a schedule: anything that makes a number of a batch's index."""


def beta_at(beta: Beta, index: int) -> float:
    """The importance exponent of batch number `index`.

    Raises:
        InvalidArgument: it is no number from 0 to 100.
    """
    value: Any = beta(index) if callable(beta) else beta
    if callable(beta) and hasattr(value, "__float__"):
        value = float(value)
    try:
        check_number("beta", value, 0.0, 100.0)
    except InvalidArgument as error:
        where = (
            f" (of {beta!r} at batch {index})" if callable(beta) else "; or a schedule such as replaystore.Linear(0.4, 1.0, steps=100_000)"
        )
        raise InvalidArgument(f"{error}{where}") from None
    return float(value)
