"""Whole items that follow shares: never off by one, over many batches of awkward shares."""

from __future__ import annotations

from fractions import Fraction
from math import lcm

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import replaystore as rs
from replaystore.federated.shares import Apportioner, exact_shares, measured_shares

AWKWARD = [
    ([0.5, 0.5], 255),
    ([0.7, 0.3], 1),
    ([1.0], 7),
    ([1 / 3, 2 / 3, 0.001], 256),
    ([0.1, 0.2, 0.3, 0.4], 3),
    ([1e-6, 1.0, 1.0], 32),
    ([0.9, 0.02, 0.02, 0.02, 0.02, 0.02], 10),
    ([3.14159, 2.71828, 1.41421, 1.61803, 0.57721], 13),
]


@pytest.mark.parametrize(("values", "items"), AWKWARD)
def test_running_totals_are_never_off_by_one(values: list[float], items: int) -> None:
    shares, dealer = exact_shares(values), Apportioner(len(values))
    assert sum(shares) == 1
    totals = [0] * len(values)
    unit = lcm(*(share.denominator for share in shares))
    parts = [int(share * unit) for share in shares]
    for batch in range(1, 10_001):
        counts = dealer.deal(items, shares)
        assert sum(counts) == items
        assert min(counts) >= 0
        totals = [total + count for total, count in zip(totals, counts, strict=True)]
        assert all(abs(total * unit - part * items * batch) < unit for total, part in zip(totals, parts, strict=True))


def test_the_same_shares_give_the_same_counts() -> None:
    values, items = AWKWARD[-1]
    one, other = Apportioner(5), Apportioner(5)
    assert [one.deal(items, exact_shares(values)) for _ in range(50)] == [other.deal(items, exact_shares(values)) for _ in range(50)]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 1000), min_size=1, max_size=8), st.integers(1, 64))
def test_any_shares(weights: list[int], items: int) -> None:
    shares, dealer = exact_shares(weights), Apportioner(len(weights))
    totals = [0] * len(weights)
    for batch in range(1, 60):
        totals = [total + count for total, count in zip(totals, dealer.deal(items, shares), strict=True)]
        assert sum(totals) == items * batch
        assert all(abs(total - share * items * batch) < 1 for total, share in zip(totals, shares, strict=True))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.floats(0, 1e12), min_size=4, max_size=4), min_size=1, max_size=30), st.integers(1, 64))
def test_shares_that_change_deal_whole_batches(amounts: list[list[float]], items: int) -> None:
    dealer = Apportioner(4)
    for row in amounts:
        shares = measured_shares(row)
        assert sum(shares) == 1
        counts = dealer.deal(items, shares)
        assert sum(counts) == items
        assert min(counts) >= 0
        assert not any(count for count, share in zip(counts, shares, strict=True) if not share)  # it may be empty: nothing would come
        assert sum(dealer.owed) == 0
        assert all(abs(owed) < 2 for owed in dealer.owed)


def test_a_source_without_mass_gets_nothing() -> None:
    assert measured_shares([0.0, 5.0]) == [0, 1]
    assert measured_shares([0.0, 0.0]) == [Fraction(1, 2)] * 2
    assert Apportioner(2).deal(7, measured_shares([0.0, 5.0])) == [0, 7]


@pytest.mark.parametrize("shares", [{}, {"a": 0.0}, {"a": -1.0}, {"a": "half"}, {1: 0.5}, [0.5], {"a": float("nan")}])
def test_shares_that_cannot_be_are_refused(shares: object) -> None:
    with pytest.raises(rs.InvalidArgument, match="share"):
        rs.Mixture(shares)  # type: ignore[arg-type]
