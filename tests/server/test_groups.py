"""Several batches per message: the same batches as one by one, in the same order, whatever comes in between."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import replaystore as rs
from replaystore.sampling import SampleRequest, derive_seed
from replaystore.server import sample as served
from replaystore.server.options import ServerOptions
from replaystore.server.thread import ServerThread, start_in_thread
from replaystore.store import Store
from replaystore.v1 import data_pb2 as pb
from replaystore.wire.samples import IncomingSample, decode_sample_reply, decode_sample_request, encode_query, encode_sample_request
from replaystore_client import Client
from replaystore_client.sampler import Sampler
from tests.replies import note_replies

from .conftest import config, write_steps

Groups = list[int]


@pytest.fixture
def client(server: ServerThread) -> Iterator[Client]:
    with Client(server.address, local=False) as connected:
        yield connected


@pytest.fixture
def replies(monkeypatch: pytest.MonkeyPatch) -> Groups:
    """How many batches each reply is about."""
    return note_replies(monkeypatch, lambda header: header.batches)


def fill(api: Any, steps: int = 100, **changes: Any) -> None:
    api.create_table("t", config(seed=5, **changes))
    with api.writer("t") as writer:
        write_steps(writer, steps)


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60.0
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


def drawn(client: Client, items: int) -> None:
    """Waits until so many have been: those in flight are drawn by then."""
    eventually(lambda: client.stats("t").sampled_items >= items)


def contents(batches: Any) -> list[dict[str, Any]]:
    return [{name: array.tolist() for name, array in batch.fields.items()} for batch in batches]


def known(batches: Any) -> list[tuple[int, float, int]]:
    return [(batch.candidates, batch.mass, batch.next_step) for batch in batches]


KINDS: dict[str, dict[str, Any]] = {
    "uniform": {"selector": "u"},
    "priority": {"selector": "p", "beta": rs.Linear(0.4, 1.0, 10), "normalise": "table"},
    "stacked": {"selector": "p", "view": rs.Transition(n_step=3, frame_stack=2), "beta": 0.5},
    "sequences": {"selector": "u", "view": rs.Sequence(5), "columns": ["observation"]},
    "few columns": {"selector": rs.Recency(20.0), "columns": ["reward"]},
    "newest first": {"selector": rs.Lifo()},
    "without replacement": {"selector": "w"},
    "filtered": {"selector": "u", "where": rs.Filter(max_age_steps=50)},
    "random n": {"selector": "u", "view": rs.Transition(n_step=(1, 3))},
    "episodes": {"selector": "u", "view": rs.Episode(max_length=200), "batch_size": 1},
}


@pytest.mark.parametrize("seed", [None, 11], ids=["unseeded", "seeded"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_same_batches_as_from_an_embedded_sampler(
    store: Store, client: Client, tmp_path: Path, replies: Groups, kind: str, seed: int | None
) -> None:
    selector = {"p": rs.Prioritized(), "u": rs.Uniform(), "w": rs.WithoutReplacement()}
    options = {"batch_size": 16, "seed": seed, "prefetch": 8, **KINDS[kind]}
    found = []
    with rs.open(tmp_path / "twin") as twin:
        for api in (twin, client):
            api.create_table("t", config(seed=5, selector=selector))
            with api.writer("t") as writer:
                for first in (0, 1000):
                    write_steps(writer, 90, first=first)
                    writer.append(0, 0.0, True, False, np.zeros(3))
            api.update_priorities("t", np.arange(90), np.arange(90) % 7)
            with api.sampler("t", **options) as sampler:
                found.append([next(sampler) for _ in range(25)])
    assert contents(found[1]) == contents(found[0])
    assert known(found[1]) == known(found[0])
    if kind not in ("random n", "episodes", "without replacement"):
        assert 4 in replies


def test_single_batches_first_then_groups_of_half_the_prefetch(client: Client, replies: Groups) -> None:
    fill(client)
    with client.sampler("t", 4, prefetch=9) as sampler:
        for _ in range(17):
            next(sampler)
    assert replies == [1] * 9 + [4, 4]
    replies.clear()
    with client.sampler("t", 4, prefetch=3) as sampler:
        for _ in range(9):
            next(sampler)
    assert replies == [1] * 9


def test_large_batches_travel_alone(client: Client, replies: Groups) -> None:
    client.create_table("t", rs.TableConfig({"observation": rs.Column((1 << 12,), "float32"), "action": rs.Column((), "int64")}))
    with client.writer("t") as writer:
        writer.reset(np.zeros(1 << 12))
        for step in range(40):
            writer.append(step, 0.0, False, False, np.full(1 << 12, step + 1))
    for size, most in ((32, 1), (10, 3)):
        replies.clear()
        with client.sampler("t", size, prefetch=8) as sampler:
            for _ in range(20):
                batch = next(sampler)
                np.testing.assert_array_equal(batch.next_observation[:, 7], batch.step_ids + 1)
        assert max(replies) == most


def test_batches_of_one_message_are_the_learners_own(client: Client) -> None:
    fill(client)
    with client.sampler("t", 4, prefetch=8) as sampler:
        batches = [next(sampler) for _ in range(30)]
        before = contents(batches)
        for index in range(0, 30, 2):
            batches[index].observation[:] = -1.0
        assert contents(batches[1::2]) == before[1::2]
        assert all(batch.observation.flags.aligned for batch in batches)


def test_what_the_limiter_lets_through_is_not_held_back_for_the_rest(client: Client, replies: Groups) -> None:
    fill(client, 50)
    with client.sampler("t", 8, seed=3, prefetch=8, timeout_s=0.2) as sampler:
        found = [next(sampler) for _ in range(12)]  # 16 are drawn by now, or on their way
        drawn(client, 16 * 8)
        client.alter_table("t", rate_limiter=rs.SampleToInsertRatio(1.0, 40, error_buffer=8.0))  # one batch, then steps first
        found += [next(sampler) for _ in range(5)]
        with pytest.raises(rs.NotReady, match="actors must insert 8 more steps"):
            next(sampler)
        with pytest.raises(rs.NotReady, match="actors must insert 8 more steps"):
            next(sampler)
        assert client.stats("t").waiting_samples == 1
        with client.writer("t", interval_s=60.0) as writer:  # in one block, which the sampler sees wholly or not at all
            write_steps(writer, 8)
        found.append(next(sampler))
        with pytest.raises(rs.NotReady):
            next(sampler)
        client.alter_table("t", rate_limiter=rs.MinSize(1))
        found += [next(sampler) for _ in range(8)]
    assert replies == [1] * 8 + [4, 4, 1, 1, 2, 4, 4]
    now = client.stats("t").next_step
    assert [batch.next_step == now for batch in found] == [False] * 17 + [True] * 9
    for index in range(17, 26):
        assert found[index].step_ids.tolist() == client.sample("t", 8, seed=derive_seed(3, index)).step_ids.tolist()


def test_a_batch_that_timed_out_at_the_server_is_asked_for_again(store: Store, replies: Groups) -> None:
    with start_in_thread(store, options=ServerOptions(max_wait_s=0.4)) as server, Client(server.address, local=False) as client:
        fill(client, 50)
        with client.sampler("t", 8, seed=3, prefetch=8, timeout_s=60.0) as sampler:
            found = [next(sampler) for _ in range(12)]
            drawn(client, 16 * 8)
            client.alter_table("t", rate_limiter=rs.MinSize(100))
            found += [next(sampler) for _ in range(4)]
            for _ in range(2):
                with pytest.raises(rs.NotReady, match="MinSize"):
                    next(sampler)
            client.alter_table("t", rate_limiter=rs.MinSize(1))
            while len(found) < 24:
                try:
                    found.append(next(sampler))
                except rs.NotReady:
                    pass
        expected = [client.sample("t", 8, seed=derive_seed(3, index)).step_ids.tolist() for index in range(40)]
        order = [expected.index(batch.step_ids.tolist()) for batch in found]
        assert len(set(order)) == 24  # none twice
        assert {16, 17} <= set(range(40)) - set(order[:18])  # later, for they gave up their places


def test_an_error_stands_for_one_batch(store: Store, client: Client) -> None:
    fill(client)
    with client.sampler("t", 4, seed=1, prefetch=8) as sampler:
        found = [next(sampler) for _ in range(9)]
        drawn(client, 16 * 4)
        client.drop_table("t")
        found += [next(sampler) for _ in range(7)]
        failed = 0
        for _ in range(6):
            with pytest.raises(rs.NotFound, match="no table 't'"):
                next(sampler)
            failed += 1
        fill(client)
        after: list[list[int]] = []
        while len(after) < 12:
            try:
                after.append(next(sampler).step_ids.tolist())
            except rs.NotFound:
                failed += 1
        expected = [client.sample("t", 4, seed=derive_seed(1, index)).step_ids.tolist() for index in range(60)]
    assert [batch.step_ids.tolist() for batch in found] == expected[:16]
    assert after == expected[16 + failed : 28 + failed]


def test_a_lost_connection_costs_no_batch(client: Client, replies: Groups) -> None:
    fill(client)
    with client.sampler("t", 4, seed=2, prefetch=8) as sampler:
        found = []
        for index in range(40):
            found.append(next(sampler).step_ids.tolist())
            if index in (0, 13, 17, 30):
                cut(sampler)
    assert found == [client.sample("t", 4, seed=derive_seed(2, index)).step_ids.tolist() for index in range(40)]
    assert {1, 3, 4} <= set(replies)  # a server that knows nothing of the table's batches sends one first


def test_only_the_rest_of_a_group_is_asked_for_again(client: Client) -> None:
    fill(client, 50, rate_limiter=rs.SampleToInsertRatio(1.0, 40, error_buffer=200.0))
    with client.sampler("t", 8, seed=2, prefetch=8, timeout_s=0.1) as sampler:
        found = [next(sampler).step_ids.tolist() for _ in range(26)]  # (50 - 40 + 200) // 8
        with pytest.raises(rs.NotReady):
            next(sampler)
        cut(sampler)
        client.alter_table("t", rate_limiter=rs.MinSize(1))
        found += [next(sampler).step_ids.tolist() for _ in range(8)]
        assert client.stats("t").sampled_items <= (34 + 8) * 8
    assert found == [client.sample("t", 8, seed=derive_seed(2, index)).step_ids.tolist() for index in range(34)]


@pytest.mark.parametrize("since", [0, 14])
def test_a_server_that_knows_no_groups(client: Client, monkeypatch: pytest.MonkeyPatch, since: int) -> None:
    """Of an older version, from the beginning, or after a restart."""
    fill(client)
    decode, header = decode_sample_request, served._header

    def ignoring(message: bytes) -> IncomingSample:
        incoming = decode(message)
        if incoming.batches == 1:
            return incoming
        assert incoming.request is not None
        return replace(incoming, seeds=(None,), betas=(0.0,), request=replace(incoming.request, seed=None))

    def without(number: int, counts: Any, drawn: Any = None) -> bytes:
        made = pb.SampleReplyHeader.FromString(header(number, counts, drawn))
        made.ClearField("batches")
        return bytes(made.SerializeToString())

    found = []
    with client.sampler("t", 4, seed=4, prefetch=8) as sampler:
        for index in itertools.count():
            if index == since:
                monkeypatch.setattr("replaystore.server.sample.decode_sample_request", ignoring)
                monkeypatch.setattr(served, "_header", without)
            if index == 40:
                break
            found.append(next(sampler).step_ids.tolist())
    monkeypatch.undo()
    assert found == [client.sample("t", 4, seed=derive_seed(4, index)).step_ids.tolist() for index in range(40)]


@pytest.mark.parametrize("prefetch", [1, 2, 4, 7, 16])
def test_priorities_reach_the_batch_that_is_prefetch_later(store: Store, client: Client, prefetch: int) -> None:
    """At the latest; which that is does not depend on time."""
    fill(client, selector=rs.Prioritized(1.0, 0.0))
    reached: list[int] = []
    for after in (0, 5, 11):
        client.update_priorities("t", np.arange(100), np.ones(100))
        with client.sampler("t", 4, prefetch=prefetch) as sampler:
            for _ in range(after + 1):
                next(sampler)
            sampler.update_priorities(np.arange(100), [1.0] + [0.0] * 99)
            reached.append(next(later for later in range(1, 40) if next(sampler).step_ids.tolist() == [0] * 4))
    assert max(reached) <= prefetch
    assert min(reached) > prefetch // 2 - 1


def test_updates_are_counted_once(client: Client) -> None:
    fill(client, selector=rs.Prioritized(1.0, 0.0))
    with client.sampler("t", 4, prefetch=8) as sampler:
        for _ in range(30):
            batch = next(sampler)
            sampler.update_priorities(batch.step_ids, np.ones(4))
    assert sampler.updates == rs.UpdateCounts(120, 0, 0)


def test_a_log_holds_what_was_returned(client: Client, tmp_path: Path) -> None:
    fill(client, selector=rs.Prioritized())
    with client.sampler("t", 4, prefetch=8, beta=rs.Linear(0.0, 1.0, 20), log=tmp_path / "log") as sampler:
        batches = [next(sampler) for _ in range(21)]
    assert contents(rs.replay_log(client, tmp_path / "log")) == contents(batches)


def ask(address: str, message: bytes) -> list[tuple[Any, dict[str, Any]]]:
    """All replies to one message."""
    with Client(address) as client:
        call = client._connection.open_stream("Sample", iter([message]))
        return [decode_sample_reply(reply) for reply in call]


def test_a_group_is_cut_to_what_a_message_takes(store: Store) -> None:
    with start_in_thread(store, options=ServerOptions(max_message_bytes=(1 << 20) + 3000)) as server:
        with Client(server.address) as client:
            fill(client)
        query = encode_query("t", SampleRequest(8))
        replies = ask(server.address, encode_sample_request(7, query, 0.0, None, 1.0, betas=[0.0] * 12))
        assert [header.batches for header, _ in replies] == [1, 4, 4, 3]
        assert [len(fields["info/step_ids"]) for _, fields in replies] == [8, 32, 32, 24]
        assert {header.request for header, _ in replies} == {7}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda header: header.ClearField("betas") or header.betas.extend([0.0] * 2), "2 numbers for batches=3"),
        (lambda header: header.seeds.append(1), "1 numbers for batches=3"),
        (lambda header: header.seeds.extend([1, -1, 1]), "seed=-1"),
        (lambda header: setattr(header, "seed", 1), "in header.seeds"),
        (lambda header: setattr(header, "batches", 100_000), "header.batches=100000"),
        (lambda header: header.ClearField("betas") or header.betas.extend([0.0, float("nan"), 0.0]), "beta=nan"),
    ],
)
def test_groups_that_cannot_be(server: ServerThread, client: Client, change: Callable[[Any], Any], said: str) -> None:
    fill(client)
    request = pb.SampleRequest.FromString(encode_sample_request(7, encode_query("t", SampleRequest(8)), 0.0, None, 1.0, betas=[0.0] * 3))
    change(request.header)
    ((header, fields),) = ask(server.address, request.SerializeToString())
    assert (header.request, header.batches, header.error.kind, fields) == (7, 0, "InvalidArgument", {})
    assert said in header.error.message


def test_one_shared_exponent_and_no_seeds(server: ServerThread, client: Client) -> None:
    """As a client in another language may ask."""
    fill(client, selector=rs.Prioritized(1.0, 0.0))
    client.update_priorities("t", np.arange(99), np.arange(99) % 3 + 1)
    request = pb.SampleRequest.FromString(encode_sample_request(7, encode_query("t", SampleRequest(8)), 0.5, None, 1.0))
    request.header.batches = 3
    (_, one), (_, two) = ask(server.address, request.SerializeToString())
    assert (len(one["info/weights"]), len(two["info/weights"])) == (8, 16)
    chances = two["info/probabilities"].reshape(2, 8)
    weights = (chances.min(axis=1, keepdims=True) / chances) ** 0.5
    np.testing.assert_allclose(two["info/weights"].reshape(2, 8), weights, rtol=1e-6)


def test_who_waits_in_line_is_not_overtaken_by_groups(store: Store, client: Client) -> None:
    fill(client, 50)
    with client.sampler("t", 8, prefetch=8, timeout_s=30.0) as first, client.sampler("t", 8, prefetch=8, timeout_s=30.0) as second:
        for sampler in (first, second):
            for _ in range(12):
                next(sampler)
        drawn(client, 32 * 8)
        client.alter_table("t", rate_limiter=rs.MinSize(10_000))
        for sampler in (first, second):
            for _ in range(4):
                next(sampler)
            sampler_asks(sampler)
        eventually(lambda: client.stats("t").waiting_samples == 2)
        client.alter_table("t", rate_limiter=rs.MinSize(1))
        for _ in range(12):
            next(first)
            next(second)


def cut(sampler: Any) -> None:
    """Loses its connection."""
    assert isinstance(sampler, Sampler)
    sampler._stream._drop_call()


def sampler_asks(sampler: Any) -> None:
    """Sends what `next` would send, and does not wait for it."""
    assert isinstance(sampler, Sampler)
    sampler._send(sampler._together, 8)
