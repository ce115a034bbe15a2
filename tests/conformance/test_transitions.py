"""What a sampled item holds, against the naive model: n-step returns, frame stacks, ends, the newest and the oldest step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import replaystore as rs
from tests.conformance.conftest import Side, config
from tests.naive import Episode, Step, transition

COLUMNS = {"extras": {"observation2": rs.Column((2, 2), "int16")}}


@dataclass
class Move:
    """What happens next in some stream."""

    stream: int
    kind: str


MOVES = st.lists(
    st.builds(Move, st.integers(0, 2), st.sampled_from(["step"] * 8 + ["terminated", "truncated", "both", "reset", "flush"])),
    min_size=1,
    max_size=50,
)
VIEWS = st.builds(
    rs.Transition,
    n_step=st.integers(1, 5),
    gamma=st.sampled_from([0.0, 0.5, 0.9, 1.0]),
    frame_stack=st.integers(1, 4),
    padding=st.sampled_from(["edge", "zero"]),
)


class Model:
    """Plays moves into a writer and into plain lists. An observation says where it is from: (stream, episode, t)."""

    def __init__(self, streams: int) -> None:
        self.episodes: dict[tuple[int, int], Episode] = {}
        self.current: list[tuple[int, int] | None] = [None] * streams
        self.count = 0

    def play(self, writer: Any, move: Move) -> None:
        if move.kind == "flush":
            writer.flush()
            return
        if move.kind == "reset" or self.current[move.stream] is None:
            self.reset(writer, move.stream)
        if move.kind != "reset":
            self.step(writer, move.stream, move.kind)

    def reset(self, writer: Any, stream: int) -> None:
        self.interrupt(stream)
        key = self.current[stream] = (stream, self.count)
        self.count += 1
        self.episodes[key] = Episode(following=(*key, 0))
        writer.reset(np.array((*key, 0), "f4"), stream=stream)

    def interrupt(self, stream: int) -> None:
        key = self.current[stream]
        if key is not None and self.episodes[key].steps:
            self.episodes[key].ended = self.episodes[key].interrupted = True
        elif key is not None:
            del self.episodes[key]  # a reset without a step leaves nothing
        self.current[stream] = None

    def step(self, writer: Any, stream: int, kind: str) -> None:
        key = self.current[stream]
        assert key is not None
        episode = self.episodes[key]
        t = len(episode.steps)
        terminated, truncated = kind in ("terminated", "both"), kind in ("truncated", "both")
        episode.steps.append(Step(episode.following, t + 100 * key[1], float(t + 1), terminated, truncated))
        episode.following = (*key, t + 1)
        writer.append(t + 100 * key[1], float(t + 1), terminated, truncated, np.array(episode.following, "f4"), stream=stream)
        if terminated or truncated:
            episode.ended = True
            self.current[stream] = None

    def check(self, api: Any, table: str, view: rs.Transition, seed: int) -> None:
        """Every anchor, and nothing else, is sampled, and every field is what the naive model says."""
        steps = api.read_steps(table, 0, 10_000, ["observation", "meta/kind"])
        first = api.stats(table).first_step
        rows = {}
        for step, place in zip(steps["step_id"].tolist(), steps["observation"].astype(int).tolist(), strict=True):
            rows[tuple(place)] = step
        everything = {(*key, t) for key, episode in self.episodes.items() for t in range(episode.rows)}
        assert rows.keys() <= everything
        anchors = {rows[place] for place in rows if self.episodes[place[:2]].is_anchor(place[2])}
        assert api.stats(table).anchors == len(anchors)
        if not anchors:
            return
        batch = api.sample(table, 40 * len(anchors) + 100, view=view, seed=seed)
        assert set(batch.step_ids.tolist()) == anchors
        places = {step: place for place, step in rows.items()}
        for item, step in enumerate(batch.step_ids.tolist()):
            stream, number, t = places[step]
            expected = transition(
                self.episodes[stream, number],
                t,
                n_step=view.n_step,
                gamma=view.gamma,
                frame_stack=view.frame_stack,
                padding=view.padding,
                zero=lambda frame: (0, 0, 0),
                kept=lambda row, stream=stream, number=number: rows.get((stream, number, row), -1) >= first,
            )
            given = {name: batch[name][item].tolist() for name in expected}
            for name in ("observation", "next_observation"):
                expected[name] = np.array(expected[name], "f4").tolist()
            for name in ("reward", "discount"):
                assert given.pop(name) == pytest.approx(expected.pop(name), rel=1e-5, abs=1e-6)
            assert given == expected


def run_moves(api: Any, table: str, moves: list[Move], view: rs.Transition, seed: int, max_steps: int | None) -> None:
    columns = {"observation": rs.Column((3,), "float32"), "action": rs.Column((), "int64")}
    api.create_table(table, rs.TableConfig(columns, retention=rs.Retention(max_steps), seed=1))
    try:
        model = Model(3)
        with api.writer(table, streams=3, block_rows=6) as writer:
            for move in moves:
                model.play(writer, move)
            writer.flush()
            model.check(api, table, view, seed)  # with episodes still going
        for stream in range(3):
            model.interrupt(stream)
        model.check(api, table, view, seed + 1)  # closing the writer closed them
    finally:
        api.drop_table(table)


EXAMPLES = {"embedded": 20, "remote": 8}


@pytest.mark.parametrize("max_steps", [None, 12])
def test_like_the_naive_model(shared: Side, max_steps: int | None) -> None:
    numbers = iter(range(10_000))

    @settings(
        max_examples=EXAMPLES[shared.kind], deadline=None, database=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
    )
    @given(MOVES, VIEWS, st.integers(0, 2**62))
    def check(moves: list[Move], view: rs.Transition, seed: int) -> None:
        run_moves(shared.api, f"naive-{max_steps}-{next(numbers)}", moves, view, seed, max_steps)

    check()


@pytest.mark.parametrize("n_step", [1, 3])
def test_each_ending_once_by_hand(api: Any, table: str, n_step: int) -> None:
    """The model itself is checked too: these numbers are written out."""
    api.create_table(table, config())
    with api.writer(table) as writer:
        for ending in ("terminated", "truncated", "interrupted"):
            writer.reset([0, 0])
            for t in range(4):
                last = t == 3
                writer.append(t, 10.0**t, last and ending == "terminated", last and ending == "truncated", [0, t + 1])
    batch = api.sample(table, 1000, view=rs.Transition(n_step=n_step, gamma=0.5), seed=1)
    items = {int(step): i for i, step in enumerate(batch.step_ids)}
    assert sorted(items) == [0, 1, 2, 3, 5, 6, 7, 8, 10, 11, 12, 13]
    flags = {step: (bool(batch.terminated[i]), bool(batch.truncated[i])) for step, i in items.items()}
    reach = {step: (float(batch.reward[i]), float(batch.next_observation[i, 1]), float(batch.discount[i])) for step, i in items.items()}
    if n_step == 1:
        assert [reach[step] for step in range(4)] == [(1, 1, 0.5), (10, 2, 0.5), (100, 3, 0.5), (1000, 4, 0.0)]
        assert [reach[step] for step in range(5, 9)] == [(1, 1, 0.5), (10, 2, 0.5), (100, 3, 0.5), (1000, 4, 0.5)]
        assert [step for step in items if flags[step] == (True, False)] == [3]
        assert sorted(step for step in items if flags[step] == (False, True)) == [8, 13]
    else:
        assert [reach[step] for step in range(4)] == [(31.0, 3, 0.125), (310.0, 4, 0.0), (600.0, 4, 0.0), (1000, 4, 0.0)]
        assert [reach[step] for step in range(5, 9)] == [(31.0, 3, 0.125), (310.0, 4, 0.125), (600.0, 4, 0.25), (1000, 4, 0.5)]
        assert sorted(step for step in items if flags[step] == (True, False)) == [1, 2, 3]
        assert sorted(step for step in items if flags[step] == (False, True)) == [6, 7, 8, 11, 12, 13]
    assert {int(k) for k in batch.steps_taken} == ({1} if n_step == 1 else {1, 2, 3})


def test_only_the_columns_named_are_stacked(api: Any, table: str) -> None:
    api.create_table(table, config(**COLUMNS))
    with api.writer(table) as writer:
        writer.reset([0, 0])
        for t in range(9):
            writer.append(t, 1.0, t == 8, False, [0, t + 1], observation2=np.full((2, 2), t))
    view = rs.Transition(frame_stack=3, stack_columns=("observation2",))
    batch = api.sample(table, 300, view=view, seed=0)
    assert batch.observation.shape == (300, 2)
    assert batch.observation2.shape == (300, 3, 2, 2)
    t = batch.observation[:, 1]
    for back in range(3):
        np.testing.assert_array_equal(batch.observation2[:, 2 - back, 0, 0], np.maximum(t - back, 0))
