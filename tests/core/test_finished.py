"""Finished episodes are remembered as by a plain dictionary that forgets the oldest."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replaystore.core import finished
from replaystore.core.finished import GENERATION, FinishedEpisodes

NUMBERS = st.one_of(st.integers(-3, 40), st.integers(-(2**63), 2**63 - 1))


@settings(deadline=None)
@given(st.lists(st.tuples(NUMBERS, st.integers(1, 2**31 - 1)), unique_by=lambda one: one[0], max_size=60), st.integers(1, 20), st.data())
def test_like_a_dictionary(episodes: list[tuple[int, int]], at_least: int, data: st.DataObject) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finished, "GENERATION", data.draw(st.integers(1, 7)))
        remembered = FinishedEpisodes(at_least)
        for index, (episode, rows) in enumerate(episodes):
            assert remembered.rows_of(episode) is None
            remembered.add(episode, rows)
            newest = dict(episodes[max(0, index + 1 - at_least) : index + 1])
            assert {known: remembered.rows_of(known) for known in newest} == newest
            assert len(newest) <= len(remembered) < at_least + 2 * finished.GENERATION
        there = dict(episodes)
        kept = {episode for episode in there if remembered.rows_of(episode) is not None}
        assert len(kept) == len(remembered)
        assert kept == {episode for episode, _ in episodes[len(episodes) - len(kept) :]}  # the newest, none in between is missing
        wanted = data.draw(st.lists(NUMBERS | st.sampled_from(sorted(there) or [0]), min_size=1))
        assert remembered.has_any(wanted) == (not kept.isdisjoint(wanted))


def test_many_take_little_memory() -> None:
    rng = np.random.default_rng(0)
    numbers = rng.integers(-(2**63), 2**63 - 1, 200_000).tolist()
    remembered = FinishedEpisodes(1 << 16)
    for rows, episode in enumerate(numbers):
        remembered.add(episode, rows)
    newest = range(len(numbers) - (1 << 16), len(numbers))
    assert [remembered.rows_of(numbers[rows]) for rows in newest] == list(newest)
    assert remembered.rows_of(numbers[0]) is None
    assert not remembered.has_any(numbers[: 1 << 16])
    assert 1 << 16 <= len(remembered) < (1 << 16) + GENERATION
    assert sum(array.nbytes for array in (remembered._episodes, remembered._rows, remembered._ages)) <= 13 << 16
