"""Rate limiters as pure decisions: counters in, yes or no or a sentence out. No clock and no waiting here.

MinSize and SampleToInsertRatio are one rule with other numbers, after Reverb (Cassirer et al. 2021, section 3.4). The cursor
``inserted * samples_per_insert - sampled`` goes up with inserts and down with samples. At the moment sampling may begin it stands at
``samples_per_insert * min_size_to_sample``, and it must stay within `error_buffer` of there. MinSize has no such bounds.

Queue and Stack look at nothing but the anchors that are there: inserts pass below `size`, n items can be drawn from n anchors. They cannot
make both sides wait. Inserts wait only where there are `size` anchors or more, and no batch is larger than `size` (`check_sample`), so
samples pass there; and samples wait only where there are fewer than n <= size anchors, so inserts pass there. Counting rows instead would
stall: the newest row of a stream is no anchor before the next has come, and so ``Queue(1)`` would hold that one back for ever.
"""

from __future__ import annotations

import math

from replaystore.errors import InvalidArgument
from replaystore.schema.limiters import Queue, RateLimiter, SampleToInsertRatio, Stack

_GRAIN = 1024
"""A samples_per_insert that is a multiple of 1/1024 moves the cursor without rounding."""


class Limiter:
    """Decides for one configuration.

    The counters are the caller's: `inserted` steps (closing rows not counted) and `sampled` items since the limiter was set, `size`
    steps kept now (deleted and used-up ones not counted), `anchors` that can be sampled now, and the anchors `wanted` by the sampler whose
    turn it is. Where `size` is below `min_size_to_sample`, or `anchors` below `wanted`, inserts always pass: so neither eviction, deletion,
    nor a selector that draws no anchor twice can make both sides wait.
    """

    __slots__ = ("_buffer", "_higher", "_least", "_lower", "_most", "_name", "_ratio")

    def __init__(self, config: RateLimiter) -> None:
        self._name = type(config).__name__
        self._least = config.min_size_to_sample
        self._ratio, self._buffer = 1.0, math.inf
        self._most = config.size if isinstance(config, Queue | Stack) else None
        if isinstance(config, SampleToInsertRatio):
            self._ratio, self._buffer = float(config.samples_per_insert), float(config.error_buffer)
        start = self._ratio * self._least
        self._lower, self._higher = start - self._buffer, start + self._buffer

    @property
    def boundless(self) -> bool:
        """Whether samples wait for nothing but `min_size_to_sample` steps."""
        return self._most is None and self._buffer == math.inf

    def may_insert(self, inserted: int, sampled: int, size: int, anchors: int, wanted: int = 1) -> bool:
        """Whether at least one more step may come in. A block is then let in whole, so it overshoots by less than its own length."""
        if self._most is not None:
            return anchors < self._most
        return size < self._least or anchors < wanted or self._cursor(inserted + 1, sampled) <= self._higher

    def may_sample(self, inserted: int, sampled: int, size: int, anchors: int, n: int) -> bool:
        """Whether `n` items may be drawn now."""
        if self._most is not None:
            return anchors >= n
        return size >= self._least and self._cursor(inserted, sampled) - n >= self._lower

    def check_sample(self, n: int) -> None:
        """Raises InvalidArgument when drawing batches of `n` must come to a halt for ever, whoever goes first.

        That is where one more step would lead above the upper bound and one more batch below the lower. Inserts and batches are the same
        move modulo their sum, so the cursor passes through every multiple of their greatest common divisor, and cannot go round such a
        place. (Blocks of many steps, which overshoot, or other batch sizes in between may postpone it.)
        """
        if self._most is not None:
            if n > self._most:
                raise InvalidArgument(
                    f"batch_size={n} would wait for ever under {self._name}: inserts wait once size={self._most} anchors are there, so "
                    f"there need never be {n}. Use batches of at most {self._most}, or alter_table(rate_limiter={self._name}({n}))"
                )
            return
        highest_blocked_by_batch = n - self._buffer  # both as distances from where the cursor begins
        lowest_blocked_by_insert = self._buffer - self._ratio
        ratio = self._ratio * _GRAIN
        if ratio.is_integer() and math.isfinite(self._buffer):
            divisor = math.gcd(int(ratio), n * _GRAIN) / _GRAIN
            stuck = (math.floor(lowest_blocked_by_insert / divisor) + 1) * divisor < highest_blocked_by_batch
        else:
            stuck = lowest_blocked_by_insert < highest_blocked_by_batch
        if stuck:
            most = math.floor(2 * self._buffer - self._ratio)
            smaller = f"Use batches of at most {most}, or" if most >= 1 else "Use"
            raise InvalidArgument(
                f"batch_size={n} would wait for ever under {self._name}: error_buffer={self._buffer:g} gives the cursor a window of "
                f"{2 * self._buffer:g} items, but a batch takes {n} and an insert adds samples_per_insert={self._ratio:g}, so that in "
                f"between neither fits. {smaller} alter_table with an error_buffer of at least {math.ceil((n + self._ratio) / 2)}"
            )

    def explain(self, inserted: int, sampled: int, size: int, anchors: int, *, action: str, n: int = 1, wanted: int = 1) -> str:
        """One sentence: which limiter, where its cursor and bounds stand, what is missing and who has to act.

        Args:
            inserted: steps inserted so far.
            sampled: items sampled so far.
            size: steps kept now.
            anchors: of them, those that can be sampled.
            action: ``"insert"`` or ``"sample"``.
            n: items wanted by the sample.
            wanted: anchors without which the sampler whose turn it is cannot go on.
        """
        if action not in ("insert", "sample"):
            raise InvalidArgument(f"action={action!r} must be 'insert' or 'sample'")
        if self._most is not None:
            return self._explain_waiting(anchors, action, n)
        if size < self._least:
            if action == "insert":
                return f"{self._name} lets this insert through: {size} of min_size_to_sample={self._least} steps are there"
            return (
                f"{self._name} holds sampling back: {size} of min_size_to_sample={self._least} steps are there; "
                f"actors must insert {self._least - size} more"
            )
        if math.isinf(self._buffer):
            return f"{self._name} lets this {action} through: {size} steps are there, min_size_to_sample={self._least}"
        cursor = self._cursor(inserted, sampled)
        where = (
            f"cursor {cursor:.10g} (= {inserted} steps inserted * samples_per_insert={self._ratio:g} - {sampled} items sampled), "
            f"bounds {self._lower:.10g} to {self._higher:.10g}"
        )
        if action == "sample" and not self.may_sample(inserted, sampled, size, anchors, n):
            missing = math.ceil((self._lower + n - cursor) / self._ratio)
            return f"{self._name} holds sampling back: {where}; {n} more items would go below: actors must insert {missing} more steps"
        if action == "insert" and not self.may_insert(inserted, sampled, size, anchors, wanted):
            missing = math.ceil(cursor + self._ratio - self._higher)
            return f"{self._name} holds inserts back: {where}; one more step would go above: learners must sample {missing} more items"
        return f"{self._name} lets this {action} through: {where}"

    def _explain_waiting(self, anchors: int, action: str, n: int) -> str:
        assert self._most is not None
        where = f"cursor {anchors} (anchors that wait to be sampled), bounds 0 to size={self._most}"
        if action == "insert" and anchors >= self._most:
            return f"{self._name} holds inserts back: {where}; learners must sample {anchors - self._most + 1} more items"
        if action == "sample" and anchors < n:
            return (
                f"{self._name} holds sampling back: {where}; {n} items are wanted: actors must insert {n - anchors} more steps (a step "
                "counts once the next row of its stream is there)"
            )
        return f"{self._name} lets this {action} through: {where}"

    def _cursor(self, inserted: int, sampled: int) -> float:
        return inserted * self._ratio - sampled
