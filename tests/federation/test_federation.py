"""Several stores and servers sampled as one, while some of them go away and come back."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import replaystore as rs
from replaystore.federated.sampler import MEASURE_EVERY
from replaystore.store import Store
from replaystore_client import Client
from tests.core.statistics import check_counts
from tests.ports import address_to_keep
from tests.server.conftest import ServerProcess

from .conftest import Lab, fill, play

MakeLab = Callable[[str], Lab]
PROPORTIONAL = rs.Prioritized(alpha=1.0, epsilon=0.0)


def check_origin(batch: Any) -> None:
    tags = np.array([1, 2, 3])
    np.testing.assert_array_equal(batch.observation[:, 0], tags[batch.sources])
    np.testing.assert_array_equal(batch.observation[:, 1], batch.step_ids)


def hurry(sampler: Any) -> None:
    """From now on nobody is waited for longer; until now a busy machine had its time."""
    for source in sampler._sources:
        source.sampler._timeout_s = 0.3


def next_until(sampler: Any, condition: Callable[[Any], bool], timeout_s: float = 60.0) -> Any:
    """The first batch that fulfils it; all of them are checked."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        batch = next(sampler)
        check_origin(batch)
        assert len(batch) == 20
        if condition(batch):
            return batch
        time.sleep(0.005)
    raise AssertionError(f"not within {timeout_s} s; missing: {sampler.missing}")


def test_a_store_and_a_server_are_sampled_as_one(make_lab: MakeLab, store: Store) -> None:
    lab = make_lab("lab")
    fill(lab.client, "pong", 1, 30)
    fill(store, "local-pong", 2, 50, selector=rs.Prioritized())
    sources = {"lab-a": (lab.client, "pong"), "local": (store, "local-pong")}
    with rs.FederatedSampler(sources, 20, shares={"lab-a": 0.7, "local": 0.3}, seed=3, beta=1.0) as sampler:
        totals = np.zeros(2)
        for number in range(1, 21):
            batch = next(sampler)
            check_origin(batch)
            assert batch.source_names == ("lab-a", "local")
            totals += np.bincount(batch.sources, minlength=2)
            assert np.all(np.abs(totals - np.array([14, 6]) * number) < 1)
            expected = np.where(batch.sources == 0, 0.7 / 30, 0.3 / 50)
            np.testing.assert_allclose(batch.probabilities, expected, rtol=1e-9)
            np.testing.assert_allclose(batch.weights, (0.3 / 50) / expected, rtol=1e-6)
            assert batch.candidates == 80
        sampler.update_priorities(batch, np.ones(20))
        assert sampler.missing == {}
    assert sampler.updates_by_source == {"lab-a": rs.UpdateCounts(0, 0, 0), "local": rs.UpdateCounts(6, 0, 0)}
    again = [next(rs.FederatedSampler(sources, 20, shares={"lab-a": 0.7, "local": 0.3}, seed=3)).step_ids for _ in range(2)]
    np.testing.assert_array_equal(*again)


def test_by_mass_all_tables_are_drawn_from_as_one_would_be(store: Store) -> None:
    rng = np.random.default_rng(8)
    values = []
    for tag, steps in ((1, 20), (2, 35), (3, 5)):
        fill(store, f"t{tag}", tag, steps, selector=PROPORTIONAL)
        values.append(rng.random(steps) * tag + 0.01)
        store.update_priorities(f"t{tag}", np.arange(steps), values[-1])
    exact = np.concatenate(values) / np.concatenate(values).sum()
    counts, first = np.zeros(60, np.int64), np.array([0, 20, 55])
    sources = {f"source {tag}": (store, f"t{tag}") for tag in (1, 2, 3)}
    with rs.FederatedSampler(sources, 50_000, shares="mass", seed=1, columns=["observation"]) as sampler:
        for _ in range(20):
            batch = next(sampler)
            place = first[batch.sources] + batch.step_ids
            np.testing.assert_allclose(batch.probabilities, exact[place], rtol=1e-5)
            counts += np.bincount(place, minlength=60)
    assert counts.sum() == 1_000_000
    check_counts(counts, exact)  # one test at 1e-6; exact shares and stratified draws vary less than that allows


def test_mass_and_candidates_follow_the_newest_replies(store: Store) -> None:
    fill(store, "a", 1, 10, selector=PROPORTIONAL)
    fill(store, "b", 2, 30, selector=PROPORTIONAL)
    sources = {"a": (store, "a"), "b": (store, "b")}
    with rs.FederatedSampler(sources, 20, shares="candidates", prefetch=1) as by_count:
        assert np.bincount(next(by_count).sources).tolist() == [5, 15]
        play(store, "a", 1, 50)
        next(by_count)
        assert np.bincount(next(by_count).sources).tolist() in ([13, 7], [14, 6])
    store.update_priorities("a", np.arange(10), np.full(10, 5.0))
    store.update_priorities("a", np.arange(11, 61), np.zeros(50))
    with rs.FederatedSampler(sources, 20, prefetch=1) as by_mass:
        assert np.bincount(next(by_mass).sources).tolist() in ([12, 8], [13, 7])
        by_mass.update_priorities(np.arange(30), np.full(30, 10.0), sources=np.ones(30, int))
        next(by_mass)
        assert np.bincount(next(by_mass).sources).tolist() in ([2, 18], [3, 17])


