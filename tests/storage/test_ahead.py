"""Chunk files that are made before they are needed: who inserts finds them, and nothing depends on their being there."""

from __future__ import annotations

import errno
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import replaystore as rs
from replaystore.engine.checking.verify import verify
from replaystore.steps import RUN_DTYPE, StepBlock
from replaystore.storage import calls, stored_column
from replaystore.storage.layout import ArrayLayout
from replaystore.storage.stored_column import StoredColumn

ROWS = 4096


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(stored_column, "LEAST_MADE_AHEAD", 1)
    yield
    calls.hook = None


def column(folder: Path) -> StoredColumn:
    (folder / "c").mkdir(exist_ok=True)
    made = StoredColumn(folder, ArrayLayout("c", (), np.dtype("uint8"), ROWS), "rw")
    made.move(made.reserve(0, 64 * ROWS, []))
    return made


def make_ahead(made: StoredColumn, stop: int) -> bool:
    call = made.due_ahead(stop, ROWS)
    if call is not None:
        call()
    return call is not None


def watch(names: tuple[str, ...] = ("open",)) -> list[Any]:
    seen: list[Any] = []

    def hook(name: str, *details: Any) -> None:
        if name in names and (name != "open" or details[1] & os.O_CREAT):
            seen.append(details[0])

    calls.hook = hook
    return seen


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("write"), st.sampled_from([1, 1000, ROWS - 1, ROWS, 2 * ROWS + 5])),
            st.tuples(st.sampled_from(["ahead", "ahead", "removed", "replaced", "left over", "reopened"]), st.just(0)),
        ),
        max_size=12,
    )
)
def test_rows_are_the_same_whatever_was_made_ahead(steps: list[tuple[str, int]]) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder, stop = Path(temporary), 0
        made = column(folder)
        for what, rows in steps:
            path = folder / "c" / f"c.{-(-stop // ROWS)}"
            if what == "write":
                made.prepare(stop if stop % ROWS == 0 else stop // ROWS * ROWS + ROWS, stop + rows)
                made.write(stop, np.arange(stop, stop + rows).astype(np.uint8))
                stop += rows
            elif what == "ahead":
                make_ahead(made, stop)
            elif what == "removed":
                path.unlink(missing_ok=True)
            elif what in ("replaced", "left over") and (what == "left over" or path.exists()):
                path.unlink(missing_ok=True)
                path.write_bytes(b"\xff" * 77)
            elif what == "reopened":
                made.close()
                made = column(folder)
                made.sweep(0, stop)
                made.move(made.reserve(0, 64 * ROWS, range(-(-stop // ROWS))))
        for call in made.take_dirty():
            call()
        np.testing.assert_array_equal(made.array[:stop], np.arange(stop).astype(np.uint8))
        made.remove_made()
        sizes = [file.stat().st_size for file in (folder / "c").iterdir()]
        assert sizes.count(ROWS) >= -(-stop // ROWS)
        made.close()


def test_it_is_due_when_rows_like_the_last_ones_need_it(tmp_path: Path) -> None:
    made = column(tmp_path)
    made.prepare(0, 1)
    assert made.due_ahead(ROWS - 100, 99) is None
    assert made.due_ahead(ROWS - 100, 0) is None
    assert made.due_ahead(ROWS - 100, 100) is not None
    assert make_ahead(made, ROWS)
    assert made.due_ahead(ROWS, ROWS) is None  # there it is
    made.prepare(ROWS, ROWS + 1)
    assert made.due_ahead(ROWS, ROWS) is None  # here it is in use
    made.close()


def test_a_disk_that_is_full_is_heard_of_by_who_inserts(tmp_path: Path) -> None:
    made = column(tmp_path)
    made.prepare(0, 1)

    def full(name: str, *details: Any) -> None:
        if name == "fallocate":
            raise OSError(errno.ENOSPC, "No space left on device")

    calls.hook = full
    assert make_ahead(made, ROWS)
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == ["c.0"]
    with pytest.raises(rs.DiskFull):
        made.prepare(ROWS, ROWS + 1)
    calls.hook = None
    made.prepare(ROWS, ROWS + 1)
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == ["c.0", "c.1"]
    made.close()


def test_who_needs_it_while_it_is_being_made_waits_for_it(tmp_path: Path) -> None:
    made = column(tmp_path)
    made.prepare(0, 1)
    begun, go_on = threading.Event(), threading.Event()
    opened: list[Path] = []

    def hook(name: str, *details: Any) -> None:
        if name == "open":
            opened.append(details[0])
        if name == "fallocate" and not begun.is_set():
            begun.set()
            assert go_on.wait(60)

    calls.hook = hook
    maker = threading.Thread(target=make_ahead, args=(made, ROWS))
    maker.start()
    assert begun.wait(60)
    user = threading.Thread(target=made.prepare, args=(ROWS, ROWS + 1))
    user.start()
    go_on.set()
    maker.join()
    user.join()
    assert opened == [tmp_path / "c/c.1"]
    assert made.mapped == [0, 1]
    made.close()


def block(start: int, rows: int) -> StepBlock:
    runs = np.zeros(1, RUN_DTYPE)
    runs["episode"], runs["first"], runs["rows"], runs["policy_version"], runs["seed"] = 1, start, rows, -1, -1
    ids = np.arange(start, start + rows)
    columns = {"observation": ids.astype("float32"), "action": (ids % 100).astype("int8"), "reward": ids.astype("float32")}
    return StepBlock({**columns, "terminated": np.zeros(rows, bool), "truncated": np.zeros(rows, bool)}, runs)


CONFIG = rs.TableConfig(
    {"observation": rs.Column((), "float32"), "action": rs.Column((), "int8")}, retention=rs.Retention(max_steps=16 * ROWS), seed=1
)


@pytest.mark.parametrize("end", ["closed", "killed"])
def test_a_table_goes_on_in_files_made_ahead(tmp_path: Path, end: str) -> None:
    files: Callable[[], set[str]] = lambda: {path.name for path in (tmp_path / "s/t/steps/action").glob("c.*")}  # noqa: E731
    store = rs.open(tmp_path / "s", commit_interval_s=3600)
    store.create_table("t", CONFIG)
    table = store.table("t")
    table.append(block(0, 3000), 60.0)
    table.commit()
    assert files() == {"c.0", "c.1"}
    made = watch()
    table.append(block(3000, 2000), 60.0)
    assert made == []
    table.commit()
    assert files() == {"c.0", "c.1", "c.2"}
    calls.hook = None
    if end == "killed":
        table.close(save=False)
    store.close()
    assert files() == ({"c.0", "c.1"} if end == "closed" else {"c.0", "c.1", "c.2"})
    assert verify(tmp_path / "s").findings == []
    with rs.open(tmp_path / "s") as again:
        assert files() == {"c.0", "c.1"}
        again.table("t").append(block(5000, 8000), 60.0)
        found = again.table("t").read_steps(0, 13_000)
        np.testing.assert_array_equal(found["observation"], np.arange(13_000).astype("float32"))
        np.testing.assert_array_equal(found["action"], np.arange(13_000) % 100)
