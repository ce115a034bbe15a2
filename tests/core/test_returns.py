"""Discounted sums against plain Python, bit for bit, and against NumPy's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replaystore.core import reference
from replaystore.core.returns import discounted

ORIGIN = 10**12


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 64), st.integers(0, 30), st.sampled_from([0.0, 0.5, 0.97, 0.99, 1.0]))
def test_the_kernel_is_the_reference(seed: int, longest: int, n: int, gamma: float) -> None:
    rng = np.random.default_rng(seed)
    reward = rng.standard_normal(200).astype(np.float32)
    reward[rng.integers(0, 200, 5)] = rng.choice([0.0, -0.0, np.inf, np.nan, 1e30], 5)
    path = ORIGIN + rng.integers(0, 200, (n, longest))
    taken = rng.integers(1, longest + 1, n).astype(np.int32)
    with np.errstate(all="ignore"):
        made = discounted(reward, path, ORIGIN, taken, gamma)
        rewards = reward[path - ORIGIN].astype(np.float64).tolist()
        expected = [reference.discounted(row, count, gamma) for row, count in zip(rewards, taken.tolist(), strict=True)]
        np.testing.assert_array_equal(made, np.array(expected, np.float64).astype(np.float32))
        every = np.where(np.arange(longest) < taken[:, None], gamma ** np.arange(longest), 0.0)
        np.testing.assert_allclose(made, np.einsum("nk,nk->n", every, reward[path - ORIGIN]).astype(np.float32), rtol=1e-5, atol=1e-6)
    assert made.dtype == np.float32


@pytest.mark.parametrize("dtype", ["float64", "int32", "float32"])
@pytest.mark.parametrize("shape", [(), (3,)])
def test_other_rewards_sum_alike(dtype: str, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    reward = rng.integers(-50, 50, (40, *shape)).astype(dtype)
    path, taken = ORIGIN + rng.integers(0, 40, (16, 5)), rng.integers(1, 6, 16).astype(np.int32)
    made = discounted(reward, path, ORIGIN, taken, 0.5)
    assert made.dtype == reward.dtype
    for item, steps in enumerate(path - ORIGIN):
        exact = sum(0.5**k * reward[step].astype(np.float64) for k, step in enumerate(steps[: taken[item]]))
        np.testing.assert_array_equal(made[item], np.asarray(exact).astype(dtype))
