"""Selectors: how anchors (the steps that can be sampled) are chosen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from replaystore.errors import InvalidArgument
from replaystore.schema.record import check_number


@dataclass(frozen=True, slots=True)
class Uniform:
    """Every anchor with the same probability, with replacement. Needs no index of its own."""


@dataclass(frozen=True, slots=True)
class Prioritized:
    """Proportional prioritized replay: P(i) ∝ (priority_i + epsilon) ** alpha (Schaul et al. 2016, section 3.3).

    New anchors enter at the highest priority seen so far.
    """

    alpha: float = 0.6
    """0 is uniform, 1 is fully proportional."""

    epsilon: float = 1e-6
    """Added to every priority, so that nothing starves."""

    stratified: bool = True
    """One draw from each n-th of the total mass, as in the paper; False draws independently. The probabilities are the same."""

    def __post_init__(self) -> None:
        check_number("alpha", self.alpha, 0.0, 10.0)
        check_number("epsilon", self.epsilon, 0.0, 1e6)
        if not isinstance(self.stratified, bool):
            raise InvalidArgument(f"stratified={self.stratified!r} must be True or False")


@dataclass(frozen=True, slots=True)
class RankPrioritized:
    """Rank-based prioritized replay: P(i) ∝ 1 / rank(i) ** alpha, rank 1 being the highest priority (Schaul et al. 2016, section 3.3).

    Kept approximately sorted, as in the paper: the rank of an anchor is its place in a binary heap that is sorted afresh now and then.
    Probabilities and weights are those of the places really drawn from, so they are exact although the order is not. Which of the orders
    it is depends on the blocks in which steps arrived.
    """

    alpha: float = 0.7
    """0 is uniform; the paper's rank-based agents use 0.7."""

    def __post_init__(self) -> None:
        check_number("alpha", self.alpha, 0.0, 10.0)


@dataclass(frozen=True, slots=True)
class Fifo:
    """The oldest anchors, oldest first; a batch holds no anchor twice. With ``Retention(max_times_sampled=1)`` a queue."""


@dataclass(frozen=True, slots=True)
class Lifo:
    """The newest anchors, newest first; a batch holds no anchor twice. With ``Retention(max_times_sampled=1)`` a stack."""


@dataclass(frozen=True, slots=True)
class MinHeap:
    """The anchors of lowest priority, lowest first, among equals the oldest; a batch holds no anchor twice."""


@dataclass(frozen=True, slots=True)
class MaxHeap:
    """The anchors of highest priority, highest first, among equals the oldest; a batch holds no anchor twice."""


@dataclass(frozen=True, slots=True)
class Recency:
    """P(i) ∝ 2 ** (−age_i / half_life_steps), age in steps; and the newest anchors in every batch, if asked for.

    With ``half_life_steps=None`` every anchor is as likely as any other, and ``Recency(None, newest=1)`` is combined experience replay
    (Zhang & Sutton 2017): the newest anchor is in every batch, the rest is uniform.
    """

    half_life_steps: float | None = None
    """Steps after which an anchor is half as likely; None: age does not matter."""

    newest: int = 0
    """How many of the newest anchors every batch begins with, newest first."""

    def __post_init__(self) -> None:
        if self.half_life_steps is not None:
            check_number("half_life_steps", self.half_life_steps, 1e-3, 1e15)
        check_number("newest", self.newest, 0, 1 << 20, whole=True)
        if self.half_life_steps is None and not self.newest:
            raise InvalidArgument("Recency needs half_life_steps, newest, or both; for neither use Uniform()")


@dataclass(frozen=True, slots=True)
class WithoutReplacement:
    """Every anchor once per pass, in random order; then the next pass begins. A pass goes on after a restart where it was.

    Anchors that enter during a pass belong to it. A batch that a pass does not fill goes on with the next.
    """


Selector: TypeAlias = Uniform | Prioritized | RankPrioritized | Fifo | Lifo | MinHeap | MaxHeap | Recency | WithoutReplacement
SELECTORS: dict[str, type[Selector]] = {
    kind.__name__: kind for kind in (Uniform, Prioritized, RankPrioritized, Fifo, Lifo, MinHeap, MaxHeap, Recency, WithoutReplacement)
}

FreeSelector: TypeAlias = Uniform | Fifo | Lifo | Recency
"""Selectors that need no priorities: a sample call may bring one along, whatever the table was created with."""
FREE_SELECTORS = (Uniform, Fifo, Lifo, Recency)

KEEPS_PRIORITIES = (Prioritized, RankPrioritized, MinHeap, MaxHeap)
"""Selectors that `update_priorities` is for."""

KEEPS_LEAVES = (*KEEPS_PRIORITIES, WithoutReplacement)
"""Selectors with an array ``replay/priority`` of their own: priorities, or what is left of a pass."""
