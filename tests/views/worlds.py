"""Random lives of a few environments, played into a table and into plain lists at once. Every observation says where it is from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

import replaystore as rs
from tests import naive

STREAMS = 3
FRAME, ACHIEVED, DESIRED = "observation/frame", "observation/achieved_goal", "observation/desired_goal"
COLUMNS = {
    FRAME: rs.Column((3,), "float32"),
    ACHIEVED: rs.Column((2,), "int32"),
    DESIRED: rs.Column((2,), "int32"),
    "action": rs.Column((), "int64"),
    "state": rs.Column((2,), "float32"),
}

Place = tuple[int, int, int]
"""Stream, number of the episode, row of it."""


@dataclass
class Move:
    """What happens next in some stream."""

    stream: int
    kind: str


def moves(*more: str, longest: int = 50) -> st.SearchStrategy[list[Move]]:
    kinds = ["step"] * 10 + ["terminated", "truncated", "both", "reset", "flush", *more]
    return st.lists(st.builds(Move, st.integers(0, STREAMS - 1), st.sampled_from(kinds)), min_size=1, max_size=longest)


PADDINGS = st.sampled_from(["edge", "zero"])
STACKS = st.integers(1, 4)
STACKED = st.sampled_from([("observation",), (FRAME,), (FRAME, "action"), ("observation", "reward")])
TRANSITIONS = st.builds(
    rs.Transition,
    n_step=st.one_of(st.integers(1, 5), st.tuples(st.integers(1, 3), st.integers(3, 5))),
    gamma=st.sampled_from([0.0, 0.5, 0.9, 1.0]),
    frame_stack=STACKS,
    stack_columns=st.sampled_from([("observation",), (FRAME,), (FRAME, "action")]),
    padding=PADDINGS,
)
SEQUENCES = st.builds(
    rs.Sequence,
    length=st.integers(1, 9),
    burn_in=st.integers(0, 3),
    period=st.integers(1, 4),
    frame_stack=STACKS,
    stack_columns=STACKED,
    padding=PADDINGS,
    state_columns=st.sampled_from([(), ("state",)]),
)
EPISODES = st.builds(
    rs.Episode,
    max_length=st.one_of(st.none(), st.integers(1, 6)),
    packed=st.booleans(),
    frame_stack=STACKS,
    stack_columns=STACKED,
    padding=PADDINGS,
)
HINDSIGHTS = st.builds(
    rs.Hindsight,
    transition=TRANSITIONS,
    strategy=st.sampled_from(["future", "final", "episode", "random"]),
    ratio=st.sampled_from([0.0, 0.5, 1.0]),
)


def observation(place: Place) -> dict[str, Any]:
    _, number, t = place
    return {
        "frame": np.array(place, "f4") + 1,
        "achieved_goal": np.array([number, t], "i4"),
        "desired_goal": np.array([number, -7], "i4"),
    }


def compute_reward(achieved: Any, desired: Any, info: Any) -> Any:
    assert achieved.shape == desired.shape
    return 1000.0 - np.abs(achieved - desired).sum(-1)


class World:
    """What was played."""

    def __init__(self, api: Any, table: str, max_steps: int | None) -> None:
        api.create_table(table, rs.TableConfig(COLUMNS, retention=rs.Retention(max_steps), seed=1))
        self.api, self.table = api, table
        self.episodes: dict[tuple[int, int], naive.Episode] = {}
        self.current: list[tuple[int, int] | None] = [None] * STREAMS
        self.count = 0
        self.open_writer()

    def open_writer(self) -> None:
        self.writer = self.api.writer(self.table, streams=STREAMS, block_rows=6)

    def play(self, move: Move) -> None:
        if move.kind == "flush":
            self.writer.flush()
            return
        if move.kind == "delete":
            self._delete()
            return
        if move.kind == "reset" or self.current[move.stream] is None:
            self._reset(move.stream)
        if move.kind != "reset":
            self._step(move.stream, move.kind)

    def _delete(self) -> None:
        """Some row, maybe the newest of its episode or a closing one."""
        self.writer.flush()
        steps = self.api.read_steps(self.table, 0, 10_000, [FRAME])
        if len(steps["step_id"]):
            chosen = 7919 * (self.count + len(steps["step_id"])) % len(steps["step_id"])
            stream, number, t = (steps[FRAME][chosen] - 1).astype(int).tolist()
            self.api.delete_steps(self.table, steps["step_id"][chosen : chosen + 1])
            self.episodes[stream, number].deleted.add(t)

    def _reset(self, stream: int) -> None:
        self._interrupt(stream)
        key = self.current[stream] = (stream, self.count)
        self.count += 1
        self.episodes[key] = naive.Episode(following=(*key, 0))
        self.writer.reset(observation((*key, 0)), stream=stream)

    def _interrupt(self, stream: int) -> None:
        key = self.current[stream]
        if key is not None and self.episodes[key].steps:
            self.episodes[key].ended = self.episodes[key].interrupted = True
        elif key is not None:
            del self.episodes[key]
        self.current[stream] = None

    def _step(self, stream: int, kind: str) -> None:
        key = self.current[stream]
        assert key is not None
        episode = self.episodes[key]
        t = len(episode.steps)
        terminated, truncated = kind in ("terminated", "both"), kind in ("truncated", "both")
        action, reward = t + 100 * key[1] + 1, float(t + 1)
        episode.steps.append(naive.Step(episode.following, action, reward, terminated, truncated))
        episode.following = (*key, t + 1)
        state = np.array([t + 1, key[1]], "f4")
        self.writer.append(action, reward, terminated, truncated, observation(episode.following), stream=stream, state=state)
        if terminated or truncated:
            episode.ended = True
            self.current[stream] = None

    def close_writer(self) -> None:
        self.writer.close()
        for stream in range(STREAMS):
            self._interrupt(stream)

    def abandon_writer(self) -> None:
        """As if the actor had died: what it had begun never ends."""
        self.writer.flush()
        for stream, key in enumerate(self.current):
            if key is not None and not self.episodes[key].steps:
                del self.episodes[key]
            self.current[stream] = None

    # -- checking

    def check(self, view: Any, seed: int) -> int:
        """Every anchor that the view can begin at, and nothing else, is drawn, and its fields are those of the naive model."""
        steps = self.api.read_steps(self.table, 0, 10_000, [FRAME])
        places = (steps[FRAME] - 1).astype(int).tolist()
        self.rows: dict[Place, int] = {tuple(place): step for step, place in zip(steps["step_id"].tolist(), places, strict=True)}
        self.places = {step: place for place, step in self.rows.items()}
        assert self.rows.keys() <= {(*key, t) for key, episode in self.episodes.items() for t in range(episode.rows)}
        anchors = {step for place, step in self.rows.items() if self._begins(view, place)}
        if not anchors:
            return 0
        batch = self.api.sample(self.table, 25 * len(anchors) + 60, view=view, seed=seed)
        assert set(batch.step_ids.tolist()) == anchors
        _, firsts = np.unique(batch.step_ids, return_index=True)
        items = sorted({*firsts.tolist(), *range(20), len(batch) - 1})
        if isinstance(view, rs.Transition):
            for item in items:
                self._check_transition(view, batch, item)
        elif isinstance(view, rs.Hindsight):
            relabelled = batch.relabel(compute_reward)
            for item in items:
                self._check_hindsight(view, batch, relabelled, item)
        else:
            for item in items:
                self._check_stretch(view, batch, item)
        return len(anchors)

    def _begins(self, view: Any, place: Place) -> bool:
        episode, t = self.episodes[place[:2]], place[2]
        if not episode.is_anchor(t):
            return False
        if isinstance(view, rs.Sequence):
            return t % view.period == 0
        if isinstance(view, rs.Episode):
            return t == 0 and episode.ended and not episode.deleted  # rows go oldest first: with the first one all are kept
        return True

    def _kept(self, place: Place) -> Callable[[int], bool]:
        deleted = self.episodes[place[:2]].deleted
        return lambda row: (*place[:2], row) in self.rows and row not in deleted

    def _item(self, batch: rs.Batch, item: int) -> tuple[naive.Episode, Place]:
        place = self.places[int(batch.step_ids[item])]
        return self.episodes[place[:2]], place

    def _check_transition(self, view: rs.Transition, batch: rs.Batch, item: int) -> None:
        episode, place = self._item(batch, item)
        low, high = view.step_range
        taken = int(batch.steps_taken[item])
        longest = naive.steps_from(episode, place[2], high)
        assert min(low, longest) <= taken <= longest
        frames = view.frame_stack if view.stacks(FRAME) else 1
        expected = naive.transition(
            episode,
            place[2],
            n_step=taken,
            gamma=view.gamma,
            frame_stack=frames,
            padding=view.padding,
            zero=lambda frame: None,
            kept=self._kept(place),
        )
        self._same(batch[FRAME][item], expected["observation"], frames > 1)
        self._same(batch[f"next_{FRAME}"][item], expected["next_observation"], frames > 1)
        assert float(batch.reward[item]) == pytest.approx(expected["reward"], rel=1e-5, abs=1e-6)
        assert float(batch.discount[item]) == pytest.approx(expected["discount"], rel=1e-5, abs=1e-6)
        assert (bool(batch.terminated[item]), bool(batch.truncated[item])) == (expected["terminated"], expected["truncated"])
        actions = np.atleast_1d(batch.action[item])
        assert actions[-1] == expected["action"]
        assert batch["state"][item].tolist() == [place[2] + 1, place[1]]

    def _same(self, array: Any, expected: Any, stacked: bool) -> None:
        frames = expected if stacked else [expected]
        wanted = [[0, 0, 0] if frame is None else [value + 1 for value in frame] for frame in frames]
        assert array.tolist() == (wanted if stacked else wanted[0])

    def _check_hindsight(self, view: rs.Hindsight, batch: rs.Batch, relabelled: rs.Batch, item: int) -> None:
        episode, place = self._item(batch, item)
        self._check_transition(view.transition, batch, item)
        stacked = view.stacks(DESIRED)
        desired, following = batch[DESIRED][item], batch[f"next_{DESIRED}"][item]
        goal = [place[1], -7]
        row = int(batch.goal_ids[item])
        assert bool(batch.relabelled[item]) == (row >= 0)
        assert row < 0 or view.ratio > 0
        if row >= 0:
            wanted = self.places[row]
            if view.strategy == "random":
                assert self.episodes[wanted[:2]].is_anchor(wanted[2])
            else:
                assert wanted[:2] == place[:2]
                assert wanted[2] in naive.goals(episode, place[2], view.strategy, self._kept(place))
            goal = [wanted[1], wanted[2]]
        else:
            assert view.ratio < 1
        for goals in (desired, following):
            for one in goals if stacked else [goals]:
                assert one.tolist() in ([goal, [0, 0]] if view.transition.padding == "zero" and stacked else [goal])
        reward = sum(
            view.transition.gamma**i * (1000.0 - abs(place[1] - goal[0]) - abs(place[2] + i + 1 - goal[1]))
            for i in range(int(batch.steps_taken[item]))
        )
        assert float(relabelled.reward[item]) == pytest.approx(reward if row >= 0 else float(batch.reward[item]), rel=1e-5)

    def _check_stretch(self, view: Any, batch: rs.Batch, item: int) -> None:
        episode, place = self._item(batch, item)
        packed = isinstance(view, rs.Episode) and view.packed
        length = view.burn_in + view.length if isinstance(view, rs.Sequence) else (view.max_length or 1000)
        stacks = {name: view.frame_stack if view.stacks(name) else 1 for name in (FRAME, "action", "reward")}
        frames = stacks[FRAME]
        expected = naive.sequence(
            episode, place[2], length=length, frame_stack=frames, padding=view.padding, zero=lambda frame: None, kept=self._kept(place)
        )
        taken = len(expected["action"])
        assert int(batch.steps_taken[item]) == taken
        part: Any = slice(int(batch.offsets[item]), int(batch.offsets[item + 1])) if packed else item
        if packed:
            assert part.stop - part.start == taken
        else:
            assert batch.mask[item].tolist() == [True] * taken + [False] * (batch.mask.shape[1] - taken)
            assert not batch.row_ids[item, :taken].min() < 0
            assert set(batch.row_ids[item, taken:].tolist()) <= {-1}
            if isinstance(view, rs.Sequence):
                assert batch.mask.shape[1] == length
        assert batch.row_ids[part][:taken].tolist() == [self.rows[*place[:2], place[2] + i] for i in range(taken)]
        for name, field in ((FRAME, "observation"), (f"next_{FRAME}", "next_observation")):
            array = batch[name][part]
            for i in range(taken):
                self._same(array[i], expected[field][i], frames > 1)
        state = batch["state"]
        if isinstance(view, rs.Sequence) and view.state_columns:
            assert state[item].tolist() == [place[2] + 1, place[1]]
        else:
            assert state[part][:taken].tolist() == [[place[2] + i + 1, place[1]] for i in range(taken)]
        for name in ("action", "reward", "terminated", "truncated"):
            array = batch[name][part]
            assert not array[taken:].any(), name
            if stacks.get(name, 1) > 1:
                assert array.shape[1] == stacks[name]
                array = array[:, -1]
            assert array[:taken].tolist() == expected[name], name
