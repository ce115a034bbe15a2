"""Copies of tables with deleted and used-up rows, and with columns that are written into."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

import replaystore as rs
from replaystore.engine.copies import snapshot
from replaystore.store import Store

from .conftest import Actor, config, contents, same, whole

NOTE = {"note": rs.Column((2,), "int16", writable=True)}


def make(store: Store, **changes: Any) -> rs.TableStats:
    """Rows deleted in the middle, at the tail and of a whole episode, steps used up, notes written."""
    columns = {**config().columns, **NOTE}
    made = config(retention=rs.Retention(max_times_sampled=3), **changes)
    store.create_table("t", rs.TableConfig(columns, made.selector, retention=made.retention, seed=7))
    play(store, 200)
    for _ in range(30):
        store.sample("t", 64)
    stop = store.stats("t").next_step
    store.delete_steps("t", [10, 333, stop - 1, stop - 2])
    store.delete_episodes("t", store.episodes("t")["episode"][1:2])
    store.update_columns("t", np.arange(0, stop, 7), {"note": np.ones((len(range(0, stop, 7)), 2), "i2")})
    return store.stats("t")


def play(store: Store, rounds: int) -> None:
    class Noting(Actor):
        def __init__(self) -> None:
            super().__init__(store, "t", seed=3)
            append = self.writer.append_batch
            self.writer.append_batch = lambda *rows, **more: append(*rows, note=np.zeros((4, 2), "i2"), **more)  # type: ignore[method-assign]

    Noting().play(rounds)


def test_a_snapshot_and_a_fork_hold_the_same(store: Store, tmp_path: Path) -> None:
    make(store)
    before = contents(store, "t")
    assert set(before["replay/removed"].tolist()) == {0, 1, 2}
    store.snapshot("t", tmp_path / "copy")
    store.fork("t", "u")
    same(contents(store, "u"), before)
    whole(tmp_path / "copy")
    with rs.open(tmp_path / "copy") as copy:
        same(contents(copy, "t"), before)
        copy.update_columns("t", [0], {"note": [[5, 5]]})
        copy.delete_steps("t", [1])
        play(copy, 5)
    same(contents(store, "t"), before)
    whole(tmp_path / "copy")


def test_numbered_anew_without_episodes_that_are_not_whole(store: Store, tmp_path: Path) -> None:
    make(store)
    report = store.snapshot("t", tmp_path / "copy", rebase=True)
    rows = store.read_steps("t", 0, 10**6, ["meta/episode", "replay/removed", "observation", "note"])
    spoiled = np.unique(rows["meta/episode"][rows["replay/removed"] == 1])
    kept = ~np.isin(rows["meta/episode"], spoiled)
    assert report.left_out_rows == int((~kept).sum()) > 10
    whole(tmp_path / "copy")
    with rs.open(tmp_path / "copy") as copy:
        found = copy.read_steps("t", 0, 10**6, ["meta/episode", "replay/removed", "observation", "note"])
        for name in ("meta/episode", "replay/removed", "observation", "note"):
            np.testing.assert_array_equal(found[name], rows[name][kept], err_msg=name)
        assert 0 < copy.stats("t").anchors < copy.stats("t").next_step


def test_a_dataset_leaves_them_out_too(store: Store, tmp_path: Path) -> None:
    make(store)
    rows = store.read_steps("t", 0, 10**6, ["meta/episode", "replay/removed"])
    spoiled = set(rows["meta/episode"][rows["replay/removed"] == 1].tolist())
    episodes = store.episodes("t")
    good = [number not in spoiled for number in episodes["episode"].tolist()]
    assert not all(good)
    store.snapshot("t", tmp_path / "plain", episodes=True)
    plain = zarr.open_group(tmp_path / "plain", mode="r", zarr_format=3)
    np.testing.assert_array_equal(plain["meta/episode_length"][:], episodes["length"][good])
    assert plain["data/note"].shape == (int(episodes["length"][good].sum()), 2)


def test_deletions_while_it_is_copied(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Links and marks may then be of different moments: the copy's first opening derives the links."""
    make(store)
    some = np.flatnonzero(store.read_steps("t", 0, 400, ["replay/removed"])["replay/removed"] != 1)[50:52]
    live_columns = snapshot._Copy.live_columns

    def meanwhile(copy: Any) -> None:
        live_columns(copy)
        store.delete_steps("t", some)

    monkeypatch.setattr(snapshot._Copy, "live_columns", meanwhile)
    store.snapshot("t", tmp_path / "copy")
    whole(tmp_path / "copy")
    with rs.open(tmp_path / "copy") as copy:
        assert copy.delete_steps("t", some).deleted == 2
    whole(tmp_path / "copy")
