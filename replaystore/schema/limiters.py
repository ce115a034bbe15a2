"""Rate limiters: when inserting and sampling may go on.

Counted in steps inserted and items sampled: closing rows are no steps, a batch of n is n items, and a step drawn twice is two items. Blocks
of rows are let in whole, once one more step may come. Any limiter may be changed while the table is used (`alter_table`); it then counts
from now on, and is kept with the table like the counters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from replaystore.errors import InvalidArgument
from replaystore.schema.record import check_number


@dataclass(frozen=True, slots=True)
class MinSize:
    """Sampling waits until the table holds this many steps; inserting never waits."""

    min_size_to_sample: int = 1
    """Steps, at least 1."""

    def __post_init__(self) -> None:
        check_number("min_size_to_sample", self.min_size_to_sample, 1, whole=True)


@dataclass(frozen=True, slots=True)
class SampleToInsertRatio:
    """Keeps ``samples_per_insert × steps inserted − items sampled`` within `error_buffer` of where sampling began.

    Actors that run ahead wait, a learner that runs ahead waits (the limiter of Cassirer et al. 2021, "Reverb"). While a sampler waits for
    steps that are not there at all (the end of an episode, what passes its filter) and nobody else is served, inserts pass.
    """

    samples_per_insert: float
    """How often each step is to be sampled on average."""

    min_size_to_sample: int = 1
    """Steps in the table before the first sample."""

    error_buffer: float = 1024.0
    """How far, in sampled items, either side may run ahead; at least the larger of a sample batch and samples_per_insert."""

    def __post_init__(self) -> None:
        check_number("samples_per_insert", self.samples_per_insert, 1e-9, 1e9)
        check_number("min_size_to_sample", self.min_size_to_sample, 1, whole=True)
        check_number("error_buffer", self.error_buffer, 0.0, 1e18)
        if 2 * self.error_buffer < max(1.0, self.samples_per_insert):
            raise InvalidArgument(
                f"error_buffer={self.error_buffer} leaves a window of {2 * self.error_buffer} items, but one insert moves the cursor by "
                f"samples_per_insert={self.samples_per_insert}: neither side could ever move; use at least "
                f"{max(1.0, self.samples_per_insert) / 2}, better a few sample batches"
            )


@dataclass(frozen=True, slots=True)
class Queue:
    """At most `size` anchors wait to be sampled: inserting waits while there are so many, sampling while there are too few.

    Counted are anchors, steps that can be sampled now. The newest row of each stream is none yet, so it takes no place, and the row that
    makes it one can always come in while there is room. Neither side can wait for ever on the other: inserts wait at `size` anchors or
    more, and from those every batch that is allowed (at most `size`) can be drawn.

    A step that a sampler's view or filter leaves out keeps its place until somebody else takes it.

    For ``selector=Fifo()`` and ``retention=Retention(max_times_sampled=1)``, which make each step leave when it was sampled.
    """

    size: int
    """Anchors, at least 1."""

    def __post_init__(self) -> None:
        check_number("size", self.size, 1, whole=True)

    @property
    def min_size_to_sample(self) -> int:
        """Steps without which there is nothing to sample."""
        return 1


@dataclass(frozen=True, slots=True)
class Stack:
    """The same for ``selector=Lifo()``: the newest step is sampled first."""

    size: int
    """Anchors, at least 1."""

    def __post_init__(self) -> None:
        check_number("size", self.size, 1, whole=True)

    @property
    def min_size_to_sample(self) -> int:
        """Steps without which there is nothing to sample."""
        return 1


RateLimiter: TypeAlias = MinSize | SampleToInsertRatio | Queue | Stack
LIMITERS: dict[str, type[RateLimiter]] = {kind.__name__: kind for kind in (MinSize, SampleToInsertRatio, Queue, Stack)}
