"""TableConfig: everything a table is created with, and its JSON form in Zarr attributes and on the wire."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from replaystore.errors import InvalidArgument
from replaystore.schema.columns import STANDARD_COLUMNS, Column, check_columns, check_name, is_reward
from replaystore.schema.feasible import BOOKKEEPING_BYTES, LEAF_BYTES, check_feasible
from replaystore.schema.limiters import LIMITERS, MinSize, RateLimiter
from replaystore.schema.record import check_number, from_json, to_json
from replaystore.schema.selectors import KEEPS_LEAVES, SELECTORS, Selector, Uniform

DEFAULT_SELECTOR = "default"
"""Name of the selector of a table that was given only one."""

MAX_SELECTORS = 16


@dataclass(frozen=True, slots=True)
class Retention:
    """What is dropped, oldest first. Whole segments leave the disk; ids are never used again."""

    max_steps: int | None = None
    """Rows kept, closing rows counted in; None keeps all."""

    max_bytes: int | None = None
    """Bytes of the rows kept, all columns and bookkeeping counted; chunk files may hold a little more than their rows."""

    max_age_s: float | None = None
    """Rows inserted longer ago are dropped."""

    max_times_sampled: int | None = None
    """A step that was sampled so often is not sampled again; its bytes go when nothing older, and no step whose frame stack may need it, is
    left to sample. A draw counts once for each time that it holds the step. The newest row of an episode that its writer has left open may
    still become an anchor, so it holds what comes after it, until one of the other bounds passes it by."""

    min_steps: int = 0
    """Rows that are kept whatever the age, bytes or sample counts say; and anchors that stay however often they were sampled."""

    def __post_init__(self) -> None:
        for name, low in (("max_steps", 2), ("max_bytes", 1), ("max_times_sampled", 1)):
            if getattr(self, name) is not None:
                check_number(name, getattr(self, name), low, whole=True)
        if self.max_age_s is not None:
            check_number("max_age_s", self.max_age_s, 1e-3, 1e15)
        check_number("min_steps", self.min_steps, 0, whole=True)
        if self.max_steps is not None and self.min_steps > self.max_steps:
            raise InvalidArgument(f"min_steps={self.min_steps} rows cannot be kept when max_steps={self.max_steps} is the most")


@dataclass(frozen=True, slots=True)
class TableConfig:
    """Columns, selectors, rate limiter and retention of one table."""

    columns: Mapping[str, Column]
    """By name; reward, terminated and truncated are added unless given. ``reward/NAME`` for each of several agents stand for reward."""

    selector: Selector | Mapping[str, Selector] = field(default_factory=Uniform)
    """One selector, or several by name over the same steps."""

    rate_limiter: RateLimiter = field(default_factory=MinSize)

    retention: Retention = field(default_factory=Retention)

    seed: int | None = None
    """Seed of the table's random numbers; None draws one when the table is made. The state of the generator is kept with the store."""

    def __post_init__(self) -> None:
        if not isinstance(self.columns, Mapping) or not self.columns:
            raise InvalidArgument("columns must be a mapping of names to replaystore.Column, for example replaystore.columns_from_env(env)")
        for name, column in self.columns.items():
            check_name(name, "column", nested=True)
            if not isinstance(column, Column):
                raise InvalidArgument(f"column {name!r} must be a replaystore.Column, got {type(column).__name__}")
        given = {"reward" if is_reward(name) else name for name in self.columns}
        columns = {**{n: c for n, c in STANDARD_COLUMNS.items() if n not in given}, **self.columns}
        check_columns(columns)
        object.__setattr__(self, "columns", dict(sorted(columns.items())))
        self._check_selectors()
        if type(self.rate_limiter).__name__ not in LIMITERS:
            raise InvalidArgument(f"rate_limiter {self.rate_limiter!r} must be one of {', '.join(sorted(LIMITERS))}")
        if not isinstance(self.retention, Retention):
            raise InvalidArgument(f"retention {self.retention!r} must be a replaystore.Retention")
        if self.seed is not None:
            check_number("seed", self.seed, 0, 2**63 - 1, whole=True)
        check_feasible(self.rate_limiter, self.retention, next(iter(self.selectors.values())), self.row_bytes)

    def _check_selectors(self) -> None:
        selectors = self.selector if isinstance(self.selector, Mapping) else {DEFAULT_SELECTOR: self.selector}
        if not 1 <= len(selectors) <= MAX_SELECTORS:
            raise InvalidArgument(f"a table has 1 to {MAX_SELECTORS} selectors, got {len(selectors)}")
        for name, selector in selectors.items():
            check_name(name, "selector")
            if type(selector).__name__ not in SELECTORS:
                raise InvalidArgument(f"selector {selector!r} must be one of {', '.join(sorted(SELECTORS))}")

    @property
    def selectors(self) -> dict[str, Selector]:
        """The selectors by name; a single one is called ``"default"``. The first is used when a call names none."""
        return dict(self.selector) if isinstance(self.selector, Mapping) else {DEFAULT_SELECTOR: self.selector}

    @property
    def row_bytes(self) -> int:
        """Bytes of one row in all its columns, bookkeeping counted in: what `Retention.max_bytes` counts."""
        leaves = sum(isinstance(selector, KEEPS_LEAVES) for selector in self.selectors.values())
        return sum(column.row_bytes for column in self.columns.values()) + BOOKKEEPING_BYTES + LEAF_BYTES * leaves

    def changed(
        self,
        *,
        selector: Selector | Mapping[str, Selector] | None = None,
        rate_limiter: RateLimiter | None = None,
        retention: Retention | None = None,
    ) -> TableConfig:
        """The same with other parts where they are given."""
        return TableConfig(
            self.columns,
            self.selector if selector is None else selector,
            self.rate_limiter if rate_limiter is None else rate_limiter,
            self.retention if retention is None else retention,
            self.seed,
        )

    def to_json(self) -> dict[str, Any]:
        """The configuration as a JSON object; `from_json` gives an equal one back."""
        return {
            "columns": {name: column.to_json() for name, column in self.columns.items()},
            "selectors": {name: to_json(selector) for name, selector in self.selectors.items()},
            "rate_limiter": to_json(self.rate_limiter),
            "retention": to_json(self.retention),
            "seed": self.seed,
        }

    @classmethod
    def from_json(cls, data: Any) -> TableConfig:
        """The configuration that `data`, made by `to_json`, describes; InvalidArgument says what does not fit."""
        if not isinstance(data, dict) or not isinstance(data.get("columns"), dict) or not isinstance(data.get("selectors"), dict):
            raise InvalidArgument("a table configuration must be an object with columns, selectors, rate_limiter and retention")
        selectors = {name: from_json(value, SELECTORS, "selector") for name, value in data["selectors"].items()}
        alone = selectors.keys() == {DEFAULT_SELECTOR}
        return cls(
            columns={name: Column.from_json(value) for name, value in data["columns"].items()},
            selector=selectors[DEFAULT_SELECTOR] if alone else selectors,
            rate_limiter=from_json(data.get("rate_limiter"), LIMITERS, "rate limiter"),
            retention=from_json(data.get("retention"), {"Retention": Retention}, "retention"),
            seed=data.get("seed"),
        )
