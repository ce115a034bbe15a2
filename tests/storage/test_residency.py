"""Rows that are not in memory: which pages are asked for, when asking begins and ends, and that the rows are the same either way."""

from __future__ import annotations

import mmap
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import replaystore as rs
from replaystore.schema.views import View
from replaystore.storage import residency
from replaystore.storage.residency import LOOKED_EVERY, MOST_FAULTS, QUIET_AFTER, Residency, page_ranges

PAGE = mmap.PAGESIZE

linux = pytest.mark.skipif(not residency.SUPPORTED, reason="only Linux has the calls")

Ranges = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]


def address(array: np.ndarray[Any, Any]) -> int:
    return int(array.__array_interface__["data"][0])


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([1, 3, 4096, 7056]), st.lists(st.integers(0, 40), max_size=12), st.booleans()),
        max_size=3,
    )
)
def test_the_ranges_are_the_pages_of_the_rows_each_once(wanted: list[tuple[int, list[int], bool]]) -> None:
    parts, pages = [], set()
    for width, places, deep in wanted:
        array = np.empty((41, width), np.uint8)
        at = np.array(places, np.int64)
        parts.append((array, at.reshape(-1, 1) if deep else at))
        for place in places:
            begin = address(array) + place * width
            pages |= set(range(begin // PAGE, (begin + width - 1) // PAGE + 1))
    starts, lengths = page_ranges(parts)
    found = [
        page
        for start, length in zip(starts.tolist(), lengths.tolist(), strict=True)
        for page in range(start // PAGE, (start + length) // PAGE)
    ]
    assert found == sorted(pages)
    assert (starts[1:] > starts[:-1] + lengths[:-1]).all()


@settings(deadline=None)
@given(st.lists(st.integers(0, 99), max_size=12))
def test_larger_blocks_hold_the_pages(places: list[int]) -> None:
    array = np.empty((100, 3000), np.uint8)
    parts = [(array, np.array(places, np.int64))]
    small, large = page_ranges(parts), page_ranges(parts, 1 << 16)
    assert not ((large[0] | large[1]) & 0xFFFF).any()
    for start, length in zip(*small, strict=True):
        assert ((large[0] <= start) & (start + length <= large[0] + large[1])).sum() == 1


class Machine:
    """Stands for the kernel: which pages are there, and how many faults there were."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, resident: bool) -> None:
        self.resident, self.faults, self.asked = resident, 1000, 0
        monkeypatch.setattr(residency, "SUPPORTED", True)
        monkeypatch.setattr(residency, "in_memory", lambda start: self.resident)
        monkeypatch.setattr(residency, "major_faults", lambda: self.faults)
        monkeypatch.setattr(residency, "ask", self.ask)

    def ask(self, starts: Any, lengths: Any) -> None:
        self.asked += 1


ROWS = np.zeros((128, PAGE), np.uint8)


def batches(watched: Residency, count: int) -> None:
    for _ in range(count):
        watched.ahead(lambda: [(ROWS, np.arange(0, 128, 2))])


def test_asking_ends_when_everything_is_there_and_begins_again_with_faults(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, resident=False)
    watched = Residency()
    batches(watched, 3 * QUIET_AFTER)
    assert machine.asked == 3 * QUIET_AFTER
    machine.resident = True
    batches(watched, QUIET_AFTER + 7 * LOOKED_EVERY)
    assert machine.asked == 4 * QUIET_AFTER
    assert not watched.asking
    machine.faults += MOST_FAULTS  # not worth it
    batches(watched, LOOKED_EVERY)
    assert not watched.asking
    machine.faults, machine.resident = machine.faults + MOST_FAULTS + 1, False
    batches(watched, 2 * LOOKED_EVERY)
    assert watched.asking
    assert machine.asked > 4 * QUIET_AFTER


def test_one_page_that_is_missing_goes_on_with_asking(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, resident=True)
    seen: list[int] = []

    def every_hundredth(start: int) -> bool:
        seen.append(start)
        return len(seen) % 100 != 0

    monkeypatch.setattr(residency, "in_memory", every_hundredth)
    batches(Residency(), 10 * QUIET_AFTER)
    assert machine.asked == 10 * QUIET_AFTER
    assert len(set(seen)) > 32  # not the same pages every time


def test_batches_without_rows_ask_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, resident=False)
    watched = Residency()
    for _ in range(100):
        watched.ahead(list)
    assert machine.asked == 0


@pytest.fixture
def mapped(tmp_path: Path) -> np.ndarray[Any, Any]:
    (tmp_path / "rows").write_bytes(np.random.default_rng(0).bytes(64 * PAGE))
    with (tmp_path / "rows").open("r+b") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        pages = mmap.mmap(file.fileno(), 0)
    pages.madvise(mmap.MADV_RANDOM)
    return np.frombuffer(pages, np.uint8).reshape(64, PAGE)


@linux
@pytest.mark.parametrize("allowed", [True, False])
def test_pages_asked_for_come(mapped: np.ndarray[Any, Any], allowed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not allowed:
        monkeypatch.setattr(residency, "_PROCESS_MADVISE", -1)  # as where containers forbid the call
    wanted = np.array([3, 4, 60])
    residency.ask(*page_ranges([(mapped, wanted)]))
    assert mapped[wanted].any()
    for place in wanted.tolist():
        assert residency.in_memory(address(mapped) + place * PAGE)


@linux
def test_what_is_not_mapped_is_no_error_and_stops_nothing(mapped: np.ndarray[Any, Any]) -> None:
    starts = np.array([PAGE, address(mapped)])  # the lowest pages are never mapped
    residency.ask(starts, np.array([PAGE, PAGE]))
    residency.will_need(mapped[1:5])
    residency.will_need(mapped[:0])
    assert residency.in_memory(PAGE)  # not known: nothing to wait for
    assert mapped.any()


@linux
def test_what_is_resident_is_known(mapped: np.ndarray[Any, Any]) -> None:
    if not residency.populate(mapped[8:16]):
        pytest.skip("the kernel is older than 5.14")
    assert residency.resident_share(mapped[8:16]) == 1.0
    assert residency.resident_share(mapped[9]) == 1.0
    assert residency.resident_share(mapped[:0]) == 0.0


@linux
def test_no_descriptor_is_left(mapped: np.ndarray[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    if not hasattr(os, "pidfd_open"):
        pytest.skip("this Python knows no such descriptors")
    opened: list[int] = []
    closed: list[int] = []
    pidfd_open, close, here = os.pidfd_open, os.close, threading.get_ident()

    def opening(process: int) -> int:
        opened.append(pidfd_open(process))
        return opened[-1]

    def closing(fd: int) -> None:
        if threading.get_ident() == here and fd in opened:
            closed.append(fd)
        close(fd)

    monkeypatch.setattr(os, "pidfd_open", opening)
    monkeypatch.setattr(os, "close", closing)
    for _ in range(3):
        residency.ask(*page_ranges([(mapped, np.arange(3000) % 64)]))
    monkeypatch.undo()
    assert closed == opened


@linux
@pytest.mark.parametrize(
    "error", [AttributeError("no pidfd_open"), OSError(38, "Function not implemented"), OSError(24, "Too many open files")]
)
def test_systems_without_descriptors_of_processes(mapped: np.ndarray[Any, Any], error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def pidfd_open(process: int) -> int:
        raise error

    monkeypatch.setattr(os, "pidfd_open", pidfd_open, raising=False)
    residency.ask(*page_ranges([(mapped, np.array([5, 6, 40]))]))
    for place in (5, 6, 40):
        assert mapped[place].any()
        assert residency.in_memory(address(mapped) + place * PAGE)


@pytest.mark.parametrize("view", [rs.Transition(), rs.Transition(frame_stack=3, n_step=2), rs.Sequence(5), rs.Episode()])
def test_batches_are_the_same_whether_asked_for_or_not(tmp_path: Path, view: View, monkeypatch: pytest.MonkeyPatch) -> None:
    config = rs.TableConfig({"observation": rs.Column((40,), "float32"), "action": rs.Column((), "int32")}, seed=3)
    drawn = []
    for supported in (True, False):
        monkeypatch.setattr(residency, "SUPPORTED", supported)
        with rs.open(tmp_path / str(supported)) as store:
            store.create_table("t", config)
            with store.writer("t") as writer:
                for episode in range(3):
                    writer.reset(np.full(40, episode, np.float32))
                    for step in range(20):
                        writer.append(step, 1.0, step == 19, False, np.full(40, 100 * episode + step, np.float32))
            drawn.append([store.sample("t", 16, view=view, seed=seed) for seed in range(3)])
    for one, other in zip(*drawn, strict=True):
        np.testing.assert_array_equal(one.step_ids, other.step_ids)
        for name, array in one.fields.items():
            np.testing.assert_array_equal(array, other.fields[name])


@linux
def test_a_table_whose_files_left_the_page_cache_serves_the_same(tmp_path: Path) -> None:
    config = rs.TableConfig(
        {"observation": rs.Column((1000,), "float32"), "action": rs.Column((), "int32")}, selector=rs.Prioritized(), seed=0
    )
    with rs.open(tmp_path / "s") as store:
        store.create_table("t", config)
        with store.writer("t") as writer:
            writer.reset(np.zeros(1000, np.float32))
            for step in range(500):
                writer.append(0, 1.0, False, False, np.full(1000, step + 1, np.float32))
    for path in (tmp_path / "s").rglob("c.*"):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    with rs.open(tmp_path / "s") as store:
        for _ in range(3):
            batch = store.sample("t", 64)
            np.testing.assert_array_equal(batch["observation"], np.repeat(batch.step_ids[:, None], 1000, axis=1).astype(np.float32))
