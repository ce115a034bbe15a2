"""A fork: the same rows under another configuration, in files that both tables share and neither spoils."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import replaystore as rs
from replaystore.errors import AlreadyExists, NotFound, PermissionDenied
from replaystore.store import Store
from tests.snapshot.conftest import Actor, check, config, contents, filled, same, shared_files, whole

SMALL = rs.Retention(6_000)


def rows_of(store: Store, table: str) -> dict[str, np.ndarray]:
    return store.read_steps(table, 0, 10**9)


def test_a_fork_has_the_rows_and_goes_on_by_itself(store: Store, tmp_path: Path) -> None:
    actor = filled(store, retention=SMALL)
    before = contents(store, "t")
    assert store.fork("t", "u") == store.describe("t").config
    same(contents(store, "u"), before)
    assert shared_files(tmp_path / "data/u")
    Actor(store, "u", seed=3).play(300)
    store.update_priorities("u", store.sample("u", 64).step_ids, np.full(64, 9.0))
    same(contents(store, "t"), before)
    actor.play(2500)  # the source forgets every row of before, and the files of them
    kept = rows_of(store, "u")
    store.drop_table("t")
    check(store, "u")
    same(rows_of(store, "u"), kept)
    store.close()
    whole(tmp_path / "data")
    with rs.open(tmp_path / "data") as again:
        assert again.tables() == ["u"]
        check(again, "u")
        same(rows_of(again, "u"), kept)


def test_the_source_outlives_its_fork(store: Store, tmp_path: Path) -> None:
    filled(store, retention=SMALL)
    before = contents(store, "t")
    store.fork("t", "u")
    store.fork("u", "v")
    Actor(store, "v", seed=3).play(2500)
    store.drop_table("u")
    store.drop_table("v")
    same(contents(store, "t"), before)
    assert not shared_files(tmp_path / "data")


def test_priorities_under_another_exponent(store: Store) -> None:
    filled(store)
    store.fork("t", "u", selector=rs.Prioritized(0.35))
    mine = store.read_steps("t", 0, 10**9, ["replay/priority"])["replay/priority"]
    theirs = store.read_steps("u", 0, 10**9, ["replay/priority"])["replay/priority"]
    np.testing.assert_allclose(theirs, np.sqrt(mine), rtol=1e-4)
    assert store.stats("u").max_priority["default"] == pytest.approx(store.stats("t").max_priority["default"], rel=1e-4)
    assert store.describe("t").config.selector == rs.Prioritized(0.7)
    check(store, "u")


def test_priorities_of_new_selectors_begin_alike(store: Store, tmp_path: Path) -> None:
    filled(store)
    selectors = {"default": rs.Prioritized(0.7), "novelty": rs.Prioritized(1.0, 0.0), "flat": rs.Uniform()}
    store.fork("t", "u", selector=selectors)
    rows = store.read_steps("u", 0, 10**9, ["replay/priority", "replay/priority.novelty", "replay/successor"])
    np.testing.assert_array_equal(rows["replay/priority"], store.read_steps("t", 0, 10**9, ["replay/priority"])["replay/priority"])
    np.testing.assert_array_equal(rows["replay/priority.novelty"], (rows["replay/successor"] > 0).astype("float32"))
    store.fork("u", "v", selector=rs.Uniform())
    assert "replay/priority" not in store.describe("v").rows_per_chunk
    store.fork("v", "w", selector=rs.Prioritized())
    for name in ("u", "v", "w"):
        check(store, name)
        store.sample(name, 64)
        Actor(store, name, seed=3).play(50)
    store.close()
    whole(tmp_path / "data")
    with rs.open(tmp_path / "data") as again:
        for name in ("u", "v", "w"):
            check(again, name)
        assert again.sample("u", 64, selector="novelty").priorities.tolist() == [1.0] * 64


def test_fewer_rows_and_another_limiter(store: Store) -> None:
    filled(store)
    limiter = rs.SampleToInsertRatio(2.0, min_size_to_sample=100, error_buffer=64.0)
    store.fork("t", "u", retention=rs.Retention(1000), rate_limiter=limiter)
    stats = store.stats("u")
    assert (stats.steps, stats.next_step) == (1000, store.stats("t").next_step)
    check(store, "u")
    # what was sampled before the fork does not count: sampling can begin, inserting can go on
    assert (stats.blocked_insert, stats.blocked_sample) == (None, None)
    for _ in range(2):
        store.sample("u", 32)
    with pytest.raises(rs.NotReady, match="actors must insert"):
        store.sample("u", 32, timeout_s=0.0)
    assert store.describe("t").config.rate_limiter == rs.MinSize()


def test_what_cannot_be(store: Store, tmp_path: Path) -> None:
    filled(store, 50)
    store.fork("t", "u")
    with pytest.raises(AlreadyExists, match="table 'u' exists"):
        store.fork("t", "u")
    with pytest.raises(NotFound):
        store.fork("x", "y")
    for name in ("../x", "", "__replaystore", "a/b"):
        with pytest.raises(rs.InvalidArgument):
            store.fork("t", name)
    with pytest.raises(rs.InvalidArgument, match="can never be reached"):
        store.fork("t", "v", retention=rs.Retention(10), rate_limiter=rs.MinSize(11))
    assert store.tables() == ["t", "u"]
    assert not list((tmp_path / "data/__replaystore").glob("forking-*"))
    store.close()
    with rs.open(tmp_path / "data", mode="r") as reader, pytest.raises(PermissionDenied, match="cannot fork"):
        reader.fork("t", "v")


def test_what_a_killed_process_was_forking_goes_at_the_next_opening(store: Store, tmp_path: Path) -> None:
    store.create_table("t", config())
    store.close()
    leftover = tmp_path / "data/__replaystore/forking-0123"
    (leftover / "u/steps").mkdir(parents=True)
    with rs.open(tmp_path / "data") as again:
        assert again.tables() == ["t"]
    assert not leftover.exists()
