"""What indexes promise besides their draws: sums of harmonic numbers, when a rank index sorts, walks without an index, memory, refusals."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replaystore.core import index_reference as reference
from replaystore.core.decay import DecayTree
from replaystore.core.extremum import ExtremumTree
from replaystore.core.harmonic import TABLE, harmonic, harmonic_table, place_at
from replaystore.core.indexes import (
    FifoIndex,
    HeapIndex,
    LifoIndex,
    NewestAnchors,
    OldestAnchors,
    PassIndex,
    ProportionalIndex,
    RankIndex,
    RecencyIndex,
)
from replaystore.core.random import seed_state
from replaystore.core.sumtree import SumTree

ALPHAS = [0.0, 0.3, 0.7, 1.0 - 1e-13, 1.0, 1.0001, 2.0, 10.0]

# -- harmonic numbers


@pytest.mark.parametrize("alpha", ALPHAS)
def test_harmonic_numbers_equal_direct_sums(alpha: float) -> None:
    table = harmonic_table(alpha)
    terms = (np.arange(1, 2_000_001, dtype=np.float64) ** -alpha).tolist()
    for n in (0, 1, 2, 1000, TABLE - 1, TABLE, TABLE + 1, TABLE + 2, 100_000, 2_000_000):
        assert harmonic(table, alpha, n) == pytest.approx(math.fsum(terms[:n]), rel=1e-13, abs=0)
    assert all(np.diff(table[:1000]) > 0) or alpha > 3


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("n", [1, 7, TABLE, TABLE + 1, 1_000_000, 10**9])
def test_places_are_the_inverse_of_harmonic_numbers(alpha: float, n: int) -> None:
    table = harmonic_table(alpha)
    total = harmonic(table, alpha, n)
    for target in [*(np.random.default_rng(0).random(200) * total), 0.0, np.nextafter(total, 0.0), total]:
        place = place_at(table, alpha, n, target)
        assert 1 <= place <= n
        slack = 1e-12 * total
        assert place == n or harmonic(table, alpha, place) > target - slack
        assert harmonic(table, alpha, place - 1) <= target + slack


# -- rank: when it sorts


def test_the_order_is_exact_again_after_as_many_changes_as_there_are_entries() -> None:
    rng, n = np.random.default_rng(1), 5000
    leaves = rng.random(n, dtype=np.float32)
    index = RankIndex(0.7)
    index.rebuild(leaves, 0, 0, n)
    sorted_at = []
    for turn in range(30):
        ids = rng.choice(n, 500, replace=False)
        leaves[ids] = rng.random(500, dtype=np.float32)
        index.refresh(leaves, 0, ids)
        keys = index._keys[: index.count]
        if np.all(np.diff(keys) <= 0):
            sorted_at.append(turn)
    assert sorted_at == [9, 19, 29]


def test_dropping_much_at_once_leaves_an_exact_order() -> None:
    leaves = np.random.default_rng(2).random(5000, dtype=np.float32)
    index = RankIndex(0.7)
    index.rebuild(leaves, 100, 100, 5100)
    index.drop(leaves, 100, 4100)
    mask = len(index._places) - 1
    ids = [4100 + ((int(slot) - 4100) & mask) for slot in index._slots[: index.count]]
    assert ids == sorted(range(4100, 5100), key=lambda i: -leaves[i - 100])


def test_keys_of_every_size_are_sorted() -> None:
    """All digits of a float32 differ somewhere: subnormal, tiny, huge, and equal in long runs."""
    rng = np.random.default_rng(3)
    leaves = np.concatenate([10.0 ** rng.uniform(-45, 38, 3000), [1e-45, 3.4e38, 1.0, 1.0]]).astype(np.float32)
    leaves = np.concatenate([leaves, np.repeat(leaves[:50], 20)])
    index = RankIndex(0.5)
    index.rebuild(leaves, 0, 0, len(leaves))
    assert index._keys[: index.count].tolist() == sorted(leaves[leaves > 0].tolist(), reverse=True)
    index.rebuild(np.ones(100, np.float32), 0, 0, 100)
    assert index.count == 100


# -- walks without an index


@settings(max_examples=150, deadline=None)
@given(data=st.data(), size=st.integers(1, 150))
def test_walks_over_the_links_equal_the_plain_model(data: st.DataObject, size: int) -> None:
    """Rows come, become anchors late, are used up and go; both walks are told of what enters, and of nothing else."""
    successor = np.zeros(size, np.int32)
    oldest, newest = OldestAnchors(), NewestAnchors()
    first = stop = 0
    for _ in range(data.draw(st.integers(1, 12))):
        stop = data.draw(st.integers(stop, size))
        first = data.draw(st.integers(first, min(stop, first + 20)))
        entered = np.array(sorted(data.draw(st.sets(st.integers(first, max(stop - 1, first)), max_size=9))), np.int64)
        entered = entered[entered < stop]
        successor[entered] = 1
        oldest.entered(entered)
        newest.entered(entered)
        successor[data.draw(st.lists(st.integers(0, size - 1), max_size=9))] = data.draw(st.sampled_from([0, -1]))
        live = {i: float(successor[i]) for i in range(first, stop)}
        n = data.draw(st.integers(0, 8))
        assert oldest.draw(successor, 0, first, stop, n).tolist() == reference.in_order(live, n, False)
        assert newest.draw(successor, 0, first, stop, n).tolist() == reference.in_order(live, n, True)


@pytest.mark.parametrize("newest", [False, True])
def test_what_is_used_up_is_not_walked_over_again(newest: bool) -> None:
    """A queue, or a stack, with one anchor in front that stays: the rows between it and the rest are looked at once."""
    size, straggler = 100_000, 99_999 if newest else 0
    successor = np.ones(size, np.int32)
    walk = NewestAnchors() if newest else OldestAnchors()
    for turn in range(1, 40):
        ids = walk.draw(successor, 0, 0, size, 1001)
        assert ids[0] == straggler
        assert walk._high - walk._low == 1000 * (turn - 1)
        successor[ids[1:]] = 0
    back = int(ids[500])
    successor[back] = 1
    walk.entered(np.array([back]))
    assert walk.draw(successor, 0, 0, size, 2).tolist() == [straggler, back]
    successor[straggler] = 0
    assert walk.draw(successor, 0, 0, size, 1).tolist() == [back]
    assert walk._edge == back + newest


def test_a_stack_that_is_filled_and_emptied() -> None:
    """Two taken for every one that is put on: what is used up lies between the two, and grows."""
    successor, walk, stop = np.zeros(4000, np.int32), NewestAnchors(), 1000
    successor[:1000] = 1
    for _ in range(900):
        successor[stop] = 1
        walk.entered(np.array([stop]))
        stop += 1
        expected = np.flatnonzero(successor)[::-1][:2].tolist()
        ids = walk.draw(successor, 0, 0, stop, 2)
        assert ids.tolist() == expected
        assert walk._high - walk._low == ids[0] - ids[1] - 1
        successor[ids] = 0


# -- memory and refusals


@pytest.mark.parametrize(
    ("index", "most"),
    [
        (ProportionalIndex(), 0.15),
        (FifoIndex(), 0.15),
        (LifoIndex(), 0.15),
        (HeapIndex(True), 0.09),
        (RankIndex(0.7), 12.0),
        (RecencyIndex(1e5), 0.28),
        (PassIndex(), 0.13),
    ],
)
def test_memory_per_step(index: Any, most: float) -> None:
    n = 1 << 20
    index.rebuild(np.ones(n, np.float32), 0, 0, n)
    assert index.count == n
    assert index.nbytes <= most * n


@pytest.mark.parametrize(
    "index",
    [ProportionalIndex(), FifoIndex(), HeapIndex(False), RankIndex(0.7), RecencyIndex(None), PassIndex(), ExtremumTree(True), SumTree()],
)
def test_leaves_that_do_not_cover_the_window_are_refused(index: Any) -> None:
    with pytest.raises(ValueError, match="reach from 10 to 30"):
        index.rebuild(np.ones(19, np.float32), 10, 10, 30)
    with pytest.raises(ValueError, match="float32"):
        type(index).rebuild(index, np.ones(30), 10, 10, 30)


def test_marks_that_do_not_cover_the_window_are_refused() -> None:
    index = PassIndex()
    index.rebuild(np.zeros(10, np.float32), 0, 0, 10)
    with pytest.raises(ValueError, match="marks must reach to 10"):
        index.draw(np.zeros(10, np.float32), 0, np.ones(9, np.int32), seed_state(0), 1, 9)


@pytest.mark.parametrize(
    "make", [lambda: ExtremumTree(True), lambda: ExtremumTree(False), lambda: DecayTree(3000.0), lambda: DecayTree(None)]
)
@pytest.mark.parametrize("first", [1000, 2**40 - 100_000])  # the second: across a border of every level
@pytest.mark.parametrize("size", [64, 4097, 400_000])
def test_growing_step_by_step_gives_the_bits_of_a_rebuild(make: Any, size: int, first: int) -> None:
    rng = np.random.default_rng(size)
    leaves = rng.random(size + 100, dtype=np.float32) * (rng.random(size + 100) < 0.5)
    grown, built = make(), make()
    grown.rebuild(leaves, first, first, first)
    stops = np.unique(np.geomspace(1, size, 40).astype(int))
    for start, stop in zip([0, *stops[:-1]], stops, strict=True):
        grown.extend(leaves, first, first, int(first + stop))
        grown.refresh(leaves, first, first + rng.permutation(np.arange(start, stop)))
    grown.drop(leaves, first, first + 50)
    built.rebuild(leaves, first, first + 50, first + size)
    assert [getattr(grown, name) for name in grown.__slots__] == [getattr(built, name) for name in built.__slots__]
    if isinstance(grown, ExtremumTree):
        order = np.argsort(-grown._sign * leaves[50:size], kind="stable")
        expected = first + 50 + order[leaves[50 + order] > 0][:300]
        assert grown.take(leaves, first, 300).tolist() == built.take(leaves, first, 300).tolist() == expected.tolist()
    elif size > 64:
        draws = [tree.draw(leaves, first, seed_state(3), 500).tolist() for tree in (grown, built)]
        assert draws[0] == draws[1]


def test_cumulative_masses_find_their_ids() -> None:
    leaves = np.array([0, 2, 0, 1, 0.5, 0], np.float32)
    tree = SumTree()
    tree.rebuild(leaves, 70, 70, 76)
    assert tree.find(leaves, 70, np.array([0.0, 1.9, 2.0, 2.9, 3.0, 3.4, 3.5, 99.0])).tolist() == [71, 71, 73, 73, 74, 74, 74, 74]
    with pytest.raises(ValueError, match="nothing to draw"):
        SumTree().find(leaves, 0, np.zeros(1))


def test_extremes_of_a_window_without_any() -> None:
    tree = ExtremumTree(True)
    tree.rebuild(np.zeros(100, np.float32), 0, 0, 100)
    assert tree.value == 0.0
    assert tree.take(np.zeros(100, np.float32), 0, 5).tolist() == []
    tree.rebuild(np.zeros(0, np.float32), 7, 7, 7)
    assert tree.take(np.zeros(0, np.float32), 7, 5).tolist() == []


def test_a_batch_of_many_passes_walks_over_the_window_once(monkeypatch: pytest.MonkeyPatch) -> None:
    walks = []
    fill = SumTree.fill
    monkeypatch.setattr(SumTree, "fill", lambda *arguments: (walks.append(1), fill(*arguments))[1])
    index, leaves, successor = PassIndex(), np.zeros(100_000, np.float32), np.zeros(100_000, np.int32)
    successor[[7, 99_000]] = 1
    index.rebuild(leaves, 0, 0, 100_000)
    ids, _ = index.draw(leaves, 0, successor, seed_state(1), 60_001, 2)
    assert len(walks) == 1
    assert index.refills == 30_001
    assert (np.sort(ids[:60_000].reshape(-1, 2), axis=1) == [7, 99_000]).all()
    assert index.count == 1
