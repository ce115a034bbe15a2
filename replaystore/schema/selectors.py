"""Selectors: how anchors (the steps that can be sampled) are chosen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from replaystore.schema.record import check_number


@dataclass(frozen=True, slots=True)
class Uniform:
    """Every anchor with the same probability, with replacement. Needs no index of its own."""


@dataclass(frozen=True, slots=True)
class Prioritized:
    """Proportional prioritized replay: P(i) ∝ (priority_i + epsilon) ** alpha (Schaul et al. 2016, section 3.3).

    New anchors enter at the highest priority seen so far. Draws are stratified over the total mass, as in the paper.
    """

    alpha: float = 0.6
    """0 is uniform, 1 is fully proportional."""

    epsilon: float = 1e-6
    """Added to every priority, so that nothing starves."""

    def __post_init__(self) -> None:
        check_number("alpha", self.alpha, 0.0, 10.0)
        check_number("epsilon", self.epsilon, 0.0, 1e6)


Selector: TypeAlias = Uniform | Prioritized
SELECTORS: dict[str, type[Selector]] = {kind.__name__: kind for kind in (Uniform, Prioritized)}
