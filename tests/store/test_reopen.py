"""What a store knows survives closing it, and killing it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import replaystore as rs
from replaystore.errors import AlreadyExists, Locked, NotFound, NotReady, PermissionDenied
from replaystore.store import Store
from tests.store.conftest import config, observation, write_episodes


def filled(path: Path, **changes: object) -> Store:
    store = rs.open(path)
    store.create_table("t", config(selector=rs.Prioritized(alpha=0.7), **changes))
    write_episodes(store, "t", [5, 9, 1, 30, 12])
    batch = store.sample("t", 16)
    store.update_priorities("t", batch.step_ids, np.arange(16) / 4)
    return store


def same(a: rs.Batch, b: rs.Batch) -> None:
    assert a.keys() == b.keys()
    for name in a.keys():  # noqa: SIM118
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def test_closing_and_opening_changes_nothing(tmp_path: Path) -> None:
    with filled(tmp_path / "a") as store:
        store.table("t").wait_durable(store.table("t").next_step, 60)
        stats, episodes, steps = (
            store.stats("t"),
            store.episodes("t"),
            store.read_steps("t", 0, 1000, ["replay/priority", "replay/times_sampled"]),
        )
    with rs.open(tmp_path / "a") as again:
        assert again.stats("t") == stats
        assert again.table("t").config == config(selector=rs.Prioritized(alpha=0.7))
        for name, values in again.episodes("t").items():
            np.testing.assert_array_equal(values, episodes[name])
        for name, values in again.read_steps("t", 0, 1000, ["replay/priority", "replay/times_sampled"]).items():
            np.testing.assert_array_equal(values, steps[name])


def test_draws_go_on_where_they_were_after_a_kill_and_after_a_close(tmp_path: Path, crash_copy: Callable[[Store], Path]) -> None:
    store = filled(tmp_path / "a")
    killed = crash_copy(store)
    expected = [store.sample("t", 32, beta=0.5) for _ in range(3)]
    with rs.open(killed) as recovered:
        for batch in expected[:2]:
            same(recovered.sample("t", 32, beta=0.5), batch)
    with rs.open(killed) as reopened:
        same(reopened.sample("t", 32, beta=0.5), expected[2])
    store.close()


def test_a_killed_store_has_every_acknowledged_step(tmp_path: Path, crash_copy: Callable[[Store], Path]) -> None:
    store = rs.open(tmp_path / "a", commit_interval_s=3600)  # nothing is committed: only the journal knows
    store.create_table("t", config())
    writer = store.writer("t", streams=2, block_rows=8)
    writer.reset(observation(0, 0, 0), stream=0, seed=11)
    writer.reset(observation(1, 0, 0), stream=1)
    for t in range(50):
        for s in (0, 1):
            writer.append(t, 1.0, t == 20 and s == 0, False, observation(s, 0, t + 1), stream=s)
        if t == 20:
            writer.reset(observation(0, 1, 0), stream=0, seed=12)
    writer.flush()
    before, stats = store.read_steps("t", 0, 10**6), store.stats("t")
    with rs.open(crash_copy(store)) as recovered:
        after = recovered.read_steps("t", 0, 10**6)
        for name in before:
            np.testing.assert_array_equal(after[name], before[name], err_msg=name)
        table = recovered.table("t")
        assert (table.recovered_steps, recovered.stats("t").anchors) == (stats.next_step, stats.anchors)
        assert recovered.stats("t").inserted_steps == stats.inserted_steps
        assert recovered.stats("t").open_episodes == 2
        assert sorted(s.seed for s in table._book.open.values()) == [-1, 12]
        assert recovered.episodes("t")["seed"].tolist() == [11]
    writer.close()
    store.close()


def test_an_interrupted_stream_goes_on_after_recovery(tmp_path: Path, crash_copy: Callable[[Store], Path]) -> None:
    """The writer's next block continues the episode that the killed process had open."""
    store = rs.open(tmp_path / "a")
    store.create_table("t", config())
    blocks = []
    table = store.table("t")
    writer = store.writer("t", block_rows=4)
    original = table.append
    table.append = lambda block, timeout_s: (blocks.append(copy.deepcopy(block)), original(block, timeout_s))[1]  # type: ignore[method-assign]
    writer.reset(observation(0, 0, 0))
    for t in range(10):
        writer.append(t, 1.0, False, False, observation(0, 0, t + 1))
    writer.flush()
    killed = crash_copy(store)
    for t in range(10, 20):
        writer.append(t, 1.0, t == 19, False, observation(0, 0, t + 1))
    writer.flush()
    with rs.open(killed) as recovered:
        later = recovered.table("t")
        for block in blocks:  # all of them again: those before the crash are duplicates
            later.append(block, 1.0)
        assert recovered.read_steps("t", 0, 100, ["observation"])["observation"][:, 2].tolist() == list(range(21))
        assert recovered.episodes("t")["length"].tolist() == [20]
        assert recovered.episodes("t")["return"].tolist() == [20.0]
        assert recovered.stats("t").anchors == 20
    writer.close()
    store.close()


