"""What retention drops beside max_steps: by bytes, by age, by how often a step was sampled; and what it must leave."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import replaystore as rs
from replaystore.engine.checking.verify import verify
from replaystore.schema.feasible import BOOKKEEPING_BYTES, LEAF_BYTES
from replaystore.storage.layout import step_arrays
from replaystore.store import Store
from tests.store.conftest import config, observation, write_episodes


class Clock:
    """Stands for `time`; goes on when told."""

    def __init__(self) -> None:
        self.now = 1e9

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    stands = Clock()
    for module in ("table", "changing", "drawing"):
        monkeypatch.setattr(f"replaystore.engine.{module}.time", stands)
    return stands


@pytest.fixture
def still(tmp_path: Path) -> Store:
    """A store that commits only when told."""
    store = rs.open(tmp_path / "still", commit_interval_s=3600)
    yield store
    store.close()


def test_bytes_of_a_row_are_those_of_its_arrays() -> None:
    made = config(selector={"a": rs.Prioritized(), "b": rs.Uniform()})
    arrays = step_arrays(made.columns, [("a", True), ("b", False)], None)
    assert made.row_bytes == sum(layout.row_bytes for layout in arrays)
    columns = sum(column.row_bytes for column in made.columns.values())
    assert made.row_bytes == columns + BOOKKEEPING_BYTES + LEAF_BYTES


def test_max_bytes_keeps_what_fits(store: Store) -> None:
    row = config().row_bytes
    store.create_table("t", config(retention=rs.Retention(max_bytes=100 * row + row - 1)))
    write_episodes(store, "t", [9] * 30)
    assert (store.stats("t").first_step, store.stats("t").next_step) == (200, 300)
    store.alter_table("t", retention=rs.Retention(max_bytes=50 * row, min_steps=70))
    assert store.stats("t").first_step == 230


def test_old_rows_go_with_the_next_append_and_in_an_idle_table_with_the_next_commit(still: Store, clock: Clock) -> None:
    still.create_table("t", config(retention=rs.Retention(max_age_s=10.0, min_steps=4)))
    write_episodes(still, "t", [4])
    clock.now += 6
    write_episodes(still, "t", [4], first_episode=2)
    assert still.stats("t").first_step == 0
    clock.now += 6
    still.table("t").commit()
    assert (still.stats("t").first_step, still.stats("t").anchors) == (5, 4)
    clock.now += 100
    still.table("t").commit()
    assert (still.stats("t").first_step, still.stats("t").next_step) == (6, 10), "min_steps rows stay"
    write_episodes(still, "t", [4], first_episode=4)
    assert still.stats("t").first_step == 10


def test_steps_sampled_often_enough_leave_for_good(store: Store, tmp_path: Path) -> None:
    store.create_table("t", config(selector=rs.WithoutReplacement(), retention=rs.Retention(max_times_sampled=2)))
    write_episodes(store, "t", [6, 6])
    first = store.sample("t", 12)
    assert sorted(first.step_ids.tolist()) == [0, 1, 2, 3, 4, 5, 7, 8, 9, 10, 11, 12]
    assert store.stats("t").anchors == 12
    second = store.sample("t", 5)
    left = set(first.step_ids.tolist()) - set(second.step_ids.tolist())
    assert store.stats("t").anchors == 7
    assert set(store.sample("t", 200, selector=rs.Uniform(), seed=1).step_ids.tolist()) == left
    assert store.stats("t").anchors == 0
    removed = store.read_steps("t", 0, 14, ["replay/removed", "meta/kind"])
    assert removed["replay/removed"].tolist() == [2 * (kind == 0) for kind in removed["meta/kind"].tolist()]
    store.close()
    assert verify(tmp_path / "data").findings == []
    with rs.open(tmp_path / "data") as again:
        assert again.stats("t").anchors == 0
        write_episodes(again, "t", [3], first_episode=2)
        assert sorted(again.sample("t", 3).step_ids.tolist()) == [14, 15, 16]


def test_walks_pass_through_used_up_steps(store: Store) -> None:
    store.create_table("t", config(selector=rs.Fifo(), retention=rs.Retention(max_times_sampled=1)))
    write_episodes(store, "t", [6])
    store.sample("t", 3)
    batch = store.sample("t", 1, view=rs.Transition(n_step=3, gamma=1.0, frame_stack=3))
    assert batch.step_ids.tolist() == [3]
    assert batch.observation[0, :, 2].tolist() == [1, 2, 3]
    lifo = store.sample("t", 1, view=rs.Transition(n_step=3, gamma=1.0), selector=rs.Lifo())
    assert lifo.step_ids.tolist() == [5]
    batch = store.sample("t", 1, view=rs.Transition(n_step=3, gamma=1.0))
    assert (batch.step_ids.tolist(), batch.reward.tolist()) == ([4], [5 + 6])


def test_the_head_goes_once_it_is_spent_but_for_the_past_of_what_is_left(store: Store) -> None:
    store.create_table("t", config(selector=rs.Fifo(), retention=rs.Retention(max_times_sampled=1)))
    write_episodes(store, "t", [999] * 3)
    store.sample("t", 2500)
    assert store.stats("t").first_step == 0
    write_episodes(store, "t", [1], first_episode=3)
    stats = store.stats("t")
    assert stats.first_step == 2502 - 1024  # 2500 steps and two closing rows are spent
    assert stats.anchors == 3 * 999 - 2500 + 1
    assert store.sample("t", 1, view=rs.Transition(frame_stack=4)).observation[0, :, 2].tolist() == [499, 500, 501, 502]


def test_min_steps_anchors_stay_however_often_they_were_sampled(store: Store) -> None:
    store.create_table("t", config(retention=rs.Retention(max_times_sampled=1, min_steps=4)))
    write_episodes(store, "t", [10])
    store.sample("t", 500, seed=1)
    assert store.stats("t").anchors == 4
    assert set(store.sample("t", 500, seed=2).step_ids.tolist()) == {6, 7, 8, 9}, "the oldest went first"
    assert store.stats("t").anchors == 4


def test_a_lower_number_of_samples_holds_for_what_is_there(store: Store) -> None:
    store.create_table("t", config(selector=rs.Fifo()))
    write_episodes(store, "t", [10])
    store.sample("t", 4)
    store.sample("t", 2)
    store.alter_table("t", retention=rs.Retention(max_times_sampled=2))
    assert store.sample("t", 2).step_ids.tolist() == [2, 3]


def test_a_step_before_a_deleted_one_does_not_hold_the_head(store: Store) -> None:
    """It will never be an anchor; the newest row of an open episode may become one."""
    store.create_table("t", config(selector=rs.Fifo(), retention=rs.Retention(max_times_sampled=1)))
    write_episodes(store, "t", [1500])
    store.delete_steps("t", [5])
    store.sample("t", 1490)
    with store.writer("t") as writer:
        writer.reset(observation(1, 0, 0))
        writer.append(0, 1.0, False, False, observation(1, 0, 1))
        writer.append(0, 1.0, False, False, observation(1, 0, 2))
        writer.flush()
        assert store.stats("t").first_step == 1492 - 1024
        store.delete_steps("t", where=rs.Filter())


def test_what_was_used_up_stays_so_after_a_kill(still: Store, crash_copy: Callable[[Store], Path]) -> None:
    queue = config(selector=rs.Fifo(), rate_limiter=rs.Queue(8), retention=rs.Retention(max_times_sampled=1))
    still.create_table("t", queue)
    write_episodes(still, "t", [8])
    still.table("t").commit()
    assert still.sample("t", 3).step_ids.tolist() == [0, 1, 2]
    path = crash_copy(still)
    assert verify(path).findings == []
    with rs.open(path) as recovered:
        assert recovered.stats("t").anchors == 5
        assert recovered.sample("t", 5).step_ids.tolist() == [3, 4, 5, 6, 7]


def test_a_reader_sees_what_was_removed(still: Store) -> None:
    still.create_table("t", config())
    write_episodes(still, "t", [5, 5])
    still.delete_steps("t", [2, 8])
    still.table("t").commit()
    still.table("t").publish()
    with rs.open(still.path, mode="r") as reader:
        assert set(reader.sample("t", 500, seed=1).step_ids.tolist()) == {0, 3, 4, 6, 9, 10}
        with pytest.raises(rs.PermissionDenied, match="mode='rw' to delete"):
            reader.delete_steps("t", [0])
        with pytest.raises(rs.InvalidArgument, match="none of this table is"):
            reader.update_columns("t", [0], {"action": [1]})


def test_deleting_while_the_tail_is_open(store: Store) -> None:
    store.create_table("t", config())
    with store.writer("t", block_rows=1) as writer:
        writer.reset(observation(0, 0, 0))
        for t in range(3):
            writer.append(t, 1.0, False, False, observation(0, 0, t + 1))
        writer.flush()
        newest = store.stats("t").next_step - 1
        assert store.delete_steps("t", [newest]).deleted == 1
        for t in range(3, 6):
            writer.append(t, 1.0, False, False, observation(0, 0, t + 1))
        writer.flush()
        ids = set(store.sample("t", 500, seed=1).step_ids.tolist())
    assert not {newest, newest - 1} & ids
    assert newest + 1 in ids


def test_with_fsync_a_change_is_acknowledged_once_it_is_on_the_disk(tmp_path: Path) -> None:
    columns = {**config().columns, "note": rs.Column((), "int16", writable=True)}
    with rs.open(tmp_path / "a", durability="fsync", commit_interval_s=3600) as store:
        store.create_table("t", rs.TableConfig(columns, seed=7))
        write_noted(store)
        files = store.table("t")._files
        assert store.delete_steps("t", [1]).deleted == 1
        assert files.durable_changes == files.changes == 1
        assert store.update_columns("t", [0, 2], {"note": [1, 2]}).applied == 2
        assert files.durable_changes == files.changes == 2
        assert store.delete_steps("t", [1]).gone == 1


def test_rows_that_are_written_into_are_durable_first(tmp_path: Path) -> None:
    columns = {**config().columns, "note": rs.Column((), "int16", writable=True)}
    with rs.open(tmp_path / "a", commit_interval_s=3600) as store:
        store.create_table("t", rs.TableConfig(columns, seed=7))
        write_noted(store)
        assert store.stats("t").durable_step == 0
        assert store.update_columns("t", [2], {"note": [1]}).applied == 1
        assert store.stats("t").durable_step == 5
        assert store.table("t")._files.settled_step == 5


def write_noted(store: Store) -> None:
    with store.writer("t") as writer:
        writer.reset(observation(0, 0, 0))
        for t in range(4):
            writer.append(t, 1.0, t == 3, False, observation(0, 0, t + 1), note=0)
