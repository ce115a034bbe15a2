"""Several batches to a message by the local path: large ones too, each gathered when its turn comes, and all as if they had come alone."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

import replaystore as rs
from replaystore.mapping.columns import MappedTable
from replaystore.sampling import derive_seed
from replaystore.server.local import Borrowing, _Lent
from replaystore.server.options import ServerOptions
from replaystore.server.thread import start_in_thread
from replaystore.store import Store
from replaystore_client import Client
from replaystore_client import sampler as sampling
from replaystore_client.local import gathering
from tests.local.conftest import check, compare_lives, config, play, same, until
from tests.replies import note_replies
from tests.views.worlds import SEQUENCES, TRANSITIONS

Replies = list[tuple[int, bool]]


@pytest.fixture(autouse=True)
def each_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """However small."""
    monkeypatch.setattr(gathering, "_TOGETHER_BYTES", -1)


@pytest.fixture
def replies(monkeypatch: pytest.MonkeyPatch) -> Replies:
    """How many batches each reply has, and whether it only names their rows."""
    return note_replies(monkeypatch, lambda header: (header.batches, bool(header.recipe)))


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of any size are too large to go several to a message."""
    monkeypatch.setattr(sampling, "_TOGETHER_BYTES", 0)


@pytest.mark.parametrize("views", [TRANSITIONS, SEQUENCES], ids=["transition", "sequence"])
def test_the_same_batches_as_by_wire(shared_store: Store, clients: tuple[Client, Client], views: Any) -> None:
    def compare(table: str, view: Any, size: int) -> None:
        local, wire = (client.sampler(table, size, prefetch=4, seed=3, timeout_s=5.0, view=view) for client in clients)
        with local, wire:
            for _ in range(10):
                same(next(local), next(wire))
            assert local.path == "local"

    compare_lives(shared_store, views, 40, compare)


