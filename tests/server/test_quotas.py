"""What single callers may append, store and make: held back or refused, with the reason; rates against a naive model."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import replaystore as rs
from replaystore.server.access.callers import ANYBODY, Caller, Quotas
from replaystore.server.access.roles import Role
from replaystore.server.options import ServerOptions
from replaystore.server.quotas import BURST_S, MAKERS_FILE, Bucket, Pace, QuotaBook
from replaystore.server.thread import ServerThread, start_in_thread
from replaystore.storage.layout import PRIVATE_FOLDER
from replaystore.store import Store
from replaystore.v1 import service_pb2 as pb
from replaystore.wire.methods import path_of
from replaystore.wire.records import config_json
from replaystore_client import Client

from .conftest import config, write_steps

SECRET, OTHER = "a-secret-of-an-actor", "a-secret-of-another-one"


@pytest.fixture
def token_file(tmp_path: Path) -> Callable[[str], Path]:
    def write(quotas: str) -> Path:
        path = tmp_path / "tokens.toml"
        path.write_text(
            f'[token.actor]\nsecret = "{SECRET}"\nroles = {{ "*" = "admin" }}\n{quotas}\n'
            f'[token.boss]\nsecret = "{OTHER}"\nroles = {{ "*" = "admin" }}\n'
        )
        path.chmod(0o600)
        return path

    return write


@pytest.fixture
def serving(store: Store, token_file: Callable[[str], Path]) -> Iterator[Callable[..., Client]]:
    """A client with quotas, of a server."""
    opened: list[Any] = []

    def serve(quotas: str, **options: Any) -> Client:
        server: ServerThread = start_in_thread(store, options=ServerOptions(token_file=token_file(quotas), **options))
        client = Client(server.address, token=SECRET, timeout_s=60)
        opened.extend((server.stop, client.close))
        return client

    yield serve
    for end in reversed(opened):
        end()


def until(reached: Callable[[], Any], timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not reached():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


# -- rates


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 20), st.lists(st.tuples(st.integers(0, 40), st.integers(1, 120)), min_size=1, max_size=40))
def test_a_bucket_lets_through_when_a_naive_model_does(rate: int, asked: list[tuple[int, int]]) -> None:
    """Time in ticks of 1/8 s, amounts and levels in units of 1/8: the model moves tick by tick and keeps a line of who waits."""
    arrivals, tick = [], 0
    for pause, amount in asked:
        tick += pause
        arrivals.append((tick, amount))
    level, line, coming, served = rate * 8 * BURST_S, deque[tuple[int, int]](), deque(enumerate(arrivals)), {}
    now = 0
    while coming or line:
        while coming and coming[0][1][0] == now:
            number, (_, amount) = coming.popleft()
            line.append((number, 8 * amount))
        while line and level >= 0:
            number, amount = line.popleft()
            served[number] = now
            level -= amount
        now += 1
        level = min(level + rate, rate * 8 * BURST_S)
    bucket = Bucket()
    for number, (at, amount) in enumerate(arrivals):
        wait_s = bucket.take(amount, rate, at / 8)
        assert served[number] == int(np.ceil(at + 8 * wait_s - 1e-9))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 3), st.integers(1, 50)), min_size=1, max_size=60))
def test_a_rate_is_held_over_any_stretch_of_time(asked: list[tuple[float, int]]) -> None:
    bucket, rate, now = Bucket(), 10.0, 0.0
    through: list[tuple[float, int]] = []
    for pause, amount in asked:
        now += pause
        through.append((now + bucket.take(amount, rate, now), amount))
    times = [at for at, _ in through]
    assert times == sorted(times), "in the order of asking"
    for first in range(len(through)):
        total = 0
        for at, amount in through[first:-1]:  # all but the last one is paid for
            assert total <= rate * (at - times[first] + BURST_S) + 1e-6
            total += amount


def test_what_is_given_back_may_be_used() -> None:
    bucket = Bucket()
    assert bucket.take(100, 10, 0.0) == 0
    assert bucket.take(20, 10, 0.0) == pytest.approx(9)
    bucket.give_back(20)
    assert bucket.take(1, 10, 0.0) == pytest.approx(9)
    assert bucket.take(1, 10, 100.0) == 0


def refusal(writer: rs.Writer, kind: type[rs.ReplayStoreError]) -> rs.ReplayStoreError:
    """What flushing comes to say, sooner or later."""
    found: list[rs.ReplayStoreError] = []

    def refused() -> bool:
        try:
            writer.flush(timeout_s=0.2)
        except rs.ReplayStoreError as error:
            found.append(error)
        return isinstance(found[-1], kind)

    until(refused)
    return found[-1]


def test_blocks_beyond_the_rate_are_held_back_and_their_writer_is_told_why(
    serving: Callable[..., Client], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    over, hold_back = threading.Event(), QuotaBook._hold_back

    async def until_over(text: str, began: float, delay_s: float, pace: Pace) -> None:
        while not over.is_set():
            await hold_back(text, time.monotonic(), 0.1, pace)

    monkeypatch.setattr(QuotaBook, "_hold_back", staticmethod(until_over))
    client = serving("steps_per_s = 1", blocked_notice_s=0.02)
    client.create_table("t", config())
    with client.writer("t", block_rows=20, timeout_s=60) as writer:
        write_steps(writer, 60)
        text = str(refusal(writer, rs.NotReady))
        said = r"caller 'actor' is over its quota steps_per_s=1: a block of \d+ rows and \d+ bytes waits for another 0\.\d+ s$"
        assert re.search(said, text), text
        assert client.stats("t").inserted_steps < 60
        over.set()
        writer.flush(timeout_s=60)
    assert client.stats("t").inserted_steps == 60
    assert store.read_steps("t", 0, 60)["action"].tolist() == list(range(60))


def test_who_may_not_wait_so_long_is_refused_with_the_time_that_it_takes(store: Store) -> None:
    store.create_table("t", config())
    table, book, told = store.table("t"), QuotaBook(store), list[tuple[str, float]]()
    caller = Caller("actor", (("*", Role.write),), Quotas(bytes_per_s=1000))

    async def tell(why: str, waited_s: float) -> None:
        told.append((why, waited_s))

    async def main() -> None:
        await book.admit(caller, table, 10, 8000, Pace(1.0, tell, 0.01))
        with pytest.raises(rs.Overloaded) as caught:
            await book.admit(caller, table, 10, 500, Pace(1.0, tell, 0.01))
        assert str(caught.value).startswith(
            "caller 'actor' is over its quota bytes_per_s=1000: a block of 10 rows and 500 bytes would wait for "
        )
        assert (
            str(caught.value)
            .split(" would wait for ")[1]
            .split(" s, ", 1)[1]
            .startswith("and may for 1 s: send less, or have the quota in the server's token file raised; try again in ")
        )
        assert 1 < (caught.value.retry_after_s or 0) <= 7
        waiting = asyncio.ensure_future(book.admit(caller, table, 10, 500, Pace(60.0, tell, 0.01)))
        while not told:
            await asyncio.sleep(0.01)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        usage = book._of(caller)
        assert usage.bytes._level >= -7000, "neither the refused nor the one that left has to be paid for"
        await book.admit(ANYBODY, table, 10**9, 10**12, Pace(0.0, tell, 0.0))
        faster = Caller("actor", (("*", Role.write),), Quotas(bytes_per_s=1e9))
        await book.admit(faster, table, 10, 500, Pace(1.0, tell, 1.0))  # as the file says by now

    asyncio.run(main())
    assert all(why.startswith("caller 'actor' is over its quota bytes_per_s=1000: a block") for why, _ in told)


# -- what is stored and made


def test_stored_bytes(serving: Callable[..., Client]) -> None:
    client = serving("max_bytes = 20000")
    client.create_table("t", config())
    writer = client.writer("t", block_rows=50, timeout_s=60)
    write_steps(writer, 400)
    error = refusal(writer, rs.Overloaded)
    assert isinstance(error, rs.Overloaded)
    assert "rows are not acknowledged): caller 'actor' has " in str(error)
    assert str(error).endswith(
        " bytes stored in t, and its quota max_bytes=20000 allows no more: drop or shorten what is not needed (alter_table with another "
        "retention), or have the quota in the server's token file raised; try again in 10 s"
    )
    assert error.retry_after_s == 10.0
    stored = client.stats("t").inserted_steps
    assert 150 < stored < 350
    with Client(client.address, token=OTHER, timeout_s=60) as boss:
        boss.create_table("other", config())
        with boss.writer("other", timeout_s=60) as another:  # each caller's own
            write_steps(another, 1000)
        boss.drop_table("t")
    with pytest.raises((rs.NotFound, rs.Overloaded)):  # the first when it comes again
        writer.close(0.5)
    client.create_table("t", config())
    with client.writer("t", timeout_s=60) as writer:  # there is room again
        write_steps(writer, 100)
    assert client.stats("t").inserted_steps == 100


def test_tables_that_a_caller_made_are_counted_also_after_a_restart(
    store: Store, token_file: Callable[[str], Path], tmp_path: Path
) -> None:
    options = ServerOptions(token_file=token_file("max_tables = 2"))
    with start_in_thread(store, options=options) as server, Client(server.address, token=SECRET, timeout_s=60) as client:
        client.create_table("a", config())
        client.create_table("a", config(), exist_ok=True)
        client.fork("a", "b")
    with start_in_thread(store, options=options) as server, Client(server.address, token=SECRET, timeout_s=60) as client:
        for call in (lambda: client.create_table("c", config()), lambda: client.fork("a", "c")):
            with pytest.raises(rs.Overloaded) as caught:
                call()
            assert str(caught.value) == (
                "table 'c' cannot be made: caller 'actor' has made 2 tables, and its quota max_tables=2 allows no more: drop one of a, b, "
                "or have the quota in the server's token file raised"
            )
            assert caught.value.retry_after_s == 60.0
    with start_in_thread(store, options=options) as server, Client(server.address, token=OTHER, timeout_s=60) as boss:
        boss.drop_table("a")  # makes room for whoever made it
        with Client(server.address, token=SECRET, timeout_s=60) as client:
            client.create_table("d", config())
            assert client.tables() == ["b", "d"]
    path = store.path / PRIVATE_FOLDER / MAKERS_FILE
    assert path.read_text() == '{"b": "actor", "d": "actor"}'
    path.write_text("not JSON")
    assert not QuotaBook(store)._made_by(Caller("actor", ()))  # counted anew


def test_tables_of_who_leaves_before_they_are_made_count(
    serving: Callable[..., Client], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = serving("max_tables = 1")
    begun, go_on, create = threading.Event(), threading.Event(), store.create_table

    def slowly(*arguments: Any, **options: Any) -> Any:
        begun.set()
        assert go_on.wait(60)
        return create(*arguments, **options)

    monkeypatch.setattr(store, "create_table", slowly)
    request = pb.CreateTableRequest(table="a", config_json=config_json(config())).SerializeToString()
    metadata = (("authorization", f"Bearer {SECRET}"),)
    with grpc.insecure_channel(client.address) as channel:
        call = channel.unary_unary(path_of("CreateTable")).future(request, metadata=metadata, timeout=60)
        assert begun.wait(60)
        call.cancel()
        with pytest.raises(rs.Overloaded, match="has made 1 tables, and its quota max_tables=1"):
            client.create_table("b", config())
        go_on.set()
        until(lambda: "a" in store.tables() and (store.path / PRIVATE_FOLDER / MAKERS_FILE).exists())
        with pytest.raises(rs.Overloaded, match="drop one of a"):
            client.create_table("b", config())
    assert store.tables() == ["a"]


def test_nobody_in_particular_is_not_noted(store: Store) -> None:
    with start_in_thread(store) as server, Client(server.address) as client:
        client.create_table("t", config())
    assert not (store.path / PRIVATE_FOLDER / MAKERS_FILE).exists()
