"""Mixture: several tables sampled as one, with exact shares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from replaystore.errors import InvalidArgument
from replaystore.schema.record import check_number


@dataclass(frozen=True, slots=True)
class Mixture:
    """Tables of one store or server and their shares of every batch: ``store.sample(Mixture({"online": 0.5, "offline": 0.5}), 256)``.

    Stands where the name of a table stands, in `sample` and `sampler`. In each batch a table has share · batch_size items, rounded so that
    the running total of each table is never off by a whole item. The tables must have the same columns.
    """

    shares: Mapping[str, float]
    """By table, above 0; they are divided by their sum."""

    def __post_init__(self) -> None:
        check_shares(self.shares)
        object.__setattr__(self, "shares", dict(self.shares))


def check_shares(shares: Mapping[str, float]) -> None:
    """InvalidArgument unless these are names with shares above 0."""
    if not isinstance(shares, Mapping) or not shares or not all(isinstance(name, str) for name in shares):
        raise InvalidArgument(f"shares={shares!r} must name at least one source, for example {{'online': 0.5, 'offline': 0.5}}")
    for name, share in shares.items():
        check_number(f"share of {name!r}", share, 1e-9, 1e9)