def test_large_ones_travel_together_by_name_only(store: Store, local: Client, replies: Replies, large: None) -> None:
    store.create_table("t", config())
    play(store, "t", 60)
    with local.sampler("t", 8, prefetch=8) as sampler:
        for taken in range(1, 41):
            check(next(sampler), 0)
            # the request of a message is gathered with its last batch, not before
            assert sampler._local._gathered == (taken if taken <= 8 else 8 if taken < 12 else taken // 4 * 4 - 3)
        assert sampler.path == "local"
    assert replies[:8] == [(1, False)] * 8
    assert set(replies[8:]) == {(4, True)}


def test_by_wire_large_ones_travel_alone(store: Store, wire: Client, replies: Replies, large: None) -> None:
    store.create_table("t", config())
    play(store, "t", 60)
    with wire.sampler("t", 8, prefetch=8) as sampler:
        for _ in range(20):
            check(next(sampler), 0)
    assert set(replies) == {(1, False)}


def test_priorities_reach_the_batch_that_is_prefetch_later(store: Store, local: Client, large: None) -> None:
    store.create_table("t", config(selector=rs.Prioritized(1.0, 0.0)))
    play(store, "t", 60)
    for prefetch in (4, 9):
        store.update_priorities("t", np.arange(60), np.ones(60))
        with local.sampler("t", 4, prefetch=prefetch) as sampler:
            for _ in range(11):
                next(sampler)
            assert sampler.path == "local"
            sampler.update_priorities(np.arange(60), [1.0] + [0.0] * 59)
            reached = next(later for later in range(1, 40) if next(sampler).step_ids.tolist() == [0] * 4)
        assert prefetch // 2 - 1 < reached <= prefetch


def test_one_that_is_gone_when_its_turn_comes_is_drawn_again(
    store: Store, local: Client, replies: Replies, large: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.create_table("t", config())
    play(store, "t", 60)
    with local.sampler("t", 8, prefetch=4, seed=3) as sampler:
        found = [next(sampler) for _ in range(5)]
        with monkeypatch.context() as patched:

            def gone(*_: Any) -> Any:
                raise rs.NotFound("c.0.0 is gone")

            patched.setattr(MappedTable, "column", gone)
            found.append(next(sampler))
        found += [next(sampler) for _ in range(7)]
        assert sampler.path == "local"
        assert {many for many, named in replies if named} == {2}
        assert [many for many, _ in replies].count(1) == 5  # the first four, and the one drawn again
    for index, batch in enumerate(found):
        check(batch, 0)
        np.testing.assert_array_equal(batch.step_ids, store.sample("t", 8, seed=derive_seed(3, index)).step_ids)


def test_one_that_cannot_be_gathered_ends_the_path(store: Store, local: Client, large: None, monkeypatch: pytest.MonkeyPatch) -> None:
    store.create_table("t", config())
    play(store, "t", 60)
    with local.sampler("t", 8, prefetch=4, seed=3) as sampler:
        found = [next(sampler) for _ in range(5)]

        def changed(*_: Any) -> Any:
            raise rs.Corruption("c.0.0 has another size")

        monkeypatch.setattr(MappedTable, "column", changed)
        found += [next(sampler) for _ in range(8)]
        assert (sampler.path, sampler.path_reason) == ("wire", "c.0.0 has another size")
    for index, batch in enumerate(found):
        np.testing.assert_array_equal(batch.step_ids, store.sample("t", 8, seed=derive_seed(3, index)).step_ids)


def test_they_fit_a_message_even_when_they_come_by_wire_after_all(
    store: Store, replies: Replies, large: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.create_table("t", config())
    play(store, "t", 60)
    options = ServerOptions(local_least_bytes=0, max_message_bytes=(1 << 20) + 150_000)  # two batches of 66 KB
    with start_in_thread(store, options=options) as server, Client(server.address) as client, client.sampler("t", 8, prefetch=8) as sampler:
        for _ in range(20):
            check(next(sampler), 0)
        assert {many for many, named in replies if named} == {2}
        monkeypatch.setattr(_Lent, "describe", lambda *_: None)  # as when columns move
        replies.clear()
        for _ in range(20):
            check(next(sampler), 0)
        assert (2, False) in replies


@pytest.mark.parametrize("mode", [None, False], ids=["local", "wire"])
def test_a_table_made_anew_with_larger_rows(store: Store, mode: bool | None) -> None:
    """What fits a message together of the old one does not of the new one."""

    def make(width: int) -> None:
        store.create_table("t", rs.TableConfig({"observation": rs.Column((width,), "float32"), "action": rs.Column((), "int64")}))
        with store.writer("t") as writer:
            writer.reset(np.zeros(width))
            for t in range(60):
                writer.append(t, 0.0, t == 59, False, np.full(width, t + 1))

    make(1024)
    options = ServerOptions(local_least_bytes=0, max_message_bytes=(1 << 20) + 300_000)
    with (
        start_in_thread(store, options=options) as server,
        Client(server.address, local=mode) as client,
        client.sampler("t", 8, prefetch=8) as sampler,
    ):
        for _ in range(20):
            next(sampler)
        until(lambda: store.stats("t").sampled_items == 8 * sampler._count, "not all were drawn")
        store.drop_table("t")
        make(2048)
        widths = [next(sampler).observation.shape[1] for _ in range(30)]
        assert widths == sorted(widths)
        assert widths[-1] == 2048


def test_the_disk_is_asked_by_threads_only(store: Store, local: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    looked, loops = set(), set()
    look, asked = _Lent.look, Borrowing.asked

    def noted_look(self: _Lent, *args: Any) -> None:
        looked.add(threading.get_ident())
        look(self, *args)

    def noted_asked(self: Borrowing, *args: Any, **more: Any) -> Any:
        loops.add(threading.get_ident())
        return asked(self, *args, **more)

    monkeypatch.setattr(_Lent, "look", noted_look)
    monkeypatch.setattr(Borrowing, "asked", noted_asked)
    store.create_table("t", config())
    play(store, "t", 60)
    with local.sampler("t", 8, prefetch=2) as sampler:
        for _ in range(6):
            check(next(sampler), 0)
    assert looked
    assert not looked & loops
