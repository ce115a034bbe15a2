"""What a view refuses: values that cannot be, more rows than a batch may have, names that would clash."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import replaystore as rs
from replaystore.engine.views import hindsight, stretches
from replaystore.sampling import INFO_DTYPES, MAX_ROWS_WALKED, SampleRequest
from replaystore.schema.columns import INFO_NAMES
from replaystore.schema.record import from_json, to_json
from replaystore.schema.views import VIEWS, AnchorRule
from replaystore.store import Store

REFUSED: list[tuple[str, Any]] = [
    ("n_step=0", lambda: rs.Transition(0)),
    (r"n_step\[1\]=2", lambda: rs.Transition((3, 2))),
    ("must be a number of steps, or", lambda: rs.Transition((1, 2, 3))),
    ("n_step=1.5", lambda: rs.Transition(1.5)),  # type: ignore[arg-type]
    ("agent='a/b'", lambda: rs.Transition(agent="a/b")),
    ("stack_columns=", lambda: rs.Sequence(3, stack_columns=(1,))),  # type: ignore[arg-type]
    ("length=0", lambda: rs.Sequence(0)),
    ("burn_in=-1", lambda: rs.Sequence(3, burn_in=-1)),
    ("period=0", lambda: rs.Sequence(3, period=0)),
    ("state_columns: 'observation/h'", lambda: rs.Sequence(3, state_columns=("observation/h",))),
    ("padding='wrap'", lambda: rs.Episode(padding="wrap")),
    ("packed=1", lambda: rs.Episode(packed=1)),  # type: ignore[arg-type]
    ("max_length=0", lambda: rs.Episode(0)),
    ("strategy='last'", lambda: rs.Hindsight(strategy="last")),
    ("ratio=1.5", lambda: rs.Hindsight(ratio=1.5)),
    ("must be a replaystore.Transition", lambda: rs.Hindsight(rs.Sequence(3))),  # type: ignore[arg-type]
    ("achieved=None", lambda: rs.Hindsight(achieved=None)),  # type: ignore[arg-type]
    ("must be a replaystore view", lambda: SampleRequest(4, "Transition")),  # type: ignore[arg-type]
    ("ask for at most 16 items", lambda: SampleRequest(17, rs.Sequence((1 << 20) - 1))),
]


@pytest.mark.parametrize(("text", "make"), REFUSED, ids=[text for text, _ in REFUSED])
def test_what_cannot_be_is_refused_by_name(text: str, make: Any) -> None:
    with pytest.raises(rs.InvalidArgument, match=text):
        make()


@pytest.mark.parametrize(
    "view",
    [
        rs.Transition((1, 3), agent="a"),
        rs.Sequence(3, burn_in=1, period=2, state_columns=["h"]),  # type: ignore[arg-type]
        rs.Episode(5, packed=True),
        rs.Hindsight(rs.Transition((1, 4), frame_stack=2), "final", 0.5),
    ],
)
def test_views_travel_as_json_and_are_hashable(view: Any) -> None:
    assert from_json(to_json(view), VIEWS, "view") == view
    assert hash(view) == hash(from_json(to_json(view), VIEWS, "view"))


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-3, 2**70), st.floats(), st.text(max_size=5), st.sampled_from(["observation", "zero"])),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(["type", "n_step", "gamma"]), inner)),
    max_leaves=6,
)
FIELDS = sorted({name for kind in VIEWS.values() for name in kind.__dataclass_fields__})


@settings(max_examples=400, deadline=None, database=None, derandomize=True)
@given(st.sampled_from(sorted(VIEWS)), st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=3), st.integers(1, 1 << 20))
def test_whatever_is_sent_is_a_view_or_refused(kind: str, values: dict[str, Any], batch_size: int) -> None:
    known = VIEWS[kind].__dataclass_fields__
    sent = {name: value for name, value in values.items() if name in known}
    try:
        view = from_json({"type": kind, **sent}, VIEWS, "view")
        SampleRequest(batch_size, view)
    except rs.InvalidArgument:
        return
    assert hash(view) == hash(from_json(to_json(view), VIEWS, "view"))


def test_anchor_rules() -> None:
    assert rs.Transition().anchors == rs.Hindsight().anchors == AnchorRule()
    assert rs.Sequence(3, period=4).anchors == AnchorRule(period=4)
    assert rs.Episode().anchors == AnchorRule(episode_start=True)


def table(store: Store, lengths: list[int]) -> None:
    store.create_table("t", rs.TableConfig({"observation": rs.Column((2,)), "action": rs.Column()}, seed=1))
    with store.writer("t") as writer:
        for length in lengths:
            writer.reset([0, 0])
            for t in range(length):
                writer.append(0.0, 1.0, t == length - 1, False, [t, t])


def test_episodes_of_more_rows_than_a_batch_may_have(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    table(store, [10, 40, 100])
    monkeypatch.setattr(stretches, "MAX_ROWS_WALKED", 200)
    with pytest.raises(rs.InvalidArgument, match="the 40 episodes drawn have more than 200 steps together"):
        store.sample("t", 40, view=rs.Episode(), seed=1)
    monkeypatch.setattr(stretches, "MAX_ROWS_WALKED", 399)
    with pytest.raises(rs.InvalidArgument, match=r"4 items of 100 steps, as the longest, and 1 more .* are 404 rows.*packed=True"):
        store.sample("t", 4, view=rs.Episode(), seed=7)
    batch = store.sample("t", 4, view=rs.Episode(packed=True), seed=7)
    assert batch.offsets[-1] == batch.steps_taken.sum() == len(batch.reward)
    monkeypatch.setattr(stretches, "MAX_ROWS_WALKED", int(batch.offsets[-1]) + 3)
    with pytest.raises(rs.InvalidArgument, match="4 x 1 more for frames"):
        store.sample("t", 4, view=rs.Episode(packed=True), seed=7)
    assert store.sample("t", 4, view=rs.Episode(20, packed=True), seed=7).steps_taken.max() == 20


def test_looking_for_ends_of_episodes_has_a_bound(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    table(store, [100])
    monkeypatch.setattr(hindsight, "MAX_ROWS_WALKED", 300)
    view = rs.Hindsight(achieved="observation", desired="observation", ratio=1.0)
    with pytest.raises(rs.InvalidArgument, match="episodes are very long here"):
        store.sample("t", 100, view=view, seed=1)
    assert store.sample("t", 2, view=view, seed=1).relabelled.all()


def test_the_most_rows_are_bounded() -> None:
    assert MAX_ROWS_WALKED == 1 << 24


@pytest.mark.parametrize("name", ["next_observation", "next_observation/x", "mask", "weights", "offsets/a", "goal_ids"])
def test_columns_that_a_batch_could_not_tell_from_its_own(name: str) -> None:
    with pytest.raises(rs.InvalidArgument, match=f"column '{name}': batches"):
        rs.TableConfig({"observation": rs.Column(), name: rs.Column()})


def test_names_close_to_those_are_fine() -> None:
    names = ["next_action", "next_observation_count", "masks", "env/mask"]
    assert set(names) <= rs.TableConfig({"observation": rs.Column(), **{name: rs.Column() for name in names}}).columns.keys()
    assert tuple(INFO_DTYPES) == INFO_NAMES


def test_rewards_are_numbers_for_each_agent() -> None:
    with pytest.raises(rs.InvalidArgument, match="'reward/a' must be float32 or float64"):
        rs.TableConfig({"observation/a": rs.Column(), "reward/a": rs.Column((), "int64")})
    with pytest.raises(rs.InvalidArgument, match="'reward' is also the group"):
        rs.TableConfig({"observation/a": rs.Column(), "reward/a": rs.Column(), "reward": rs.Column()})


def test_only_hindsight_is_relabelled(store: Store) -> None:
    table(store, [5])
    goals = rs.Hindsight(achieved="observation", desired="observation", ratio=1.0)
    with pytest.raises(rs.InvalidArgument, match="only batches of a Hindsight view"):
        store.sample("t", 3).relabel(lambda a, d, info: a[:, 0])
    with pytest.raises(rs.InvalidArgument, match="no reward column"):
        store.sample("t", 3, view=goals, columns=["observation"]).relabel(lambda a, d, info: a[:, 0])
    with pytest.raises(rs.InvalidArgument, match=r"shape \(3,\); it returned \(3, 2\)"):
        store.sample("t", 3, view=goals).relabel(lambda a, d, info: a)
    with pytest.raises(rs.InvalidArgument, match="must be callable"):
        store.sample("t", 3, view=goals, reward_fn=5)  # type: ignore[arg-type]


def test_everything_can_be_relabelled_in_one_call(store: Store) -> None:
    table(store, [9])
    calls: list[tuple[int, ...]] = []

    def compute_reward(achieved: Any, desired: Any, info: Any) -> Any:
        calls.append(achieved.shape)
        return np.full(len(achieved), 2.0)

    view = rs.Hindsight(rs.Transition(3, gamma=0.5), achieved="observation", desired="observation", ratio=0.5)
    batch = store.sample("t", 40, view=view, seed=3)
    some, every = batch.relabel(compute_reward), batch.relabel(compute_reward, everything=True)
    assert calls == [(3 * int(batch.relabelled.sum()), 2), (120, 2)]
    wanted = np.array([2.0, 3.0, 3.5])[batch.steps_taken - 1]
    np.testing.assert_allclose(every.reward, wanted)
    np.testing.assert_allclose(some.reward, np.where(batch.relabelled, wanted, batch.reward))
    assert every.observation is batch.observation
    none = store.sample("t", 4, view=rs.Hindsight(achieved="observation", desired="observation", ratio=0.0), reward_fn=compute_reward)
    assert not none.relabelled.any()
    assert len(calls) == 2
