"""Uniform and prioritized draws: exact distributions, and updates that touch what they should and nothing else.

All seeds are fixed; `tests.core.statistics` says how often a right sampler would fail.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replaystore.core.indexes import PrioritizedIndex, UniformIndex, sanitise
from replaystore.core.random import seed_state
from tests.core.statistics import check_counts, check_means, strata

ORIGIN = 5_000_000_000


# -- uniform


@pytest.mark.parametrize(("every", "n"), [(1, 256), (2, 256), (97, 256), (1000, 1), (1000, 50)])
def test_uniform_draws_are_uniform_over_the_anchors(every: int, n: int) -> None:
    """10^6 draws in calls of `n`: dense tables are drawn by rejection, sparse ones by rank, and calls in between by both."""
    rows, first = 3000, ORIGIN + 7
    successor = np.zeros(rows + 20, np.int32)
    anchors = np.arange(7 + 3, 7 + rows, every)
    successor[anchors] = 1 + np.arange(len(anchors)) % 5
    successor[:7] = successor[7 + rows :] = 1  # outside the window: never to be drawn
    state, counts = seed_state(2), np.zeros(len(successor), np.int64)
    calls = 1_000_000 // n if n > 1 else 20_000
    for _ in range(calls):
        ids = UniformIndex.draw(successor, ORIGIN, first, first + rows, len(anchors), state, n)
        np.add.at(counts, ids - ORIGIN, 1)
    assert counts[anchors].sum() == calls * n  # nothing but anchors
    check_counts(counts[anchors], np.full(len(anchors), 1 / len(anchors)))


def test_one_anchor_among_a_million_rows_is_found() -> None:
    successor = np.zeros(1_000_000, np.int32)
    successor[765_432] = 1
    ids = UniformIndex.draw(successor, ORIGIN, ORIGIN, ORIGIN + len(successor), 1, seed_state(0), 256)
    assert ids.tolist() == [ORIGIN + 765_432] * 256


@pytest.mark.parametrize("claimed", [0, 5])
def test_no_anchor_is_an_error_whatever_the_count_says(claimed: int) -> None:
    with pytest.raises(ValueError, match="nothing to draw"):
        UniformIndex.draw(np.zeros(10, np.int32), 0, 0, 10, claimed, seed_state(0), 4)
    with pytest.raises(ValueError, match="nothing to draw"):
        UniformIndex.draw(np.zeros(10, np.int32), 0, 4, 4, claimed, seed_state(0), 4)


# -- prioritized: the draws


def _index(leaves: npt.NDArray[np.float32], alpha: float = 1.0, epsilon: float = 0.0) -> PrioritizedIndex:
    index = PrioritizedIndex(alpha, epsilon)
    index.rebuild(leaves, ORIGIN, ORIGIN, ORIGIN + len(leaves))
    return index


def _masses() -> npt.NDArray[np.float32]:
    rng = np.random.default_rng(1)
    masses = (rng.random(5000, dtype=np.float32) + np.float32(0.05)) ** 3
    masses[rng.integers(0, 5000, 500)] = 0.0
    masses[[70, 71, 4000]] = [300.0, 20.0, 1000.0]
    return masses


def test_independent_draws_follow_the_masses() -> None:
    leaves = _masses()
    tree = _index(leaves)._tree
    ids, _ = tree.draw(leaves, ORIGIN, seed_state(7), 4_000_000, stratified=False)
    check_counts(np.bincount(ids - ORIGIN, minlength=len(leaves)), leaves / leaves.sum(dtype=np.float64))


def test_stratified_draws_follow_the_masses_and_stay_in_their_strata() -> None:
    """A count is a sum of independent 0/1 draws, one per stratum, each with a known chance: exact mean and variance per leaf."""
    leaves = _masses()
    index, n, calls, state = _index(leaves), 64, 16_000, seed_state(8)
    mass = leaves.astype(np.float64)
    edges = np.concatenate([[0.0], np.cumsum(mass)])
    total = edges[-1]
    counts = np.zeros(len(leaves), np.int64)
    cuts = np.arange(n + 1) * total / n
    for _ in range(calls):
        ids, probabilities = index.draw(leaves, ORIGIN, state, n)
        places = ids - ORIGIN
        counts += np.bincount(places, minlength=len(leaves))
        np.testing.assert_allclose(probabilities, mass[places] / total, rtol=1e-12)
        slack = 1e-9 * total
        assert np.all(edges[places + 1] > cuts[:-1] - slack)
        assert np.all(edges[places] < cuts[1:] + slack)
    assert counts[leaves == 0].sum() == 0
    mean, variance = strata(mass, n)
    np.testing.assert_allclose(mean, n * mass / total, atol=1e-9)
    check_means(counts, calls * mean, calls * variance)


def test_independent_draws_on_request() -> None:
    leaves = _masses()
    index = PrioritizedIndex(1.0, 0.0, stratified=False)
    index.rebuild(leaves, ORIGIN, ORIGIN, ORIGIN + len(leaves))
    shares = leaves / leaves.sum(dtype=np.float64)
    ids, probabilities = index.draw(leaves, ORIGIN, seed_state(9), 1_000_000)
    check_counts(np.bincount(ids - ORIGIN, minlength=len(leaves)), shares)
    np.testing.assert_allclose(probabilities, shares[ids - ORIGIN], rtol=1e-10)


# -- prioritized: what new anchors get, and updates


def _reference_update(
    masses: dict[int, float], anchors: set[int], ids: list[int], priorities: list[float], alpha: float, epsilon: float
) -> tuple[int, int, int]:
    applied = gone = rejected = 0
    for step, priority in zip(ids, priorities, strict=True):
        if not (0.0 <= priority < float("inf")):
            rejected += 1
        elif step not in anchors:
            gone += 1
        else:
            applied += 1
            masses[step] = (priority + epsilon) ** alpha
    return applied, gone, rejected


PRIORITIES = st.one_of(st.floats(0, 1e12), st.sampled_from([0.0, np.nan, np.inf, -np.inf, -1.0, -0.0, -1e-300]))


@settings(max_examples=150, deadline=None)
@given(
    pairs=st.lists(st.tuples(st.integers(-5, 130), PRIORITIES), max_size=60),
    alpha=st.sampled_from([0.0, 0.5, 0.6, 1.0, 2.0]),
    epsilon=st.sampled_from([1e-6, 0.1]),
    dropped=st.integers(0, 100),
    as_float32=st.booleans(),
)
def test_update_equals_the_plain_model(
    pairs: list[tuple[int, float]], alpha: float, epsilon: float, dropped: int, as_float32: bool
) -> None:
    size = 120
    successor = (np.arange(size) % 3 != 0).astype(np.int32)
    index, leaves = PrioritizedIndex(alpha, epsilon), np.zeros(size, np.float32)
    index.rebuild(leaves, ORIGIN, ORIGIN, ORIGIN)
    index.extend(leaves, ORIGIN, ORIGIN, ORIGIN + size)
    index.enter(leaves, ORIGIN, ORIGIN + np.flatnonzero(successor))
    index.drop(leaves, ORIGIN, ORIGIN + dropped)
    leaves[:dropped] = np.nan  # must not be looked at again
    anchors = {ORIGIN + i for i in range(dropped, size) if successor[i]}
    masses = dict.fromkeys(anchors, (1.0 + epsilon) ** alpha)
    ids = np.array([ORIGIN + i for i, _ in pairs], np.int64)
    values: Any = np.array([p for _, p in pairs], np.float32 if as_float32 else np.float64)
    counts = index.update(leaves, ORIGIN, successor, ORIGIN + dropped, ORIGIN + size, ids, values)
    assert counts == _reference_update(masses, anchors, ids.tolist(), values.astype(np.float64).tolist(), alpha, epsilon)
    expected = np.array([masses.get(ORIGIN + i, 0.0) for i in range(dropped, size)])
    np.testing.assert_allclose(leaves[dropped:], expected, rtol=2e-7, atol=0)
    assert np.isnan(leaves[:dropped]).all()
    assert index.total == pytest.approx(expected.sum(), rel=1e-6, abs=0)
    seen = [p for step, p in zip(ids.tolist(), values.astype(np.float64).tolist(), strict=True) if step in anchors and 0 <= p < np.inf]
    highest = max((priority + epsilon) ** alpha for priority in [1.0, *seen])
    assert index.max_mass == pytest.approx(highest, rel=2e-7)


def test_new_anchors_enter_at_the_highest_mass_seen_and_strangers_do_not() -> None:
    leaves, successor = np.zeros(100, np.float32), np.ones(100, np.int32)
    index = PrioritizedIndex(0.5, 0.0)
    index.extend(leaves, 0, 0, 50)
    index.enter(leaves, 0, np.array([3, 60, -1]))
    assert leaves[3] == 1.0
    assert np.count_nonzero(leaves) == 1
    index.update(leaves, 0, successor, 0, 50, np.array([3]), np.array([16.0]))
    index.update(leaves, 0, successor, 0, 50, np.array([3]), np.array([4.0]))
    index.enter(leaves, 0, np.array([4, 5]))
    assert leaves[3:6].tolist() == [2.0, 4.0, 4.0]
    assert index.total == 10.0


def test_extreme_priorities_stay_finite_and_drawable() -> None:
    leaves, successor = np.zeros(4, np.float32), np.ones(4, np.int32)
    index = PrioritizedIndex(2.0, 0.0)
    index.extend(leaves, 0, 0, 4)
    assert index.update(leaves, 0, successor, 0, 4, np.arange(4), np.array([1e300, 1e-300, 0.0, 5.0])) == (4, 0, 0)
    assert np.isfinite(leaves).all()
    assert leaves[1] > 0.0
    assert leaves[2] == 0.0
    ids, probabilities = index.draw(leaves, 0, seed_state(1), 1000)
    assert set(ids.tolist()) == {0}
    assert probabilities[0] == pytest.approx(1.0)
    assert np.isfinite(index.priorities(leaves)).all()


def test_all_zero_masses_cannot_be_drawn() -> None:
    leaves = np.zeros(10, np.float32)
    with pytest.raises(ValueError, match="nothing to draw"):
        _index(leaves).draw(leaves, ORIGIN, seed_state(0), 1)


@pytest.mark.parametrize("alpha", [0.3, 0.6, 1.0, 2.0])
def test_priorities_are_the_inverse_of_masses(alpha: float) -> None:
    index = PrioritizedIndex(alpha, 1e-3)
    priorities = np.array([0.0, 1e-3, 0.5, 1.0, 17.0])
    np.testing.assert_allclose(index.priorities((priorities + 1e-3) ** alpha), priorities, rtol=1e-5, atol=1e-9)
    assert index.priorities(np.zeros(2)).tolist() == [0.0, 0.0]


def test_alpha_0_makes_every_priority_1() -> None:
    assert PrioritizedIndex(0.0, 0.0).priorities(np.array([1.0, 1.0])).tolist() == [1.0, 1.0]


def test_arrays_of_different_length_are_refused() -> None:
    leaves = np.ones(4, np.float32)
    with pytest.raises(ValueError, match="of one length"):
        _index(leaves).update(leaves, ORIGIN, np.ones(4, np.int32), ORIGIN, ORIGIN + 4, np.arange(3), np.ones(2))


# -- after a crash


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([0.0, -1.0, np.nan, np.inf, -np.inf, 0.5, 1e-30]), st.sampled_from([0, 1, 7])), max_size=100))
def test_sanitise_equals_the_plain_model(rows: list[tuple[float, int]]) -> None:
    leaves = np.array([9.0, *(leaf for leaf, _ in rows), -9.0], np.float32)
    successor = np.array([0, *(distance for _, distance in rows), 0], np.int32)
    before = leaves.copy()
    wanted = [
        (leaf if 0 < leaf < np.inf else 2.0) if distance else 0.0
        for leaf, distance in zip(before[1:-1].tolist(), successor[1:-1], strict=True)
    ]
    changed = sanitise(leaves, ORIGIN, ORIGIN + 1, ORIGIN + 1 + len(rows), successor, 2.0)
    assert leaves.tolist() == [9.0, *wanted, -9.0]
    assert changed == np.count_nonzero(~(before == leaves))
