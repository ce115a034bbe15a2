"""Schedules: numbers that change with progress. Pure functions of a step count."""

from __future__ import annotations


def linear(start: float, end: float, duration: int, step: int) -> float:
    """From `start` at step 0 to `end` at step `duration`, and `end` from then on."""
    if duration <= 0 or step >= duration:
        return end
    return start + (end - start) * max(step, 0) / duration


def apex_epsilon(actor: int, actors: int, base: float = 0.4, exponent: float = 7.0) -> float:
    """The constant exploration rate of one of many actors: base ** (1 + exponent · i / (n − 1)) (Horgan et al. 2018, section 4.1)."""
    if actors <= 1:
        return base
    place = min(max(actor, 0), actors - 1)
    return float(base ** (1.0 + exponent * place / (actors - 1)))
