"""Rings that become longer where they are, against rings that are built as long as they must be."""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replaystore.core import rings
from replaystore.core.decay import DecayTree
from replaystore.core.extremum import ExtremumTree
from replaystore.core.indexes import RankIndex, rank, tally
from replaystore.core.indexes.tally import Tally
from replaystore.core.random import seed_state
from replaystore.core.sumtree import SumTree
from replaystore.growing import reserve, spread, zeros

TREES = [SumTree, lambda: ExtremumTree(True), lambda: DecayTree(3000.0)]
RESERVATIONS = [(64, 1 << 12), (0, 64), (0, 256), (128, 512)]
"""Nodes copied at most and nodes reserved: all in place, never, once or twice before new memory is needed."""

steps = st.lists(st.tuples(st.sampled_from([1, 64, 1000, 5000, 20_000]), st.sampled_from([0, 0, 1, 700, 19_000])), min_size=1, max_size=12)


def state_of(part: Any, leaves: Any, origin: int) -> list[Any]:
    """Everything that can be asked of it."""
    if isinstance(part, Tally):
        return [part.count]
    if isinstance(part, ExtremumTree):
        return [part.value, part.take(leaves, origin, 200).tolist()]
    found: list[Any] = [part.total]
    if part.total:
        drawn = part.draw(leaves, origin, seed_state(3), 200)
        found += [drawn[0].tolist()] if isinstance(drawn, tuple) else [drawn.tolist()]
    return found


@settings(max_examples=60, deadline=None)
@given(
    make=st.sampled_from([*TREES, Tally]),
    reservation=st.sampled_from(RESERVATIONS),
    first=st.sampled_from([0, 4095, 2**40 - 100_000]),
    moves=steps,
    seed=st.integers(0, 99),
)
def test_growing_in_place_gives_the_bits_of_a_rebuild(
    make: Any, reservation: tuple[int, int], first: int, moves: list[tuple[int, int]], seed: int
) -> None:
    rng, begin, stop = np.random.default_rng(seed), first, first
    total = sum(rows for rows, _ in moves)
    leaves = rng.random(total, dtype=np.float32) * (rng.random(total) < 0.6)
    with pytest.MonkeyPatch.context() as patch:
        for module in (rings, tally):
            patch.setattr(module, "MOST_COPIED", reservation[0])
            patch.setattr(module, "RESERVED", reservation[1])
        grown = make()
        grown.rebuild(leaves, begin, first, first)
        for rows, dropped in moves:
            start, stop = stop, stop + rows
            first = min(first + dropped, stop)
            grown.extend(leaves, begin, first, stop)
            grown.refresh(leaves, begin, np.arange(start, stop))
    built = make()
    built.rebuild(leaves, begin, first, stop)
    assert state_of(grown, leaves, begin) == state_of(built, leaves, begin)
    assert grown.nbytes <= 2 * built.nbytes or grown.nbytes < total  # a ring once long stays so


@settings(max_examples=200, deadline=None)
@given(
    bits=st.tuples(st.integers(3, 6), st.integers(0, 3)),
    begin=st.integers(0, 300),
    count=st.integers(0, 64),
    bases=st.tuples(st.integers(0, 9), st.integers(0, 9)),
    same=st.booleans(),
)
def test_spread_puts_every_element_where_it_is_looked_for(
    bits: tuple[int, int], begin: int, count: int, bases: tuple[int, int], same: bool
) -> None:
    short, long = 1 << bits[0], 1 << (bits[0] + bits[1])
    end, old_base, base = begin + min(count, short), bases[0], bases[0] if same else bases[1]
    old = np.full(20 + long, -1)
    for element in range(begin, end):
        old[old_base + (element & (short - 1))] = element
    new = old if same else np.full(20 + long, -1)
    spread(old, old_base, short - 1, new, base, long - 1, begin, end)
    assert [int(new[base + (element & (long - 1))]) for element in range(begin, end)] == list(range(begin, end))


@pytest.mark.parametrize("make", [SumTree, lambda: DecayTree(None), Tally])
def test_a_window_that_only_grows_moves_nothing(make: Any) -> None:
    part, n, leaves = make(), 64 * 2**19, np.zeros(2 * 64 * 2**19 + 1, np.float32)
    part.rebuild(leaves, 0, 0, n)
    before = part._counts if isinstance(part, Tally) else part._rings[0]
    part.extend(leaves, 0, 0, 2 * n + 1)
    after = part._counts if isinstance(part, Tally) else part._rings[0]
    assert after.ctypes.data == before.ctypes.data
    assert n // 64 < part.nbytes < 2 * n


@settings(max_examples=25, deadline=None)
@given(reservation=st.sampled_from(RESERVATIONS), first=st.sampled_from([0, 4095, 2**40 - 100_000]), moves=steps, seed=st.integers(0, 99))
def test_a_rank_index_that_grows_in_place_is_the_one_that_is_copied(
    reservation: tuple[int, int], first: int, moves: list[tuple[int, int]], seed: int
) -> None:
    begin, stop = first, first
    total = sum(rows for rows, _ in moves)
    leaves = np.random.default_rng(seed).random(total, dtype=np.float32)
    copied, grown = RankIndex(0.7), RankIndex(0.7)
    for rows, dropped in moves:
        start, stop = stop, stop + rows
        first = min(first + dropped, stop)
        for index, sizes in ((copied, (1 << 30, 0)), (grown, reservation)):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(rank, "MOST_COPIED", sizes[0])
                patch.setattr(rank, "RESERVED", sizes[1])
                index.extend(leaves, begin, first, stop)
                index.refresh(leaves, begin, np.arange(start, stop))
    assert (grown.count, grown.nbytes) == (copied.count, copied.nbytes)
    assert grown._keys[: grown.count].tolist() == copied._keys[: grown.count].tolist()
    assert grown._slots[: grown.count].tolist() == copied._slots[: grown.count].tolist()
    assert grown._places.tolist() == copied._places.tolist()
    members = first + np.flatnonzero(leaves[first - begin :] > 0)
    assert sorted(grown._slots[: grown.count].tolist()) == sorted((members & (len(grown._places) - 1)).tolist())
    assert np.array_equal(grown._keys[grown._places[members & (len(grown._places) - 1)] - 1], leaves[members - begin])


def test_where_addresses_are_short_rings_are_as_long_as_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Short(mmap.mmap):
        def __new__(cls, number: int, length: int, **options: Any) -> Any:
            if length > 1 << 22:
                raise OSError(12, "Cannot allocate memory")
            return super().__new__(cls, number, length, **options)

    monkeypatch.setattr(mmap, "mmap", Short)
    leaves = np.ones(64 << 15, np.float32)
    tree, count = SumTree(), Tally()
    for part in (tree, count):
        part.rebuild(leaves, 0, 0, len(leaves) // 2)
        part.extend(leaves, 0, 0, len(leaves))
        part.refresh(leaves, 0, np.arange(len(leaves) // 2, len(leaves)))
    assert tree.total == count.count == len(leaves)
    assert len(reserve(1 << 19, 1 << 40, np.uint8)) == 1 << 19
    with pytest.raises(MemoryError, match="ulimit -v"):
        zeros(1 << 40, np.uint8)


def test_long_zeros_take_memory_as_they_are_used() -> None:
    array = zeros(1 << 28, np.float64)
    array[1 << 27] = 1.0
    assert array[(1 << 27) + 1] == 0.0
    assert zeros(8, np.uint8).tolist() == [0] * 8
