"""Every view gives the same embedded and over the network: what the naive model says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import replaystore as rs
from tests.conformance.conftest import Side
from tests.views.worlds import EPISODES, HINDSIGHTS, SEQUENCES, TRANSITIONS, Move, World, compute_reward, moves

VIEWS = {"Transition": TRANSITIONS, "Sequence": SEQUENCES, "Episode": EPISODES, "Hindsight": HINDSIGHTS}


@pytest.mark.parametrize("kind", VIEWS)
def test_like_the_naive_model(shared: Side, kind: str) -> None:
    numbers = iter(range(10_000))

    @settings(max_examples=8, deadline=None, database=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
    @given(moves(longest=40), VIEWS[kind], st.integers(0, 2**62))
    def check(played: list[Move], view: Any, seed: int) -> None:
        world = World(shared.api, f"{kind}-{next(numbers)}", None)
        try:
            for move in played:
                world.play(move)
            world.close_writer()
            world.check(view, seed)
        finally:
            shared.api.drop_table(world.table)

    check()


BOTH = [
    rs.Transition(n_step=(1, 4), frame_stack=2),
    rs.Sequence(5, burn_in=2, period=2, frame_stack=3, state_columns=("state",)),
    rs.Episode(frame_stack=2),
    rs.Episode(packed=True, frame_stack=2),
    rs.Hindsight(rs.Transition(n_step=(1, 3), frame_stack=2)),
    rs.Hindsight(strategy="random"),
]


def filled(side: Side) -> World:
    world = World(side.api, "t", None)
    for i in range(60):
        world.play(Move(i % 3, "terminated" if i % 11 == 10 else "step"))
    world.close_writer()
    return world


def test_the_same_seed_gives_the_same_batch_on_both_sides(sides: dict[str, Side]) -> None:
    for side in sides.values():
        filled(side)
    for view in BOTH:
        one, other = (side.api.sample("t", 16, view=view, seed=5) for side in sides.values())
        assert one.keys() == other.keys()
        for name in one.keys():  # noqa: SIM118 - a Batch is no mapping
            np.testing.assert_array_equal(one[name], other[name], f"{view} {name}")
            assert one[name].dtype == other[name].dtype


def test_a_sampler_recomputes_rewards_by_itself(side: Side) -> None:
    filled(side)
    view = rs.Hindsight(rs.Transition(n_step=2, gamma=0.5), ratio=1.0)
    with side.api.sampler("t", 32, view=view, seed=3, reward_fn=compute_reward) as sampler:
        batch = next(sampler)
    with side.api.sampler("t", 32, view=view, seed=3) as sampler:
        plain = next(sampler)
    assert batch.relabelled.all()
    np.testing.assert_array_equal(batch.reward, plain.relabel(compute_reward).reward)
    assert (batch.reward > 100).all()
    assert (plain.reward < 100).all()
    with pytest.raises(rs.InvalidArgument, match="reward_fn goes with a Hindsight view"):
        side.api.sampler("t", 32, reward_fn=compute_reward)


def test_what_a_view_names_must_be_there(api: Any, table: str) -> None:
    api.create_table(table, rs.TableConfig({"observation": rs.Column((2,)), "action": rs.Column(), "goal": rs.Column((3,))}))
    for view, text in (
        (rs.Hindsight(), "achieved='observation/achieved_goal': there is no such column"),
        (rs.Hindsight(achieved="observation", desired="goal"), "a goal reached must be able to stand"),
        (rs.Sequence(3, state_columns=("lstm",)), "state_columns: there is no column 'lstm'"),
        (rs.Transition(agent="alice"), "agent='alice': the table has no column observation/alice; its observation column is not nested"),
    ):
        with pytest.raises(rs.InvalidArgument, match=text):
            api.sample(table, 4, view=view)
