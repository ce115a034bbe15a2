"""The selectors of one table: an index for each that needs one, over leaves that are mapped Zarr arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from replaystore.core.indexes import LEAST_MASS, MOST_MASS, PrioritizedIndex, UniformIndex, sanitise
from replaystore.engine.rows import Rows
from replaystore.errors import InvalidArgument
from replaystore.schema.selectors import Prioritized, Selector, Uniform
from replaystore.steps import UpdateCounts
from replaystore.storage.layout import priority_path
from replaystore.storage.state_page import StatePage

Array = npt.NDArray[Any]
Ids = npt.NDArray[np.int64]


class Selectors:
    """Callers hold the table's lock. What an index remembers beside its leaves, the highest mass, lives in the state page."""

    def __init__(self, table: str, configured: Mapping[str, Selector], state: StatePage, rows: Rows, *, mend: bool) -> None:
        """Builds every index from its leaves; with `mend`, leaves that cannot be right are put right first."""
        self._table, self._max_mass, self._made_with = table, state.max_mass, state.made_with
        self._configured = dict(configured)
        self._indexes: dict[str, PrioritizedIndex] = {}
        for name, selector in self._configured.items():
            if isinstance(selector, Prioritized):
                self._build(name, selector, rows, mend=mend)

    def _build(self, name: str, selector: Prioritized, rows: Rows, *, mend: bool) -> None:
        index = PrioritizedIndex(selector.alpha, selector.epsilon)
        place = self._place(name)
        stored = float(self._max_mass[place])
        if np.isfinite(stored) and stored > 0:
            index.max_mass = stored
        leaves = rows.array(priority_path(name))
        if mend:
            sanitise(leaves, rows.origin, rows.first, rows.stop, rows.array("replay/successor"), index.max_mass)
            if rows.stop > rows.first:  # after power loss the leaves may be newer than what was remembered of them
                index.max_mass = max(index.max_mass, float(rows.live(priority_path(name)).max()))
                self._max_mass[self._place(name)] = index.max_mass
        stood, stands = tuple(self._made_with[place].tolist()), made_with(selector)
        if any(stood) and stood != stands:  # being altered, or killed while it was
            before = Prioritized(*stood)
            live = rows.live(priority_path(name))
            live[...] = masses_under(live, before, selector, rows.live("replay/successor") > 0)
            index.max_mass = self._max_mass[place] = masses_under(np.array([index.max_mass]), before, selector)[0]
        self._made_with[place] = stands
        index.rebuild(leaves, rows.origin, rows.first, rows.stop)
        self._indexes[name] = index

    def _place(self, name: str) -> int:
        return list(self._configured).index(name)

    def choose(self, wanted: str | Uniform | None) -> str | None:
        """Name of the prioritized selector that a request means, or None for uniform draws; InvalidArgument when there is none."""
        if isinstance(wanted, Uniform):
            return None
        name = next(iter(self._configured)) if wanted is None else wanted
        if name not in self._configured:
            raise InvalidArgument(
                f"selector: table {self._table!r} has no {name!r}; it has {', '.join(self._configured)}, or pass Uniform()"
            )
        return name if name in self._indexes else None

    def choose_prioritized(self, wanted: str | None) -> str:
        """The same for a priority update."""
        name = self.choose(wanted)
        if name is None:
            raise InvalidArgument(f"selector: table {self._table!r} keeps no priorities there: create it with selector=Prioritized(...)")
        return name

    def can_draw(self, name: str | None) -> bool:
        """Whether there is any mass to draw from."""
        return name is None or self._indexes[name].total > 0

    def draw(self, name: str | None, rows: Rows, anchors: int, rng: Array, n: int) -> tuple[Ids, dict[str, Array]]:
        """`n` anchors, ``(n,)``, and what the draw says of them: ``probabilities`` float64 and ``priorities`` float32."""
        if name is None:
            ids = UniformIndex.draw(rows.array("replay/successor"), rows.origin, rows.first, rows.stop, anchors, rng, n)
            return ids, {"probabilities": np.full(n, 1.0 / anchors), "priorities": np.ones(n, np.float32)}
        index, leaves = self._indexes[name], rows.array(priority_path(name))
        ids, probabilities = index.draw(leaves, rows.origin, rng, n)
        return ids, {"probabilities": probabilities, "priorities": index.priorities(leaves[ids - rows.origin])}

    def update(self, name: str, rows: Rows, ids: Ids, priorities: npt.NDArray[np.float64]) -> UpdateCounts:
        """Sets priorities; touches nothing but the leaves of anchors that are there."""
        index = self._indexes[name]
        leaves, successor = rows.array(priority_path(name)), rows.array("replay/successor")
        counts = index.update(leaves, rows.origin, successor, rows.first, rows.stop, ids, priorities)
        self._max_mass[self._place(name)] = index.max_mass
        return UpdateCounts(*counts)

    def enter(self, rows: Rows, ids: Ids) -> None:
        """Steps that have just become anchors come in at the highest mass seen; `rows` includes them."""
        for name, index in self._indexes.items():
            leaves = rows.array(priority_path(name))
            index.extend(leaves, rows.origin, rows.first, rows.stop)
            index.enter(leaves, rows.origin, ids)
            self._max_mass[self._place(name)] = index.max_mass

    def drop(self, rows: Rows, first: int) -> None:
        """Steps below `first` are no more."""
        for name, index in self._indexes.items():
            index.drop(rows.array(priority_path(name)), rows.origin, first)

    def change(self, configured: Mapping[str, Selector], rows: Rows) -> None:
        """Other parameters for the same selectors: leaves under a new exponent keep the priorities that they stand for.

        Raises:
            InvalidArgument: other names or kinds, which would need other arrays.
        """
        kinds = {name: type(selector) for name, selector in configured.items()}
        if kinds != {name: type(selector) for name, selector in self._configured.items()}:
            raise InvalidArgument(f"selector: names and kinds stay as created ({', '.join(self._configured)}); their parameters may change")
        for name, after in configured.items():
            before = self._configured[name]
            if isinstance(after, Prioritized) and isinstance(before, Prioritized) and after != before:
                self._max_mass[self._place(name)] = self._indexes[name].max_mass
                self._configured[name] = after
                self._build(name, after, rows, mend=False)

    @property
    def nbytes(self) -> int:
        """RAM of all indexes."""
        return sum(index.nbytes for index in self._indexes.values())

    def totals(self) -> dict[str, float]:
        """Total mass by selector."""
        return {name: float(index.total) for name, index in self._indexes.items()}

    def highest(self) -> dict[str, float]:
        """Highest priority seen by selector."""
        return {name: float(index.priorities(np.array([index.max_mass]))[0]) for name, index in self._indexes.items()}


