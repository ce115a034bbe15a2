"""What a server takes on at once: what each bound says, when its client comes again, and that work goes on afterwards."""

from __future__ import annotations

import asyncio
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

import replaystore as rs
from replaystore.sampling import SampleRequest
from replaystore.server import append
from replaystore.server.bounds import Bounds, Hold
from replaystore.server.options import ServerOptions
from replaystore.server.thread import ServerThread, start_in_thread
from replaystore.store import Store
from replaystore.v1 import data_pb2 as data
from replaystore.wire.errors import RETRY_KEY, error_of, retry_hint
from replaystore.wire.framing import prefix
from replaystore.wire.methods import path_of
from replaystore.wire.samples import encode_query, encode_sample_request
from replaystore_client import Client
from replaystore_client.connection import Backoff, ConnectionLost

from .conftest import config, write_steps

RATIO = rs.SampleToInsertRatio(samples_per_insert=1.0, min_size_to_sample=1, error_buffer=2.0)
KIB = 1 << 10


class Serving:
    """A server of the test's own options, and what it has taken on."""

    def __init__(self, store: Store, stack: ExitStack, made: list[Bounds]) -> None:
        self._store, self._stack, self._made = store, stack, made
        self.server: ServerThread

    def __call__(self, **options: Any) -> Bounds:
        self.server = self._stack.enter_context(start_in_thread(self._store, options=ServerOptions(**options)))
        return self._made[-1]

    def client(self, timeout_s: float = 60.0) -> Client:
        return self._stack.enter_context(Client(self.server.address, timeout_s=timeout_s, local=False))


@pytest.fixture
def serving(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serving]:
    made: list[Bounds] = []

    class Noted(Bounds):
        def __init__(self, options: ServerOptions) -> None:
            super().__init__(options)
            made.append(self)

    monkeypatch.setattr("replaystore.server.service.Bounds", Noted)
    monkeypatch.setattr("replaystore.server.bounds.SOON_S", 0.2)
    with ExitStack() as stack:
        yield Serving(store, stack, made)


