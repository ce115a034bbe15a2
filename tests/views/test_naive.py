"""Every view over random episodes, streams, evictions and restarts, against the naive model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import replaystore as rs
from tests.views.worlds import EPISODES, HINDSIGHTS, SEQUENCES, TRANSITIONS, Move, World, moves

VIEWS = {"Transition": TRANSITIONS, "Sequence": SEQUENCES, "Episode": EPISODES, "Hindsight": HINDSIGHTS}


@pytest.mark.parametrize("max_steps", [None, 14])
@pytest.mark.parametrize("kind", VIEWS)
def test_like_the_naive_model(tmp_path: Path, kind: str, max_steps: int | None) -> None:
    numbers = iter(range(10_000))
    store = rs.open(tmp_path / "data")
    checked = 0

    @settings(max_examples=10, deadline=None, database=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
    @given(moves("delete"), st.integers(0, 80), VIEWS[kind], st.integers(0, 2**62))
    def check(played: list[Move], restart_before: int, view: Any, seed: int) -> None:
        nonlocal store, checked
        world = World(store, f"t{next(numbers)}", max_steps)
        try:
            for index, move in enumerate(played):
                if index == restart_before:
                    world.abandon_writer()
                    store.close()
                    store = world.api = rs.open(tmp_path / "data")
                    world.open_writer()
                world.play(move)
            world.writer.flush()
            checked += world.check(view, seed)  # with episodes still going
            world.close_writer()
            checked += world.check(view, seed + 1)
        finally:
            store.drop_table(world.table)

    check()
    store.close()
    assert checked > 20
