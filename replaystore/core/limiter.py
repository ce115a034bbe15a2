"""Rate limiters as pure decisions: counters in, yes or no or a sentence out. No clock and no waiting here.

Both kinds are one rule with other numbers, after Reverb (Cassirer et al. 2021, section 3.4). The cursor
``inserted * samples_per_insert - sampled`` goes up with inserts and down with samples. At the moment sampling may begin it stands at
``samples_per_insert * min_size_to_sample``, and it must stay within `error_buffer` of there. MinSize has no such bounds.
"""

from __future__ import annotations

import math

from replaystore.errors import InvalidArgument
from replaystore.schema.limiters import RateLimiter, SampleToInsertRatio

_GRAIN = 1024
"""A samples_per_insert that is a multiple of 1/1024 moves the cursor without rounding."""


class Limiter:
    """Decides for one configuration.

    The counters are the caller's: `inserted` steps (closing rows not counted) and `sampled` items since the table was made, `size`
    steps kept now. Where `size` is below `min_size_to_sample` inserts always pass, so eviction or deletion cannot make both sides wait.
    """

    __slots__ = ("_buffer", "_higher", "_least", "_lower", "_name", "_ratio")

    def __init__(self, config: RateLimiter) -> None:
        self._name = type(config).__name__
        self._least = config.min_size_to_sample
        self._ratio, self._buffer = 1.0, math.inf
        if isinstance(config, SampleToInsertRatio):
            self._ratio, self._buffer = float(config.samples_per_insert), float(config.error_buffer)
        start = self._ratio * self._least
        self._lower, self._higher = start - self._buffer, start + self._buffer

    def may_insert(self, inserted: int, sampled: int, size: int) -> bool:
        """Whether at least one more step may come in. A block is then let in whole, so it overshoots by less than its own length."""
        return size < self._least or self._cursor(inserted + 1, sampled) <= self._higher

    def may_sample(self, inserted: int, sampled: int, size: int, n: int) -> bool:
        """Whether `n` items may be drawn now."""
        return size >= self._least and self._cursor(inserted, sampled) - n >= self._lower

    def check_sample(self, n: int) -> None:
        """Raises InvalidArgument when drawing batches of `n` must come to a halt for ever, whoever goes first.

        That is where one more step would lead above the upper bound and one more batch below the lower. Inserts and batches are the same
        move modulo their sum, so the cursor passes through every multiple of their greatest common divisor, and cannot go round such a
        place. (Blocks of many steps, which overshoot, or other batch sizes in between may postpone it.)
        """
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

    def explain(self, inserted: int, sampled: int, size: int, *, action: str, n: int = 1) -> str:
        """One sentence: which limiter, where its cursor and bounds stand, what is missing and who has to act.

        Args:
            inserted: steps inserted so far.
            sampled: items sampled so far.
            size: steps kept now.
            action: ``"insert"`` or ``"sample"``.
            n: items wanted by the sample.
        """
        if action not in ("insert", "sample"):
            raise InvalidArgument(f"action={action!r} must be 'insert' or 'sample'")
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
        if action == "sample" and not self.may_sample(inserted, sampled, size, n):
            missing = math.ceil((self._lower + n - cursor) / self._ratio)
            return f"{self._name} holds sampling back: {where}; {n} more items would go below: actors must insert {missing} more steps"
        if action == "insert" and not self.may_insert(inserted, sampled, size):
            missing = math.ceil(cursor + self._ratio - self._higher)
            return f"{self._name} holds inserts back: {where}; one more step would go above: learners must sample {missing} more items"
        return f"{self._name} lets this {action} through: {where}"

    def _cursor(self, inserted: int, sampled: int) -> float:
        return inserted * self._ratio - sampled
