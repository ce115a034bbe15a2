"""Deleted and used-up rows, and rows written into: their files are right after every ending, and damage to them is mended or set aside."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import replaystore as rs
from replaystore.engine.checking.repair import repair
from replaystore.engine.checking.verify import verify
from replaystore.store import Store

from .conftest import config, fill

DELETED = (100, 101, 777, 1899)
WRITTEN = (0, 50, 1024, 1500)


def lived(path: Path) -> Store:
    store = rs.open(path, commit_interval_s=3600)
    columns = {**config().columns, "note": rs.Column((), "int32", writable=True)}
    store.create_table("t", rs.TableConfig(columns, rs.Prioritized(), retention=rs.Retention(6000, max_times_sampled=3), seed=5))
    rng = np.random.default_rng(1)
    with store.writer("t", streams=4) as writer:
        first = np.ones(4, bool)
        for t in range(500):
            ends = (rng.random(4) < 0.03) & ~first
            note = np.full(4, t, np.int32)
            following = rng.random((4, 3)).astype("f4")
            writer.append_batch(np.arange(4), np.ones(4, "f4"), ends, np.zeros(4, bool), following, reset_mask=first, note=note)
            first = ends
        writer.flush()
        for _ in range(20):
            store.sample("t", 100)
        assert (store.read_steps("t", 0, 2000, ["replay/removed"])["replay/removed"] == 2).sum() > 50
        store.table("t").commit()  # or the commit thread is asked to before rows are written into, and goes on beside us
        assert store.delete_steps("t", DELETED).deleted == len(DELETED)
        assert store.update_columns("t", WRITTEN, {"note": [-1, -2, -3, -4]}).applied == len(WRITTEN)
        store.sample("t", 10)
    return store


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("removed")
    store = lived(root / "closed")
    shutil.copytree(root / "closed", root / "killed")
    store.close()
    return {"closed": root / "closed", "killed": root / "killed"}


@pytest.fixture
def damaged(original: dict[str, Path], tmp_path: Path) -> Path:
    shutil.copytree(original["closed"], tmp_path / "data")
    return tmp_path / "data"


def check(path: Path) -> rs.TableStats:
    with rs.open(path) as store:
        rows = store.read_steps("t", 0, 2000, ["replay/removed", "replay/successor", "note"])
        assert (rows["replay/removed"][list(DELETED)] == 1).all()
        assert rows["note"][list(WRITTEN)].tolist() == [-1, -2, -3, -4]
        stats = store.stats("t")
        assert stats.anchors == int((rows["replay/successor"] > 0).sum())
    return stats


@pytest.mark.parametrize("ending", ["closed", "killed"])
def test_right_after_every_ending(ending: str, original: dict[str, Path], tmp_path: Path) -> None:
    assert verify(original[ending]).findings == []
    shutil.copytree(original[ending], tmp_path / "data")
    stats = check(tmp_path / "data")
    assert verify(tmp_path / "data").findings == []
    with rs.open(tmp_path / "data") as store:
        fill_with_notes(store)
        assert store.stats("t").anchors > stats.anchors
    assert verify(tmp_path / "data").findings == []


def fill_with_notes(store: Store) -> None:
    with store.writer("t") as writer:
        writer.reset(np.zeros(3, "f4"))
        for t in range(20):
            writer.append(0, 1.0, t == 19, False, np.zeros(3, "f4"), note=t)


def test_links_that_forget_a_deletion_are_found_and_derived_again(damaged: Path) -> None:
    with rs.open(damaged, mode="r") as store:
        before = int(store.read_steps("t", 0, 2000, ["meta/previous"])["meta/previous"][777])
    for step in (777, before):
        links = np.memmap(damaged / f"t/replay/successor/c.{step // 1024}", "i4", "r+")
        assert links[step % 1024] == 0
        links[step % 1024] = 777 - before if step == before else 4
        links.flush()
    assert {finding.kind for finding in verify(damaged).findings} == {"live", "journal"}
    assert not repair(damaged).refused
    assert verify(damaged).findings == []
    check(damaged)


def test_marks_that_are_gone_begin_anew(damaged: Path) -> None:
    (damaged / "t/replay/removed/c.0").unlink()
    assert any(finding.kind == "live" and "replay/removed" in finding.file for finding in verify(damaged).findings)
    assert not repair(damaged).refused
    assert verify(damaged).findings == []
    with rs.open(damaged) as store:
        rows = store.read_steps("t", 0, 2000, ["replay/removed", "replay/times_sampled"])
        assert not (rows["replay/removed"] == 1).any(), "nobody knows any more what was deleted"
        np.testing.assert_array_equal(rows["replay/removed"] == 2, rows["replay/times_sampled"] >= 3)


def test_a_lost_file_of_a_writable_column_loses_its_rows(damaged: Path) -> None:
    (damaged / "t/steps/note/c.1").unlink()
    assert any(finding.kind == "chunk" and "steps/note/c.1" in finding.file for finding in verify(damaged).findings)
    assert not repair(damaged).refused
    assert verify(damaged).findings == []
    with rs.open(damaged) as store:
        rows = store.read_steps("t", 0, 2000, ["meta/kind", "note"])
        assert (rows["meta/kind"][1024:] == 2).all()
        assert store.update_columns("t", [50, 1500], {"note": [9, 9]}) == rs.UpdateCounts(1, 1, 0)
        assert store.delete_steps("t", [1500]) == rs.DeleteCounts(0, 1)


def test_returns_are_not_held_against_rewards_that_may_be_written(tmp_path: Path) -> None:
    columns = {**config().columns, "reward": rs.Column((), "float32", writable=True)}
    with rs.open(tmp_path / "data") as store:
        store.create_table("t", rs.TableConfig(columns, rs.Prioritized(), seed=5))
        fill(store, "t", 100)
        store.update_columns("t", np.arange(200), {"reward": np.full(200, 7.0)})
    assert verify(tmp_path / "data").findings == []
    with pytest.raises(rs.InvalidArgument, match="'terminated' cannot be writable"):
        rs.TableConfig({**columns, "terminated": rs.Column((), "bool", writable=True)})
