"""How many items of each batch come from which source: whole numbers whose running totals follow the shares."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction

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
        counts = [int(share * items) for share in shares]
        rest = [share * items - count for share, count in zip(shares, counts, strict=True)]
        left = items - sum(counts)
        rates = [part / left for part in rest] if left else []
        for _ in range(left):
            for source, rate in enumerate(rates):
                self._owed[source] += rate
            chosen = self._next(rates)
            self._owed[chosen] -= 1
            counts[chosen] += 1
        return counts

    def _next(self, rates: Sequence[Fraction]) -> int:
        due = [source for source, rate in enumerate(rates) if rate > 0 and self._owed[source] >= 1 - self._late]
        if not due:  # possible only after the shares have changed
            return max(range(len(rates)), key=lambda source: self._owed[source])
        return min(due, key=lambda source: (self._late - self._owed[source]) / rates[source])
