"""Chunk files: what is written is what is mapped, what plain NumPy and Zarr read, and what comes back."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from replaystore.errors import Corruption, DiskFull, StorageError
from replaystore.storage import calls
from replaystore.storage.column import ColumnSet
from replaystore.storage.layout import ArrayLayout, episode_arrays, rows_per_chunk, step_arrays
from replaystore.storage.zarr_metadata import publish


def layouts() -> list[ArrayLayout]:
    return [
        ArrayLayout("steps/observation", (3,), np.dtype("float32"), 1024),
        ArrayLayout("steps/flag", (), np.dtype("bool"), 4096),
        ArrayLayout("replay/successor", (), np.dtype("int32"), 1024, live=True),
    ]


def columns(folder: Path, mode: str = "rw", first: int = 0, stop: int = 0) -> ColumnSet:
    for layout in layouts():
        (folder / layout.path).mkdir(parents=True, exist_ok=True)
    made = ColumnSet(folder, layouts(), mode)
    made.open(first, stop)
    return made


def rows_of(start: int, count: int) -> dict[str, np.ndarray]:
    ids = np.arange(start, start + count)
    return {"steps/observation": np.stack([ids, ids * 2, ids * 3], axis=1).astype("float32"), "steps/flag": ids % 3 == 0}


def test_rows_across_chunks_are_one_array(tmp_path: Path) -> None:
    made = columns(tmp_path)
    position = 0
    for count in (1, 1000, 23, 5000, 4096):
        made.prepare(0, position + count)
        made.write(position, rows_of(position, count))
        position += count
    expected = rows_of(0, position)
    for path, rows in expected.items():
        np.testing.assert_array_equal(made.rows(path, 0, position), rows)
    sizes = {file.stat().st_size for file in (tmp_path / "steps/observation").iterdir()}
    assert sizes == {1024 * 12}
    again = columns(tmp_path, "r", 0, position)
    np.testing.assert_array_equal(again.rows("steps/observation", 0, position), expected["steps/observation"])
    made.close()
    again.close()


def test_zarr_reads_what_is_published(tmp_path: Path) -> None:
    made = columns(tmp_path)
    made.prepare(0, 3000)
    made.write(0, rows_of(0, 3000))
    publish(tmp_path, layouts(), [], {"first_step": 0, "next_step": 2500, "episodes": 0}, durable=False)
    group = zarr.open_group(tmp_path, mode="r")
    np.testing.assert_array_equal(group["steps/observation"][:], rows_of(0, 2500)["steps/observation"])
    np.testing.assert_array_equal(group["steps/flag"][2000:], rows_of(0, 2500)["steps/flag"][2000:])
    assert group["steps/observation"].metadata.dimension_names == ("step", "observation_0")
    assert group.attrs["next_step"] == 2500
    made.close()


def test_dropping_removes_whole_files_and_ids_go_on(tmp_path: Path) -> None:
    made = columns(tmp_path)
    made.prepare(0, 10_000)
    made.write(0, rows_of(0, 10_000))
    for removal in made.drop_before(5000):
        removal()
    assert {file.name for file in (tmp_path / "steps/observation").iterdir()} == {f"c.{chunk}.0" for chunk in range(4, 10)}
    made.prepare(5000, 12_000)
    made.write(10_000, rows_of(10_000, 2000))
    np.testing.assert_array_equal(made.rows("steps/observation", 5000, 12_000), rows_of(5000, 7000)["steps/observation"])
    made.close()


def test_moving_to_a_new_reservation_keeps_all_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("replaystore.storage.column.RESERVED_BYTES", 1)
    monkeypatch.setattr("replaystore.storage.column.MIN_WINDOW_CHUNKS", 2)
    made = columns(tmp_path)
    left, first = [], 0
    for position in range(0, 60_000, 1000):
        first = max(0, position - 4000)
        left += made.prepare(first, position + 1000)
        made.write(position, rows_of(position, 1000))
        for removal in made.drop_before(first):
            removal()
        np.testing.assert_array_equal(
            made.rows("steps/observation", first, position + 1000), rows_of(first, position + 1000 - first)["steps/observation"]
        )
    assert left, "60 chunks do not fit a window of two: it must have moved"
    assert made.origin > 0
    for reservation in left:
        reservation.close()
    made.close()


def fail_at(monkeypatch: pytest.MonkeyPatch, call: str, part: str, code: int) -> None:
    """The system call `call` on files with `part` in their path fails."""

    def hook(name: str, *details: Any) -> None:
        place = str(details[0]) if details and isinstance(details[0], Path) else ""
        if details and isinstance(details[0], int) and name != "mmap":
            place = os.readlink(f"/proc/self/fd/{details[0]}")
        if name == call and part in place:
            raise OSError(code, os.strerror(code))

    monkeypatch.setattr(calls, "hook", hook)


def test_a_disk_that_is_full_in_the_middle_of_a_batch_leaves_no_hole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a batch that needs three new files the third cannot be made; smaller batches then find every file they need."""
    made = columns(tmp_path)
    fail_at(monkeypatch, "fallocate", "c.2.0", errno.ENOSPC)
    with pytest.raises(DiskFull, match=r"c\.2\.0: free some space"):
        made.prepare(0, 3000)
    monkeypatch.setattr(calls, "hook", None)
    for position in range(0, 3000, 500):
        made.prepare(0, position + 500)
        made.write(position, rows_of(position, 500))
    np.testing.assert_array_equal(made.rows("steps/observation", 0, 3000), rows_of(0, 3000)["steps/observation"])
    made.close()


