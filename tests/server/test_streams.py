"""Append and Sample streams over a real store: limiters, fairness, back-pressure, order, updates that ride along, forks."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import replaystore as rs
from replaystore.sampling import derive_seed
from replaystore.server.options import ServerOptions
from replaystore.server.thread import ServerThread, start_in_thread
from replaystore.steps import RUN_DTYPE, StepBlock
from replaystore.store import Store
from replaystore_client import Client

from .conftest import config, write_steps


def fill(client: Client, steps: int = 100, **changes: Any) -> None:
    client.create_table("t", config(**changes))
    with client.writer("t") as writer:
        write_steps(writer, steps)


def wait_until(condition: Any, timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


def test_a_sample_that_must_wait_says_why_and_for_whom(store: Store, client: Client) -> None:
    fill(client, 5, rate_limiter=rs.MinSize(1000))
    started = time.monotonic()
    with pytest.raises(rs.NotReady, match=r"waited 0\.3 s: table 't': MinSize .* 5 of min_size_to_sample=1000"):
        client.sample("t", 4, timeout_s=0.3)
    assert 0.25 < time.monotonic() - started < 60
    assert not len(store.table("t").sampling)


def test_a_sampler_that_timed_out_keeps_its_place_and_its_seeds(store: Store, client: Client) -> None:
    fill(client, 5, rate_limiter=rs.MinSize(20))
    with client.sampler("t", 4, seed=1, prefetch=3, timeout_s=0.2) as sampler:
        for _ in range(2):
            with pytest.raises(rs.NotReady, match="MinSize"):
                next(sampler)
        with client.writer("t") as writer:
            write_steps(writer, 50)
        batches = [next(sampler).step_ids.tolist() for _ in range(4)]
    assert batches == [client.sample("t", 4, seed=derive_seed(1, i)).step_ids.tolist() for i in range(4)]


def test_a_request_in_line_again_does_not_bring_old_priorities_back(store: Store) -> None:
    options = ServerOptions(max_wait_s=0.1)
    with start_in_thread(store, options=options) as server, Client(server.address) as client:
        fill(client, 5, rate_limiter=rs.MinSize(20), selector=rs.Prioritized(1.0, 0.0))
        with client.sampler("t", 4, prefetch=1, timeout_s=60.0) as sampler:
            sampler.update_priorities([0], [3.0])
            with pytest.raises(rs.NotReady, match="MinSize"):
                next(sampler)  # the server gave up
            assert sampler.updates.applied == 1
            client.update_priorities("t", [0], [7.0])
            with client.writer("t") as writer:
                write_steps(writer, 50)
            while True:
                try:
                    assert len(next(sampler)) == 4
                    break
                except rs.NotReady:
                    pass
        assert store.read_steps("t", 0, 1, ["replay/priority"])["replay/priority"].tolist() == [7.0]


def test_who_pauses_longer_than_the_timeout_gets_its_batch_at_once(client: Client) -> None:
    """Requests in flight wait at the server; the time-out counts only while the learner waits."""
    fill(client, 5, rate_limiter=rs.MinSize(20))
    with client.sampler("t", 4, prefetch=2, timeout_s=1.0) as sampler:
        with pytest.raises(rs.NotReady):
            next(sampler)
        time.sleep(1.3)
        with client.writer("t") as writer:
            write_steps(writer, 50)
        assert len(next(sampler)) == 4


def test_samples_are_served_first_come_first_served(
    store: Store, server: ServerThread, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(client, 1, rate_limiter=rs.MinSize(50))
    table = store.table("t")
    order: list[int | None] = []
    prepare = table.try_prepare

    def recording(request: Any, ticket: Any = None) -> Any:
        prepared = prepare(request, ticket)
        if prepared is not None:
            order.append(request.seed)
        return prepared

    monkeypatch.setattr(table, "try_prepare", recording)
    threads = []
    for index in range(6):
        threads.append(threading.Thread(target=lambda seed: client.sample("t", 2, seed=seed, timeout_s=20), args=(index,)))
        threads[-1].start()
        wait_until(lambda: len(table.sampling) == index + 1)  # noqa: B023
    with client.writer("t") as writer:
        write_steps(writer, 100)
    for thread in threads:
        thread.join(120)
    assert order == list(range(6))


def test_a_client_that_leaves_frees_its_place(store: Store, client: Client) -> None:
    fill(client, 5, rate_limiter=rs.MinSize(20))
    sampler = client.sampler("t", 4, timeout_s=0.1)
    with pytest.raises(rs.NotReady):
        next(sampler)
    assert len(store.table("t").sampling) == 1
    sampler.close()
    wait_until(lambda: not len(store.table("t").sampling))


def test_inserts_wait_for_samples_and_say_so(store: Store, client: Client) -> None:
    limiter = rs.SampleToInsertRatio(samples_per_insert=1.0, min_size_to_sample=10, error_buffer=64.0)
    client.create_table("t", config(rate_limiter=limiter))
    writer = client.writer("t", block_rows=8, timeout_s=4)
    with pytest.raises(rs.NotReady, match=r"rows are not acknowledged\): table 't': SampleToInsertRatio") as caught:
        write_steps(writer, 100_000)
    assert "waited 4 s for room to send" in str(caught.value)
    inserted = client.stats("t").inserted_steps
    assert inserted <= 10 + 64 + 34  # one block may overshoot
    assert client.stats("t").waiting_inserts == 1
    with pytest.raises(rs.NotReady, match="SampleToInsertRatio"):
        writer.flush(timeout_s=0.1)
    client.alter_table("t", rate_limiter=rs.MinSize(1))
    writer.flush(timeout_s=60)
    writer.close()
    rows = client.read_steps("t", 0, 1 << 60)
    np.testing.assert_array_equal(rows["observation"][:, 0], np.arange(len(rows["step_id"])))
    assert not client.stats("t").waiting_inserts


def test_dropping_a_table_ends_who_waits_for_it(client: Client) -> None:
    fill(client, 5, rate_limiter=rs.MinSize(1000))
    caught: list[BaseException] = []

    def ask() -> None:
        try:
            client.sample("t", 4, timeout_s=20)
        except rs.ReplayStoreError as error:
            caught.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    wait_until(lambda: client.stats("t").waiting_samples == 1)
    writer = client.writer("t")
    write_steps(writer, 3)
    writer.flush()
    client.drop_table("t")
    thread.join(120)
    assert [type(error) for error in caught] == [rs.NotFound]
    with pytest.raises(rs.NotFound):  # noqa: PT012 - at the first call that notices, and at all after it
        write_steps(writer, 3)
        writer.flush(timeout_s=60)
    with pytest.raises(rs.NotFound):
        writer.close(1)


def test_a_block_that_does_not_fit_is_an_error_of_the_next_call(store: Store, client: Client) -> None:
    client.create_table("t", config())
    writer = client.writer("t")
    write_steps(writer, 3)
    writer.flush()
    client.drop_table("t")
    client.create_table("t", rs.TableConfig({"observation": rs.Column((5,)), "action": rs.Column((), "int64")}))

    def go_on() -> None:
        write_steps(writer, 3)  # may notice it already
        writer.flush(timeout_s=60)

    with pytest.raises(rs.ReplayStoreError):
        go_on()
    sink: Any = client.writer("t")._sink
    columns = client.describe("t").config.columns
    rows = {name: np.zeros((2, *column.shape), column.dtype) for name, column in columns.items()}
    runs = np.array([(1, 0, 2, 1, -1, -1)], RUN_DTYPE)
    sink.send(StepBlock({**rows, "observation": np.zeros((2, 5))}, runs), 1.0)
    with pytest.raises(rs.SchemaMismatch, match="'observation' takes float32"):
        sink.flush(False, 10.0)
    with pytest.raises(rs.SchemaMismatch):
        sink.send(StepBlock(rows, runs), 1.0)


def test_updates_ride_on_the_next_request_and_on_closing(store: Store, client: Client) -> None:
    fill(client, selector=rs.Prioritized(alpha=1.0, epsilon=0.0))
    with client.sampler("t", 4, prefetch=1) as sampler:
        next(sampler)
        sampler.update_priorities(np.arange(99), np.zeros(99))
        sampler.update_priorities([98, 98, 7, 10_000], [5.0, np.nan, 3.0, 1.0])
        assert set(next(sampler).step_ids.tolist()) <= {98, 7, 99}
        assert sampler.updates == rs.UpdateCounts(applied=101, gone=1, rejected=1)
        sampler.update_priorities([98], [0.0])
        sampler.update_priorities([7], [0.0])
    assert sampler.updates.applied == 103
    assert store.sample("t", 50).step_ids.tolist() == [99] * 50  # the only one that is left
    with pytest.raises(rs.InvalidArgument, match="closed"):
        next(sampler)


def test_several_samplers_at_once_lose_and_mix_nothing(server: ServerThread, client: Client) -> None:
    fill(client, 500, selector=rs.Prioritized())
    results: dict[int, list[list[int]]] = {}

    def learn(seed: int) -> None:
        with Client(server.address) as mine, mine.sampler("t", 32, seed=seed, prefetch=5, selector=rs.Uniform()) as sampler:
            results[seed] = [next(sampler).step_ids.tolist() for _ in range(60)]

    threads = [threading.Thread(target=learn, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for seed in range(4):
        expected = [client.sample("t", 32, seed=derive_seed(seed, i), selector=rs.Uniform()).step_ids.tolist() for i in (0, 31, 59)]
        assert [results[seed][i] for i in (0, 31, 59)] == expected


def test_one_client_serves_many_threads(client: Client) -> None:
    fill(client, 100)
    failed: list[BaseException] = []

    def use() -> None:
        try:
            for _ in range(10):
                assert len(client.sample("t", 16)) == 16
                client.stats("t")
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failed


def test_large_blocks_and_batches_go_through_threads(client: Client) -> None:
    client.create_table("t", rs.TableConfig({"observation": rs.Column((84, 84), "uint8"), "action": rs.Column((), "int64")}))
    frames = np.random.default_rng(0).integers(0, 255, (301, 84, 84), np.uint8)
    with client.writer("t", block_rows=100) as writer:
        writer.reset(frames[0])
        for step in range(300):
            writer.append(step, 0.0, False, False, frames[step + 1])
    with client.sampler("t", 64, view=rs.Transition(n_step=2, frame_stack=4, gamma=1.0), prefetch=3) as sampler:
        for _ in range(5):
            batch = next(sampler)
            np.testing.assert_array_equal(batch.observation[:, -1], frames[batch.step_ids])
            np.testing.assert_array_equal(batch.next_observation[:, -1], frames[batch.step_ids + batch.steps_taken])
            assert batch.observation.flags.aligned


def test_many_items_are_drawn_in_a_thread(client: Client) -> None:
    fill(client, 50, selector=rs.Prioritized())
    batch = client.sample("t", 10_000, columns=["reward"])
    assert len(batch) == 10_000
    assert "observation" not in batch
    assert client.update_priorities("t", batch.step_ids, np.ones(10_000)).applied == 10_000


def test_rows_and_episodes_come_in_pieces(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("replaystore.server.control.PART_BYTES", 1000)
    client.create_table("t", config())
    with client.writer("t") as writer:
        for episode in range(30):
            writer.reset(np.full(3, episode))
            writer.append(episode, 1.0, True, False, np.full(3, episode))
    rows = client.read_steps("t", 5, 55)
    assert rows["step_id"].tolist() == list(range(5, 55))
    assert client.read_steps("t", 20, 20)["observation"].shape == (0, 3)
    assert client.read_steps("t", 3, 5, ["action", "meta/kind"]).keys() == {"step_id", "action", "meta/kind"}
    assert len(client.episodes("t")["length"]) == 30
    assert client.episodes("t", -3)["first_step"].tolist() == [54, 56, 58]
    assert len(client.episodes("t", 4, 2)["length"]) == 0


def test_parameters_wait_for_news_without_threads(client: Client, server: ServerThread) -> None:
    assert client.fetch_parameters("policy") is None
    got: list[Any] = []

    def wait() -> None:
        with Client(server.address) as mine:
            got.append(mine.fetch_parameters("policy", newer_than=0, timeout_s=20))

    waiting = [threading.Thread(target=wait) for _ in range(5)]
    for thread in waiting:
        thread.start()
    time.sleep(0.2)
    arrays = {"w": np.arange(3_000_000, dtype=np.float32), "b": np.float64(2)}
    assert client.publish_parameters("policy", arrays) == 1
    for thread in waiting:
        thread.join(120)
    assert len(got) == 5
    for found, version in got:
        assert version == 1
        np.testing.assert_array_equal(found["w"], arrays["w"])
        assert found["b"] == 2
    assert client.fetch_parameters("policy", newer_than=1) is None
    assert client.publish_parameters("policy", arrays) == 2


def test_flush_waits_for_the_disk(store: Store, client: Client) -> None:
    client.create_table("t", config())
    with client.writer("t") as writer:
        write_steps(writer, 10)
        writer.flush(durable=True)
        assert client.stats("t").durable_step == 10


FORK = """
import os, sys, warnings
import numpy as np
from replaystore import InvalidArgument
from replaystore_client import Client
warnings.simplefilter("ignore", DeprecationWarning)
client = Client(sys.argv[1], timeout_s=20)
sampler = client.sampler("t", 4)
next(sampler)
before = client.sample("t", 4, seed=1).step_ids.tolist()
child = os.fork()
if child == 0:
    same = client.sample("t", 4, seed=1).step_ids.tolist() == before and client.tables() == ["t"]
    try:
        next(sampler)
        same = False
    except InvalidArgument:
        pass
    os._exit(0 if same else 1)
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
assert client.sample("t", 4, seed=1).step_ids.tolist() == before
next(sampler)
sampler.close()
client.close()
sys.exit(status)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_child_process_connects_anew(server: ServerThread, client: Client) -> None:
    fill(client)
    path = os.pathsep.join(p for p in sys.path if p)
    done = subprocess.run(
        [sys.executable, "-c", FORK, server.address], env={**os.environ, "PYTHONPATH": path}, timeout=60, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_the_client_is_light(tmp_path: Path) -> None:
    code = "import sys, replaystore_client; print([m for m in ('zarr', 'numba', 'torch', 'gymnasium') if m in sys.modules])"
    path = os.pathsep.join(p for p in sys.path if p)
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
