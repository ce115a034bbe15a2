"""Filters: which anchors a sample may come from. They go with every selector, and the probabilities are those among what is left."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from replaystore.errors import InvalidArgument
from replaystore.schema.record import check_number

_NUMBERS = 1e300
ENDINGS = ("terminated", "truncated")


@dataclass(frozen=True, slots=True)
class Filter:
    """Anchors that meet every condition given. Bounds are inclusive.

    Conditions on the episode (`min_return` to `ended`) are met by steps of finished episodes only.
    """

    min_age_steps: int | None = None
    """Age in steps: rows inserted since; the newest row has age 1."""
    max_age_steps: int | None = None
    min_age_s: float | None = None
    """Age in seconds since insertion."""
    max_age_s: float | None = None
    min_age_versions: int | None = None
    """Age in policy versions: the highest version among the rows ever inserted minus the step's. Steps of unknown version have no age."""
    max_age_versions: int | None = None
    min_policy_version: int | None = None
    """The policy version that chose the action; -1 is unknown."""
    max_policy_version: int | None = None
    actors: tuple[int, ...] | None = None
    """Only steps of these actors."""
    min_return: float | None = None
    """Sum of the episode's rewards."""
    max_return: float | None = None
    min_length: int | None = None
    """Steps of the episode."""
    max_length: int | None = None
    ended: str | None = None
    """``"terminated"`` or ``"truncated"``."""

    def __post_init__(self) -> None:
        for name in ("min_age_steps", "max_age_steps", "min_age_versions", "max_age_versions", "min_length", "max_length"):
            self._check(name, 0, 2**62, whole=True)
        for name in ("min_policy_version", "max_policy_version"):
            self._check(name, -1, 2**62, whole=True)
        for name in ("min_age_s", "max_age_s"):
            self._check(name, 0.0, 1e15)
        for name in ("min_return", "max_return"):
            self._check(name, -_NUMBERS, _NUMBERS)
        for name in ("age_steps", "age_s", "age_versions", "policy_version", "return", "length"):
            low, high = getattr(self, f"min_{name}"), getattr(self, f"max_{name}")
            if low is not None and high is not None and low > high:
                raise InvalidArgument(f"min_{name}={low} is above max_{name}={high}: no step could pass this filter")
        if self.actors is not None:
            object.__setattr__(self, "actors", _actors(self.actors))
        if self.ended is not None and self.ended not in ENDINGS:
            raise InvalidArgument(f"ended={self.ended!r} must be 'terminated' or 'truncated'")

    def _check(self, name: str, low: float, high: float, *, whole: bool = False) -> None:
        value = getattr(self, name)
        if value is not None:
            check_number(name, value, low, high, whole=whole)

    @property
    def about_episodes(self) -> bool:
        """Whether there is a condition on the episode."""
        names = ("min_return", "max_return", "min_length", "max_length", "ended")
        return any(getattr(self, name) is not None for name in names)


FILTERS: dict[str, type[Filter]] = {"Filter": Filter}


def check_choice(name: str, numbers: Any, where: Any) -> None:
    """InvalidArgument unless either `numbers`, called `name`, or a filter says what is to be deleted."""
    if (numbers is None) == (where is None):
        how = "neither" if numbers is None else "both"
        raise InvalidArgument(f"pass either {name} or where=Filter(...) to say what is to be deleted; got {how}")
    if where is not None and not isinstance(where, Filter):
        raise InvalidArgument(f"where={where!r} must be a replaystore.Filter")


def _actors(values: Any) -> tuple[int, ...]:
    values = values.tolist() if hasattr(values, "tolist") else values  # NumPy's
    chosen = (values,) if isinstance(values, int) else tuple(values) if isinstance(values, Iterable) else None
    if not chosen:
        raise InvalidArgument(f"actors={values!r} must be actor numbers, at least one")
    for value in chosen:
        check_number("actors", value, -(2**31), 2**31 - 1, whole=True)
    return tuple(sorted(set(chosen)))
