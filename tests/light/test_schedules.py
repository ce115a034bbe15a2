"""Schedules, and priorities made of many TD errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import replaystore as rs
from replaystore.schedules import beta_at


@pytest.mark.parametrize(("index", "expected"), [(-5, 1.0), (0, 1.0), (50, 0.55), (100, 0.1), (10**9, 0.1)])
def test_linear_goes_from_start_to_end_and_stays(index: int, expected: float) -> None:
    assert rs.Linear(1.0, 0.1, steps=100)(index) == pytest.approx(expected)


@pytest.mark.parametrize(("index", "expected"), [(-5, 1.0), (0, 1.0), (50, 0.1), (100, 0.01), (10**9, 0.01)])
def test_exponential_goes_by_equal_factors(index: int, expected: float) -> None:
    assert rs.Exponential(1.0, 0.01, steps=100)(index) == pytest.approx(expected)


def test_without_steps_a_schedule_is_at_its_end() -> None:
    assert rs.Linear(1.0, 0.1, 0)(0) == 0.1
    assert rs.Exponential(1.0, 0.1, 0)(0) == 0.1
    assert rs.Constant(0.4)(12) == 0.4


@given(st.floats(0.01, 10), st.floats(0.01, 10), st.integers(1, 1000), st.integers(-10, 2000))
def test_schedules_stay_between_their_ends(start: float, end: float, steps: int, index: int) -> None:
    for schedule in (rs.Linear(start, end, steps), rs.Exponential(start, end, steps)):
        assert min(start, end) * (1 - 1e-9) <= schedule(index) <= max(start, end) * (1 + 1e-9)


def test_values_that_cannot_be_are_refused() -> None:
    for make in (lambda: rs.Linear(0.4, float("nan"), 5), lambda: rs.Linear(0, 1, -1), lambda: rs.Exponential(0.0, 1.0, 5)):
        with pytest.raises(rs.InvalidArgument, match="must be"):
            make()
    with pytest.raises(rs.InvalidArgument, match=r"beta='much'.*Linear"):
        beta_at("much", 0)  # type: ignore[arg-type]
    with pytest.raises(rs.InvalidArgument, match=r"beta=101.0 .*at batch 7"):
        beta_at(lambda index: 94.0 + index, 7)
    assert beta_at(lambda index: np.float32(0.5), 0) == 0.5


def naive(errors: Any, mask: Any, eta: float) -> list[float]:
    out = []
    for row, keep in zip(errors, mask, strict=True):
        true = [abs(float(value)) for value, real in zip(row, keep, strict=True) if real]
        out.append(eta * max(true) + (1 - eta) * sum(true) / len(true) if true else 0.0)
    return out


@given(st.integers(0, 6), st.integers(0, 6), st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_sequence_priorities_against_plain_python(n: int, length: int, eta: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    errors, mask = rng.normal(size=(n, length)), rng.random((n, length)) < 0.6
    expected = naive(errors, mask, eta)
    for given_errors, given_mask in ((errors, mask), (torch.from_numpy(errors).requires_grad_(), torch.from_numpy(mask))):
        got = rs.sequence_priorities(given_errors, given_mask, eta)
        assert got.shape == (n,)
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_sequence_priorities_as_in_the_paper() -> None:
    assert rs.sequence_priorities([[1.0, -3.0]]) == pytest.approx([0.9 * 3 + 0.1 * 2])
    assert rs.sequence_priorities(torch.ones((2, 3), dtype=torch.bfloat16)) == pytest.approx([1, 1])
    assert rs.sequence_priorities([[5.0, 1.0]], [[0, 1]]) == pytest.approx([1.0])
    assert np.isnan(rs.sequence_priorities([[np.nan, 1.0], [1.0, 1.0]])).tolist() == [True, False]
    with pytest.raises(rs.InvalidArgument, match=r"\(3,\)"):
        rs.sequence_priorities([1.0, 2.0, 3.0])
    with pytest.raises(rs.InvalidArgument, match="mask"):
        rs.sequence_priorities(np.ones((2, 3)), np.ones((3, 2)))
    with pytest.raises(rs.InvalidArgument, match="eta"):
        rs.sequence_priorities(np.ones((2, 3)), eta=1.5)