def until(reached: Callable[[], Any], timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not reached():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


def refusal(kind: type[rs.ReplayStoreError], call: Callable[[], Any]) -> Any:
    """What `call` is refused with; made again where a busy machine took longer for the answer than it was given."""
    found: list[rs.ReplayStoreError] = []

    def refused() -> bool:
        try:
            call()
        except (kind, rs.DeadlineExceeded) as error:
            found.append(error)
            return isinstance(error, kind)
        pytest.fail("it was not refused")

    until(refused)
    return found[-1]


@pytest.fixture
def beside() -> Iterator[Callable[..., Future[Any]]]:
    """Calls something in another thread."""
    with ThreadPoolExecutor(8) as pool:
        yield pool.submit


def wide(rows: int, **changes: Any) -> rs.TableConfig:
    """A table whose rows have 64 KiB each."""
    return rs.TableConfig({"observation": rs.Column((64 * KIB,), "uint8"), "action": rs.Column((), "int64")}, **changes)


def write_wide(writer: rs.Writer, steps: int) -> None:
    frame = np.zeros(64 * KIB, np.uint8)
    writer.reset(frame)
    for step in range(steps):
        writer.append(step, 0.0, False, False, frame)


# -- streams and calls


def test_streams(serving: Serving, beside: Callable[..., Future[Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    bounds = serving(max_streams=2)
    client = serving.client()
    client.create_table("t", config())
    with client.writer("t") as first:
        write_steps(first, 30)
        first.flush()
        second = client.writer("t", block_rows=1)
        write_steps(second, 1)
        second.flush()
        monkeypatch.setattr("replaystore.server.bounds.SOON_S", 90.0)
        with pytest.raises(rs.Overloaded) as caught:
            client.read_steps("t", 0, 10)  # does not wait for longer than it may
        assert str(caught.value) == (
            "2 streams are open, and max_streams=2 allows no more: close writers and samplers that are not in use, or start the server "
            "with a larger --max-streams; try again in 90 s"
        )
        assert caught.value.retry_after_s == 90.0
        monkeypatch.setattr("replaystore.server.bounds.SOON_S", 0.2)
        assert client.tables() == ["t"]  # single calls have places of their own
        refused = bounds.streams.refused
        waiting = beside(client.sample, "t", 4)
        until(lambda: bounds.streams.refused >= refused + 2)  # it comes again by itself
        second.close()
        assert len(waiting.result(60)) == 4
        write_steps(first, 10, begin=False, first=30)
    until(lambda: client.stats("t").inserted_steps == 41)
    until(lambda: bounds.streams.used <= 1)  # of the client's sampler


def test_a_writer_waits_for_a_place_and_loses_nothing(serving: Serving) -> None:
    bounds = serving(max_streams=1)
    client = serving.client()
    client.create_table("t", config())
    assert client.publish_parameters("p", {"a": np.zeros(3)}) == 1
    first = client.writer("t")
    write_steps(first, 10)
    first.flush()
    with client.writer("t", actor=1, block_rows=4) as second:
        write_steps(second, 10)
        until(lambda: bounds.streams.refused >= 2)
        with pytest.raises(
            rs.Overloaded, match=r"waited .* s for acknowledgements \(\d+ rows are not acknowledged\): 1 streams are open"
        ) as caught:
            second.flush(timeout_s=0.5)
        assert caught.value.retry_after_s == 0.2
        assert bounds.streams.refused > 1
        first.close()
        second.flush(timeout_s=60)
    assert client.stats("t").inserted_steps == 20


def test_single_calls() -> None:
    bounds = Bounds(ServerOptions(max_streams=1, max_in_flight_bytes=1 << 20))

    async def main() -> None:
        gate = asyncio.Event()

        async def handler(request: bytes, call: Any) -> bytes:
            await gate.wait()
            return request

        admitted = bounds.admitting("UpdateColumns", handler)
        nobody: Any = None
        running = asyncio.ensure_future(admitted(bytes(400 * KIB), nobody))
        await asyncio.sleep(0)
        assert bounds.others.used == 400 * KIB
        with pytest.raises(rs.Overloaded, match=r"1 single calls are running, and max_streams=1 allows no more: call less often"):
            await admitted(b"", nobody)
        assert bounds.admitting("Append", handler) is not None
        bounds.calls.most = 2
        with pytest.raises(rs.Overloaded, match=r"409600 bytes of batches, rows and parameters .* 409600 more would exceed 524288"):
            await admitted(bytes(400 * KIB), nobody)
        gate.set()
        assert len(await running) == 400 * KIB
        assert len(await admitted(bytes(400 * KIB), nobody)) == 400 * KIB

    asyncio.run(main())
    assert bounds.calls.used == bounds.others.used == 0
    assert (bounds.calls.refused, bounds.others.refused) == (1, 1)


def test_what_was_refused_was_not_carried_out(serving: Serving, beside: Callable[..., Future[Any]]) -> None:
    """Or making a table that is there would go well the second time, as when a reply was lost."""
    bounds = serving(max_streams=1)
    client = serving.client()
    client.create_table("t", config())
    bounds.calls.most = 0
    again = beside(client.create_table, "t", config())
    until(lambda: bounds.calls.refused)
    bounds.calls.most = 1
    with pytest.raises(rs.AlreadyExists):
        again.result(60)


@pytest.mark.parametrize("name", ["max_streams", "max_waiting", "max_tables", "max_in_flight_bytes", "max_parameters_total_bytes"])
def test_a_bound_must_be_a_number(name: str) -> None:
    for value in (0, -1, 1.5, True):
        with pytest.raises(rs.InvalidArgument, match=name):
            Bounds(ServerOptions(**{name: value}))


# -- waiting for limiters


def test_waiting_samples(serving: Serving, beside: Callable[..., Future[Any]]) -> None:
    bounds = serving(max_waiting=1)
    client = serving.client()
    client.create_table("t", config(rate_limiter=rs.MinSize(20)))
    waiting = beside(client.sample, "t", 4)
    until(lambda: bounds.waiting.used == 1)
    hurried = serving.client()
    assert str(refusal(rs.Overloaded, lambda: hurried.sample("t", 4, timeout_s=0.1))) == (
        "1 samples and blocks wait for the limiters of their tables, and max_waiting=1 allows no more: let those go on that wait "
        "(client.why_blocked(TABLE) says who has to act), or start the server with a larger --max-waiting; try again in 0.2 s"
    )
    assert "waited 0 s" in str(refusal(rs.NotReady, lambda: client.sample("t", 4, timeout_s=0)))  # does not wait
    patient = serving.client().sampler("t", 4, prefetch=1, seed=1)
    refused = bounds.waiting.refused
    more = beside(lambda: next(patient))
    until(lambda: bounds.waiting.refused >= refused + 2)
    with client.writer("t") as writer:
        write_steps(writer, 40)
    assert len(waiting.result(60)) == 4
    assert len(more.result(60)) == 4
    patient.close()
    until(lambda: bounds.waiting.used == 0)


def test_waiting_blocks_are_sent_again(serving: Serving, beside: Callable[..., Future[Any]]) -> None:
    bounds = serving(max_waiting=1)
    client = serving.client()
    client.create_table("other", config(rate_limiter=rs.MinSize(20)))
    client.create_table("t", config(rate_limiter=RATIO))
    waiting = beside(client.sample, "other", 1)
    until(lambda: bounds.waiting.used == 1)
    writer = client.writer("t", block_rows=8)
    write_steps(writer, 24)
    until(lambda: bounds.waiting.refused >= 2)
    with pytest.raises(rs.Overloaded, match=r"rows are not acknowledged\): 1 samples and blocks wait .* max_waiting=1") as caught:
        writer.flush(timeout_s=0.5)
    assert caught.value.retry_after_s == 0.2
    client.alter_table("t", rate_limiter=rs.MinSize(1))
    writer.close()
    rows = client.read_steps("t", 0, 1 << 40)
    assert rows["action"].tolist()[:24] == list(range(24))
    assert client.stats("t").inserted_steps == 24
    client.alter_table("other", rate_limiter=rs.MinSize(1))
    with client.writer("other") as filling:
        write_steps(filling, 2)
    waiting.result(60)


def test_a_crowd_of_blocked_samplers_is_refused_at_once_and_leaves_nothing(serving: Serving, store: Store) -> None:
    bounds = serving(max_waiting=20)
    store.create_table("t", config(rate_limiter=rs.MinSize(20)))
    query = encode_query("t", SampleRequest(2, rs.Transition()))
    crowd = 120

    async def ask(channel: Any, number: int) -> tuple[str, str]:
        call = channel.stream_stream(path_of("Sample"))()
        await call.write(encode_sample_request(number, query, 0.0, number, 60.0))
        try:
            return ("served" if await call.read() is not grpc.aio.EOF else "ended"), ""
        except grpc.aio.AioRpcError as error:
            return error.code().name, str(dict(error.trailing_metadata() or ()).get(RETRY_KEY))
        finally:
            call.cancel()

    async def all_of_them() -> None:
        async with grpc.aio.insecure_channel(serving.server.address) as channel:
            before = threading.active_count()
            calls = [asyncio.create_task(ask(channel, number)) for number in range(1, crowd + 1)]
            while sum(call.done() for call in calls) < crowd - 20:
                await asyncio.sleep(0.01)
            assert {call.result() for call in calls if call.done()} == {("RESOURCE_EXHAUSTED", "200")}
            assert (bounds.waiting.used, len(store.table("t").sampling)) == (20, 20)
            assert threading.active_count() <= before + 2
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)

    asyncio.run(all_of_them())
    until(lambda: (bounds.streams.used, bounds.waiting.used, bounds.others.used, len(store.table("t").sampling)) == (0, 0, 0, 0))
    assert bounds.waiting.refused == crowd - 20


# -- bytes in flight


def test_blocks_in_flight(serving: Serving) -> None:
    bounds = serving(max_in_flight_bytes=1 << 20)
    client = serving.client()
    client.create_table("t", wide(1, rate_limiter=RATIO))
    writer = client.writer("t", block_rows=4)
    write_wide(writer, 13)
    until(lambda: client.stats("t").waiting_inserts == 1)
    assert 64 * KIB < bounds.blocks.used < 512 * KIB  # a block that waits counts
    others = Hold(bounds.blocks)
    others.take(512 * KIB - bounds.blocks.used)
    another = client.writer("t", actor=1, block_rows=4)
    write_wide(another, 5)
    until(lambda: bounds.blocks.refused >= 2)
    with pytest.raises(rs.Overloaded) as caught:
        another.flush(timeout_s=0.5)
    text = str(caught.value)
    assert "524288 bytes of blocks that are not stored yet are in memory, and " in text
    assert text.endswith(
        " more would exceed 524288, which is their half of max_in_flight_bytes=1048576: let samplers catch up, use fewer writers or "
        "smaller blocks (block_rows), or start the server with a larger --max-in-flight-bytes; try again in 0.2 s"
    )
    assert caught.value.retry_after_s == 0.2
    assert len(client.sample("t", 1)) == 1  # what lets the blocks go on has room of its own
    others.close()
    client.alter_table("t", rate_limiter=rs.MinSize(1))
    writer.close()
    another.close()
    assert client.stats("t").inserted_steps == 18
    until(lambda: bounds.blocks.used == 0)


def fill(client: Client, steps: int = 30) -> None:
    client.create_table("t", wide(1))
    with client.writer("t") as writer:
        write_wide(writer, steps)


@pytest.mark.parametrize("free", [0, 100])
def test_batches_in_flight(serving: Serving, beside: Callable[..., Future[Any]], monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    """With none free, it waits before the draw; with a little, after it, as it is not known before how large a batch is."""
    bounds = serving(max_in_flight_bytes=8 << 20)
    client = serving.client()
    fill(client)
    expected = client.sample("t", 4, seed=3)
    until(lambda: bounds.others.used == 0)
    others = Hold(bounds.others)
    assert others.take(bounds.others.most + 1 - free)
    monkeypatch.setattr("replaystore.server.bounds._PATIENCE_S", 0.1)
    hurried = serving.client()
    error = refusal(rs.Overloaded, lambda: hurried.sample("t", 4, seed=3, timeout_s=0.2))
    assert f"{4194305 - free} bytes of batches, rows and parameters on their way are in memory, and" in str(error)
    assert "max_in_flight_bytes=8388608: read batches as they come, ask for fewer or smaller ones at once, or start" in str(error)
    assert error.retry_after_s == 0.2
    refused = bounds.others.refused
    waiting = beside(client.sample, "t", 4, seed=3)
    until(lambda: bounds.others.refused >= refused + 2)
    monkeypatch.setattr("replaystore.server.bounds._PATIENCE_S", 60.0)
    others.close()
    np.testing.assert_array_equal(waiting.result(60).step_ids, expected.step_ids)
    with serving.client().sampler("t", 4, seed=5) as sampler:
        assert len(next(sampler)) == 4
        others = Hold(bounds.others)
        others.take(bounds.others.most + 1 - free)
        later = beside(lambda: [len(next(sampler)) for _ in range(8)])
        until(lambda: later.done() or len(bounds.others.queue))
        others.close()
        assert later.result(60) == [4] * 8
    until(lambda: bounds.others.used == 0)
    assert not len(bounds.others.queue)


def test_who_waits_for_room_and_leaves_gives_it_back(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("replaystore.server.bounds._PATIENCE_S", 60.0)
    bounds = serving(max_in_flight_bytes=8 << 20)
    client = serving.client()
    fill(client)
    others = Hold(bounds.others)
    others.take(bounds.others.most - 100)
    sampler = client.sampler("t", 8, timeout_s=0.3)
    error = refusal(rs.NotReady, lambda: next(sampler))  # drawn, and waiting
    assert "bytes of batches, rows and parameters on their way are in memory" in str(error)
    sampler.close()
    until(lambda: not len(bounds.others.queue))
    others.close()
    until(lambda: bounds.others.used == 0)
    assert len(client.sample("t", 8)) == 8


def test_rows_and_parameters_in_flight(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    bounds = serving(max_in_flight_bytes=8 << 20)
    client = serving.client()
    fill(client)
    arrays = {"weight": np.zeros(1 << 20, np.uint8)}
    client.publish_parameters("policy", arrays)
    others = Hold(bounds.others)
    others.take(bounds.others.most - 1000)
    monkeypatch.setattr("replaystore.server.bounds._PATIENCE_S", 0.05)
    monkeypatch.setattr("replaystore.server.bounds.SOON_S", 90.0)
    for call in (
        lambda: client.read_steps("t", 0, 10),
        lambda: client.fetch_parameters("policy"),
        lambda: client._connection.upload("PublishParameters", lambda: [bytes(2000)], 60.0),
    ):
        with pytest.raises(rs.Overloaded, match=r"more would exceed 4194304, .* try again in 90 s"):
            call()
    others.close()
    assert len(client.read_steps("t", 0, 10)["action"]) == 10
    assert client.fetch_parameters("policy") is not None
    assert client.publish_parameters("policy", arrays) == 2
    until(lambda: bounds.others.used == 0)


def test_room_is_given_in_the_order_of_asking_and_one_alone_always_gets_some() -> None:
    room = Bounds(ServerOptions(max_in_flight_bytes=200)).others

    async def main() -> None:
        first, second, third = Hold(room), Hold(room), Hold(room)
        assert first.take(1000)  # more than there is, but nobody else is there
        assert first.take(1)
        assert not second.take(1)
        assert second.take(0)
        order: list[str] = []

        async def ask(hold: Hold, size: int, name: str) -> None:
            await hold.wait(size, 60.0)
            order.append(name)

        waiting = [asyncio.ensure_future(ask(second, 90, "second")), asyncio.ensure_future(ask(third, 5, "third"))]
        await asyncio.sleep(0)
        first.give(901)
        await asyncio.sleep(0.01)
        assert not third.fits(1)
        assert order == []
        first.close()
        first.close()
        first.give(5)
        await asyncio.gather(*waiting)
        assert order == ["second", "third"]
        assert room.used == 95
        with pytest.raises(rs.Overloaded, match="95 bytes"):
            await third.wait(50, 0.0)
        second.close()
        third.close()
        assert third.take(10**9)  # nothing is counted any more

    asyncio.run(main())
    assert room.used == 0


def test_a_message_larger_than_the_server_takes(serving: Serving) -> None:
    serving(max_message_bytes=1 << 20)
    client = serving.client()
    client.create_table("t", wide(1, selector=rs.Prioritized()))
    ids = np.arange(200_000)
    with pytest.raises(rs.InvalidArgument, match=r"has 24\d\d\d\d\d bytes, at most 1048576 are taken: .* fewer items per call\), or start"):
        client.update_priorities("t", ids, np.ones(len(ids), np.float32))
    writer = client.writer("t", block_rows=20)
    write_wide(writer, 19)
    with pytest.raises(rs.InvalidArgument, match=r"at most 1048576 are taken: .*a writer with a smaller block_rows"):
        writer.flush(timeout_s=60)
    with pytest.raises(rs.InvalidArgument):
        writer.close()
    with client.writer("t", block_rows=4) as smaller:
        write_wide(smaller, 19)
    assert client.stats("t").inserted_steps == 19


# -- tables and parameters


def test_tables(serving: Serving, store: Store) -> None:
    bounds = serving(max_tables=2)
    client = serving.client()
    client.create_table("a", config())
    client.create_table("b", config())
    client.create_table("b", config(), exist_ok=True)
    with pytest.raises(rs.AlreadyExists):
        client.create_table("b", config())
    for call in (lambda: client.create_table("c", config()), lambda: client.fork("a", "c")):
        with pytest.raises(rs.Overloaded) as caught:
            call()
        assert str(caught.value) == (
            "table 'c' cannot be made: there are 2 tables, and max_tables=2 allows no more: drop one, or start the server with a larger "
            "--max-tables"
        )
        assert caught.value.retry_after_s == 60.0
    assert bounds.refused_tables == 2
    client.drop_table("a")
    client.create_table("c", config())
    assert store.tables() == ["b", "c"]
    with bounds.making_table("d", ["b"]), bounds.making_table("d", ["b"]), pytest.raises(rs.Overloaded, match="there are 2 tables"):
        bounds.making_table("e", ["b"]).__enter__()  # also while they are only being made


def test_parameter_sets(serving: Serving) -> None:
    bounds = serving(max_parameter_sets=2, max_parameters_total_bytes=1000)
    client = serving.client()
    client.publish_parameters("a", {"w": np.zeros(300, np.uint8)})
    client.publish_parameters("b", {"w": np.zeros(300, np.uint8)})
    with pytest.raises(rs.Overloaded) as caught:
        client.publish_parameters("c", {"w": np.zeros(1, np.uint8)})
    assert str(caught.value) == (
        "parameter set 'c' cannot be kept: there are 2 sets, and max_parameter_sets=2 allows no more: publish under a name that is there, "
        "or start the server with a larger --max-parameter-sets"
    )
    assert caught.value.retry_after_s == 60.0
    with pytest.raises(rs.Overloaded) as caught:
        client.publish_parameters("b", {"w": np.zeros(701, np.uint8)})
    assert str(caught.value) == (
        "parameter set 'b' of 701 bytes cannot be kept: the other sets have 300 bytes, and max_parameters_total_bytes=1000 allows no more "
        "for all together: publish fewer or smaller sets, or start the server with a larger --max-parameters-total-bytes"
    )
    assert client.publish_parameters("b", {"w": np.zeros(700, np.uint8)}) == 2
    assert client.publish_parameters("b", {"w": np.zeros(10, np.uint8)}) == 3
    assert bounds.refused_parameters == 2
    with bounds.publishing("x", 600, {"a": 300}), pytest.raises(rs.Overloaded, match="the other sets have 600 bytes"):
        bounds.publishing("a", 500, {"a": 300, "x": 100}).__enter__()  # also while they are only coming


def test_a_parameter_set_that_is_too_large(serving: Serving) -> None:
    serving(max_parameters_bytes=1000)
    client = serving.client()
    with pytest.raises(rs.InvalidArgument) as caught:
        client.publish_parameters("policy", {"w": np.zeros(1001, np.uint8)})
    assert str(caught.value) == (
        "parameter set 'policy' has 1001 bytes (header.payload_bytes), and at most 1000 are taken: publish fewer or smaller arrays, or "
        "start the server with a larger --max-parameters-bytes"
    )
    assert client.publish_parameters("policy", {"w": np.zeros(1000, np.uint8)}) == 1


def test_threads_are_as_many_as_were_asked_for(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    made: dict[str, int] = {}

    class Pool(ThreadPoolExecutor):
        def __init__(self, workers: int, name: str) -> None:
            made[name] = workers
            super().__init__(workers, name)

    monkeypatch.setattr("replaystore.server.service.ThreadPoolExecutor", Pool)
    serving(threads=2, waiting_threads=3)
    assert serving.client().tables() == []
    assert made == {"replaystore-copy": 2, "replaystore-disk": 3}


# -- what one stream may pile up


def test_acknowledgements_that_wait_for_the_disk_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(append, "_MOST_HELD", 3)
    held: list[int] = []
    release = append._Stream._release

    async def noted(stream: append._Stream) -> None:
        held.append(len(stream._held))
        await release(stream)

    monkeypatch.setattr(append._Stream, "_release", noted)
    with rs.open(tmp_path / "fsync", durability="fsync") as store, start_in_thread(store) as server, Client(server.address) as client:
        client.create_table("t", config())
        with client.writer("t", block_rows=1) as writer:
            write_steps(writer, 100)
            writer.flush(timeout_s=60)
        assert client.stats("t").inserted_steps == 100
    assert held


def test_commits_that_are_asked_for_again_and_again_are_one(store: Store, server: ServerThread, client: Client) -> None:
    client.create_table("t", config())
    opening = prefix(data.AppendHeader(table="t").SerializeToString(), b"", 0)
    commit = prefix(data.AppendHeader(commit=True).SerializeToString(), b"", 0)
    with grpc.insecure_channel(server.address) as channel:
        replies = list(channel.stream_stream(path_of("Append"))(iter([opening] + [commit] * 300), timeout=60))
    kinds = [data.AppendReply.FromString(reply).WhichOneof("reply") for reply in replies]
    assert kinds[0] == "opened"
    assert set(kinds[1:]) == {"durable"}
    assert 1 <= len(kinds) - 1 <= 300


# -- hints


def test_hints_travel_and_others_are_no_hints() -> None:
    assert retry_hint(rs.Overloaded("full", 0.2501)) == "251"
    assert retry_hint(rs.Overloaded("full")) is None
    assert pickle.loads(pickle.dumps(rs.Overloaded("full", 0.25))).retry_after_s == 0.25
    assert retry_hint(rs.NotReady("wait")) is None
    for text, seconds in (
        ("251", 0.251),
        ("0", 0.0),
        (None, None),
        ("", None),
        ("-5", None),
        ("1e3", None),
        ("9" * 500, None),
        ("٣", None),
    ):
        error = error_of("Overloaded", "RESOURCE_EXHAUSTED", "full", text)
        assert isinstance(error, rs.Overloaded)
        assert error.retry_after_s == seconds, text
    assert not hasattr(error_of("NotReady", "FAILED_PRECONDITION", "wait", "100"), "retry_after_s")


def test_who_is_told_when_to_come_again_does_not_come_sooner() -> None:
    pauses = [Backoff().after(rs.Overloaded("full", 2.0)) for _ in range(200)]
    assert all(pause is not None and 2.0 <= pause <= 3.0 for pause in pauses)
    assert len(set(pauses)) > 100
    assert Backoff().after(rs.Overloaded("full")) is None
    assert Backoff().after(rs.InvalidArgument("wrong")) is None
    backoff = Backoff()
    grown = [backoff.after(rs.Overloaded("full", 0.01)) or 0.0 for _ in range(12)]
    assert grown[-1] >= 1.0  # whoever is refused again and again comes less often
    assert 0 < (Backoff().after(ConnectionLost("gone")) or 0) <= 0.05
