"""The sum tree against plain Python, bit for bit, over windows that slide, grow and start anywhere."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from replaystore.core import random_reference, reference
from replaystore.core import sumtree_kernels as kernels
from replaystore.core.random import seed_state
from replaystore.core.sumtree import SumTree

MASSES = st.sampled_from([0.0, 1e-38, 1e-6, 0.1, 1.0, 3.7, 1e6, 3e38])
POISON = np.float32(np.nan)


class SlidingWindow(RuleBasedStateMachine):
    """Extends, updates, drops and rebuilds; dropped leaves are poisoned, because the tree must never look at them again."""

    @initialize(first=st.sampled_from([0, 1, 63, 64, 4095, 2**40 + 17, 2**62 - 5]))
    def start(self, first: int) -> None:
        self.first = self.stop = first
        self.leaves: dict[int, float] = {}
        self.tree = SumTree()
        self.tree.rebuild(*self.column(), first, first)

    def column(self, slack: int = 0) -> tuple[Any, int]:
        origin = max(self.first - slack, 0)
        values = np.full(self.stop - origin + 3, POISON, np.float32)
        for i in range(self.first, self.stop):
            values[i - origin] = self.leaves[i]
        return values, origin

    @rule(rows=st.sampled_from([1, 2, 63, 64, 65, 200, 5000]))
    def extend(self, rows: int) -> None:
        self.leaves.update(dict.fromkeys(range(self.stop, self.stop + rows), 0.0))
        self.stop += rows
        self.tree.extend(*self.column(), self.first, self.stop)

    @rule(data=st.data(), masses=st.lists(MASSES, min_size=1, max_size=80), slack=st.integers(0, 100))
    def update(self, data: st.DataObject, masses: list[float], slack: int) -> None:
        if self.stop == self.first:
            return
        places = st.integers(self.first, self.stop - 1)
        ids = data.draw(st.lists(places, min_size=len(masses), max_size=len(masses)))
        self.leaves.update((i, float(np.float32(mass))) for i, mass in zip(ids, masses, strict=True))
        strangers = [self.stop, self.stop + 10**6, self.first - 1, -1]
        self.tree.refresh(*self.column(slack), np.array(ids + strangers, np.int64))

    @rule(data=st.data(), mass=MASSES)
    def update_range(self, data: st.DataObject, mass: float) -> None:
        a, b = sorted(data.draw(st.tuples(st.integers(self.first, self.stop), st.integers(self.first, self.stop))))
        self.leaves.update(dict.fromkeys(range(a, b), float(np.float32(mass))))
        self.tree.refresh_range(*self.column(), a, b)

    @rule(rows=st.sampled_from([1, 2, 63, 64, 65, 1000, 10**6]))
    def drop(self, rows: int) -> None:
        self.first = min(self.first + rows, self.stop)
        self.tree.drop(*self.column(50), self.first)

    @rule()
    def rebuild(self) -> None:
        self.tree = SumTree()
        self.tree.rebuild(*self.column(7), self.first, self.stop)

    @rule(seed=st.integers(0, 100), n=st.integers(1, 20), stratified=st.booleans())
    def draw(self, seed: int, n: int, stratified: bool) -> None:
        leaves, origin = self.column()
        state, words = seed_state(seed), random_reference.seed_words(seed)
        if self.tree.total == 0.0:
            with pytest.raises(ValueError, match="nothing to draw"):
                self.tree.draw(leaves, origin, state, n, stratified)
            return
        ids, masses = self.tree.draw(leaves, origin, state, n, stratified)
        assert ids.tolist() == reference.draw(self.leaves, self.first, self.stop, words, n, stratified)
        assert masses.tolist() == [self.leaves[i] for i in ids]
        assert masses.min() > 0.0
        assert state.tolist() == words

    @invariant()
    def total_is_the_reference_to_the_last_bit(self) -> None:
        assert self.tree.total == reference.total(self.leaves, self.first, self.stop)
        exact = math.fsum(self.leaves[i] for i in range(self.first, self.stop))
        assert self.tree.total == pytest.approx(exact, rel=1e-13, abs=0.0)


SlidingWindow.TestCase.settings = settings(max_examples=60, stateful_step_count=20, deadline=None)
test_sliding_window = SlidingWindow.TestCase


@pytest.mark.parametrize("first", [1000, 2**40 - 100_000])  # the second: across a border of every level
@pytest.mark.parametrize("size", [1, 64, 4096, 4097, 400_000])
def test_growing_step_by_step_gives_the_bits_of_a_rebuild(size: int, first: int) -> None:
    leaves = np.random.default_rng(size).random(size + 100, dtype=np.float32)
    grown, built = SumTree(), SumTree()
    grown.rebuild(leaves, first, first, first)
    stops = np.unique(np.geomspace(1, size, 40).astype(int))
    for start, stop in zip([0, *stops[:-1]], stops, strict=True):
        grown.extend(leaves, first, first, int(first + stop))
        grown.refresh_range(leaves, first, int(first + start), int(first + stop))
    built.rebuild(leaves, first, first, first + size)
    assert grown.total == built.total
    draws = [tree.draw(leaves, first, seed_state(3), 500)[0].tolist() for tree in (grown, built)]
    assert draws[0] == draws[1]


@pytest.mark.parametrize("whole", [False, True])
def test_places_that_come_into_use_again_start_at_zero(whole: bool) -> None:
    """The rings hold what was dropped; new leaves count as 0 all the same, whether the window ran empty in between or not."""
    rows, tree = 64 * 64, SumTree()
    tree.rebuild(np.ones(rows, np.float32), 0, 0, rows)
    first = rows if whole else rows - 1
    leaves = np.array([0.0 if whole else 1.0, *np.zeros(rows)], np.float32)
    tree.drop(leaves, rows - 1, first)
    tree.extend(leaves, rows - 1, first, rows + rows - 64)
    leaves[-70] = 3.0
    tree.refresh(leaves, rows - 1, np.array([rows - 1 + len(leaves) - 70]))
    assert tree.total == (3.0 if whole else 4.0)


def test_a_target_that_rounding_led_past_the_end_falls_on_the_last_child_with_mass() -> None:
    masses = np.array([0.0, 1.0, 0.0, 2.0, 0.0, 9.0], np.float64)
    assert kernels._descend(masses, 0, 0, 5, 2.5) == (3, 1.5)
    assert kernels._descend(masses, 0, 0, 5, 3.0) == (3, 2.0)
    assert kernels._descend(masses, 0, 0, 5, 0.0) == (1, 0.0)
    assert kernels._descend(masses, 2, 0, 3, 7.0)[0] == 1


def test_adversarial_updates_leave_no_drift() -> None:
    """10^7 updates, tiny next to huge, zero, all zero and back: the root stays within 1e-9 of the exact sum (here: 1e-13).

    And whatever is drawn has mass.
    """
    n, turns, rng = 5000, 2000, np.random.default_rng(5)
    leaves, tree, state = np.zeros(n, np.float32), SumTree(), seed_state(1)
    tree.rebuild(leaves, 0, 0, n)
    for turn in range(turns):
        ids = rng.integers(0, n, n)  # some several times: the last value stays
        values = (10.0 ** rng.uniform(-30, -20 if turn % 3 == 0 else 30, n)).astype(np.float32)
        values[rng.random(n) < (0.2 if turn % 7 else 0.999)] = 0.0
        leaves[ids] = values
        if turn % 50 == 49:
            leaves[:], ids = 0.0, np.arange(n)
        tree.refresh(leaves, 0, ids)
        exact = math.fsum(leaves.tolist())
        assert abs(tree.total - exact) <= 1e-13 * exact
        assert exact or turn % 50 == 49 or turn % 7 == 0
        if exact:
            drawn, masses = tree.draw(leaves, 0, state, 64, stratified=turn % 2 == 0)
            assert masses.min() > 0.0
            assert np.array_equal(leaves[drawn].astype(np.float64), masses)


def test_the_window_slides_without_growing_memory() -> None:
    rows, window = 1000, 20_000
    leaves, tree, origin = np.ones(window + rows, np.float32), SumTree(), 2**50
    tree.rebuild(leaves, origin, origin, origin)
    sizes = set()
    for block in range(200):
        stop = origin + (block + 1) * rows
        first = max(origin, stop - window)
        tree.extend(leaves, first, first, stop)
        tree.refresh_range(leaves, first, stop - rows, stop)
        tree.drop(leaves, first, first)
        assert tree.total == stop - first
        if block > 40:
            sizes.add(tree.nbytes)
    assert len(sizes) == 1


def test_memory_is_below_a_byte_per_step() -> None:
    n = 1 << 20
    tree = SumTree()
    tree.rebuild(np.ones(n, np.float32), 0, 0, n)
    assert tree.total == n
    assert tree.nbytes < 0.3 * n


def test_a_window_that_the_leaves_do_not_cover_is_refused() -> None:
    tree = SumTree()
    with pytest.raises(ValueError, match="reach from 10 to 30"):
        tree.rebuild(np.ones(19, np.float32), 10, 10, 30)
    with pytest.raises(ValueError, match="float32"):
        tree.rebuild(np.ones(30), 10, 10, 30)  # type: ignore[arg-type]
