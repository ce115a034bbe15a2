"""Rows named now and gathered later: what every view comes down to.

Small fields (rewards, flags, what is known of each item) are read at once; the columns that weigh something are only named, with the
rows to take, and gathered by `fill` straight into wherever the batch is to lie: an array, or a message on its way out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from replaystore.core.straight import RUN_BYTES, copy_pieces
from replaystore.core.walk import Links
from replaystore.engine.rows import Ahead, Rows
from replaystore.errors import InvalidArgument
from replaystore.sampling import Field
from replaystore.schema.columns import Column
from replaystore.schema.views import AnchorRule

Array = npt.NDArray[Any]
Ids = npt.NDArray[np.int64]

MOST_KNOWN = 64
"""Numbers of items whose fields a plan remembers: clients may ask for any."""

_NONE_REMOVED, _NO_ROWS = np.zeros(0, np.uint8), np.zeros(0, np.int64)


class Patch(NamedTuple):
    """Places of a field that get something else than the rows taken."""

    places: Any
    """Index into the field: ``(m,)``, or a tuple of such."""
    source: Array
    at: Ids
    """Elements of `source`, of a shape that fits the places."""


class Take(NamedTuple):
    """Rows to gather into a field."""

    source: Array
    at: Ids
    blank: npt.NDArray[np.bool_] | None
    """Where True, zeros instead (frames before an episode's start, steps after its end)."""
    patch: Patch | None = None
    pieces: Ids | None = None
    """``(n,)`` where ``at[i, j]`` is ``pieces[i] + j``."""


class Plan:
    """What of a request's batches is the same every time; see `replaystore.engine.views.plan_for`."""

    __slots__ = ("chooses", "every", "fixed", "known", "names", "rule")

    def __init__(self, names: dict[str, str], every: dict[str, str], rule: AnchorRule, *, chooses: bool, fixed: bool) -> None:
        self.names, self.every = names, every
        """Of the columns to be read, and of all: in the batch and in the table."""
        self.rule = rule
        """Of the view."""
        self.chooses = chooses
        """Whether the view draws random numbers."""
        self.fixed = fixed
        """Whether the number of items says of which shape the fields are."""
        self.known: dict[int, tuple[Field, ...]] = {}
        """By number of items."""


class GatheredSample:
    """A `PreparedSample`."""

    __slots__ = ("_ahead", "_close", "_plan", "small", "takes")

    def __init__(self, small: Mapping[str, Array], takes: Mapping[str, Take], close: Callable[[], None], plan: Plan, ahead: Ahead) -> None:
        self.small, self.takes, self._close, self._plan, self._ahead = small, takes, close, plan, ahead

    @property
    def fields(self) -> tuple[Field, ...]:
        """The arrays of the batch; where their shapes do not differ from batch to batch, the same object again."""
        if not self._plan.fixed:
            return self._fields()
        known, items = self._plan.known, len(self.small["info/step_ids"])
        fields = known.get(items)
        if fields is None:
            if len(known) >= MOST_KNOWN:
                known.clear()
            fields = known[items] = self._fields()
        return fields

    def _fields(self) -> tuple[Field, ...]:
        fields = [Field(name, take.source.dtype, (*take.at.shape, *take.source.shape[1:])) for name, take in self.takes.items()]
        return (*fields, *(Field(name, array.dtype, array.shape) for name, array in self.small.items()))

    def fill(self, out: Mapping[str, Array]) -> None:
        """Gathers every field into ``out[field.name]``."""
        self._ahead.take(self.takes)
        for name, take in self.takes.items():
            _gather(take, out[name])
        for name, array in self.small.items():
            out[name][...] = array

    def arrays(self, room: Callable[[tuple[int, ...], np.dtype[Any]], Array]) -> dict[str, Array]:
        """Every field as an array: gathered into one that `room` gives, or, where it is there already, that one."""
        self._ahead.take(self.takes)
        out: dict[str, Array] = {}
        for name, take in self.takes.items():
            out[name] = room((*take.at.shape, *take.source.shape[1:]), take.source.dtype)
            _gather(take, out[name])
        out.update(self.small)
        return out

    def forget(self) -> None:
        """Keeps the rows on the disk and forgets which they are: somebody else gathers them, and may take a minute."""
        self.small, self.takes = {}, {}

    def close(self) -> None:
        """Lets the rows go."""
        self._close()


def _gather(take: Take, out: Array) -> None:
    # "clip" skips the bounds check that makes the default three times slower; every index is known to be inside
    if take.pieces is not None and take.source.strides[0] in RUN_BYTES:
        copy_pieces(take.source, take.pieces, out)
    else:
        take.source.take(take.at, 0, out, "clip")
    if take.patch is not None:
        out[take.patch.places] = take.patch.source[take.patch.at]
    if take.blank is not None:
        out[take.blank] = 0


def links_of(rows: Rows, *, backwards: bool = True) -> Links:
    """What walks look at; without `backwards` only what those along the stream do."""
    if not backwards:
        return Links(
            rows.array("replay/successor"), _NO_ROWS, rows.array("meta/kind"), rows.array("steps/terminated"), _NONE_REMOVED,
            rows.origin, rows.first, rows.stop,
        )  # fmt: skip
    try:
        removed = rows.array("replay/removed")
    except KeyError:  # a table from before rows could be deleted
        removed = _NONE_REMOVED
    return Links(
        rows.array("replay/successor"),
        rows.array("meta/previous"),
        rows.array("meta/kind"),
        rows.array("steps/terminated"),
        removed,
        rows.origin,
        rows.first,
        rows.stop,
    )


def choose_columns(columns: Mapping[str, Column], wanted: Iterable[str] | None, agent: str | None = None) -> dict[str, str]:
    """The columns that a request asks for, by their names in the batch; a name stands for all nested below it.

    Args:
        columns: the table's.
        wanted: names in the batch; None: all.
        agent: of the view.

    Returns:
        Name in the batch → name in the table.
    """
    named = {name: name for name in columns} if agent is None else _seen_by(agent, columns)
    if wanted is None:
        return named
    chosen: dict[str, str] = {}
    for name in wanted:
        found = {column: stored for column, stored in named.items() if column == name or column.startswith(f"{name}/")}
        if not found:
            raise InvalidArgument(f"columns: there is no column {name!r}; the table has {', '.join(named)}")
        chosen |= found
    return chosen


def _seen_by(agent: str, columns: Mapping[str, Column]) -> dict[str, str]:
    """Columns by name without the level of `agent`, other agents' left out."""
    agents = {name.split("/")[1] for name in columns if name.startswith("observation/")}
    if agent not in agents:
        there = f"there is {', '.join(sorted(agents))}" if agents else "its observation column is not nested"
        raise InvalidArgument(f"agent={agent!r}: the table has no column observation/{agent}; {there}")
    named: dict[str, str] = {}
    for name in columns:
        first, *below = name.split("/")
        if below and below[0] in agents:
            if below[0] != agent:
                continue
            named["/".join([first, *below[1:]])] = name
        else:
            named[name] = name
    return named
