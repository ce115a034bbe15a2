"""Generalised harmonic numbers H(n, α) = Σ k^−α for k = 1 … n, and their inverse: what rank-based draws are made of.

The first 2^16 sums are in a table; beyond them the Euler–Maclaurin formula goes on from the table's end, with an error far below that of
float64.
"""

from __future__ import annotations

from functools import lru_cache
from math import exp, expm1, log1p
from typing import Any

import numpy as np
import numpy.typing as npt

from replaystore.core.jit import kernel

Table = npt.NDArray[np.float64]

TABLE = 1 << 16
"""Places whose sums are in the table."""


@kernel
def _fill(alpha: float, table: Any) -> None:
    total = lost = 0.0  # Neumaier's compensated sum
    table[0] = 0.0
    for k in range(1, table.shape[0]):
        term = float(k) ** -alpha
        after = total + term
        lost += (total - after) + term  # total is never the smaller
        total = after
        table[k] = total + lost


@lru_cache(maxsize=16)
def harmonic_table(alpha: float) -> Table:
    """H(k, alpha) for k = 0 … 2^16, ``float64[2^16 + 1]``, 512 KiB, one for all who ask for the same `alpha`."""
    table = np.empty(TABLE + 1)
    _fill(alpha, table)
    return table


@kernel
def harmonic(table: Table, alpha: float, n: int) -> float:
    """H(n, alpha), for the `table` of that alpha."""
    last = table.shape[0] - 1
    if n <= last:
        return table[n]  # type: ignore[no-any-return]
    a, b = float(last), float(n)
    fa, fb = a**-alpha, b**-alpha
    stretch = log1p((b - a) / a)
    area = a * fa * (expm1((1.0 - alpha) * stretch) / (1.0 - alpha) if alpha != 1.0 else stretch)
    slope = -alpha * (fb / b - fa / a)
    bend = -alpha * (alpha + 1.0) * (alpha + 2.0) * (fb / b**3 - fa / a**3)
    return table[last] + area + (fb - fa) / 2.0 + slope / 12.0 - bend / 720.0  # type: ignore[no-any-return]


@kernel
def place_at(table: Table, alpha: float, n: int, target: float) -> int:
    """The smallest k of 1 … n with H(k, alpha) > target; n if there is none."""
    last = table.shape[0] - 1
    low, high = 0, int(min(n, last))  # H(low) <= target throughout; high is the answer unless a lower one is
    if n > last and table[last] <= target:
        low, high = last, n
        a = last + 0.5  # the sum is nearly the area under the curve from half a place on
        x = (1.0 - alpha) * (target - table[last]) / a ** (1.0 - alpha)
        guess = high
        if alpha == 1.0:
            guess = int(min(a * exp(target - table[last]), float(n)))
        elif x > -1.0:
            guess = int(min(a * exp(log1p(x) / (1.0 - alpha)), float(n)))
        step, at = 1, max(guess, low + 1)
        if at < n and harmonic(table, alpha, at) <= target:
            while at < n and harmonic(table, alpha, at) <= target:
                low = at
                at, step = at + step, 2 * step
            high = min(at, n)
        else:
            while at > low and harmonic(table, alpha, at) > target:
                high = at
                at, step = at - step, 2 * step
            low = max(low, at)
    while high - low > 1:
        middle = (low + high) >> 1
        if harmonic(table, alpha, middle) > target:
            high = middle
        else:
            low = middle
    return int(high)
