"""How many items of each batch come from which source: whole numbers whose running totals follow the shares."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from math import lcm

_GRAIN = 1 << 40


def exact_shares(values: Iterable[float]) -> list[Fraction]:
    """Numbers above 0 as fractions of their sum; 0.1 is taken for a tenth."""
    fractions = [Fraction(repr(float(value))) for value in values]
    return [fraction / sum(fractions) for fraction in fractions]


def measured_shares(amounts: Sequence[float]) -> list[Fraction]:
    """Amounts that change from batch to batch as fractions of their sum, in 2**40ths; equal ones when all are 0."""
    whole = sum(amounts)
    if not whole > 0:
        return [Fraction(1, len(amounts))] * len(amounts)
    parts = [int(amount / whole * _GRAIN) for amount in amounts]
    parts[parts.index(max(parts))] += _GRAIN - sum(parts)
    return [Fraction(part, _GRAIN) for part in parts]


class Apportioner:
    """Deals out items so that every source's running total stays less than one item from its exact share, for shares that stay the same.

    What does not divide is dealt item by item: among the sources that are due, the one next that would be late first (Tijdeman 1980, "The
    chairman assignment problem", which keeps every total within 1 − 1 / (2n − 2) of its share, for n sources).
    """

    def __init__(self, sources: int) -> None:
        self._owed = [Fraction(0)] * sources
        self._late = 1 - Fraction(1, 2 * sources - 2) if sources > 1 else Fraction(1)

    @property
    def owed(self) -> list[Fraction]:
        """By source: its exact share of all items so far, less those that it had."""
        return list(self._owed)

    def deal(self, items: int, shares: Sequence[Fraction]) -> list[int]:
        """Counts of the next batch, which add up to `items`; `shares` add up to 1."""
        unit = lcm(self._late.denominator, *(share.denominator for share in shares), *(owed.denominator for owed in self._owed))
        whole = [share.numerator * (unit // share.denominator) * items for share in shares]  # everything in units: plain integers are fast
        counts = [part // unit for part in whole]
        left = items - sum(counts)
        if not left:
            return counts
        rates = [part - count * unit for part, count in zip(whole, counts, strict=True)]  # per item that is left, in units of unit · left
        item, late = unit * left, self._late.numerator * (unit // self._late.denominator) * left
        owed = [part.numerator * (unit // part.denominator) * left for part in self._owed]
        for _ in range(left):
            owed = [before + rate for before, rate in zip(owed, rates, strict=True)]
            chosen = _next(owed, rates, item, late)
            owed[chosen] -= item
            counts[chosen] += 1
        self._owed = [Fraction(part, item) for part in owed]
        return counts


def _next(owed: Sequence[int], rates: Sequence[int], item: int, late: int) -> int:
    """The source that is due, being owed at least `item` − `late`, and would be owed more than `late` soonest."""
    due = [source for source, rate in enumerate(rates) if rate > 0 and owed[source] >= item - late]
    if not due:  # possible only after the shares have changed
        return max((source for source, rate in enumerate(rates) if rate > 0), key=lambda source: owed[source])
    return due[0] if len(due) == 1 else min(due, key=lambda source: Fraction(late - owed[source], rates[source]))
