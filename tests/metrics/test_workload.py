"""After a known workload the metrics say exactly what was done."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import replaystore as rs
from replaystore.server.observing.figures import BOUNDS_S
from replaystore.server.observing.metrics.catalogue import ENTRIES
from replaystore.server.thread import ServerThread
from replaystore.store import Store
from replaystore_client import Client, sink, stream
from tests.metrics.conftest import COLUMNS, scrape

T = {"table": "t"}
PATIENCE_S = 60.0


class Sizes:
    """Bytes of messages that a function makes or reads."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, where: Any, name: str, size: Callable[[Any, Any], int]) -> None:
        self.all: list[int] = []
        whole = getattr(where, name)

        def counting(*arguments: Any) -> Any:
            made = whole(*arguments)
            self.all.append(size(arguments[0], made))
            return made

        monkeypatch.setattr(where, name, counting)


def sums_of(count: int, values: list[int]) -> set[int]:
    """What the first of `values` and `count` - 1 of the others can come to."""
    return {values[0] + sum(others) for others in itertools.combinations(values[1:], count - 1)}


def test_every_figure_is_what_was_done(store: Store, serve: Callable[..., ServerThread], monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = Sizes(monkeypatch, sink, "encode_block", lambda _, message: len(message))
    replies = Sizes(monkeypatch, stream, "decode_sample_reply", lambda message, made: len(message) if made[1] else 0)
    server = serve(local=False)
    with Client(server.address) as client:
        client.create_table("t", rs.TableConfig(COLUMNS, selector=rs.Prioritized(alpha=0.5, epsilon=0.0), seed=3))
        client.create_table("unused", rs.TableConfig(COLUMNS))
        for version in (4, 6):
            with client.writer("t", policy_version=version, interval_s=3600.0) as writer:
                for _ in range(2):
                    writer.reset(np.zeros(3))
                    for step in range(10):
                        writer.append(step, 1.0, step == 9, False, np.zeros(3))
                    writer.flush()
        batches = [client.sample("t", 8, beta=0.4) for _ in range(5)]
        client.update_priorities("t", batches[0].step_ids, np.full(8, 4.0))
        counts = client.update_priorities("t", [0, 1, 10**6], [9.0, np.nan, 1.0])
        assert (counts.applied, counts.gone, counts.rejected) == (1, 1, 1)
        for _ in range(3):
            with pytest.raises(rs.InvalidArgument):
                client.sample("t", 5, selector="nope")
        with pytest.raises(rs.NotFound):
            client.stats("none")
        client.publish_parameters("policy", {"weight": np.zeros(3)})
        assert client.fetch_parameters("policy") is not None
        assert client.fetch_parameters("policy", newer_than=1) is None
        deadline = time.monotonic() + PATIENCE_S
        while (found := scrape(server))("committed_rows_total", **T) < 44:
            assert time.monotonic() < deadline
        stats = client.stats("t")

    assert found("ready") == 1
    assert found("tables") == 2
    assert found("tables_not_shown") == found("recovered_tables") == 0
    for name, value in {
        "inserted_steps_total": 40,
        "sampled_items_total": 40,
        "replays_per_step": 1,
        "rows": 44,
        "anchors": 40,
        "episodes_total": 4,
        "open_episodes": 0,
        "disk_used_bytes": stats.bytes_on_disk,
        "index_bytes": stats.index_bytes,
        "newest_policy_version": 6,
        "append_blocks_total": len(blocks.all),
        "appended_rows_total": 44,
        "duplicate_rows_total": 0,
        "received_bytes_total": sum(blocks.all),
        "sampled_batches_total": 5,
        "sample_replies_total": 5,
        "sent_bytes_total": sum(replies.all),
        "lent_bytes_total": 0,
        "committed_rows_total": 44,
        "commit_lag_steps": 0,
        "commit_lag_seconds": 0,
        "storage_failed": 0,
    }.items():
        assert found(name, **T) == value, name
    for outcome, value in {"applied": 8 + 1, "gone": 1, "rejected": 1}.items():
        assert found("priority_updates_total", **T, outcome=outcome) == value
    assert found("priority_sum", **T, selector="default") == pytest.approx(stats.total_priority["default"])
    assert found("priority_max", **T, selector="default") == stats.max_priority["default"] == 9
    looked = int(found("sampled_age_steps_count", **T)) // 8  # messages; the first one always is
    assert 1 <= looked <= 5
    assert found("sampled_version_lag_count", **T) == 8 * looked
    assert found("sampled_age_steps_sum", **T) in sums_of(looked, [int(batch.ages.sum()) for batch in batches])
    assert found("sampled_version_lag_sum", **T) in sums_of(looked, [int((6 - batch.policy_version).sum()) for batch in batches])
    assert 0 <= found("resident_ratio", **T) <= 1
    assert 0 <= found("newest_row_age_seconds", **T) <= found("oldest_row_age_seconds", **T)
    for stage in ("decode", "wait", "store", "ack"):
        assert found("append_seconds_count", **T, stage=stage) == len(blocks.all)
        assert found("append_seconds_bucket", **T, stage=stage, le="+Inf") == len(blocks.all)
    for stage in ("wait", "draw", "fill", "send"):
        assert found("sample_seconds_count", **T, stage=stage) == 5
    assert found("commit_seconds_count", **T) >= 1
    for side in ("insert", "sample"):
        assert found("waiting", **T, side=side) == 0
        assert found("blocked_calls_total", **T, side=side, limiter="MinSize") == 0
    assert found("blocked", **T, side="sample") == 0
    assert found("blocked", table="unused", side="sample") == 1
    assert found("inserted_steps_total", table="unused") == 0
    assert found("errors_total", kind="InvalidArgument") == 3
    assert found("errors_total", kind="NotFound") == 1
    assert found("errors_total", kind="Unexpected") == 0
    assert found("parameters_published_total") == found("parameters_fetched_total") == 1
    assert found("disk_size_bytes") >= found("disk_free_bytes") > 0
    assert found("bound", what="streams") == 4096
    assert found("bound_refusals_total", what="streams") == 0
    assert found("threads") > 1
    assert "process_resident_memory_bytes" in found.names


def test_unknown_versions_have_no_lag(store: Store, serve: Callable[..., ServerThread]) -> None:
    fill(store)
    server = serve()
    with Client(server.address) as client:
        client.sample("t", 16)
    found = scrape(server)
    assert found("sampled_age_steps_count", **T) == 16
    assert found("sampled_version_lag_count", **T) == 0
    assert found("newest_policy_version", **T) == -1


def test_lent_bytes_and_open_streams(store: Store, serve: Callable[..., ServerThread]) -> None:
    store.create_table("t", rs.TableConfig({"observation": rs.Column((64, 64)), "action": rs.Column((), "int64")}))
    server = serve()
    with Client(server.address) as client:
        with client.writer("t") as writer:
            writer.reset(np.zeros((64, 64)))
            for step in range(30):
                writer.append(step, 1.0, False, False, np.zeros((64, 64)))
        deadline = time.monotonic() + PATIENCE_S
        with client.sampler("t", 32) as sampler:
            while not (found := scrape(server))("lent_bytes_total", **T):
                assert time.monotonic() < deadline
                next(sampler)
            assert found("open_streams", kind="sample") == 1
        while (found := scrape(server))("open_streams", kind="sample") or found("bound_used", what="bytes_out"):
            assert time.monotonic() < deadline


def test_who_is_held_back_and_for_how_long(store: Store, serve: Callable[..., ServerThread]) -> None:
    store.create_table("t", rs.TableConfig(COLUMNS, rate_limiter=rs.MinSize(5)))
    server = serve(local=False)
    limited = {**T, "side": "sample", "limiter": "MinSize"}
    with Client(server.address) as client:
        sampling = threading.Thread(target=lambda: client.sample("t", 2, timeout_s=PATIENCE_S))
        sampling.start()
        deadline = time.monotonic() + PATIENCE_S
        while (during := scrape(server))("waiting", **T, side="sample") != 1:
            assert time.monotonic() < deadline
        later = scrape(server)
        assert later("blocked", **T, side="sample") == 1
        assert later("blocked_calls_total", **limited) == 1
        assert later("blocked_seconds_total", **limited) > during("blocked_seconds_total", **limited) >= 0, "also while it lasts"
        fill(store, make=False)
        sampling.join(PATIENCE_S)
        after = scrape(server)
        assert after("waiting", **T, side="sample") == 0
        assert after("blocked_seconds_total", **limited) > later("blocked_seconds_total", **limited)
        again = scrape(server)
        assert again("blocked_seconds_total", **limited) == after("blocked_seconds_total", **limited)
        assert after("sample_seconds_sum", **T, stage="wait") >= later("blocked_seconds_total", **limited)


def fill(store: Store, *, make: bool = True) -> None:
    if make:
        store.create_table("t", rs.TableConfig(COLUMNS))
    with store.writer("t") as writer:
        writer.reset(np.zeros(3))
        for step in range(20):
            writer.append(step, 1.0, step == 19, False, np.zeros(3))


def test_a_workload_shows_every_metric_of_the_catalogue(store: Store, serve: Callable[..., ServerThread]) -> None:
    store.create_table("t", rs.TableConfig(COLUMNS, selector=rs.Prioritized()))
    fill(store, make=False)
    server = serve()
    with Client(server.address) as client:
        client.sample("t", 4)
        found = scrape(server)
    assert {entry.name for entry in ENTRIES.values() if not set(entry.sample_names) <= found.names} == {
        "recovery_rows",
        "recovery_rows_checked",
    }
    for entry in ENTRIES.values():
        for family in (found.families.get(f"replaystore_{entry.name}"),):
            if family is not None:
                assert (family.type, family.documentation) == (entry.kind, entry.meaning)
                assert {label for sample in family.samples for label in sample.labels} - {"le"} == set(entry.labels), entry.name
    classes = [sample for sample in found.families["replaystore_commit_seconds"].samples if sample.name.endswith("_bucket")]
    assert [float(sample.labels["le"]) for sample in classes] == [*BOUNDS_S, float("inf")]


def test_tables_come_and_go(store: Store, serve: Callable[..., ServerThread]) -> None:
    fill(store)
    server = serve()
    with Client(server.address) as client:
        client.sample("t", 4)
        assert scrape(server)("sampled_batches_total", **T) == 1
        client.drop_table("t")
        gone = scrape(server)
        assert gone("tables") == 0
        assert not any("table" in sample.labels for family in gone.families.values() for sample in family.samples)
        fill(store)
        assert scrape(server)("sampled_batches_total", **T) == 0, "it is another table"
