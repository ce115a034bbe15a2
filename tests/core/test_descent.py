"""Draws with fewer additions fall on the ids of the plain ones, also where sums round."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replaystore.core.descent import find_fast
from replaystore.core.sumtree import SumTree
from replaystore.core.sumtree_kernels import find

MASSES = st.sampled_from([0.0, -0.0, 1e-38, 1e-6, 0.1, 0.3, 1.0, 1.0, 3.7, 1e6, 3e38])


def both(leaves: npt.NDArray[np.float32], first: int, targets: npt.NDArray[np.float64]) -> tuple[list[int], list[int], int]:
    tree = SumTree()
    tree.rebuild(leaves, first, first, first + len(leaves))
    arrays = (leaves, first, tree._rings[0], tree._bases, tree._masks, first, first + len(leaves))
    plain, fast = np.empty(len(targets), np.int64), np.empty(len(targets), np.int64)
    given = targets.copy()
    uncertain = find_fast(*arrays, fast, given)
    assert (given == targets).all()
    find(*arrays, plain, given)
    return plain.tolist(), fast.tolist(), uncertain


@settings(max_examples=120, deadline=None, derandomize=True, database=None)
@given(
    st.lists(MASSES, min_size=1, max_size=40),
    st.integers(1, 6000),
    st.sampled_from([0, 1, 63, 64, 4095, 2**40 + 17, 2**62 - 5]),
    st.integers(0, 2**32 - 1),
    st.booleans(),
)
def test_any_masses(masses: list[float], rows: int, first: int, seed: int, ascending: bool) -> None:
    rng = np.random.default_rng(seed)
    leaves = rng.choice(np.array(masses, np.float32), rows)
    total = float(leaves.astype(np.float64).sum())
    if total == 0.0:
        return
    borders = np.cumsum(leaves, dtype=np.float64)
    near = rng.choice(borders, 20) * (1 + rng.choice([0.0, 1e-16, -1e-16, 1e-15, -1e-15, 1e-12], 20))
    targets = np.concatenate([rng.random(40) * total, near, [0.0, total, total * 2]])
    if ascending:
        targets.sort()
    plain, fast, _ = both(leaves, first, targets)
    assert fast == plain


@pytest.mark.parametrize("rows", [1, 64, 100, 5000, 300_000])
def test_nearly_none_needs_the_plain_way(rows: int) -> None:
    rng = np.random.default_rng(rows)
    leaves = ((rng.random(rows) + 0.01) ** 0.6).astype(np.float32)
    leaves[rng.random(rows) < 0.3] = 0.0
    leaves[-1] = 1.0
    total = float(leaves.astype(np.float64).sum())
    plain, fast, uncertain = both(leaves, 12345, (np.arange(4096) + rng.random(4096)) / 4097 * total)
    assert fast == plain
    assert uncertain <= 1


@pytest.mark.parametrize("rows", [4096, 300_000])
def test_targets_on_the_borders_of_leaves(rows: int) -> None:
    """Leaves of 1: every border is a whole number, and every sum exact."""
    plain, fast, uncertain = both(np.ones(rows, np.float32), 70, np.arange(0.0, 4096.0))
    assert fast == plain == list(range(70, 70 + 4096))
    assert uncertain >= 4000  # the price of such masses: both ways are taken


def test_some_targets_of_each_kind_need_the_plain_way() -> None:
    leaves = np.full(10_000, 0.1, np.float32)
    targets = np.cumsum(leaves, dtype=np.float64)[:5000:7]
    plain, fast, uncertain = both(leaves, 0, targets)
    assert fast == plain
    assert uncertain > 0
