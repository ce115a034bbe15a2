"""Several agents in one step: columns of each, and every view through the eyes of one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import replaystore as rs
from replaystore.engine.checking.verify import verify
from replaystore.store import Store

ALICE = gym.spaces.Dict({"place": gym.spaces.Box(-9, 999, (2,), np.float32), "goal": gym.spaces.Discrete(9)})
BOB = gym.spaces.Box(0, 255, (3,), np.uint8)
SPACES = {"alice": (ALICE, gym.spaces.Discrete(4)), "bob": (BOB, gym.spaces.Box(-1, 1, (2,), np.float32))}
EXTRAS = {"log_prob/alice": rs.Column(), "log_prob/bob": rs.Column(), "value": rs.Column()}
VIEWS = [
    rs.Transition(2, frame_stack=3),
    rs.Sequence(4, frame_stack=2),
    rs.Sequence(4, burn_in=1, state_columns=("log_prob",)),
    rs.Episode(),
    rs.Episode(packed=True, frame_stack=2),
    rs.Hindsight(achieved="observation/place", desired="observation/place"),
]


def seen(t: int) -> dict[str, Any]:
    return {"alice": {"place": np.array([t, -1], "f4"), "goal": t % 9}, "bob": np.array([t, 1, 2], "u1")}


def fill(store: Store, *, open_end: bool = False) -> None:
    store.create_table("t", rs.TableConfig(rs.columns_from_agents(SPACES, **EXTRAS), seed=3))
    with store.writer("t") as writer:
        for _ in range(3):
            writer.reset(seen(0))
            for t in range(7):
                writer.append(
                    {"alice": t % 4, "bob": np.full(2, t / 7, "f4")},
                    {"alice": 1.0 + t, "bob": -2.0},
                    t == 6,
                    False,
                    seen(t + 1),
                    log_prob={"alice": t / 10, "bob": -t / 10},
                    value=float(t),
                )


def test_columns_of_agents() -> None:
    columns = rs.columns_from_agents(SPACES, **EXTRAS)
    assert columns["observation/alice/place"].shape == (2,)
    assert columns["observation/bob"].dtype == "uint8"
    assert columns["reward/alice"].dtype == "float32"
    config = rs.TableConfig(columns)
    assert "reward" not in config.columns
    assert rs.TableConfig.from_json(config.to_json()) == config
    with pytest.raises(rs.InvalidArgument, match="at least one agent"):
        rs.columns_from_agents({})
    with pytest.raises(rs.InvalidArgument, match="agent name 'a/b'"):
        rs.columns_from_agents({"a/b": SPACES["bob"]})
    with pytest.raises(rs.InvalidArgument, match="agent 'bob' needs"):
        rs.columns_from_agents({"bob": 3})  # type: ignore[dict-item]


def same_as_alone(store: Store, view: Any, agent: str) -> None:
    """The view of one agent is the view of all with other names."""
    kind = rs.Hindsight if isinstance(view, rs.Hindsight) else type(view)
    if kind is rs.Hindsight:
        one: Any = rs.Hindsight(rs.Transition(agent=agent), achieved=view.achieved, desired=view.desired)
        every: Any = rs.Hindsight(achieved=f"observation/{agent}/place", desired=f"observation/{agent}/place")
    else:
        options = {name: getattr(view, name) for name in view.__dataclass_fields__}
        one = kind(**{**options, "agent": agent})
        options |= {"state_columns": (f"log_prob/{agent}",)} if options.get("state_columns") else {}
        every = kind(**options)
    batch, full = (store.sample("t", 12, view=v, seed=8) for v in (one, every))
    prefixes = [name for name in full.keys() if f"/{agent}" in name]  # noqa: SIM118 - a Batch is no mapping
    assert prefixes
    for name in prefixes:
        np.testing.assert_array_equal(batch[name.replace(f"/{agent}", "")], full[name])
    alone = {"terminated", "truncated", "value"}
    for name in alone:
        np.testing.assert_array_equal(batch[name], full[name])
    columns = {name.removeprefix("next_") for name in batch.keys() if name not in batch._info}  # noqa: SIM118
    assert columns == {name.removeprefix("next_").replace(f"/{agent}", "") for name in prefixes} | alone


@pytest.mark.parametrize("view", VIEWS, ids=repr)
@pytest.mark.parametrize("agent", ["alice", "bob"])
def test_a_view_of_one_agent(store: Store, view: Any, agent: str) -> None:
    fill(store)
    if agent == "bob" and isinstance(view, rs.Hindsight):
        with pytest.raises(rs.InvalidArgument, match="there is no such column"):
            store.sample("t", 4, view=rs.Hindsight(rs.Transition(agent="bob"), achieved="observation/place", desired="observation/place"))
        return
    same_as_alone(store, view, agent)


def test_columns_are_named_as_the_agent_sees_them(store: Store) -> None:
    fill(store)
    batch = store.sample("t", 4, view=rs.Transition(agent="alice"), columns=["observation/place", "reward"])
    assert {name for name in batch.keys() if name not in batch._info} == {"observation/place", "next_observation/place", "reward"}  # noqa: SIM118
    with pytest.raises(rs.InvalidArgument, match="no column 'observation/alice'"):
        store.sample("t", 4, view=rs.Transition(agent="alice"), columns=["observation/alice"])
    with pytest.raises(rs.InvalidArgument, match=r"agent='eve'.*alice, bob"):
        store.sample("t", 4, view=rs.Transition(agent="eve"))


def test_rewards_of_all_make_an_episodes_return(store: Store, tmp_path: Path) -> None:
    fill(store)
    assert store.episodes("t")["return"].tolist() == [28.0 - 14.0] * 3
    store.close()
    assert verify(tmp_path / "data").findings == []
    with rs.open(tmp_path / "data") as again:
        assert again.episodes("t")["return"].tolist() == [14.0] * 3


def test_after_a_crash_open_episodes_know_what_they_earned(store: Store, tmp_path: Path) -> None:
    store.create_table("t", rs.TableConfig(rs.columns_from_agents(SPACES), seed=3))
    writer = store.writer("t")
    writer.reset(seen(0))
    for t in range(5):
        writer.append({"alice": 0, "bob": np.zeros(2)}, {"alice": 1.0, "bob": 0.5}, False, False, seen(t + 1))
    writer.flush(durable=True)
    assert [state.total for state in store.table("t")._book.open.values()] == [7.5]
    store.table("t").close(save=False)
    store._file_lock.release()  # type: ignore[union-attr]
    with rs.open(tmp_path / "data") as again:
        assert [state.total for state in again.table("t")._book.open.values()] == [7.5]


def test_all_environments_at_once(store: Store) -> None:
    store.create_table("t", rs.TableConfig(rs.columns_from_agents(SPACES), seed=3))
    with store.writer("t", streams=2) as writer:
        for stream in (0, 1):
            writer.reset(seen(0), stream=stream)
        for t in range(4):
            following = {"alice": {"place": np.full((2, 2), t + 1, "f4"), "goal": np.zeros(2, int)}, "bob": np.full((2, 3), t + 1, "u1")}
            actions = {"alice": np.array([t, t]) % 4, "bob": np.zeros((2, 2), "f4")}
            writer.append_batch(actions, {"alice": np.ones(2), "bob": np.array([1.0, 2.0])}, [t == 3] * 2, [False] * 2, following)
    assert sorted(store.episodes("t")["return"].tolist()) == [8.0, 12.0]
    with store.writer("t") as writer:
        writer.reset(seen(0))
        with pytest.raises(rs.SchemaMismatch, match="'reward' must have reward/alice, reward/bob; got reward/alice"):
            writer.append({"alice": 0, "bob": np.zeros(2)}, {"alice": 1.0}, False, False, seen(1))
        with pytest.raises(rs.SchemaMismatch, match="'reward' is nested here"):
            writer.append({"alice": 0, "bob": np.zeros(2)}, 1.0, False, False, seen(1))


def test_copies_that_number_rows_anew_know_the_rewards_of_all(store: Store, tmp_path: Path) -> None:
    fill(store)
    writer = store.writer("t")
    writer.reset(seen(0))
    for t in range(3):
        writer.append(
            {"alice": 0, "bob": np.zeros(2)},
            {"alice": 4.0, "bob": 0.5},
            False,
            False,
            seen(t + 1),
            log_prob={"alice": 0.0, "bob": 0.0},
            value=0.0,
        )
    writer.flush()
    store.snapshot("t", tmp_path / "copy", rebase=True)
    store.snapshot("t", tmp_path / "data-set", episodes=True)
    assert (tmp_path / "data-set/data/reward_alice").is_dir()
    assert verify(tmp_path / "copy").findings == []
    with rs.open(tmp_path / "copy") as copy:
        assert copy.episodes("t")["return"].tolist() == [14.0] * 3
        assert [state.total for state in copy.table("t")._book.open.values()] == [13.5]


def test_goals_are_relabelled_for_one_agent(store: Store) -> None:
    fill(store)
    every = rs.Hindsight(achieved="observation/alice/place", desired="observation/alice/place", ratio=1.0)
    with pytest.raises(rs.InvalidArgument, match="choose one with Transition"):
        store.sample("t", 2, view=every, reward_fn=lambda achieved, desired, info: achieved[:, 0])
