"""Limiters in a table: changed while it is used, kept with it, and never in the way of both sides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import replaystore as rs
from replaystore.engine.table import Table
from replaystore.sampling import SampleRequest
from replaystore.steps import RUN_DTYPE, AppendResult, StepBlock
from replaystore.store import Store
from tests.store.conftest import config, write_episodes

ONCE = rs.Retention(max_times_sampled=1)


def offer(table: Table, episode: int, first: int, rows: int = 1) -> AppendResult | None:
    """Rows of an open episode; None when the limiter holds them back."""
    runs = np.zeros(1, RUN_DTYPE)
    runs["episode"], runs["first"], runs["rows"], runs["policy_version"], runs["seed"] = episode, first, rows, -1, -1
    columns: dict[str, Any] = {name: np.zeros((rows, *c.shape), c.dtype) for name, c in table.config.columns.items()}
    return table.try_append(StepBlock(columns, runs))


def draw(table: Table, n: int = 1, **options: Any) -> int | None:
    prepared = table.try_prepare(SampleRequest(n, rs.Transition(), **options))
    if prepared is None:
        return None
    prepared.close()
    return n


def test_a_queue_of_one_is_no_halt(store: Store) -> None:
    """The newest row is no anchor, so it takes no place, and the next one may come."""
    store.create_table("t", config(selector=rs.Fifo(), rate_limiter=rs.Queue(1), retention=ONCE))
    table = store.table("t")
    assert offer(table, 1, 0) is not None
    assert draw(table) is None
    for t in range(1, 20):
        assert offer(table, 1, t) is not None
        assert offer(table, 1, t + 1) is None
        assert draw(table) == 1
        assert draw(table) is None


def test_many_streams_whose_newest_rows_are_no_anchors_yet(store: Store) -> None:
    store.create_table("t", config(selector=rs.Lifo(), rate_limiter=rs.Stack(2), retention=ONCE))
    table = store.table("t")
    assert all(offer(table, 1 + stream, 0) is not None for stream in range(50))
    assert draw(table, 2) is None
    assert offer(table, 1, 1) is not None
    assert draw(table, 2) is None
    assert offer(table, 2, 1) is not None
    assert offer(table, 3, 1) is None
    assert draw(table, 2) == 2


def test_a_queue_changes_its_size_and_keeps_it(store: Store, tmp_path: Path) -> None:
    store.create_table("t", config(selector=rs.Fifo(), rate_limiter=rs.Queue(2), retention=ONCE))
    table = store.table("t")
    assert offer(table, 1, 0, 3) is not None
    assert offer(table, 1, 3) is None
    store.alter_table("t", rate_limiter=rs.Queue(4))
    assert offer(table, 1, 3) is not None
    assert offer(table, 1, 4) is not None
    assert offer(table, 1, 5) is None
    store.alter_table("t", rate_limiter=rs.Queue(3))
    assert draw(table) == 1
    assert offer(table, 1, 5) is None
    store.close()
    with rs.open(tmp_path / "data") as again:
        table = again.table("t")
        assert table.config.rate_limiter == rs.Queue(3)
        assert offer(table, 1, 5) is None
        assert "cursor 3 (anchors that wait to be sampled), bounds 0 to size=3; learners must sample 1 more" in again.why_blocked("t")
        assert draw(table) == 1
        assert offer(table, 1, 5) is not None


def test_what_could_never_move_cannot_be_altered_to(store: Store) -> None:
    store.create_table("t", config(retention=ONCE))
    for change in ({"rate_limiter": rs.Queue(4)}, {"rate_limiter": rs.SampleToInsertRatio(2.0)}):
        with pytest.raises(rs.InvalidArgument, match=r"selector=Fifo|max_times_sampled=1 allows 1"):
            store.alter_table("t", **change)
    assert store.describe("t").config.rate_limiter == rs.MinSize(1)


def test_a_batch_without_repetitions_gets_the_anchors_it_needs(store: Store) -> None:
    """The ratio alone would hold inserts back long before a Fifo batch of 64 has 64 anchors."""
    store.create_table("t", config(selector=rs.Fifo(), rate_limiter=rs.SampleToInsertRatio(64.0, error_buffer=128.0)))
    table = store.table("t")
    for t in range(70):
        while offer(table, 1, t) is None:
            assert draw(table, 64) == 64, f"both wait after {t} rows"
        draw(table, 64)
    assert store.stats("t").sampled_items > 64 * 64


def test_inserts_pass_when_nothing_is_left_to_sample(store: Store) -> None:
    store.create_table("t", config(rate_limiter=rs.SampleToInsertRatio(1.0, error_buffer=2.0)))
    table = store.table("t")
    assert offer(table, 1, 0, 3) is not None
    assert offer(table, 1, 3) is None
    store.delete_steps("t", [1])  # and with it row 0 is no anchor; row 2 is none yet
    assert store.stats("t").anchors == 0
    assert offer(table, 1, 3) is not None
    assert draw(table) == 1


def test_who_waits_behind_others_is_told(store: Store) -> None:
    store.create_table("t", config(rate_limiter=rs.MinSize(2)))
    table = store.table("t")
    ticket = table.inserting.join(lambda: None)
    assert "1 appends asked earlier, and go first" in store.why_blocked("t")
    table.inserting.leave(ticket)
    assert "inserting goes on (0 waiting)" in store.why_blocked("t")
    write_episodes(store, "t", [5])
    assert store.why_blocked("t") == "inserting goes on (0 waiting)\nsampling goes on (0 waiting)"


def test_why_blocked_speaks_of_the_batch_that_waits(store: Store) -> None:
    store.create_table("t", config(rate_limiter=rs.SampleToInsertRatio(1.0, error_buffer=8.0)))
    write_episodes(store, "t", [5])
    table = store.table("t")
    ticket = table.sampling.join(lambda: None)
    assert table.try_prepare(SampleRequest(15, rs.Transition()), ticket) is None
    assert "15 more items would go below: actors must insert 3 more steps (1 waiting)" in store.why_blocked("t")
    table.sampling.leave(ticket)


def test_an_episode_longer_than_the_bounds_of_a_ratio_is_no_halt(store: Store) -> None:
    """Who waits for whole episodes has nothing to draw until one has ended: inserts pass meanwhile, unless others are served."""
    store.create_table("t", config(rate_limiter=rs.SampleToInsertRatio(1.0, error_buffer=8.0)))
    table = store.table("t")
    rows = 0
    while offer(table, 1, rows) is not None:
        rows += 1
    woken: list[int] = []
    writer = table.inserting.join(lambda: woken.append(rows))
    ticket = table.sampling.join(lambda: None)
    episodes = SampleRequest(2, rs.Episode())
    assert table.try_prepare(episodes, ticket) is None
    assert woken, "the writer that waits hears of it"
    table.inserting.leave(writer)
    for _ in range(40):
        assert offer(table, 1, rows) is not None
        rows += 1
        assert table.try_prepare(episodes, ticket) is None
    assert draw(table, 4) == 4
    assert table.try_prepare(episodes, ticket) is None
    assert offer(table, 1, rows) is None, "somebody else is served: the ratio holds again"
    table.sampling.leave(ticket)


def test_inserts_pass_only_while_somebody_waits_for_them(store: Store) -> None:
    store.create_table("t", config(rate_limiter=rs.SampleToInsertRatio(1.0, error_buffer=8.0), retention=rs.Retention(max_steps=4)))
    table = store.table("t")
    rows = 0
    while offer(table, 1, rows) is not None:
        rows += 1
    ticket = table.sampling.join(lambda: None)
    assert table.try_prepare(SampleRequest(2, rs.Episode()), ticket) is None
    assert offer(table, 1, rows) is not None
    table.sampling.leave(ticket)
    assert offer(table, 1, rows + 1) is None


def test_a_full_queue_of_steps_that_a_sampler_does_not_want_says_who_must_act(store: Store) -> None:
    store.create_table("t", config(selector=rs.Fifo(), rate_limiter=rs.Queue(2), retention=ONCE))
    assert offer(store.table("t"), 1, 0, 3) is not None
    with pytest.raises(rs.NotReady, match=r"none of 2 steps.*writers are held back too, until other steps are sampled: Queue holds"):
        store.sample("t", 1, view=rs.Episode(), timeout_s=0)


def test_closing_rows_that_leave_no_room_for_the_steps_wanted_are_told_of(store: Store) -> None:
    store.create_table("t", config(rate_limiter=rs.MinSize(10), retention=rs.Retention(max_steps=10)))
    write_episodes(store, "t", [4] * 5)
    with pytest.raises(rs.NotReady, match=r"8 of min_size_to_sample=10 steps.*max_steps=10 rows are kept already"):
        store.sample("t", 1, timeout_s=0)
