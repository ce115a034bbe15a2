"""Draws of every index follow the probabilities that they report: at least 10^6 draws each, against the exact distribution.

All seeds are fixed; `tests.core.statistics` says how often a right sampler would fail.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from replaystore.core import index_reference as reference
from replaystore.core.indexes import PassIndex, ProportionalIndex, RankIndex, RecencyIndex
from replaystore.core.random import seed_state
from tests.core.statistics import check_counts, check_means, strata

ORIGIN = 5_000_000_000
DRAWS = 1_000_000

Array = npt.NDArray[Any]


def built(index: Any, leaves: Array) -> Any:
    index.rebuild(leaves, ORIGIN, ORIGIN, ORIGIN + len(leaves))
    return index


def counts_of(index: Any, leaves: Array, calls: int, n: int, shares: Array, seed: int) -> Array:
    """Counts by leaf of `calls` draws of `n`; what each draw reports are the `shares`."""
    state, counts = seed_state(seed), np.zeros(len(leaves), np.int64)
    for _ in range(calls):
        ids, probabilities = index.draw(leaves, ORIGIN, state, n)
        counts += np.bincount(ids - ORIGIN, minlength=len(leaves))
        np.testing.assert_allclose(probabilities, shares[ids - ORIGIN], rtol=1e-10)
    return counts


def some_leaves(size: int) -> Array:
    rng = np.random.default_rng(1)
    leaves = (rng.random(size, dtype=np.float32) + np.float32(0.05)) ** 3
    leaves[rng.integers(0, size, size // 5)] = 0.0
    return leaves


# -- proportional


def test_draws_in_proportion() -> None:
    leaves = some_leaves(3000)
    shares = leaves.astype(np.float64) / leaves.sum(dtype=np.float64)
    independent = counts_of(built(ProportionalIndex(stratified=False), leaves), leaves, 4, DRAWS // 4, shares, seed=1)
    check_counts(independent, shares)
    n, calls = 64, DRAWS // 64
    mean, variance = strata(shares, n)
    stratified = counts_of(built(ProportionalIndex(), leaves), leaves, calls, n, shares, seed=2)
    check_means(stratified, calls * mean, calls * variance)


def test_leaves_of_1_are_drawn_evenly() -> None:
    leaves = (some_leaves(700) > 0).astype(np.float32)
    shares = leaves.astype(np.float64) / leaves.sum()
    check_counts(counts_of(built(ProportionalIndex(stratified=False), leaves), leaves, 1, DRAWS, shares, seed=3), shares)


# -- by rank


def rank_shares(index: RankIndex, leaves: Array) -> tuple[Array, Array]:
    """The probability of each leaf, and the leaves by place."""
    mask = len(index._places) - 1
    order = (index._slots[: index.count].astype(np.int64) - ORIGIN) & mask
    shares = np.zeros(len(leaves))
    shares[order] = np.arange(1, len(order) + 1.0) ** -index.alpha / reference.harmonic(index.alpha, len(order))
    return shares, order


@pytest.mark.parametrize("alpha", [0.0, 0.7, 1.0, 2.0])
def test_draws_by_rank_with_the_order_exact_and_approximate(alpha: float) -> None:
    leaves = some_leaves(2500)
    index = built(RankIndex(alpha, stratified=False), leaves)
    shares, order = rank_shares(index, leaves)
    assert np.all(np.diff(leaves[order]) <= 0)
    check_counts(counts_of(index, leaves, 2, DRAWS // 2, shares, seed=4), shares)
    rng = np.random.default_rng(2)
    changed = rng.choice(len(leaves), 900, replace=False)
    leaves[changed] = rng.random(900, dtype=np.float32) * (rng.random(900) < 0.8)
    index.refresh(leaves, ORIGIN, ORIGIN + changed)
    shares, order = rank_shares(index, leaves)
    assert np.any(np.diff(leaves[order]) > 0)  # a heap's order, not a sorted one
    check_counts(counts_of(index, leaves, 2, DRAWS // 2, shares, seed=5), shares)
    index.stratified = True
    mean, variance = strata(shares[order], 64)
    counts = counts_of(index, leaves, DRAWS // 64, 64, shares, seed=6)
    check_means(counts[order], DRAWS // 64 * mean, DRAWS // 64 * variance)


def test_draws_by_rank_beyond_the_table_of_sums() -> None:
    leaves = np.random.default_rng(3).random(300_000, dtype=np.float32) + np.float32(0.1)
    index = built(RankIndex(0.7, stratified=False), leaves)
    of_leaf, order = rank_shares(index, leaves)
    place = np.empty(len(leaves), np.int64)
    place[order] = np.arange(1, len(leaves) + 1)
    shares = of_leaf[order]
    ids, probabilities = index.draw(leaves, ORIGIN, seed_state(7), 2 * DRAWS)
    ranks = place[ids - ORIGIN]
    np.testing.assert_allclose(probabilities, shares[ranks - 1], rtol=1e-10)
    cells = np.unique(np.geomspace(1, len(leaves) + 1, 400).astype(int))
    check_counts(np.histogram(ranks, cells)[0], np.add.reduceat(shares, cells[:-1] - 1))


# -- by recency


@pytest.mark.parametrize("half_life", [3.0, 200.0, None])
@pytest.mark.parametrize("newest", [0, 2])
@pytest.mark.parametrize("as_links", [False, True])
def test_draws_by_recency(half_life: float | None, newest: int, as_links: bool) -> None:
    leaves = some_leaves(9000)
    leaves[-700:] = 0.0  # nothing new, and more than a block of it
    if as_links:
        leaves = (leaves > 0).astype(np.int32) * 3
    n, calls = 50_000, DRAWS // 50_000
    of_id = reference.recency_shares(dict(enumerate(leaves.tolist())), half_life, newest, n)
    shares = np.zeros(len(leaves))
    shares[list(of_id)] = list(of_id.values())
    index = built(RecencyIndex(half_life, newest), leaves)
    counts = counts_of(index, leaves, calls, n, shares, seed=8)
    first = reference.in_order(dict(enumerate(leaves.tolist())), newest, True)
    counts[first] -= calls
    of_id = reference.recency(dict(enumerate(leaves.tolist())), half_life)
    shares[list(of_id)] = list(of_id.values())
    check_counts(counts, shares)


def test_what_is_thousands_of_half_lives_old_is_drawn_when_there_is_nothing_newer() -> None:
    leaves = np.zeros(300_000, np.int32)
    leaves[[3, 5]] = 1
    index = built(RecencyIndex(2.0), leaves)
    ids, probabilities = index.draw(leaves, ORIGIN, seed_state(9), DRAWS)
    counts = np.bincount(ids - ORIGIN, minlength=6)
    check_counts(counts[[3, 5]], np.array([1 / 3, 2 / 3]))
    np.testing.assert_allclose(probabilities, np.where(ids == ORIGIN + 3, 1 / 3, 2 / 3), rtol=1e-12)


def test_a_batch_smaller_than_the_newest_asked_for_is_the_newest() -> None:
    leaves = np.ones(100, np.float32)
    index = built(RecencyIndex(5.0, newest=10), leaves)
    ids, probabilities = index.draw(leaves, ORIGIN, seed_state(0), 4)
    assert (ids - ORIGIN).tolist() == [99, 98, 97, 96]
    assert probabilities.tolist() == [0.25] * 4
    few = built(RecencyIndex(5.0, newest=10), np.ones(3, np.float32))
    ids, probabilities = few.draw(np.ones(3, np.float32), ORIGIN, seed_state(0), 8)
    assert (ids[:3] - ORIGIN).tolist() == [2, 1, 0]
    assert (probabilities > 1 / 8).all()


# -- without replacement


@pytest.mark.parametrize(("n", "passes"), [(1, 4_000), (7, 45_000), (23, 45_000), (100, 45_000)])
def test_passes_are_in_random_order_and_lack_nobody(n: int, passes: int) -> None:
    """Every place of a pass is as likely to be any of the anchors, and every pair of neighbours is as likely as any: 10^6 draws."""
    successor = np.zeros(200, np.int32)
    where = np.arange(23) * 8
    successor[where] = successor[199] = 1
    leaves, index, state = successor.astype(np.float32), PassIndex(), seed_state(10)
    index.rebuild(leaves, ORIGIN, ORIGIN, ORIGIN + 199)  # the last row is outside the window
    drawn = np.concatenate([index.draw(leaves, ORIGIN, successor, state, n, 23)[0] for _ in range(passes * 23 // n + 1)])
    order = np.searchsorted(where, drawn[: passes * 23] - ORIGIN).reshape(passes, 23)
    assert np.all(np.sort(order, axis=1) == np.arange(23))
    for place in (0, 1, 11, 22):
        check_counts(np.bincount(order[:, place], minlength=23), np.full(23, 1 / 23))
    pairs = np.bincount(23 * order[:, 5] + order[:, 6], minlength=23 * 23).reshape(23, 23)
    apart = ~np.eye(23, dtype=bool)
    assert not pairs[~apart].any()
    check_counts(pairs[apart], np.full(23 * 22, 1 / (23 * 22)))