def test_a_move_that_fails_moves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All columns share one origin: if one could not follow, rows of different steps would stand side by side."""
    monkeypatch.setattr("replaystore.storage.column.RESERVED_BYTES", 1)
    monkeypatch.setattr("replaystore.storage.column.MIN_WINDOW_CHUNKS", 2)
    made = columns(tmp_path)
    made.prepare(0, 8000)
    made.write(0, rows_of(0, 8000))
    for removal in made.drop_before(5000):
        removal()
    for sync in made.take_dirty():
        sync()
    fail_at(monkeypatch, "open", "successor/c.5", errno.EIO)
    with pytest.raises(StorageError, match=r"opening .*successor/c\.5"):
        made.prepare(5000, 9000)
    for path, rows in rows_of(5000, 3000).items():
        np.testing.assert_array_equal(made.rows(path, 5000, 8000), rows)
    monkeypatch.setattr(calls, "hook", None)
    left = made.prepare(5000, 9000)
    assert made.origin > 0
    made.write(8000, rows_of(8000, 1000))
    for path, rows in rows_of(5000, 4000).items():
        np.testing.assert_array_equal(made.rows(path, 5000, 9000), rows)
    for reservation in left:
        reservation.close()
    made.close()


def test_a_file_from_before_a_crash_is_not_used_again(tmp_path: Path) -> None:
    """Old leaves and counts in it would be taken for new ones; and whoever still maps or links it keeps it."""
    made = columns(tmp_path)
    stale = tmp_path / "replay/successor/c.0"
    stale.write_bytes(b"\x07" * 4096)
    os.link(stale, tmp_path / "kept")
    made.prepare(0, 10)
    assert not made.rows("replay/successor", 0, 1024).any()
    assert (tmp_path / "kept").read_bytes() == b"\x07" * 4096
    made.close()


def test_a_file_of_the_wrong_size_is_refused_with_its_name(tmp_path: Path) -> None:
    made = columns(tmp_path)
    made.prepare(0, 10)
    made.write(0, rows_of(0, 10))
    made.close()
    with (tmp_path / "steps/observation/c.0.0").open("r+b") as file:
        file.truncate(100)
    with pytest.raises(Corruption, match=r"c\.0\.0 has 100 bytes instead of 12288"):
        columns(tmp_path, "rw", 0, 10)


@pytest.mark.parametrize("row_bytes", [1, 2, 4, 8, 12, 68, 7056, 28224, 100_000])
@pytest.mark.parametrize("most", [None, 10, 100_000, 10_000_000])
def test_rows_per_chunk_are_whole_pages_and_powers_of_two(row_bytes: int, most: int | None) -> None:
    rows = rows_per_chunk(row_bytes, most)
    assert rows & (rows - 1) == 0
    assert rows * row_bytes % 4096 == 0
    assert rows * row_bytes <= max(64 << 20, 4096 * row_bytes)
    if most is not None:
        assert rows <= max(most // 16, 4096)


def test_every_array_of_a_table_has_a_name_for_every_dimension(tmp_path: Path) -> None:
    from replaystore.schema.columns import Column

    arrays = step_arrays({"observation": Column((4, 4), "uint8")}, [("default", True)], None)
    for layout in (*arrays, *episode_arrays()):
        (tmp_path / layout.path).mkdir(parents=True)
    publish(tmp_path, arrays, episode_arrays(), {"first_step": 0, "next_step": 0, "episodes": 0}, durable=False)
    group = zarr.open_group(tmp_path, mode="r")
    assert {name for name, _ in group.members()} == {"steps", "meta", "replay", "episodes"}
    assert all(
        None not in array.metadata.dimension_names for part in ("steps", "meta", "replay", "episodes") for _, array in group[part].arrays()
    )
