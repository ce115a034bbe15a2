"""Checksums of chunk files: grow with the durable rows, are bounded per call, and never cover what was cut."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from crc32c import crc32c

import replaystore as rs
from replaystore.engine import committing
from replaystore.storage import checksums
from replaystore.storage.checksums import Checksums, read_checksums, write_checksums
from replaystore.storage.layout import ArrayLayout
from tests.verify.conftest import config, fill, flip

LAYOUTS = [
    ArrayLayout("steps/observation", (3,), np.dtype("float32"), 1024),
    ArrayLayout("meta/kind", (), np.dtype("uint8"), 4096),
    ArrayLayout("replay/successor", (), np.dtype("int32"), 1024, live=True),
    ArrayLayout("episodes/length", (), np.dtype("int64"), 8192),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Chunk files for 5000 rows, of random bytes."""
    rng = np.random.default_rng(0)
    (tmp_path / "__replaystore").mkdir()
    for layout in LAYOUTS:
        (tmp_path / layout.path).mkdir(parents=True)
        for chunk in range(-(-5000 // layout.rows_per_chunk)):
            (tmp_path / layout.path / layout.chunk_name(chunk)).write_bytes(rng.bytes(layout.chunk_bytes))
    return tmp_path


def expected(folder: Path, layout: ArrayLayout, chunk: int, rows: int) -> tuple[int, int]:
    return crc32c((folder / layout.path / layout.chunk_name(chunk)).read_bytes()[: rows * layout.row_bytes]), rows


def saved(made: Checksums, folder: Path) -> checksums.Entries:
    made.save(now=True)
    entries = read_checksums(folder)
    assert entries is not None
    return entries


@pytest.mark.parametrize("stops", [[5000], [1, 1023, 1024, 1025, 4999, 5000], list(range(100, 5001, 100))])
def test_they_grow_with_the_rows(folder: Path, stops: list[int]) -> None:
    made = Checksums(folder, LAYOUTS)
    for stop in stops:
        made.extend(0, stop, stop // 10)
    entries = saved(made, folder)
    assert entries["steps/observation"] == {
        chunk: expected(folder, LAYOUTS[0], chunk, min(1024, 5000 - 1024 * chunk)) for chunk in range(5)
    }
    assert entries["meta/kind"] == {0: expected(folder, LAYOUTS[1], 0, 4096), 1: expected(folder, LAYOUTS[1], 1, 904)}
    assert entries["episodes/length"] == {0: expected(folder, LAYOUTS[3], 0, 500)}
    assert "replay/successor" not in entries


def test_what_is_known_is_not_read_again(folder: Path) -> None:
    saved_first = saved(_extended(Checksums(folder, LAYOUTS), 3000), folder)
    flip(folder / "steps/observation/c.0.0", 7)  # damage must not be taken for the truth
    again = saved(_extended(Checksums(folder, LAYOUTS), 5000), folder)
    assert again["steps/observation"][0] == saved_first["steps/observation"][0]
    assert again["steps/observation"][2] == expected(folder, LAYOUTS[0], 2, 1024)


def test_rows_that_were_cut_are_not_covered(folder: Path) -> None:
    saved(_extended(Checksums(folder, LAYOUTS), 5000), folder)
    entries = saved(_extended(Checksums(folder, LAYOUTS), 4900), folder)
    assert entries["steps/observation"][4] == expected(folder, LAYOUTS[0], 4, 804)
    assert entries["steps/observation"][3] == expected(folder, LAYOUTS[0], 3, 1024)


def test_dropped_chunks_are_forgotten_and_missing_ones_passed_over(folder: Path) -> None:
    made = _extended(Checksums(folder, LAYOUTS), 4000)
    (folder / "steps/observation/c.3.0").unlink()
    made.extend(2500, 5000, 0)
    entries = saved(made, folder)
    assert list(entries["steps/observation"]) == [2, 3, 4]
    assert entries["steps/observation"][3][1] == 4000 - 3 * 1024


def test_a_call_reads_no_more_than_it_may(folder: Path) -> None:
    made = Checksums(folder, LAYOUTS)
    calls = 0
    while made._covered.get("episodes/length", 0) < 5000:
        made.extend(0, 5000, 5000, most_bytes=12288)
        calls += 1
    assert calls > 5
    assert len(saved(made, folder)["steps/observation"]) == 5


def test_a_damaged_file_is_none(folder: Path) -> None:
    assert read_checksums(folder) is None
    write_checksums(folder, {"steps/observation": {3: (7, 1024), 4: (8, 10)}, "meta/kind": {}})
    assert read_checksums(folder) == {"steps/observation": {3: (7, 1024), 4: (8, 10)}, "meta/kind": {}}
    for offset in (0, 13, 17, 30, -1):
        write_checksums(folder, {"steps/observation": {3: (7, 1024)}})
        flip(folder / "__replaystore/checksums", offset)
        assert read_checksums(folder) is None, offset
    (folder / "__replaystore/checksums").write_bytes(b"short")
    assert read_checksums(folder) is None


def test_a_table_takes_them_behind_its_commits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(committing, "PUBLISH_INTERVAL_S", 0.0)
    monkeypatch.setattr(checksums, "SAVE_INTERVAL_S", 0.0)
    with rs.open(tmp_path / "data", commit_interval_s=3600) as store:
        store.create_table("t", config(retention=rs.Retention()))
        fill(store, "t", 100)
        store.table("t").commit()
        entries = read_checksums(tmp_path / "data/t")
        assert entries is not None
        assert entries["steps/observation"][0][1] == store.table("t").durable_step > 250


def _extended(made: Checksums, stop: int) -> Checksums:
    made.extend(0, stop, 0)
    return made
