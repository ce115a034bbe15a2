"""Exploration rates that are no schedule over time; those are `replaystore.Linear`, `Constant` and `Exponential`."""

from __future__ import annotations


def apex_epsilon(actor: int, actors: int, base: float = 0.4, exponent: float = 7.0) -> float:
    """The constant exploration rate of one of many actors: base ** (1 + exponent · i / (n − 1)) (Horgan et al. 2018, section 4.1)."""
    if actors <= 1:
        return base
    place = min(max(actor, 0), actors - 1)
    return float(base ** (1.0 + exponent * place / (actors - 1)))
