"""The selectors of one table: an index for each that keeps leaves, which are mapped Zarr arrays, and for what requests ask beyond."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from replaystore.engine.conditions import Facts
from replaystore.engine.rows import Rows
from replaystore.engine.selection.filtered import Filtered
from replaystore.engine.selection.kept import KeptPass, KeptPriorities
from replaystore.engine.selection.whole import AllAlike, ByRecency, InOrder, over_all
from replaystore.errors import InvalidArgument
from replaystore.schema.filters import Filter
from replaystore.schema.selectors import KEEPS_LEAVES, KEEPS_PRIORITIES, FreeSelector, Prioritized, Selector, WithoutReplacement
from replaystore.schema.views import AnchorRule
from replaystore.steps import UpdateCounts
from replaystore.storage.state_page import StatePage

Array = npt.NDArray[Any]
Ids = npt.NDArray[np.int64]

MOST_INDEXES = 8
"""Indexes for filters, and for selectors that requests bring along, kept per table; the one not used for longest goes."""

MOST_CHOICES = 256
"""What requests mean is remembered for so many kinds of them: clients may ask for any."""

ANY = AnchorRule()

_Whole: TypeAlias = AllAlike | InOrder | ByRecency
Chooser: TypeAlias = KeptPriorities | KeptPass | _Whole | Filtered
"""Draws from all anchors or from some."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What a request draws from: a selector, by name if it has leaves, and which anchors."""

    selector: str | FreeSelector
    where: Filter | None = None
    rule: AnchorRule = ANY

    @property
    def everything(self) -> bool:
        """Whether any anchor will do."""
        return self.where is None and self.rule == ANY


