"""Deletion, write-back and limiters that hold one step for one sampler, embedded and over the network."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import replaystore as rs

from .conftest import Side

COLUMNS = {
    "observation": rs.Column((2,)),
    "action": rs.Column((), "int64"),
    "advantage": rs.Column((), "float32", writable=True),
    "features": rs.Column((3,), "uint8", writable=True),
}


def play(api: Any, lengths: list[int], *, actor: int = 0, version: int = -1, rewards: float = 1.0, **config: Any) -> None:
    """Finished episodes of a single stream; action is the position in the episode."""
    if "t" not in api.tables():
        api.create_table("t", rs.TableConfig(COLUMNS, seed=3, **config))
    with api.writer("t", actor=actor, policy_version=version) as writer:
        for length in lengths:
            writer.reset(np.zeros(2, "f4"))
            for t in range(length):
                last = t == length - 1
                extras = {"advantage": 0.0, "features": np.zeros(3, "u1")}
                writer.append(t, rewards, last, False, np.full(2, t + 1, "f4"), **extras)


def drawn(api: Any, **options: Any) -> set[int]:
    return set(api.sample("t", 2000, seed=1, **options).step_ids.tolist())


def test_deleted_steps_are_not_sampled_nor_what_leads_to_them(side: Side) -> None:
    api = side.api
    play(api, [5, 5])  # rows 0-5 and 6-11; 5 and 11 are closing rows
    counts = api.delete_steps("t", [2, 2, 11, 99, -1])
    assert counts == rs.DeleteCounts(2, 2)
    left = {0, 3, 4, 6, 7, 8, 9}
    assert drawn(api) == left
    assert api.stats("t").anchors == 7
    assert api.delete_steps("t", [2]) == rs.DeleteCounts(0, 1)
    assert api.read_steps("t", 0, 12, ["replay/removed"])["replay/removed"].tolist() == [0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1]
    batch = api.sample("t", 500, view=rs.Transition(n_step=4, gamma=1.0), seed=2)
    taken = dict(zip(batch.step_ids.tolist(), batch.steps_taken.tolist(), strict=True))
    assert (taken[0], taken[3], taken[6]) == (1, 2, 4)
    side.reopen()
    assert drawn(side.api) == left


def test_deletion_by_conditions(side: Side) -> None:
    api = side.api
    play(api, [4], actor=1, version=3, rewards=1.0)
    play(api, [4], actor=2, version=5, rewards=-1.0)
    play(api, [4], actor=2, version=7, rewards=2.0)
    assert api.delete_steps("t", where=rs.Filter(actors=(1,))) == rs.DeleteCounts(4, 0)
    assert drawn(api) == {5, 6, 7, 8, 10, 11, 12, 13}
    assert api.delete_episodes("t", where=rs.Filter(max_return=0.0)).deleted == 5
    assert drawn(api) == {10, 11, 12, 13}
    assert api.delete_steps("t", where=rs.Filter(max_age_steps=3)).deleted == 2
    assert drawn(api) == {10}
    api.delete_steps("t", where=rs.Filter())
    assert api.stats("t").anchors == 0
    with pytest.raises(rs.NotReady, match=r"no step can be sampled|0 of min_size_to_sample=1"):
        api.sample("t", 1, timeout_s=0)


def test_deletion_of_whole_episodes(side: Side) -> None:
    api = side.api
    play(api, [3, 3])
    finished = api.episodes("t")["episode"]
    with api.writer("t") as writer:
        writer.reset(np.zeros(2, "f4"))
        for t in range(3):
            writer.append(t, 1.0, False, False, np.zeros(2, "f4"), advantage=0.0, features=np.zeros(3, "u1"))
        writer.flush()
        going = int(api.read_steps("t", 8, 9, ["meta/episode"])["meta/episode"][0])
        assert api.delete_episodes("t", [int(finished[0]), going, 123456]) == rs.DeleteCounts(4 + 3, 1)
        assert drawn(api) == {4, 5, 6}
        for t in range(3):
            writer.append(t, 1.0, False, False, np.zeros(2, "f4"), advantage=0.0, features=np.zeros(3, "u1"))
        writer.flush()
        assert drawn(api) == {4, 5, 6, 11, 12}, "what comes after a deleted tail is an anchor; the tail itself is not"
    assert api.delete_episodes("t", finished) == rs.DeleteCounts(4, 1)


@pytest.mark.parametrize(
    ("numbers", "where", "text"),
    [(None, None, "either .* got neither"), ([1], rs.Filter(), "either .* got both"), ([0.5], None, "whole numbers")],
)
def test_a_deletion_must_say_what(side: Side, numbers: Any, where: Any, text: str) -> None:
    play(side.api, [3])
    for delete in (side.api.delete_steps, side.api.delete_episodes):
        with pytest.raises(rs.InvalidArgument, match=text):
            delete("t", numbers, where)
    assert side.api.stats("t").anchors == 3


def test_columns_are_written_back(side: Side) -> None:
    api = side.api
    play(api, [4, 4])
    api.delete_steps("t", [6])
    counts = api.update_columns(
        "t", [1, 3, 4, 6, 50, 3], {"advantage": np.array([10, 20, 30, 40, 50, 60.0]), "features": np.ones((6, 3), "u1")}
    )
    assert counts == rs.UpdateCounts(4, 2, 0)
    rows = api.read_steps("t", 0, 10, ["advantage", "features"])
    assert rows["advantage"].tolist() == [0, 10, 0, 60, 30, 0, 0, 0, 0, 0]
    assert rows["features"].sum(axis=1).tolist() == [0, 3, 0, 3, 3, 0, 0, 0, 0, 0]
    batch = api.sample("t", 200, seed=1)
    assert {(i, a) for i, a in zip(batch.step_ids.tolist(), batch["advantage"].tolist(), strict=True)} >= {(1, 10.0), (3, 60.0), (0, 0.0)}
    side.reopen()
    assert side.api.read_steps("t", 0, 10, ["advantage"])["advantage"].tolist() == [0, 10, 0, 60, 30, 0, 0, 0, 0, 0]


@pytest.mark.parametrize(
    ("ids", "values", "kind", "text"),
    [
        (
            [1],
            {"action": [1]},
            rs.InvalidArgument,
            r"'action' was not declared writable \(writable are advantage, features\).*writable=True",
        ),
        ([1], {"advance": [1.0]}, rs.InvalidArgument, "there is no column 'advance'"),
        ([1], {}, rs.InvalidArgument, "at least one"),
        ([1], {"advantage": [1.0, 2.0]}, rs.SchemaMismatch, r"'advantage' takes shape \(1,\), got \(2,\)"),
        ([1], {"features": [[1, 2, 300]]}, rs.SchemaMismatch, "do not fit it without loss"),
        ([1.5], {"advantage": [1.0]}, rs.InvalidArgument, "whole numbers"),
    ],
)
def test_what_cannot_be_written_is_refused_whole(side: Side, ids: Any, values: Any, kind: type[Exception], text: str) -> None:
    play(side.api, [4])
    with pytest.raises(kind, match=text):
        side.api.update_columns("t", ids, values)
    assert not side.api.read_steps("t", 0, 10, ["advantage"])["advantage"].any()


def test_writable_columns_may_be_left_out_when_steps_are_written(side: Side) -> None:
    api = side.api
    api.create_table("t", rs.TableConfig(COLUMNS, seed=3))
    with api.writer("t") as writer:
        writer.reset(np.zeros(2, "f4"))
        writer.append(0, 1.0, False, False, np.zeros(2, "f4"), advantage=5.0, features=np.ones(3, "u1"))
        writer.append(1, 1.0, True, False, np.zeros(2, "f4"))
    with api.writer("t", streams=2) as writer:
        both, never = np.zeros(2), np.zeros(2, bool)
        for first in (True, False):
            writer.append_batch(
                both.astype(int), both, never, never, np.zeros((2, 2), "f4"), reset_mask=np.full(2, first), advantage=both + 3
            )
        with pytest.raises(rs.SchemaMismatch, match="'action'"):
            writer.append_batch({}, both, never, never, np.zeros((2, 2), "f4"))
    rows = api.read_steps("t", 0, 9, ["advantage", "features"])
    assert rows["advantage"].tolist() == [5, 0, 0, 3, 0, 3, 0]
    assert rows["features"][:, 0].tolist() == [1, 0, 0, 0, 0, 0, 0]


def test_a_queue_gives_each_step_once_and_in_order(side: Side) -> None:
    api = side.api
    queue = {"selector": rs.Fifo(), "rate_limiter": rs.Queue(4), "retention": rs.Retention(max_times_sampled=1)}
    api.create_table("t", rs.TableConfig(COLUMNS, seed=3, **queue))
    extras = {"advantage": 0.0, "features": np.zeros(3, "u1")}
    seen: list[int] = []
    with api.writer("t", block_rows=1) as writer:
        writer.reset(np.zeros(2, "f4"))
        for t in range(12):
            writer.append(t, 1.0, False, False, np.zeros(2, "f4"), **extras)
            if t % 2:
                writer.flush()
            if t >= 3 and t % 2:
                seen += api.sample("t", 2, timeout_s=10).action.tolist()
    assert seen == list(range(10))
    assert api.stats("t").sampled_items == 10
    with pytest.raises(rs.InvalidArgument, match="batch_size=5 would wait for ever under Queue"):
        api.sample("t", 5)


def test_why_blocked_names_limiter_cursor_and_who_must_act(side: Side) -> None:
    api = side.api
    queue = {"selector": rs.Lifo(), "rate_limiter": rs.Stack(2), "retention": rs.Retention(max_times_sampled=1)}
    play(api, [1], **queue)
    first, second = api.why_blocked("t").splitlines()
    assert first == "inserting goes on (0 waiting)"
    assert second == "sampling goes on (0 waiting)"
    play(api, [2])
    assert "inserting waits: table 't': Stack holds inserts back: cursor 3 (anchors that wait to be sampled), bounds 0 to size=2" in (
        api.why_blocked("t")
    )
    assert "learners must sample 2 more items" in api.why_blocked("t")
    assert api.sample("t", 2).action.tolist() == [1, 0]
    api.sample("t", 1)
    text = api.why_blocked("t")
    assert "sampling waits" in text
    assert "actors must insert" in text
    with pytest.raises(
        rs.NotReady, match=r"Stack holds sampling back: cursor 0 .* bounds 0 to size=2; 2 items are wanted: actors must insert 2"
    ):
        api.sample("t", 2, timeout_s=0)


def test_values_in_another_byte_order_are_the_same_values(side: Side) -> None:
    api = side.api
    play(api, [5])
    values = {"advantage": np.array([0.5, -2.0], ">f4")}
    assert api.update_columns("t", np.array([1, 3], ">i8"), values) == rs.UpdateCounts(2, 0, 0)
    assert api.read_steps("t", 1, 4, ["advantage"])["advantage"].tolist() == [0.5, 0.0, -2.0]
    api.publish_parameters("policy", {"w": np.array([[1.5, 2.0], [3.0, 4.0]], ">f8").T})
    for reopened in (False, True):
        api = side.reopen() if reopened else api
        found = api.fetch_parameters("policy")[0]["w"]
        assert found.dtype == np.dtype("float64"), "what a server sends is little-endian"
        assert found.tolist() == [[1.5, 3.0], [2.0, 4.0]]