def test_a_second_opening_for_writing_is_refused_a_reading_one_is_not(tmp_path: Path) -> None:
    with filled(tmp_path / "a") as store:
        with pytest.raises(Locked, match="is open for writing in process"):
            rs.open(tmp_path / "a")
        store.table("t").wait_durable(store.table("t").next_step, 60)
        store.table("t").publish()
        with rs.open(tmp_path / "a", mode="r") as reader:
            assert reader.stats("t").next_step == store.stats("t").next_step
            batch = reader.sample("t", 8)
            assert reader.update_priorities("t", batch.step_ids, np.ones(8)).applied == 8
            with pytest.raises(PermissionDenied, match="mode='r'"):
                reader.writer("t")
            with pytest.raises(PermissionDenied, match="mode='r'"):
                reader.drop_table("t")


def test_a_reader_changes_nothing_on_disk(tmp_path: Path) -> None:
    filled(tmp_path / "a").close()
    content = {path: path.read_bytes() for path in sorted((tmp_path / "a").rglob("*")) if path.is_file()}
    with rs.open(tmp_path / "a", mode="r") as reader:
        for _ in range(10):
            batch = reader.sample("t", 8)
            reader.update_priorities("t", batch.step_ids, np.full(8, 9.0))
        assert reader.stats("t").max_priority["default"] == pytest.approx(9.0)
    assert {path: path.read_bytes() for path in sorted((tmp_path / "a").rglob("*")) if path.is_file()} == content


def test_reading_what_is_not_there_makes_nothing(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no replaystore store"):
        rs.open(tmp_path / "nothing", mode="r")
    assert not (tmp_path / "nothing").exists()


def test_tables_come_and_go(tmp_path: Path) -> None:
    with rs.open(tmp_path / "a") as store:
        store.create_table("t", config())
        store.create_table("t", config(), exist_ok=True)
        with pytest.raises(AlreadyExists, match="pass exist_ok=True"):
            store.create_table("t", config())
        with pytest.raises(AlreadyExists, match="another retention"):
            store.create_table("t", config(retention=rs.Retention(100)), exist_ok=True)
        write_episodes(store, "t", [3])
        store.drop_table("t")
        assert store.tables() == []
        assert not (tmp_path / "a" / "t").exists()
        with pytest.raises(NotFound, match="none yet: create one"):
            store.stats("t")
        store.create_table("t", config())
        assert store.stats("t").next_step == 0
    with pytest.raises(rs.InvalidArgument, match="is closed"):
        store.sample("t", 1)


def test_altering_is_kept(tmp_path: Path) -> None:
    with filled(tmp_path / "a") as store:
        leaves = store.read_steps("t", 0, 100, ["replay/priority"])["replay/priority"]
        store.alter_table("t", selector=rs.Prioritized(alpha=0.35), retention=rs.Retention(20), rate_limiter=rs.MinSize(3))
        after = store.read_steps("t", 0, 100, ["replay/priority"])["replay/priority"]
        np.testing.assert_allclose(after, np.sqrt(leaves[-20:]), rtol=1e-4)
        assert store.stats("t").steps == 20
        with pytest.raises(rs.InvalidArgument, match="names and kinds stay"):
            store.alter_table("t", selector=rs.Uniform())
    with rs.open(tmp_path / "a") as again:
        stored = again.describe("t").config
        assert (stored.selector, stored.retention, stored.rate_limiter) == (rs.Prioritized(alpha=0.35), rs.Retention(20), rs.MinSize(3))
        assert again.stats("t").steps == 20
        assert again.stats("t").total_priority["default"] == pytest.approx(float(after.sum(dtype=float)), rel=1e-5)


def test_a_limiter_set_later_counts_from_then_on(tmp_path: Path) -> None:
    """A table sampled freely for long is not stuck when a ratio is set, before and after opening again."""
    with filled(tmp_path / "a") as store:
        for _ in range(100):
            store.sample("t", 64)
        store.alter_table("t", rate_limiter=rs.SampleToInsertRatio(2.0, min_size_to_sample=10, error_buffer=64.0))
        assert store.stats("t").blocked_insert is None
        store.sample("t", 32, timeout_s=0)
        store.sample("t", 32, timeout_s=0)
        with pytest.raises(NotReady, match="SampleToInsertRatio"):
            store.sample("t", 32, timeout_s=0)
    with rs.open(tmp_path / "a") as again:
        with pytest.raises(NotReady, match="SampleToInsertRatio"):
            again.sample("t", 32, timeout_s=0)
        write_episodes(again, "t", [16])
        again.sample("t", 32, timeout_s=0)


def test_a_store_that_is_only_read_is_not_held_back(tmp_path: Path) -> None:
    with filled(tmp_path / "a", rate_limiter=rs.SampleToInsertRatio(1.0, min_size_to_sample=1, error_buffer=64.0)):
        pass
    with rs.open(tmp_path / "a", mode="r") as reader:
        for _ in range(50):
            assert len(reader.sample("t", 64, timeout_s=0)) == 64