class Selectors:
    """Callers hold the table's lock."""

    def __init__(self, table: str, configured: Mapping[str, Selector], state: StatePage, rows: Rows, *, mend: bool) -> None:
        """Builds every index that has leaves; with `mend`, leaves that cannot be right are put right first."""
        self._table, self._state = table, state
        self._configured = dict(configured)
        self._kept: dict[str, KeptPriorities | KeptPass] = {}
        for place, (name, selector) in enumerate(self._configured.items()):
            if isinstance(selector, WithoutReplacement):
                self._kept[name] = KeptPass(name, selector, rows, mend=mend)
            elif isinstance(selector, KEEPS_LEAVES):
                self._kept[name] = KeptPriorities(place, name, selector, state, rows, mend=mend)
        self._whole: OrderedDict[FreeSelector, _Whole] = OrderedDict()
        self._filtered: OrderedDict[Choice, Filtered] = OrderedDict()
        self._choices: dict[Any, Choice] = {}
        self._last: tuple[Any, Any, Any, Choice | None, Any] = None, None, None, None, None

    # -- which

    def choose(self, wanted: str | FreeSelector | None, where: Filter | None = None, rule: AnchorRule = ANY) -> Choice:
        """What a request means; InvalidArgument when there is no such selector. Needs no lock."""
        choices = self._choices  # `change` begins another after the configuration is: what was meant before it is not kept
        of, at, by, last, among = self._last
        if last is not None and among is choices and of is wanted and at is where and by is rule:
            return last
        found = choices.get((wanted, where, rule))
        if found is None:
            if wanted is not None and not isinstance(wanted, str):
                found = Choice(wanted, where, rule)
            else:
                name = self._named(wanted)
                selector = self._configured[name]
                found = Choice(name if name in self._kept else selector, where, rule)  # type: ignore[arg-type]
            if len(choices) >= MOST_CHOICES:
                choices.clear()
            choices[wanted, where, rule] = found
        self._last = wanted, where, rule, found, choices
        return found

    def choose_prioritized(self, wanted: str | None) -> str:
        """The name that a priority update means."""
        name = self._named(wanted)
        if not isinstance(self._configured[name], KEEPS_PRIORITIES):
            kinds = ", ".join(kind.__name__ for kind in KEEPS_PRIORITIES)
            raise InvalidArgument(
                f"selector: table {self._table!r} keeps no priorities there ({name!r} is {self._configured[name]}): create it with "
                f"selector=Prioritized(...), or another of {kinds}"
            )
        return name

    def _named(self, wanted: str | None) -> str:
        name = next(iter(self._configured)) if wanted is None else wanted
        if name not in self._configured:
            raise InvalidArgument(
                f"selector: table {self._table!r} has no {name!r}; it has {', '.join(self._configured)}, or pass Uniform()"
            )
        return name

    # -- drawing

    def ready(self, choice: Choice, rows: Rows, facts: Callable[[], Facts]) -> Chooser:
        """What draws for `choice`, brought to this moment. Built on first use: one pass over the rows, unless the selector keeps leaves."""
        if not choice.everything:
            found = self._filtered.get(choice)
            if found is None:
                found = self._filtered[choice] = self._filter(choice)
                self._make_room(self._filtered)
            self._filtered.move_to_end(choice)
            if not found.stands(rows):
                found.sync(rows, facts())
            return found
        if isinstance(choice.selector, str):
            return self._kept[choice.selector]
        whole = self._whole.get(choice.selector)
        if whole is None:
            whole = self._whole[choice.selector] = over_all(choice.selector, rows)
            self._make_room(self._whole)
        self._whole.move_to_end(choice.selector)
        return whole

    def _make_room(self, made: OrderedDict[Any, Any]) -> None:
        lasting = self._configured.values()
        for key in list(made)[:-MOST_INDEXES]:
            if key not in lasting:
                del made[key]

    def _filter(self, choice: Choice) -> Filtered:
        if not isinstance(choice.selector, str):
            return Filtered(choice.selector, choice.where, choice.rule, None, None)
        kept = self._kept[choice.selector]
        return Filtered(kept.selector, choice.where, choice.rule, kept.path, kept if isinstance(kept, KeptPass) else None)

    def draw(self, choice: Choice, chooser: Chooser, rows: Rows, anchors: int, rng: Array, n: int) -> tuple[Ids, Array]:
        """`n` anchors, ``int64[n]``, and the exact probability of each, ``float64[n]``; `chooser` is what `ready` gave and lacks none."""
        if not isinstance(choice.selector, str) or not isinstance(self._kept[choice.selector], KeptPass):
            return chooser.draw(rows, anchors, rng, n)
        kept = self._kept[choice.selector]
        assert isinstance(kept, KeptPass)
        passes = kept.index.refills
        ids, probabilities = chooser.draw(rows, anchors, rng, n)
        for other, filtered in self._filtered.items():
            if other.selector == choice.selector and filtered is not chooser:
                if kept.index.refills != passes or (isinstance(chooser, Filtered) and chooser.refilled):
                    filtered.forget()
                else:
                    filtered.revalue(ids.copy())  # a batch's own array is its owner's to change
        return ids, probabilities

    def priorities(self, name: str | FreeSelector, rows: Rows, ids: Ids) -> npt.NDArray[np.float32]:
        """Raw priorities of `ids` as stored, ``float32[n]``; 1 where there are none."""
        return self._kept[name].priorities(rows, ids) if isinstance(name, str) else np.ones(len(ids), np.float32)

    # -- what happens to steps

    def update(self, name: str, rows: Rows, ids: Ids, priorities: npt.NDArray[np.float64]) -> UpdateCounts:
        """Sets priorities; touches nothing but the leaves of anchors that are there."""
        kept = self._kept[name]
        assert isinstance(kept, KeptPriorities)
        counts = kept.update(rows, ids, priorities)
        for choice, filtered in self._filtered.items():
            if choice.selector == name:
                filtered.revalue(ids)
        return counts

    def enter(self, rows: Rows, ids: Ids) -> None:
        """Steps that have just become anchors come in, where there are priorities at the highest seen; `rows` includes them."""
        for kept in self._kept.values():
            kept.enter(rows, ids)
        for whole in self._whole.values():
            whole.enter(rows, ids)
        for filtered in self._filtered.values():
            filtered.enter(ids)

    def finished(self, lasts: Ids) -> None:
        """The episodes whose closing rows are `lasts`, ``int64[n]``, have finished; called after their steps entered."""
        for filtered in self._filtered.values():
            filtered.finish(lasts)

    def remove(self, rows: Rows, ids: Ids) -> None:
        """`ids`, ``int64[n]``, were anchors and are none any more: their successors are already 0, or negative."""
        for kept in self._kept.values():
            kept.leave(rows, ids)
        for whole in self._whole.values():
            whole.leave(rows, ids)
        for filtered in self._filtered.values():
            filtered.leave(ids)

    def deleted(self) -> None:
        """Rows were deleted, anchors or not; those that are no anchors any more are told of by `remove`."""
        for filtered in self._filtered.values():
            filtered.spoil()

    def drop(self, rows: Rows, first: int) -> None:
        """Steps below `first` are no more."""
        for kept in self._kept.values():
            kept.drop(rows, first)
        for whole in self._whole.values():
            whole.drop(rows, first)

    def change(self, configured: Mapping[str, Selector], rows: Rows) -> None:
        """Other parameters for the same selectors: leaves under a new exponent keep the priorities that they stand for.

        Raises:
            InvalidArgument: other names or kinds, which would need other arrays.
        """
        kinds = {name: type(selector) for name, selector in configured.items()}
        if kinds != {name: type(selector) for name, selector in self._configured.items()}:
            raise InvalidArgument(f"selector: names and kinds stay as created ({', '.join(self._configured)}); their parameters may change")
        for name, after in configured.items():
            kept = self._kept.get(name)
            if isinstance(kept, KeptPriorities) and after != kept.selector:
                self._kept[name] = kept.altered(name, after, self._state, rows)
        self._configured = dict(configured)
        self._choices = {}
        self._whole.clear()
        self._filtered.clear()

    # -- figures

    @property
    def nbytes(self) -> int:
        """RAM of all indexes."""
        return sum(part.nbytes for part in (*self._kept.values(), *self._whole.values(), *self._filtered.values()))

    def totals(self) -> dict[str, float]:
        """Total mass by selector that draws in proportion to one."""
        return {name: kept.index.total for name, kept in self._kept.items() if isinstance(kept.selector, Prioritized)}

    def highest(self) -> dict[str, float]:
        """Highest priority seen by selector that keeps priorities."""
        return {name: kept.highest for name, kept in self._kept.items() if isinstance(kept, KeptPriorities)}
