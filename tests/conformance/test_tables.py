"""create, describe, stats, alter, drop, and what they refuse."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import replaystore as rs
from tests.conformance.conftest import Side, config, play


def test_create_describe_drop(side: Side) -> None:
    api = side.api
    assert api.tables() == []
    wanted = config(
        selector={"td": rs.Prioritized(0.7, 1e-3), "flat": rs.Uniform()},
        rate_limiter=rs.SampleToInsertRatio(4.0, 10, 200.0),
        retention=rs.Retention(5000),
        extras={"observation2/deep/goal": rs.Column((3, 2), "uint8", {"kind": "Box", "low": 0.0, "high": 255.0})},
    )
    api.create_table("b", wanted)
    api.create_table("a", config())
    assert api.tables() == ["a", "b"]
    described = api.describe("b")
    assert described.name == "b"
    assert described.config == wanted
    assert described.config.columns["observation2/deep/goal"].space == {"kind": "Box", "low": 0.0, "high": 255.0}
    assert described.format_version == 1
    assert described.created > 1.7e9
    assert described.rows_per_chunk["steps/observation"] >= 1
    api.drop_table("a")
    assert api.tables() == ["b"]
    with pytest.raises(rs.NotFound, match=r"'a'.*b"):
        api.stats("a")
    api.create_table("a", config())  # the name is free again, and nothing of before is left
    assert api.stats("a").next_step == 0


def test_an_equal_configuration_is_fine_with_exist_ok(api: Any, table: str) -> None:
    api.create_table(table, config())
    api.create_table(table, config(), exist_ok=True)
    with pytest.raises(rs.AlreadyExists, match=f"'{table}' exists"):
        api.create_table(table, config())


@pytest.mark.parametrize(
    ("part", "changes"),
    [
        ("columns", {"extras": {"more": rs.Column()}}),
        ("selectors", {"selector": rs.Prioritized()}),
        ("rate_limiter", {"rate_limiter": rs.MinSize(5)}),
        ("retention", {"retention": rs.Retention(100)}),
        ("seed", {"seed": 8}),
    ],
)
def test_another_configuration_is_refused_and_named(api: Any, table: str, part: str, changes: dict[str, Any]) -> None:
    api.create_table(table, config())
    with pytest.raises(rs.AlreadyExists, match=f"another {part}"):
        api.create_table(table, config(**changes), exist_ok=True)
    assert api.describe(table).config == config()


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "__private", "zarr.json", "x" * 200, "sp ace"])
def test_names_that_could_leave_the_folder_are_refused(api: Any, name: str) -> None:
    with pytest.raises(rs.InvalidArgument, match="table name"):
        api.create_table(name, config())


CALLS: dict[str, Callable[[Any], Any]] = {
    "describe": lambda api: api.describe("none"),
    "stats": lambda api: api.stats("none"),
    "alter_table": lambda api: api.alter_table("none", rate_limiter=rs.MinSize(1)),
    "drop_table": lambda api: api.drop_table("none"),
    "writer": lambda api: api.writer("none"),
    "sample": lambda api: api.sample("none", 1),
    "sampler": lambda api: next(api.sampler("none", 1)),
    "update_priorities": lambda api: api.update_priorities("none", [0], [1.0]),
    "read_steps": lambda api: api.read_steps("none", 0, 1),
    "episodes": lambda api: api.episodes("none"),
}


@pytest.mark.parametrize("verb", CALLS)
def test_every_verb_says_that_there_is_no_such_table(api: Any, table: str, verb: str) -> None:
    api.create_table(table, config())
    with pytest.raises(rs.NotFound, match=rf"there is no table 'none'; tables: .*{table}"):
        CALLS[verb](api)


def test_stats(api: Any, table: str) -> None:
    api.create_table(table, config(selector=rs.Prioritized(alpha=0.5, epsilon=0.0)))
    empty = api.stats(table)
    assert (empty.name, empty.first_step, empty.next_step, empty.anchors, empty.episodes, empty.steps) == (table, 0, 0, 0, 0, 0)
    assert empty.oldest_time is None
    assert empty.blocked_insert is None
    assert "min_size_to_sample=1" in empty.blocked_sample
    with api.writer(table, streams=2) as writer:
        play(writer, 4, stream=0)
        play(writer, 3, stream=1, end=False)
        writer.flush(durable=True)
        stats = api.stats(table)
        # 4 steps and their closing row; 3 steps of which the newest waits for its successor
        assert (stats.next_step, stats.anchors, stats.episodes, stats.open_episodes, stats.inserted_steps) == (8, 6, 1, 1, 7)
        assert stats.durable_step == 8
        assert stats.blocked_sample is None
        assert stats.total_priority == {"default": pytest.approx(6.0)}
        assert stats.max_priority == {"default": 1.0}
        assert stats.oldest_time <= stats.newest_time
        assert stats.bytes_on_disk > 0
        assert stats.index_bytes > 0
        assert (stats.waiting_inserts, stats.waiting_samples) == (0, 0)
    closed = api.stats(table)  # the writer closed the open episode: one more row, one more anchor
    assert (closed.next_step, closed.anchors, closed.episodes, closed.open_episodes) == (9, 7, 2, 0)
    api.sample(table, 5)
    assert api.stats(table).sampled_items == 5


def test_alter(filled: Callable[..., str], api: Any) -> None:
    name = filled(10, selector=rs.Prioritized(1.0, 0.0))
    api.update_priorities(name, np.arange(10), np.full(10, 4.0))
    assert api.stats(name).total_priority["default"] == pytest.approx(40.0)
    changed = api.alter_table(name, rate_limiter=rs.MinSize(3), retention=rs.Retention(6), selector=rs.Prioritized(0.5, 0.0))
    assert changed == config(selector=rs.Prioritized(0.5, 0.0), rate_limiter=rs.MinSize(3), retention=rs.Retention(6))
    assert api.describe(name).config == changed
    stats = api.stats(name)
    assert (stats.first_step, stats.next_step, stats.anchors) == (5, 11, 5)
    assert stats.total_priority["default"] == pytest.approx(5 * 4.0**0.5, rel=1e-5)
    assert api.alter_table(name) == changed  # nothing named, nothing changed


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"selector": rs.Uniform()}, "names and kinds stay"),
        ({"selector": {"other": rs.Prioritized()}}, "names and kinds stay"),
        ({"rate_limiter": rs.MinSize(100), "retention": rs.Retention(50)}, "can never be reached"),
        ({"rate_limiter": rs.MinSize}, "MinSize"),
        ({"retention": 50}, "50"),
    ],
    ids=["kind", "name", "unreachable", "class", "number"],
)
def test_alter_refuses_what_cannot_be(filled: Callable[..., str], api: Any, changes: dict[str, Any], said: str) -> None:
    name = filled(10, selector=rs.Prioritized())
    before = api.describe(name).config
    with pytest.raises(rs.InvalidArgument, match=said):
        api.alter_table(name, **changes)
    assert api.describe(name).config == before


def test_reopening_keeps_everything(side: Side) -> None:
    api = side.api
    api.create_table("t", config(selector=rs.Prioritized(1.0, 0.0), rate_limiter=rs.SampleToInsertRatio(10.0, 1, 1000.0)))
    with api.writer("t", actor=4, policy_version=2) as writer:
        play(writer, 20)
    api.update_priorities("t", np.arange(20), np.arange(20) / 2)
    api.sample("t", 30)
    parameters = {"w": np.arange(6.0).reshape(2, 3)}
    api.publish_parameters("p", parameters)
    api.alter_table("t", rate_limiter=rs.SampleToInsertRatio(8.0, 1, 500.0))
    description, stats = api.describe("t"), api.stats("t")
    steps = api.read_steps("t", 0, 100, [*description.config.columns, "meta/episode", "meta/actor", "replay/times_sampled"])
    episodes = api.episodes("t")
    api = side.reopen()
    assert api.tables() == ["t"]
    assert api.describe("t") == description
    again = api.stats("t")
    figures = ("first_step", "next_step", "anchors", "episodes", "inserted_steps", "sampled_items", "max_priority", "oldest_time")
    assert {name: getattr(again, name) for name in figures} == {name: getattr(stats, name) for name in figures}
    assert again.total_priority["default"] == pytest.approx(stats.total_priority["default"])
    for name, array in api.read_steps("t", 0, 100, list(steps)[1:]).items():
        np.testing.assert_array_equal(array, steps[name], err_msg=name)
    for name, array in api.episodes("t").items():
        np.testing.assert_array_equal(array, episodes[name], err_msg=name)
    arrays, version = api.fetch_parameters("p")
    assert version == 1
    np.testing.assert_array_equal(arrays["w"], parameters["w"])
    assert api.publish_parameters("p", parameters) == 2
    with api.writer("t") as writer:
        play(writer, 5)
    assert api.read_steps("t", 21, 100, ["action"])["step_id"].tolist() == list(range(21, 27))


def test_the_random_numbers_go_on_where_they_were(sides: dict[str, Side]) -> None:
    drawn: dict[str, list[Any]] = {}
    for kind, side in sides.items():
        side.api.create_table("t", config(selector=rs.Prioritized()))
        with side.api.writer("t") as writer:
            play(writer, 50)
        drawn[kind] = [side.api.sample("t", 16).step_ids.tolist() for _ in range(3)]
        if kind == "remote":
            side.reopen()
        drawn[kind] += [side.api.sample("t", 16).step_ids.tolist() for _ in range(3)]
    assert drawn["embedded"] == drawn["remote"]
    assert len({tuple(ids) for ids in drawn["embedded"]}) == 6


def test_altering_and_dropping_while_the_store_commits(side: Side) -> None:
    """A publication is a rename of files; two at once would take them from under each other."""
    api = side.api
    api.create_table("t", config())
    inside, most = side.watch_publications("t", pause_s=0.03)
    with api.writer("t") as writer:
        for length in range(1, 8):
            play(writer, length)
            writer.flush()
            side.publish_soon("t")
            time.sleep(0.03)  # the committer is somewhere in its turn
            api.alter_table("t", rate_limiter=rs.MinSize(length))
    side.publish_soon("t")
    time.sleep(0.03)
    api.drop_table("t")
    assert inside == []
    assert most == [1]
    assert api.tables() == []