def made_with(selector: Prioritized) -> tuple[float, float]:
    """Alpha and epsilon as the state page notes them, where zeros mean that nothing is known: without alpha any epsilon is as good."""
    return float(selector.alpha), float(selector.epsilon) if selector.alpha else 1.0


def masses_under(masses: Array, before: Prioritized, after: Prioritized, anchors: Array | None = None) -> Array:
    """Masses under one exponent as masses under another, ``(n,)``, bounded like those of an update. What is no anchor stays 0.

    Args:
        masses: as they are.
        before: what they were made with.
        after: what they are to be made with.
        anchors: bool ``(n,)``; without it whatever has a mass. The difference is anchors of priority 0, which an epsilon brings back.
    """
    with np.errstate(over="ignore"):  # beyond float64 is bounded below, like all that is beyond float32
        base = np.ones(masses.shape)
        if before.alpha != 0:
            base = np.maximum(np.asarray(masses, np.float64) ** (1.0 / before.alpha) - before.epsilon, 0.0)
        base += after.epsilon
        bounded = np.clip(base**after.alpha, LEAST_MASS, MOST_MASS)
    drawn = (masses > 0 if anchors is None else anchors) & ((base > 0) | (after.alpha == 0))
    return np.where(drawn, bounded, 0.0).astype(masses.dtype)
