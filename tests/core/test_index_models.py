"""Every index against plain Python, over windows that slide, grow and start anywhere, while leaves enter, change and leave."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from replaystore.core import index_reference as reference
from replaystore.core import random_reference
from replaystore.core.indexes import FifoIndex, HeapIndex, LifoIndex, PassIndex, ProportionalIndex, RankIndex, RecencyIndex
from replaystore.core.random import seed_state

LEAVES = st.sampled_from([0.0, 0.0, 1e-38, 0.1, 1.0, 1.0, 3.7, 1e6, 3e38])
FIRSTS = st.sampled_from([0, 1, 63, 64, 4095, 2**40 + 17, 2**62 - 5])
POISON = np.float32(np.nan)
INDEXES = {
    "proportional": lambda: ProportionalIndex(),
    "fifo": FifoIndex,
    "lifo": LifoIndex,
    "max": lambda: HeapIndex(True),
    "min": lambda: HeapIndex(False),
    "rank": lambda: RankIndex(0.7),
    "recency": lambda: RecencyIndex(20.0, 3),
    "fast": lambda: RecencyIndex(0.01),
    "combined": lambda: RecencyIndex(None, 1),
}


def places_of(index: RankIndex) -> list[int]:
    """The ids by place; and the heap is one, and knows where everything is."""
    mask = len(index._places) - 1
    ids = [index._first + ((int(slot) - index._first) & mask) for slot in index._slots[: index._size]]
    assert [int(index._places[i & mask]) for i in ids] == list(range(1, len(ids) + 1))
    assert np.count_nonzero(index._places) == len(ids)
    keys = index._keys[: index._size]
    assert all(keys[(k + 1) // 2 - 1] >= keys[k] for k in range(1, len(keys)))
    return ids


class Sliding(RuleBasedStateMachine):
    """All indexes over the same leaves. What is dropped is poisoned: it must never be looked at again."""

    @initialize(first=FIRSTS)
    def start(self, first: int) -> None:
        self.first = self.stop = first
        self.leaves: dict[int, float] = {}
        self.indexes: dict[str, Any] = {name: make() for name, make in INDEXES.items()}
        self.each("rebuild", first, first)

    def column(self, slack: int = 0) -> tuple[Any, int]:
        origin = max(self.first - slack, 0)
        values = np.full(self.stop - origin + 3, POISON, np.float32)
        for i in range(self.first, self.stop):
            values[i - origin] = self.leaves[i]
        return values, origin

    def each(self, call: str, *args: Any) -> None:
        for index in self.indexes.values():
            getattr(index, call)(*self.column(5), *args)

    @rule(rows=st.sampled_from([1, 2, 63, 64, 65, 200, 4200]))
    def extend(self, rows: int) -> None:
        self.leaves.update(dict.fromkeys(range(self.stop, self.stop + rows), 0.0))
        self.stop += rows
        self.each("extend", self.first, self.stop)

    @rule(data=st.data(), new=st.lists(LEAVES, min_size=1, max_size=80))
    def update(self, data: st.DataObject, new: list[float]) -> None:
        if self.stop == self.first:
            return
        ids = data.draw(st.lists(st.integers(self.first, self.stop - 1), min_size=len(new), max_size=len(new)))
        self.leaves.update((i, float(np.float32(leaf))) for i, leaf in zip(ids, new, strict=True))
        self.each("refresh", np.array([*ids, self.stop, self.stop + 10**6, self.first - 1, -1], np.int64))

    @rule(data=st.data(), leaf=LEAVES)
    def update_range(self, data: st.DataObject, leaf: float) -> None:
        a, b = sorted(data.draw(st.tuples(st.integers(self.first, self.stop), st.integers(self.first, self.stop))))
        self.leaves.update(dict.fromkeys(range(a, b), float(np.float32(leaf))))
        self.each("refresh", np.arange(a, b))

    @rule(rows=st.sampled_from([1, 2, 63, 64, 65, 1000]))
    def drop(self, rows: int) -> None:
        self.first = min(self.first + rows, self.stop)
        self.leaves = {i: leaf for i, leaf in self.leaves.items() if i >= self.first}
        self.each("drop", self.first)

    @rule(rows=st.sampled_from([1, 70, 10**6]))
    def leave_a_gap(self, rows: int) -> None:
        """The window goes on beyond its end: all is gone, and nothing of it comes back."""
        self.first = self.stop = self.stop + rows
        self.leaves = {}
        self.each("extend", self.first, self.stop)

    @rule(name=st.sampled_from(sorted(INDEXES)))
    def rebuild(self, name: str) -> None:
        self.indexes[name] = INDEXES[name]()
        self.indexes[name].rebuild(*self.column(7), self.first, self.stop)
        if name == "rank":
            assert [self.leaves[i] for i in places_of(self.indexes[name])] == sorted(
                (leaf for leaf in self.leaves.values() if leaf > 0), reverse=True
            )

    @rule(seed=st.integers(0, 100), n=st.integers(1, 20))
    def draw(self, seed: int, n: int) -> None:
        count = len(reference.eligible(self.leaves))
        for name, index in self.indexes.items():
            if count < (n if name in ("fifo", "lifo", "max", "min") else 1):
                with pytest.raises(ValueError, match=r"nothing to draw|cannot be drawn"):
                    index.draw(*self.column(), seed_state(seed), n)
                continue
            state = seed_state(seed)
            ids, probabilities = index.draw(*self.column(), state, n)
            assert ids.dtype == np.int64
            assert probabilities.dtype == np.float64
            words = random_reference.seed_words(seed)
            getattr(self, f"check_{name}")(index, ids.tolist(), probabilities.tolist(), n, words)
            assert name in ("recency", "fast", "combined") or state.tolist() == words

    def check_proportional(self, index: ProportionalIndex, ids: list[int], p: list[float], n: int, words: list[int]) -> None:
        assert all(self.leaves[i] > 0 for i in ids)
        assert p == pytest.approx([self.leaves[i] / math.fsum(self.leaves.values()) for i in ids], rel=1e-12, abs=0)
        for _ in range(n):
            random_reference.next_u64(words)

    def check_fifo(self, index: FifoIndex, ids: list[int], p: list[float], n: int, words: list[int]) -> None:
        assert ids == reference.in_order(self.leaves, n, False)
        assert p == [1.0] * n

    def check_lifo(self, index: LifoIndex, ids: list[int], p: list[float], n: int, words: list[int]) -> None:
        assert ids == reference.in_order(self.leaves, n, True)
        assert p == [1.0] * n

    def check_max(self, index: HeapIndex, ids: list[int], p: list[float], n: int, words: list[int]) -> None:
        assert ids == reference.extremes(self.leaves, n, True)
        assert index.value == self.leaves[ids[0]]
        assert p == [1.0] * n

    def check_min(self, index: HeapIndex, ids: list[int], p: list[float], n: int, words: list[int]) -> None:
        assert ids == reference.extremes(self.leaves, n, False)
        assert index.value == self.leaves[ids[0]]

    def check_rank(self, index: RankIndex, ids: list[int], p: list[float], n: int, words: list[int]) -> None:
        order = places_of(index)
        if len(order) <= 300:
            places = reference.places(0.7, len(order), words, n, True)
            assert ids == [order[k - 1] for k in places]
        else:
            places = [order.index(i) + 1 for i in ids]
            for _ in range(n):
                random_reference.next_u64(words)
        total = reference.harmonic(0.7, len(order))
        assert p == pytest.approx([k**-0.7 / total for k in places], rel=1e-12)

    def check_recency(self, index: RecencyIndex, ids: list[int], p: list[float], n: int, words: list[int]) -> None:
        self.check_shares(ids, p, n, 20.0, 3)

    def check_fast(self, index: RecencyIndex, ids: list[int], p: list[float], n: int, words: list[int]) -> None:
        self.check_shares(ids, p, n, 0.01, 0)
        assert set(ids) == {max(reference.eligible(self.leaves))}

    def check_combined(self, index: RecencyIndex, ids: list[int], p: list[float], n: int, words: list[int]) -> None:
        self.check_shares(ids, p, n, None, 1)

    def check_shares(self, ids: list[int], p: list[float], n: int, half_life: float | None, newest: int) -> None:
        shares = reference.recency_shares(self.leaves, half_life, newest, n)
        assert p == pytest.approx([shares[i] for i in ids], rel=1e-11, abs=0)
        first = reference.in_order(self.leaves, min(newest, n), True)
        assert ids[: len(first)] == first

    @invariant()
    def counts_and_totals_are_right(self) -> None:
        count = len(reference.eligible(self.leaves))
        for name, index in self.indexes.items():
            assert index.count == count, name
            assert (index.total > 0) == (count > 0), name
        places_of(self.indexes["rank"])
        assert count > 0 or self.indexes["max"].value == self.indexes["min"].value == 0.0


Sliding.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
test_sliding = Sliding.TestCase


class Passing(RuleBasedStateMachine):
    """Passes against a list of what is still to come, with the same random numbers."""

    @initialize(first=FIRSTS, seed=st.integers(0, 100))
    def start(self, first: int, seed: int) -> None:
        self.first = self.stop = first
        self.anchors: dict[int, int] = {}
        self.to_come: set[int] = set()
        self.state, self.words = seed_state(seed), random_reference.seed_words(seed)
        self.index, self.refills = PassIndex(), 0
        self.leaves, self.successor, self.origin = np.zeros(100_000, np.float32), np.zeros(100_000, np.int32), first
        self.index.rebuild(self.leaves, self.origin, first, first)

    @rule(rows=st.sampled_from([1, 5, 64, 300]))
    def extend(self, rows: int) -> None:
        self.anchors.update(dict.fromkeys(range(self.stop, self.stop + rows), 0))
        self.stop += rows
        self.index.extend(self.leaves, self.origin, self.first, self.stop)

    @rule(data=st.data(), count=st.integers(1, 60), enters=st.booleans())
    def enter_or_leave(self, data: st.DataObject, count: int, enters: bool) -> None:
        if self.stop == self.first:
            return
        ids = np.array(data.draw(st.lists(st.integers(self.first, self.stop - 1), min_size=count, max_size=count)), np.int64)
        ids = np.array([i for i in ids.tolist() if bool(self.anchors[i]) != enters], np.int64)
        self.successor[ids - self.origin] = enters
        self.leaves[ids - self.origin] = enters
        self.anchors.update(dict.fromkeys(ids.tolist(), int(enters)))
        self.to_come = self.to_come | set(ids.tolist()) if enters else self.to_come - set(ids.tolist())
        self.index.refresh(self.leaves, self.origin, ids)

    @rule(rows=st.sampled_from([1, 64, 100]))
    def drop(self, rows: int) -> None:
        self.first = min(self.first + rows, self.stop)
        self.anchors = {i: value for i, value in self.anchors.items() if i >= self.first}
        self.to_come = {i for i in self.to_come if i >= self.first}
        self.leaves[: self.first - self.origin] = POISON
        self.index.drop(self.leaves, self.origin, self.first)

    @rule()
    def restart(self) -> None:
        self.index, self.refills = PassIndex(), 0
        self.index.rebuild(self.leaves, self.origin, self.first, self.stop)

    @rule(n=st.integers(0, 100))
    def draw(self, n: int) -> None:
        anchors = sum(self.anchors.values())
        if n and not anchors:
            with pytest.raises(ValueError, match="nothing to draw"):
                self.index.draw(self.leaves, self.origin, self.successor, self.state, n, anchors)
            self.refills = self.index.refills
            return
        expected: list[int] = []
        while len(expected) < n:
            if not self.to_come:
                self.to_come, self.refills = {i for i, anchor in self.anchors.items() if anchor}, self.refills + 1
            part = reference.take_pass(sorted(self.to_come), self.words, min(n - len(expected), len(self.to_come)))
            expected += part
            self.to_come -= set(part)
        ids, probabilities = self.index.draw(self.leaves, self.origin, self.successor, self.state, n, max(anchors, 1))
        assert ids.tolist() == expected
        assert probabilities.tolist() == [1 / max(anchors, 1)] * n
        assert self.state.tolist() == self.words

    @invariant()
    def leaves_say_what_is_to_come(self) -> None:
        live = self.leaves[self.first - self.origin : self.stop - self.origin]
        assert (self.first + np.flatnonzero(live > 0)).tolist() == sorted(self.to_come)
        drawn = {i for i, anchor in self.anchors.items() if anchor} - self.to_come
        assert (self.first + np.flatnonzero(np.signbit(live))).tolist() == sorted(drawn)
        assert self.index.count == len(self.to_come)
        assert self.index.refills == self.refills


Passing.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
test_passing = Passing.TestCase
