"""Retention: exact in steps, files go when all their rows are past, ids never come back."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import replaystore as rs
from replaystore.store import Store
from tests.store.conftest import config, observation, write_episodes


def test_exactly_max_steps_are_kept_and_files_go(tmp_path: Path) -> None:
    with rs.open(tmp_path / "a", commit_interval_s=0.01) as store:
        store.create_table("t", config(retention=rs.Retention(3000), selector=rs.Prioritized()))
        write_episodes(store, "t", [99] * 200)
        stats = store.stats("t")
        assert (stats.first_step, stats.next_step) == (17_000, 20_000)
        steps = store.read_steps("t", 0, 10**9)
        np.testing.assert_array_equal(steps["step_id"], np.arange(17_000, 20_000))
        np.testing.assert_array_equal(steps["observation"][:, 2], steps["meta/step_in_episode"])
        assert stats.anchors == int((steps["meta/kind"] == 0).sum())
        store.table("t").wait_durable(20_000, 60)
        store.table("t").publish()
        chunks = {int(path.name.split(".")[1]) for path in (tmp_path / "a/t/steps/reward").glob("c.*")}
        assert chunks == {16, 17, 18, 19}
        late = store.update_priorities("t", [0, 16_999, 17_001], [5.0, 5.0, 5.0])
        assert (late.applied, late.gone) == (1, 2)
        for _ in range(50):
            batch = store.sample("t", 64, view=rs.Transition(n_step=3, frame_stack=4))
            assert batch.step_ids.min() >= 17_000
    with rs.open(tmp_path / "a") as again:
        assert (again.stats("t").first_step, again.stats("t").anchors) == (17_000, stats.anchors)


def test_sampling_goes_on_while_segments_leave(tmp_path: Path) -> None:
    """Rows are checked while a writer pushes whole files out underneath: what was drawn stays readable."""
    import threading

    with rs.open(tmp_path / "a", commit_interval_s=0.005) as store:
        store.create_table("t", config(retention=rs.Retention(2000)))
        write_episodes(store, "t", [50] * 10)
        stop = threading.Event()
        failures: list[object] = []

        def sample() -> None:
            try:
                while not stop.is_set():
                    batch = store.sample("t", 128, view=rs.Transition(frame_stack=2))
                    t = batch.observation[:, -1, 2]
                    np.testing.assert_array_equal(batch.next_observation[:, -1, 2], t + 1)
                    np.testing.assert_array_equal(batch.action, (10 * t).astype(int))
                    np.testing.assert_array_equal(batch.reward, t + 1)
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=sample) for _ in range(2)]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 3
        episode = 0
        while time.monotonic() < deadline and not failures:
            write_episodes(store, "t", [50] * 20, first_episode=episode)
            store.table("t")._committing._last_published = 0.0
            episode += 20
        stop.set()
        for thread in threads:
            thread.join()
        assert not failures, failures[0]
        assert store.stats("t").first_step > 4096


def test_a_frame_stack_over_the_oldest_kept_step_is_padded_like_a_start(tmp_path: Path) -> None:
    with rs.open(tmp_path / "a") as store:
        store.create_table("t", config(retention=rs.Retention(10)))
        with store.writer("t") as writer:
            writer.reset(observation(0, 0, 0))
            for t in range(30):
                writer.append(t, 1.0, False, False, observation(0, 0, t + 1))
            writer.flush()
            batch = store.sample("t", 400, view=rs.Transition(frame_stack=4), seed=3)
            first = store.stats("t").first_step
            assert set(batch.step_ids.tolist()) == set(range(first, first + 9))
            for ids, stack in zip(batch.step_ids, batch.observation[:, :, 2], strict=True):
                assert stack.tolist() == [max(first, ids - back) for back in (3, 2, 1, 0)]


def test_episodes_longer_than_retention_survive_a_kill(tmp_path: Path, crash_copy: Callable[[Store], Path]) -> None:
    """Recovery needs rows that retention has passed by since the last checkpoint: they are still there, also in files about to go."""
    with rs.open(tmp_path / "a", commit_interval_s=3600) as store:  # commits when told, so that a copy is one moment
        store.create_table("t", config(retention=rs.Retention(50)))
        with store.writer("t", block_rows=64) as writer:
            writer.reset(observation(0, 0, 0), seed=3)
            for t in range(20_000):
                writer.append(t, 1.0, False, False, observation(0, 0, t + 1))
                if t % 500 == 0:
                    store.table("t").commit()
                if t % 4000 == 3999:
                    writer.flush()
                    with rs.open(crash_copy(store)) as recovered:
                        (episode,) = recovered.table("t")._book.open.values()
                        assert (episode.rows, episode.total, episode.first_step, episode.seed) == (t + 1, t + 1, 0, 3)
                        assert recovered.stats("t").inserted_steps == t + 1
        store.table("t").wait_durable(20_001, 60)
        store.table("t").publish()
        assert len(list((tmp_path / "a/t/steps/reward").glob("c.*"))) < 10, "files of past rows must go all the same"


def test_readers_open_beside_a_writer_that_turns_over_fast(tmp_path: Path) -> None:
    import threading

    with rs.open(tmp_path / "a", commit_interval_s=0.005) as store:
        store.create_table("t", config(retention=rs.Retention(5000)))
        write_episodes(store, "t", [50] * 100)
        store.table("t").wait_durable(5100, 60)
        store.table("t").publish()
        stop = threading.Event()

        def write() -> None:
            episode = 100
            while not stop.is_set():
                write_episodes(store, "t", [50] * 50, first_episode=episode)
                store.table("t").publish()
                episode += 50

        writer = threading.Thread(target=write)
        writer.start()
        try:
            for _ in range(60):
                with rs.open(tmp_path / "a", mode="r") as reader:
                    batch = reader.sample("t", 256)
                    np.testing.assert_array_equal(batch.action, (10 * batch.observation[:, 2]).astype(int))
                    np.testing.assert_array_equal(batch.next_observation[:, 2], batch.observation[:, 2] + 1)
        finally:
            stop.set()
            writer.join()