def test_a_source_that_has_nothing_yet_is_looked_at_again(store: Store) -> None:
    fill(store, "a", 1, 10)
    store.create_table("b", rs.TableConfig({"observation": rs.Column((2,)), "action": rs.Column((), "int64")}))
    with rs.FederatedSampler({"a": (store, "a"), "b": (store, "b")}, 20, shares="mass", prefetch=1) as sampler:
        assert np.bincount(next(sampler).sources, minlength=2).tolist() == [20, 0]
        play(store, "b", 2, 30)
        for _ in range(MEASURE_EVERY + 1):
            batch = next(sampler)
            check_origin(batch)
        assert np.bincount(batch.sources).tolist() == [5, 15]


@pytest.mark.usefixtures("short_pauses")
def test_a_server_that_goes_away_is_left_out_and_taken_in_again(make_lab: MakeLab, store: Store, caplog: pytest.LogCaptureFixture) -> None:
    lab = make_lab("lab")
    fill(lab.client, "pong", 1, 30, selector=PROPORTIONAL)
    fill(store, "near", 2, 50, selector=PROPORTIONAL)
    fill(store, "nearer", 3, 40)
    sources = {"far": (lab.client, "pong"), "near": (store, "near"), "nearer": (store, "nearer")}
    with (
        caplog.at_level(logging.INFO, "replaystore"),
        rs.FederatedSampler(sources, 20, shares={"far": 0.5, "near": 0.3, "nearer": 0.2}, seed=1, timeout_s=30.0, beta=1.0) as sampler,
    ):
        assert np.bincount(next(sampler).sources).tolist() == [10, 6, 4]
        before = time.time()
        hurry(sampler)
        lab.stop()
        batch = next_until(sampler, lambda batch: 0 not in batch.sources)
        np.testing.assert_allclose(batch.probabilities, np.where(batch.sources == 1, 0.6 / 50, 0.4 / 40), rtol=1e-9)
        assert sampler.missing.keys() == {"far"}
        assert sampler.missing["far"].since >= before - 1
        assert "no connection" in sampler.missing["far"].why
        totals, number = np.zeros(3), 0
        for _ in range(10):  # the others have all of it, in exact shares, and nobody waits for the one that is gone
            batch = next(sampler)
            totals, number = totals + np.bincount(batch.sources, minlength=3), number + 1
            assert len(batch) == 20
        assert np.all(np.abs(totals - np.array([0, 12, 8]) * number) < 3)
        sampler.update_priorities([1, 2, 3], [1.0, 1.0, 1.0], sources=[0, 0, 1])
        assert sampler.undelivered == {"far": 2}
        lab.start()
        next_until(sampler, lambda batch: 0 in batch.sources)
        batch = next_until(sampler, lambda batch: (batch.sources == 0).sum() == 10)
        np.testing.assert_allclose(batch.probabilities, np.array([0.5 / 30, 0.3 / 50, 0.2 / 40])[batch.sources], rtol=1e-9)
        assert sampler.missing == {}
        sampler.update_priorities(batch, np.ones(20))
    messages = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(messages) == 1
    assert "source 'far' (table 'pong'" in messages[0]
    assert any("'far' is back" in record.message for record in caplog.records)


@pytest.mark.slow
@pytest.mark.usefixtures("short_pauses")
def test_a_server_that_is_killed_comes_back_with_what_it_had(tmp_path: Path, store: Store) -> None:
    server = ServerProcess(tmp_path / "far", address_to_keep(), "interval")
    address = server.address
    try:
        with Client(address, timeout_s=30.0) as client:
            fill(client, "pong", 1, 30, selector=PROPORTIONAL)
            fill(store, "near", 2, 50)
            sources = {"far": (client, "pong"), "near": (store, "near")}
            with rs.FederatedSampler(sources, 20, {"far": 3, "near": 1}, timeout_s=30.0) as sampler:
                sampler.update_priorities(next(sampler), np.full(20, 2.0))
                next_until(sampler, lambda batch: sampler.updates.applied == 15)
                hurry(sampler)
                server.end("kill")
                next_until(sampler, lambda batch: 0 not in batch.sources)
                server = ServerProcess(tmp_path / "far", address, "interval")
                batch = next_until(sampler, lambda batch: (batch.sources == 0).sum() == 15)
                assert sampler.missing == {}
                assert batch.probabilities[batch.sources == 1] == pytest.approx(0.25 / 50)
    finally:
        server.end("kill")


