"""What selectors leave on disk: verified, mended, copied."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import replaystore as rs
from replaystore.engine.checking.verify import verify
from tests.conformance.conftest import config, play

KINDS: dict[str, Any] = {
    "p": rs.Prioritized(),
    "rank": rs.RankPrioritized(),
    "low": rs.MinHeap(),
    "high": rs.MaxHeap(),
    "pass": rs.WithoutReplacement(),
}


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("leaves") / "data"
    with rs.open(path) as store:
        store.create_table("t", config(selector=KINDS, retention=rs.Retention(max_steps=60)))
        with store.writer("t") as writer:
            for _ in range(5):
                play(writer, 19)
        for name in ("rank", "low", "high"):
            store.update_priorities("t", np.arange(100), np.arange(100) % 10, selector=name)
        store.delete_steps("t", [50])
        store.sample("t", 40, selector="pass", seed=0)
    return path


def problems(path: Path) -> list[str]:
    return [str(finding) for finding in verify(path).findings]


def leaf_file(path: Path, name: str) -> np.memmap:
    return np.memmap(path / "t" / f"replay/priority.{name}" / "c.0", "f4", "r+")


def test_a_store_with_every_selector_is_right(filled: Path) -> None:
    assert problems(filled) == []


@pytest.mark.parametrize(("name", "value"), [("rank", 0.0), ("low", 0.0), ("high", np.nan), ("pass", 0.5), ("pass", -1.0)])
def test_a_leaf_that_cannot_be_is_found_and_mended(filled: Path, tmp_path: Path, name: str, value: float) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(filled, copy)
    leaf_file(copy, name)[70] = value
    assert any(f"priority.{name}" in problem for problem in problems(copy))
    state = copy / "t/__replaystore/state"
    data = bytearray(state.read_bytes())
    data[16:24] = bytes(8)  # as after a crash
    state.write_bytes(data)
    with rs.open(copy) as store:
        leaf = store.read_steps("t", 70, 71, [f"replay/priority.{name}"])[f"replay/priority.{name}"][0]
        assert leaf == (1.0 if name == "pass" else 9.0)
    assert problems(copy) == []


def test_a_pass_is_mended_without_forgetting_what_it_had(filled: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(filled, copy)
    with rs.open(copy) as store:
        rows = store.read_steps("t", 0, 100, ["replay/successor", "replay/priority.pass"])
    coming = rows["step_id"][rows["replay/priority.pass"] > 0].tolist()
    had = [step for step in rows["step_id"][rows["replay/successor"] > 0].tolist() if step not in coming]
    leaves = leaf_file(copy, "pass")
    leaves[had[:3]] = 0.0  # the page that said so was lost with the power
    leaves.flush()
    state = copy / "t/__replaystore/state"
    data = bytearray(state.read_bytes())
    data[16:24] = bytes(8)
    state.write_bytes(data)
    with rs.open(copy) as store:
        drawn = store.sample("t", len(coming) + 3, selector="pass").step_ids.tolist()
    assert sorted(drawn) == sorted(coming + had[:3])


def test_copies_keep_priorities_and_the_pass(filled: Path, tmp_path: Path) -> None:
    with rs.open(filled, mode="r") as store:
        high = store.sample("t", 40, selector="high")
        store.snapshot("t", tmp_path / "same")
        store.snapshot("t", tmp_path / "renumbered", rebase=True)
    assert problems(tmp_path / "same") == []
    assert problems(tmp_path / "renumbered") == []
    with rs.open(tmp_path / "same") as store:
        again = store.sample("t", 40, selector="high")
        np.testing.assert_array_equal(again.step_ids, high.step_ids)
        np.testing.assert_array_equal(again.priorities, high.priorities)
    with rs.open(tmp_path / "renumbered") as store:
        batch = store.sample("t", 5, selector="high")
        assert batch.priorities.tolist() == [9, 9, 8, 8, 8]
        rows = store.read_steps("t", 0, 100, ["replay/successor", "replay/priority.pass"])
        anchors = rows["replay/successor"] > 0
        assert set(np.unique(rows["replay/priority.pass"][anchors])) == {0.0, 1.0}
        assert not rows["replay/priority.pass"][~anchors].any()


def test_a_reader_draws_from_copies_of_its_own(filled: Path) -> None:
    with rs.open(filled, mode="r") as one, rs.open(filled, mode="r") as other:
        first = one.sample("t", 6, selector="pass", seed=1).step_ids.tolist()
        assert other.sample("t", 6, selector="pass", seed=1).step_ids.tolist() == first
        assert not set(one.sample("t", 6, selector="pass", seed=2).step_ids.tolist()) & set(first)
