"""The thread that brings narrow columns into memory: what it touches, what it leaves alone, and how it ends."""

from __future__ import annotations

import mmap
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import replaystore as rs
from replaystore.engine import warming
from replaystore.engine.warming import Warming

Array = np.ndarray[Any, Any]


class Table:
    """Columns of a hundred rows of a byte each, of which the first are gone."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, first: int = 0) -> None:
        self.rows, self.first = np.arange(100, dtype=np.uint8), first
        self.borrowed = 0
        self.read: dict[str, list[int]] = {"read": [], "written": []}
        self.ahead: list[int] = []
        self.works = True
        monkeypatch.setattr(warming, "LEAST_ROWS", 10)
        monkeypatch.setattr(warming, "PIECE_BYTES", 8)
        monkeypatch.setattr(warming, "available_bytes", lambda: 1000)
        monkeypatch.setattr(warming, "populate", self.populate)
        monkeypatch.setattr(warming, "will_need", lambda rows: self.ahead.extend(rows.tolist()))

    def piece(self, path: str, start: int, stop: int) -> tuple[Array, Callable[[], None]]:
        assert self.borrowed == 0
        self.borrowed += 1
        return self.rows[max(start, self.first) : max(stop, self.first)], self.release

    def release(self) -> None:
        self.borrowed -= 1

    def populate(self, rows: Array, *, write: bool = False) -> bool:
        self.read["written" if write else "read"].extend(rows.tolist())
        return self.works


def run(table: Table, read: list[tuple[str, int]], written: list[str], first: int = 0) -> None:
    made = Warming(table.piece)
    made.begin(first, 100, read, written)
    if made._thread is not None:
        made._thread.join()
    made.stop()
    assert table.borrowed == 0


def test_every_row_comes_once_and_was_asked_for_before(monkeypatch: pytest.MonkeyPatch) -> None:
    table = Table(monkeypatch)
    run(table, [("a", 1), ("b", 1)], ["b"], first=3)
    assert table.read == {"read": list(range(3, 100)), "written": list(range(3, 100))}
    assert table.ahead == list(range(11, 100)) * 2


def test_of_wide_columns_only_what_is_mostly_in_memory_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    table = Table(monkeypatch)
    monkeypatch.setattr(warming, "resident_share", lambda rows: 0.9 if rows[0] % 16 == 0 else 0.7)
    made = Warming(table.piece)
    made.begin(0, 100, [], [], [("w", 1)])
    assert made._thread is not None
    made._thread.join()
    assert table.read["read"] == table.ahead == [row for row in range(100) if row // 8 % 2 == 0]


def test_rows_that_were_dropped_meanwhile_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    table = Table(monkeypatch, first=50)
    run(table, [("a", 1)], [])
    assert table.read["read"] == list(range(50, 100))


def test_no_more_than_half_of_the_memory_available_is_filled(monkeypatch: pytest.MonkeyPatch) -> None:
    table = Table(monkeypatch)
    monkeypatch.setattr(warming, "available_bytes", lambda: 399)
    run(table, [("a", 1), ("b", 1)], ["b"])
    assert table.read == {"read": list(range(100)), "written": []}


def test_a_system_that_cannot_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    table = Table(monkeypatch)
    table.works = False
    run(table, [("a", 1), ("b", 1)], [])
    assert table.read["read"] == list(range(8))


@pytest.mark.parametrize("available", [399, 400])
def test_it_says_whether_everything_fits(monkeypatch: pytest.MonkeyPatch, available: int) -> None:
    table = Table(monkeypatch)
    monkeypatch.setattr(warming, "available_bytes", lambda: available)
    made = Warming(table.piece)
    assert made.begin(0, 100, [("a", 1), ("b", 1)], []) is (available == 400)
    made.stop()


@pytest.mark.parametrize(("available", "works", "said"), [(400, True, [1 << 16, 4096]), (399, True, [4096]), (400, False, [1 << 16, 4096])])
def test_draws_read_around_their_steps_only_while_all_columns_come(
    monkeypatch: pytest.MonkeyPatch, available: int, works: bool, said: list[int]
) -> None:
    table = Table(monkeypatch)
    heard: list[int] = []
    table.works = works
    monkeypatch.setattr(warming, "available_bytes", lambda: available)
    monkeypatch.setattr("mmap.PAGESIZE", 4096)
    made = Warming(table.piece, heard.append)
    made.begin(0, 100, [("a", 1), ("b", 1)], [])
    assert made._thread is not None
    made._thread.join()
    assert heard == said
    made.stop()
    made.begin(0, 100, [("a", 1)], [])  # too late: nobody would say that it has ended
    assert heard == said


def test_a_table_that_is_warm_reads_single_pages_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warming, "LEAST_ROWS", 1)
    go_on = threading.Event()
    monkeypatch.setattr(warming, "populate", lambda rows, *, write=False: go_on.wait(60))
    with rs.open(tmp_path / "s") as store:
        store.create_table("t", rs.TableConfig({"observation": rs.Column((), "float32"), "action": rs.Column((), "int32")}))
        with store.writer("t") as writer:
            writer.reset(np.float32(0))
            for step in range(20):
                writer.append(step, 1.0, False, False, np.float32(0))
        store.sample("t", 16)
        table = store.table("t")
        assert table._population.ahead.block_bytes == warming.BLOCK_BYTES
        go_on.set()
        assert table._warming._thread is not None
        table._warming._thread.join()
        assert table._population.ahead.block_bytes == mmap.PAGESIZE


def test_small_tables_have_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Warming(Table(monkeypatch).piece)
    made.begin(0, 9, [("a", 1)], [])
    assert made._thread is None
    made.stop()
    made.begin(0, 100, [("a", 1)], [])  # a draw that was under way while the table was closed
    assert made._thread is None


def test_to_stop_while_a_draw_begins_it_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Warming(Table(monkeypatch).piece)
    failed: list[BaseException] = []

    def stop() -> None:
        try:
            made.stop()
        except BaseException as error:  # of a thread that has not begun
            failed.append(error)

    stopping = threading.Thread(target=stop)

    class Slow(threading.Thread):
        def start(self) -> None:
            stopping.start()
            stopping.join(0.05)
            super().start()

    monkeypatch.setattr(warming, "threading", SimpleNamespace(Thread=Slow))
    made.begin(0, 100, [("a", 1)], [])
    stopping.join()
    assert not failed
    assert made._thread is not None
    assert not made._thread.is_alive()


def test_rows_wider_than_a_piece_come_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    table = Table(monkeypatch)
    monkeypatch.setattr(warming, "available_bytes", lambda: 10000)
    run(table, [("a", 20)], [])
    assert table.read["read"] == list(range(100))


def test_available_memory_is_what_the_system_says() -> None:
    assert warming.available_bytes() > 1 << 20


def test_a_table_is_warmed_from_its_first_draw_and_closes_while_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = threading.Event(), threading.Event()
    seen: list[tuple[Array, bool]] = []

    def populate(rows: Array, *, write: bool = False) -> bool:
        seen.append((rows.copy(), write))
        begun.set()
        return go_on.wait(60)

    monkeypatch.setattr(warming, "LEAST_ROWS", 1)
    monkeypatch.setattr(warming, "populate", populate)
    config = rs.TableConfig({"observation": rs.Column((40,), "float32")}, selector=rs.Prioritized(), seed=3)
    with rs.open(tmp_path / "s") as store:
        store.create_table("t", rs.TableConfig({**config.columns, "action": rs.Column((), "int32")}, selector=rs.Prioritized()))
        with store.writer("t") as writer:
            writer.reset(np.zeros(40, np.float32))
            for step in range(20):
                writer.append(step, 1.0, False, False, np.zeros(40, np.float32))
        assert not begun.is_set()
        store.sample("t", 16)
        assert begun.wait(60)
        threading.Timer(0.05, go_on.set).start()
    assert [thread for thread in threading.enumerate() if thread.name == "replaystore-warming"] == []
    np.testing.assert_array_equal(seen[0][0][:-1] > 0, np.ones(len(seen[0][0]) - 1, bool))  # the leaves, one for each step
    with rs.open(tmp_path / "s", mode="r") as store:
        seen.clear()
        store.sample("t", 16)
        thread = store.table("t")._warming._thread
        assert thread is not None
        thread.join()
        assert not any(write for _, write in seen)