@pytest.mark.usefixtures("short_pauses")
def test_when_all_are_gone_the_last_error_is_raised(make_lab: MakeLab) -> None:
    labs = [make_lab("one"), make_lab("two")]
    for tag, lab in enumerate(labs):
        fill(lab.client, "pong", tag + 1, 30)
    with rs.FederatedSampler({"one": (labs[0].client, "pong"), "two": (labs[1].client, "pong")}, 20, timeout_s=30.0) as sampler:
        check_origin(next(sampler))
        hurry(sampler)
        sampler._timeout_s = 0.3
        for lab in labs:
            lab.stop()
        with pytest.raises(rs.DeadlineExceeded, match="no connection"):
            next_until(sampler, lambda batch: False)
        assert sampler.missing.keys() == {"one", "two"}
        with pytest.raises(rs.DeadlineExceeded):
            next(sampler)
        labs[1].start()
        sampler._timeout_s = 30.0
        batch = next(sampler)
        assert set(batch.sources) == {1}
        check_origin(batch)
        labs[0].start()
        next_until(sampler, lambda batch: 0 in batch.sources)


@pytest.mark.usefixtures("short_pauses")
def test_a_source_that_is_away_from_the_beginning_comes_later(make_lab: MakeLab, store: Store) -> None:
    lab = make_lab("lab")
    fill(lab.client, "pong", 1, 30)
    fill(store, "near", 2, 50)
    lab.stop()
    lab.client._timeout_s = 0.3
    with rs.FederatedSampler({"far": (lab.client, "pong"), "near": (store, "near")}, 20, timeout_s=5.0) as sampler:
        assert set(next(sampler).sources) == {1}
        assert sampler.missing.keys() == {"far"}
        lab.client._timeout_s = 10.0
        lab.start()
        next_until(sampler, lambda batch: 0 in batch.sources)
    lab.stop()
    lab.client._timeout_s = 0.3
    with pytest.raises(rs.DeadlineExceeded):
        rs.FederatedSampler({"far": (lab.client, "pong")}, 20)


@pytest.mark.usefixtures("short_pauses")
def test_a_table_that_is_not_ready_is_left_out_until_it_is(store: Store) -> None:
    fill(store, "a", 1, 10)
    fill(store, "b", 2, 10, rate_limiter=rs.MinSize(15))
    with rs.FederatedSampler({"a": (store, "a"), "b": (store, "b")}, 20, shares={"a": 1, "b": 1}, timeout_s=0.05) as sampler:
        assert np.bincount(next(sampler).sources, minlength=2).tolist() == [20, 0]
        assert "MinSize" in sampler.missing["b"].why
        play(store, "b", 2, 10)
        sampled = store.stats("b").sampled_items
        deadline, served = time.monotonic() + 60, 0
        while not served and time.monotonic() < deadline:
            served = int((next(sampler).sources == 1).sum())
            time.sleep(0.005)
        assert served == 10  # with the one that was drawn to see whether it is back
        assert sampled == 0


def test_what_cannot_be_is_refused(make_lab: MakeLab, store: Store) -> None:
    fill(store, "a", 1, 10)
    store.create_table("odd", rs.TableConfig({"observation": rs.Column((3,)), "action": rs.Column((), "int64")}))
    fine = {"a": (store, "a")}
    for sources, options, match in (
        ({}, {}, "must be a mapping"),
        ({"a": store}, {}, "must be a mapping"),
        (fine, {"shares": "luck"}, "'mass' or 'candidates'"),
        (fine, {"shares": {"b": 1.0}}, "name each once"),
        (fine, {"prefetch": 0}, "prefetch=0"),
        (fine, {"prefetch": 1.5}, "prefetch=1.5"),
        (fine, {"selector": "worst"}, "table 'a' of 'a' has no 'worst'; it has default"),
        (fine, {"beta": -1.0}, "beta=-1.0"),
        (fine, {"reward_fn": len}, "Hindsight"),
        ({**fine, "odd": (store, "odd")}, {}, r"'observation' is float32\[2\] in 'a' \(a\) and float32\[3\] in 'odd'"),
    ):
        with pytest.raises(rs.InvalidArgument, match=match):
            rs.FederatedSampler(sources, 20, **options)  # type: ignore[arg-type]
    with pytest.raises(rs.NotFound):
        rs.FederatedSampler({**fine, "b": (store, "nowhere")}, 20)
    sampler = rs.FederatedSampler(fine, 20)
    with pytest.raises(rs.InvalidArgument, match="no source has a selector that keeps priorities"):
        sampler.update_priorities(next(sampler), np.ones(20))
    with pytest.raises(rs.InvalidArgument, match="sources must be one-dimensional whole numbers"):
        sampler.update_priorities([1], [1.0], sources=["a"])
    assert "Store('" in repr(store)
    sampler.close()
    sampler.close()
    with pytest.raises(rs.InvalidArgument, match="closed"):
        next(sampler)
    with pytest.raises(rs.InvalidArgument, match="closed"):
        sampler.update_priorities([1], [1.0], sources=[0])
