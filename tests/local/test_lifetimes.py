"""Rows may leave while clients gather, servers may die, tables may be replaced: batches stay right, or others come in their place."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import replaystore as rs
from replaystore.mapping.columns import MappedTable
from replaystore.sampling import SampleRequest
from replaystore.server.local import MAX_KEPT, Borrowing, Lending
from replaystore.server.options import ServerOptions
from replaystore.server.thread import ServerThread, start_in_thread
from replaystore.store import Store
from replaystore.v1 import data_pb2 as pb
from replaystore_client import Client
from tests.local.conftest import EVERYTHING, check, chunks, config, play, until
from tests.ports import address_to_keep
from tests.server.conftest import ServerProcess


@contextmanager
def impatient(store: Store) -> Iterator[str]:
    """A server that keeps nothing for long; its address."""
    with start_in_thread(store, options=ServerOptions(local_keep_s=0.01, local_least_bytes=0)) as server:
        yield server.address


def sampled(store: Store) -> int:
    return store.stats("t").sampled_items


def test_files_stay_until_the_client_has_gathered(store: Store, local: Client) -> None:
    store.create_table("t", config(256))
    play(store, "t", 255)
    with local.sampler("t", 8, prefetch=0) as sampler:
        for _ in range(2):
            sampler.ask()
            check(next(sampler), 0)
        assert sampler.path == "local"
        sampler.ask()
        until(lambda: sampled(store) == 24, "the third batch was not drawn")
        before = chunks(store, "t")
        for mark in (1000, 2000, 3000):
            play(store, "t", 255, mark=mark)
        store.table("t").wait_durable(1024, 60)
        assert store.stats("t").first_step > 256  # all that it may be made of has been evicted
        assert before < chunks(store, "t")
        check(next(sampler), 0)

        def gone() -> bool:
            sampler.ask()  # says that the batch before was gathered
            check(next(sampler), 3000)
            store.table("t").commit()
            return not before & chunks(store, "t")

        until(gone, "files were not let go")


def test_who_takes_too_long_gets_other_batches(store: Store) -> None:
    store.create_table("t", config(256))
    play(store, "t", 255)
    with impatient(store) as address, Client(address) as client, client.sampler("t", 8, selector=rs.Lifo(), prefetch=0) as sampler:
        for _ in range(2):
            sampler.ask()
            check(next(sampler), 0)
        assert sampler.path == "local"
        play(store, "t", 255, mark=1000)
        sampler.ask()  # for rows in files that it has not mapped yet
        until(lambda: sampled(store) == 24, "the third batch was not drawn")
        drawn_of = chunks(store, "t")
        for mark in (2000, 3000, 4000):
            play(store, "t", 255, mark=mark)
        until(lambda: not drawn_of & chunks(store, "t") or store.table("t").commit(), "files were not let go")
        batch = next(sampler)
        check(batch, 4000)
        assert sampler.path == "local"
        sampler.ask()
        check(next(sampler), 4000)


def test_a_batch_that_is_gone_is_drawn_with_its_own_seed(store: Store) -> None:
    store.create_table("t", config(256))
    play(store, "t", 255)
    with impatient(store) as address, Client(address) as client, client.sampler("t", 8, prefetch=0, seed=3) as sampler:
        for _ in range(2):
            sampler.ask()
            next(sampler)
        play(store, "t", 255, mark=1000)
        sampler.ask()
        sampler.ask(5)
        until(lambda: sampled(store) == 29, "two more were not drawn")
        drawn_of = chunks(store, "t")
        for mark in (2000, 3000):
            play(store, "t", 255, mark=mark)
        until(lambda: not drawn_of & chunks(store, "t") or store.table("t").commit(), "files were not let go")
        third, fourth = next(sampler), next(sampler)
        assert (len(third), len(fourth)) == (8, 5)  # in their turn
        for index, batch in ((2, third), (3, fourth)):
            expected = store.sample("t", len(batch), seed=rs.sampling.derive_seed(3, index))
            np.testing.assert_array_equal(batch.step_ids, expected.step_ids)


def test_rows_that_were_mapped_stay_what_they_were(store: Store, local: Client) -> None:
    """Files are removed by name only: what is mapped stays."""
    store.create_table("t", config(256))
    play(store, "t", 255)
    with local.sampler("t", 64, prefetch=1, seed=1) as sampler:
        for round_ in range(12):
            check(next(sampler))
            play(store, "t", 255, mark=1000 * round_)
            store.table("t").wait_durable(store.table("t").next_step, 60)
        assert sampler.path == "local"


def test_batches_are_right_while_rows_come_and_go(store: Store, local: Client) -> None:
    store.create_table("t", config(512))
    play(store, "t", 300)
    done = threading.Event()
    failures: list[BaseException] = []

    def learn() -> None:
        try:
            with local.sampler("t", 32, prefetch=4, view=rs.Transition(n_step=2)) as sampler:
                while not done.is_set():
                    batch = next(sampler)
                    observation, following = batch.observation, batch.next_observation
                    np.testing.assert_array_equal(observation[:, 0] % 1000, batch.action)
                    np.testing.assert_array_equal(observation, np.broadcast_to(observation[:, :1], observation.shape))
                    np.testing.assert_array_equal(following[:, 5], observation[:, 0] + batch.steps_taken)
                assert sampler.path == "local"
        except BaseException as error:
            failures.append(error)

    learner = threading.Thread(target=learn)
    learner.start()
    for round_ in range(20):
        play(store, "t", 200, mark=1000 * round_)
    done.set()
    learner.join(60)
    assert not learner.is_alive()
    assert not failures


def test_a_table_made_anew_is_another_one(store: Store, local: Client) -> None:
    store.create_table("t", config())
    play(store, "t", 50)
    with local.sampler("t", 8, prefetch=2) as sampler:
        for _ in range(4):
            check(next(sampler), 0)
        assert sampler.path == "local"
        until(lambda: sampled(store) == 40, "the fifth batch was not drawn")
        store.drop_table("t")
        store.create_table("t", config())
        play(store, "t", 50, mark=5000)
        paths = set()
        check(next(sampler))  # drawn from the table before, and gathered from files that have no name any more or drawn again
        for _ in range(12):
            check(next(sampler), 5000)
            paths.add(sampler.path)
        assert paths == {"wire", "local"}
        assert sampler.path == "local"


def test_a_dropped_table_ends_in_an_error(store: Store, local: Client) -> None:
    store.create_table("t", config(256))
    play(store, "t", 50)
    with local.sampler("t", 8, prefetch=1) as sampler:
        for _ in range(2):
            check(next(sampler))
        store.drop_table("t")
        with pytest.raises(rs.NotFound, match="'t'"):
            next(sampler)


@pytest.mark.parametrize("mode", [None, True])
def test_a_learner_that_is_there_before_its_table(store: Store, server: ServerThread, mode: bool | None) -> None:
    with Client(server.address, local=mode) as client, client.sampler("t", 8, prefetch=2) as sampler:
        with pytest.raises(rs.NotFound, match="'t'"):
            next(sampler)
        store.create_table("t", config())
        play(store, "t", 50)
        batches = 0
        while batches < 6:
            try:
                check(next(sampler), 0)
                batches += 1
            except rs.NotFound:  # those that were in flight
                assert not batches
        assert (sampler.path, sampler.path_reason) == ("local", "")


def test_a_table_that_was_offered_and_dropped_takes_no_memory(store: Store) -> None:
    class Offered:
        """Stands for a table: a real one may be in the hands of the commit thread."""

    lending = Lending(store, enabled=True, longest_s=30.0)
    table: Any = Offered()
    lent = lending._of(table)
    assert lending.lent(table, lent.key) is lent
    dropped = weakref.ref(table)
    del table, lent
    gc.collect()
    assert dropped() is None


def test_single_calls_keep_few_tables_mapped(store: Store, local: Client) -> None:
    for number in range(11):
        store.create_table(f"t{number}", config())
        play(store, f"t{number}", 20, mark=1000 * number)
        for _ in range(2):
            check(local.sample(f"t{number}", 4), 1000 * number)
    (stream,) = local._single._idle
    assert list(stream._local) == [f"t{number}" for number in range(3, 11)]
    assert {path.path for path in stream._local.values()} == {"local"}
    check(local.sample("t0", 4), 0)


def test_closing_while_another_thread_gathers(store: Store, local: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    store.create_table("t", config())
    play(store, "t", 50)
    sampler = local.sampler("t", 8, prefetch=1)
    for _ in range(3):
        check(next(sampler))
    gathering, closed = threading.Event(), threading.Event()
    column = MappedTable.column

    def slow(self: MappedTable, *asked: Any) -> Any:
        found = column(self, *asked)
        gathering.set()
        assert closed.wait(60)
        return found

    monkeypatch.setattr(MappedTable, "column", slow)
    batches: list[rs.Batch] = []
    learner = threading.Thread(target=lambda: batches.append(next(sampler)))
    learner.start()
    assert gathering.wait(60)
    table = weakref.ref(sampler._local._table)
    sampler.close()
    assert table() is not None
    closed.set()
    learner.join(60)
    check(batches[0], 0)
    gc.collect()
    assert table() is None


def test_another_server_on_the_same_address(store: Store) -> None:
    store.create_table("t", config())
    play(store, "t", 50)
    server = start_in_thread(store, address_to_keep(), options=EVERYTHING)
    address = server.address
    with Client(address) as client, client.sampler("t", 8, prefetch=2) as sampler:
        for _ in range(4):
            check(next(sampler), 0)
        for options in (EVERYTHING, ServerOptions(local=False)):
            server.stop()
            server = start_in_thread(store, listen=address, options=options)
            for _ in range(8):
                check(next(sampler), 0)
            assert sampler.path == ("local" if options.local else "wire")
        server.stop()


def test_a_server_killed_in_mid_stream(tmp_path: Path) -> None:
    with rs.open(tmp_path / "data") as made:
        made.create_table("t", config(512))
        play(made, "t", 300)
    server = ServerProcess(tmp_path / "data", address_to_keep(), "interval")
    address = server.address
    try:
        with Client(address) as client, client.sampler("t", 64, prefetch=4, timeout_s=60.0) as sampler:
            for _ in range(8):
                check(next(sampler), 0)
            assert sampler.path == "local"
            server.end("kill")
            server = ServerProcess(tmp_path / "data", address, "interval")
            play(client, "t", 300, mark=5000)
            for _ in range(12):
                check(next(sampler))
            assert sampler.path == "local"
    finally:
        server.end()


class Kept:
    def __init__(self) -> None:
        self.closed = 0

    def close(self) -> None:
        self.closed += 1


def test_what_is_kept_for_a_stream(store: Store) -> None:
    lending = Lending(store, enabled=True, longest_s=30.0)

    async def test() -> None:
        borrowing = Borrowing(lending, "unix:")
        batches = [Kept() for _ in range(MAX_KEPT + 6)]
        for number, batch in enumerate(batches[:5], 1):
            borrowing.keep(pb.SampleHeader(request=number, keep_s=20.0), batch)
        table = store.create_table("t", config()) or store.table("t")
        borrowing.asked(table, pb.SampleHeader(local=1, gathered=3), first=True)
        assert [batch.closed for batch in batches[:5]] == [1, 1, 1, 0, 0]
        for batch in batches[5:]:  # more than anybody needs
            borrowing.keep(pb.SampleHeader(request=9), batch)
        assert len(borrowing) == MAX_KEPT
        assert sum(batch.closed for batch in batches) == 6
        borrowing.close()
        assert {batch.closed for batch in batches} == {1}
        short = [Kept(), Kept()]
        borrowing.keep(pb.SampleHeader(request=1, keep_s=0.01), short[0])
        borrowing.keep(pb.SampleHeader(request=2, keep_s=float("nan")), short[1])
        while not short[0].closed:
            await asyncio.sleep(0.005)
        assert (short[0].closed, short[1].closed) == (1, 0)
        borrowing.close()

    asyncio.run(asyncio.wait_for(test(), 60))


def test_what_is_kept_of_a_batch_is_its_files_and_not_its_step_ids(store: Store, local: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sequences in flight would be half a megabyte each, for as long as a learner stands still."""
    kept: list[Any] = []
    keep = Borrowing.keep

    def noted(self: Borrowing, header: Any, batch: Any) -> None:
        kept.append(batch)
        keep(self, header, batch)

    monkeypatch.setattr(Borrowing, "keep", noted)
    store.create_table("t", config())
    play(store, "t", 60)
    with local.sampler("t", 8, prefetch=4, view=rs.Sequence(5)) as sampler:
        for _ in range(8):
            next(sampler)
        assert sampler.path == "local"
    assert kept
    assert not any(batch.gathered.small or batch.gathered.takes for batch in kept)


def test_a_stream_that_ends_lets_go(store: Store, server: ServerThread) -> None:
    store.create_table("t", config(256))
    play(store, "t", 255)
    client = Client(server.address)
    sampler = client.sampler("t", 8, prefetch=2)
    for _ in range(3):
        next(sampler)
    before = chunks(store, "t")
    for mark in (1000, 2000):
        play(store, "t", 255, mark=mark)
    sampler.close()
    client.close()
    until(lambda: not before & chunks(store, "t") or store.table("t").commit(), "files were not let go")


def test_files_let_go_after_the_last_publication_leave_with_the_store(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.create_table("t", config(256))
    play(store, "t", 255)
    table = store.table("t")
    reader = table.try_prepare(SampleRequest(4))
    assert reader is not None
    before = chunks(store, "t")
    for mark in (1000, 2000, 3000):
        play(store, "t", 255, mark=mark)
    table.commit()
    table._committing.publish(force=True)
    monkeypatch.setattr(table._committing, "publish", lambda **_: None)  # this was the last
    assert before < chunks(store, "t")
    reader.close()
    store.close()
    assert not before & chunks(store, "t")
