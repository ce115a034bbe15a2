"""What the indexes compute, in plain Python over dicts: slow, short, and what the fast ones are tested against.

`leaves` maps the ids of the window to their leaves; an id is eligible if its leaf is above 0.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableSequence
from math import exp2, fsum

from replaystore.core.random_reference import next_below, next_unit


def eligible(leaves: Mapping[int, float]) -> list[int]:
    """Ascending."""
    return sorted(i for i, leaf in leaves.items() if leaf > 0)


def in_order(leaves: Mapping[int, float], n: int, newest_first: bool) -> list[int]:
    """The first, or last, `n` eligible ids."""
    return sorted(eligible(leaves), reverse=newest_first)[:n]


def extremes(leaves: Mapping[int, float], n: int, largest: bool) -> list[int]:
    """The ids of the `n` largest, or smallest, leaves above 0, among equals the oldest first."""
    return sorted(eligible(leaves), key=lambda i: (-leaves[i] if largest else leaves[i], i))[:n]


def harmonic(alpha: float, n: int) -> float:
    """H(n, alpha), correctly rounded but for the powers."""
    return fsum(k**-alpha for k in range(1, n + 1))


def places(alpha: float, count: int, state: MutableSequence[int], n: int, stratified: bool) -> list[int]:
    """`n` draws of places 1 … count, P(k) ∝ k ** −alpha."""
    total = harmonic(alpha, count)
    drawn = []
    for i in range(n):
        target = next_unit(state) * total
        if stratified:
            target = (i * total + target) / n
        drawn.append(next((k for k in range(1, count + 1) if harmonic(alpha, k) > target), count))
    return drawn


def recency(leaves: Mapping[int, float], half_life: float | None) -> dict[int, float]:
    """The probability of each eligible id, relative to the newest of them."""
    ids = eligible(leaves)
    masses = {i: exp2(-(ids[-1] - i) / half_life) if half_life else 1.0 for i in ids}
    total = fsum(masses.values())
    return {i: mass / total for i, mass in masses.items()}


def recency_shares(leaves: Mapping[int, float], half_life: float | None, newest: int, n: int) -> dict[int, float]:
    """The mean share of each eligible id in a batch of `n` that begins with the `newest` newest."""
    first = set(in_order(leaves, min(newest, n), True))
    return {i: ((i in first) + (n - len(first)) * p) / n for i, p in recency(leaves, half_life).items()}


def take_pass(to_come: list[int], state: MutableSequence[int], n: int) -> list[int]:
    """`n` different ids of `to_come`, ascending: Floyd's selection and a shuffle, in one."""
    ranks: list[int] = []
    for i in range(n):
        newest = len(to_come) - n + i
        rank = next_below(state, newest + 1)
        if rank in ranks:
            rank = newest
        other = next_below(state, i + 1)
        ranks.append(rank)
        ranks[i], ranks[other] = ranks[other], ranks[i]
    return [to_come[rank] for rank in ranks]
