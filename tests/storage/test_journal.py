"""The journal: everything up to the first record that does not check, and nothing after it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

import replaystore as rs
from replaystore.errors import Corruption
from replaystore.storage import calls
from replaystore.storage.journal import BatchRecord, Journal
from tests.crash.script import CONFIG, Script, abandon, block_of

CHECKPOINT = {"next_step": 7, "sequence": 3}


def batches(count: int) -> list[BatchRecord]:
    return [BatchRecord(4 + i, 7 + 10 * i, 10, i, 0xDEAD0000 + i, 0xBEEF, ((i + 1, 42),) if i % 2 else ()) for i in range(count)]


def written(folder: Path, count: int) -> bytes:
    journal = Journal(folder)
    journal.start(CHECKPOINT)()
    for batch in batches(count):
        journal.append(batch)
    journal.close()
    (path,) = folder.glob("*.log")
    return path.read_bytes()


def test_what_was_appended_comes_back(tmp_path: Path) -> None:
    written(tmp_path, 5)
    found = Journal(tmp_path).recover()
    assert found.checkpoint == CHECKPOINT
    assert found.batches == batches(5)


def test_a_torn_tail_loses_only_itself(tmp_path: Path) -> None:
    data = written(tmp_path, 5)
    (path,) = tmp_path.glob("*.log")
    counts = set()
    for length in range(len(data)):
        path.write_bytes(data[:length])
        try:
            found = Journal(tmp_path).recover()
        except Corruption:
            counts.add(-1)
            continue
        assert found.batches == batches(len(found.batches))
        counts.add(len(found.batches))
    assert counts == {-1, 0, 1, 2, 3, 4}


def test_a_flipped_bit_ends_reading_there(tmp_path: Path) -> None:
    data = written(tmp_path, 5)
    (path,) = tmp_path.glob("*.log")
    for position in range(len(data) - 1, len(data) // 2, -7):
        changed = bytearray(data)
        changed[position] ^= 0x10
        path.write_bytes(changed)
        found = Journal(tmp_path).recover()
        assert len(found.batches) < 5
        assert found.batches == batches(len(found.batches))


def test_a_new_file_takes_over_with_the_batches_since(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.start(CHECKPOINT)()
    for batch in batches(3):
        journal.append(batch)
    finish = journal.start({"next_step": 27, "sequence": 5}, batches(3)[2:])
    assert len(list(tmp_path.glob("*.log"))) == 2, "the old file stays until the new one is durable"
    found = Journal(tmp_path).recover()
    assert (found.checkpoint["next_step"], found.batches) == (27, batches(3)[2:])
    finish()
    assert len(list(tmp_path.glob("*.log"))) == 1
    journal.append(batches(4)[3])
    journal.close()
    assert Journal(tmp_path).recover().batches == batches(4)[2:]


def test_no_journal_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(Corruption, match="restore the table from a snapshot"):
        Journal(tmp_path).recover()


def test_a_store_that_was_open_for_long_has_a_small_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("replaystore.storage.journal.ROTATE_BYTES", 4000)
    most = 0
    with rs.open(tmp_path / "data", commit_interval_s=3600) as store:
        store.create_table("t", CONFIG)
        table, script = store.table("t"), Script(tmp_path)
        for number in range(1000):
            table.append(block_of(script.rows_of_a_round(3)), 0)
            if number % 10 == 9:
                table.commit()
                files = list((tmp_path / "data/t/__replaystore/journal").iterdir())
                assert len(files) == 1
                most = max(most, files[0].stat().st_size)
    assert 3000 < most < 6000, "4000 bytes, what ten batches add, and a checkpoint"
    with rs.open(tmp_path / "data") as store:
        assert store.stats("t").next_step == 6000


def test_a_journal_that_cannot_begin_a_new_file_goes_on_in_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk is no reason to stop, as long as records fit; the new file comes when there is room."""
    monkeypatch.setattr("replaystore.storage.journal.ROTATE_BYTES", 1000)
    folder = tmp_path / "data/t/__replaystore/journal"

    def full(name: str, *details: object) -> None:
        if name == "open" and str(details[0]).endswith(".log"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with rs.open(tmp_path / "data", commit_interval_s=3600) as store:
        store.create_table("t", CONFIG)
        table, script = store.table("t"), Script(tmp_path)
        monkeypatch.setattr(calls, "hook", full)
        for _ in range(100):
            table.append(block_of(script.rows_of_a_round(3)), 0)
            table.commit()
        assert table.durable_step == 600
        assert sum(file.stat().st_size for file in folder.iterdir()) > 4000
        monkeypatch.setattr(calls, "hook", None)
        table.append(block_of(script.rows_of_a_round(3)), 0)
        table.commit()
        assert sum(file.stat().st_size for file in folder.iterdir()) < 1000
        abandon(store)
    with rs.open(tmp_path / "data") as store:
        assert store.stats("t").next_step == 606
