"""Hindsight through a table: which goals, how often, with every draw that chooses anchors; and the batch that is read again."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import replaystore as rs
from replaystore.store import Store
from tests.core.statistics import check_counts
from tests.views.worlds import ACHIEVED, COLUMNS, DESIRED, compute_reward, observation

DRAWS = 1 << 20
LENGTHS = [1, 4, 9]


@pytest.fixture
def rows(store: Store) -> dict[int, tuple[int, int]]:
    """A table of three finished episodes and one going on; episode and number of each row."""
    selectors = {"even": rs.Uniform(), "by_priority": rs.Prioritized(1.0, 0.0, stratified=False)}
    store.create_table("t", rs.TableConfig(COLUMNS, selectors, seed=5))
    writer = store.writer("t")
    for number, length in enumerate([*LENGTHS, 5]):
        writer.reset(observation((0, number, 0)))
        for t in range(length):
            last = number < len(LENGTHS) and t == length - 1
            writer.append(t, 1.0, last and number == 1, last and number != 1, observation((0, number, t + 1)), state=[0, 0])
    writer.flush()
    steps = store.read_steps("t", 0, 1000, [ACHIEVED])
    return {step: (goal[0], goal[1]) for step, goal in zip(steps["step_id"].tolist(), steps[ACHIEVED].tolist(), strict=True)}


def candidates(rows: dict[int, tuple[int, int]], anchors: list[int], anchor: int, strategy: str) -> list[int]:
    number, t = rows[anchor]
    same = [step for step, (other, _) in rows.items() if other == number]
    if strategy == "random":
        return anchors
    if strategy == "final":
        return same[-1:]
    return same if strategy == "episode" else [step for step in same if rows[step][1] > t]


@pytest.mark.parametrize("selector", ["even", "by_priority"])
@pytest.mark.parametrize("strategy", ["future", "final", "episode", "random"])
def test_goals_and_anchors_together(store: Store, rows: dict[int, tuple[int, int]], strategy: str, selector: str) -> None:
    last = {number: max(step for step, (other, _) in rows.items() if other == number) for number in range(4)}
    anchors = [step for step, (number, _) in rows.items() if step != last[number]]
    mass = np.ones(len(anchors))
    if selector == "by_priority":
        mass = 1.0 + np.arange(len(anchors)) % 5
        store.update_priorities("t", anchors, mass, selector)
    mass /= mass.sum()
    ratio = 0.7
    view = rs.Hindsight(rs.Transition((1, 3), frame_stack=2), strategy, ratio)
    columns = [DESIRED]
    batch = store.sample("t", DRAWS, view=view, selector=selector, columns=columns, seed=17, timeout_s=60.0)
    size = max(rows) + 2
    pairs = batch.step_ids * size + batch.goal_ids + 1
    expected = np.zeros((size, size))
    for anchor, share in zip(anchors, mass.tolist(), strict=True):
        among = candidates(rows, anchors, anchor, strategy)
        expected[anchor, 0] = share * (1 - ratio)
        expected[anchor, [goal + 1 for goal in among]] = share * ratio / len(among)
    check_counts(np.bincount(pairs, minlength=size * size), expected.ravel())
    goals = np.array([rows.get(step, (0, 0)) for step in range(size)])
    original = np.stack([goals[batch.step_ids][:, 0], np.full(DRAWS, -7)], axis=1)
    wanted = np.where(batch.relabelled[:, None], goals[batch.goal_ids], original)
    for name in (DESIRED, f"next_{DESIRED}"):
        for frame in range(2):
            np.testing.assert_array_equal(batch[name][:, frame], wanted)


def test_the_same_items_read_again_have_the_same_goals(store: Store) -> None:
    store.create_table("t", rs.TableConfig(COLUMNS, seed=5))
    views = [rs.Transition((1, 4)), rs.Hindsight(rs.Transition((1, 4))), rs.Hindsight(strategy="episode"), rs.Hindsight(strategy="random")]
    with store.writer("t", streams=2) as writer:

        def play(steps: range) -> None:
            for t in steps:
                for stream in (0, 1):
                    writer.append(t, 1.0, False, False, observation((stream, stream, t + 1)), state=[0, 0], stream=stream)
            writer.flush()

        for stream in (0, 1):
            writer.reset(observation((stream, stream, 0)), stream=stream)
        play(range(7))
        batches = [store.sample("t", 64, view=view, seed=23) for view in views]
        play(range(7, 20))  # what comes later changes nothing
    for view, batch in zip(views, batches, strict=True):
        again = store.sample_at("t", batch.step_ids, view=view, seed=23, as_of=batch.next_step)
        for name in batch.keys():  # noqa: SIM118 - a Batch is no mapping
            if name not in ("probabilities", "weights", "times_sampled"):
                np.testing.assert_array_equal(batch[name], again[name], name)


def test_rewards_along_the_path(store: Store, rows: dict[int, tuple[int, int]]) -> None:
    view = rs.Hindsight(rs.Transition(3, gamma=0.5), "final", 1.0)
    batch = store.sample("t", 200, view=view, seed=2, reward_fn=compute_reward)
    for item in range(200):
        number, t = rows[int(batch.step_ids[item])]
        goal = rows[int(batch.goal_ids[item])]
        terms = [0.5**i * (1000.0 - abs(t + i + 1 - goal[1])) for i in range(int(batch.steps_taken[item]))]
        assert goal[0] == number
        assert float(batch.reward[item]) == pytest.approx(sum(terms))


def test_images_as_goals_and_dtypes(store: Store) -> None:
    goal = rs.Column((4, 4), "uint8")
    store.create_table("i", rs.TableConfig({"observation/achieved_goal": goal, "observation/desired_goal": goal, "action": rs.Column()}))
    with store.writer("i") as writer:
        at: Any = lambda t: {"achieved_goal": np.full((4, 4), t, "u1"), "desired_goal": np.full((4, 4), 99, "u1")}  # noqa: E731
        writer.reset(at(0))
        for t in range(6):
            writer.append(0.0, 0.0, False, t == 5, at(t + 1))
    batch = store.sample("i", 50, view=rs.Hindsight(rs.Transition(frame_stack=3, padding="zero"), "final", 1.0), seed=1)
    assert batch["observation/desired_goal"].shape == (50, 3, 4, 4)
    t = batch.step_ids
    np.testing.assert_array_equal(batch["observation/desired_goal"][:, 2], np.full((50, 4, 4), 6))
    shown = batch["observation/desired_goal"][:, 0, 0, 0]
    np.testing.assert_array_equal(shown, np.where(t >= 2, 6, 0))  # no goal where there is no frame
