"""What a sampler was given can be read again, bit by bit, whatever happened to the tables since."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import replaystore as rs
from replaystore.sample_log import MAGIC, SampleLog
from replaystore.server.thread import start_in_thread
from replaystore_client import Client

from .conftest import fill, play

VIEWS = [
    rs.Transition(n_step=(1, 4), frame_stack=3),
    rs.Sequence(5, burn_in=2, period=3),
    rs.Episode(max_length=7),
    rs.Episode(packed=True),
]


def check_equal(one: rs.Batch, other: rs.Batch) -> None:
    assert one.keys() == other.keys()
    for name in one.keys():  # noqa: SIM118 - a Batch is no mapping
        assert one[name].dtype == other[name].dtype, name
        np.testing.assert_array_equal(one[name].view(), other[name], err_msg=name)
    assert (one.view, one.candidates, one.mass, one.next_step) == (other.view, other.candidates, other.mass, other.next_step)


def go_on(api: Any) -> None:
    """More steps, other priorities, other draws."""
    play(api, "t", 5, 17)
    api.update_priorities("t", np.arange(30), np.linspace(3, 9, 30))
    api.sample("t", 12)


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("remote", [False, True])
def test_the_very_same_batches_come_again(tmp_path: Path, view: Any, remote: bool) -> None:
    path = tmp_path / "samples.log"
    with rs.open(tmp_path / "data") as store:
        fill(store, "t", 1, 23, selector=rs.Prioritized())
        writer = store.writer("t")
        writer.reset(np.array([7, 0], np.float32))
        for t in range(9):  # an episode that is not finished yet
            writer.append(t, 0.5, False, False, np.array([7, t + 1], np.float32))
        writer.flush()
        options = {"view": view, "beta": rs.Linear(0.4, 1.0, steps=5), "log": path}
        given: list[rs.Batch] = []
        server = start_in_thread(store)
        client = Client(server.address)
        with (client if remote else store).sampler("t", 8, **options) as sampler:
            for number in range(6):
                given.append(next(sampler))
                sampler.update_priorities(given[-1].step_ids, np.arange(8) + number)
                if number == 3:
                    for t in range(9, 12):
                        writer.append(t, 0.5, False, False, np.array([7, t + 1], np.float32))
                    writer.flush()
        for t in range(12, 15):
            writer.append(t, 0.5, t == 14, False, np.array([7, t + 1], np.float32))
        writer.close()
        go_on(store)
        client.close()
        server.stop()
    with rs.open(tmp_path / "data") as store, start_in_thread(store) as server, Client(server.address) as client:
        for api in (store, client):
            again = list(rs.replay_log(api, path))
            assert len(again) == 6
            for one, other in zip(given, again, strict=True):
                check_equal(one, other)
    with rs.open(tmp_path / "data", mode="r") as store:
        check_equal(given[-1], list(rs.replay_log(store, path))[-1])


def test_what_was_evicted_is_named(tmp_path: Path) -> None:
    with rs.open(tmp_path / "data") as store:
        fill(store, "t", 1, 20, retention=rs.Retention(max_steps=40))
        with store.sampler("t", 6, seed=4, log=tmp_path / "log") as sampler:
            given = [next(sampler) for _ in range(2)]
        play(store, "t", 1, 30)
        play(store, "t", 1, 8)
        gone = [int(step) for step in given[0].step_ids if step < store.stats("t").first_step]
        with pytest.raises(rs.NotFound, match=rf"log: batch 0 cannot be read again: .*\b{gone[0]}\b"):
            next(rs.replay_log(store, tmp_path / "log"))


def test_what_was_evicted_around_the_steps_is_found_out(tmp_path: Path) -> None:
    """The steps are still there, an earlier frame is not: padding would take its place."""
    with rs.open(tmp_path / "data") as store:
        fill(store, "t", 1, 20, retention=rs.Retention(max_steps=40))
        view = rs.Transition(frame_stack=8)
        with (
            store.sampler("t", 6, view=view, seed=4, log=tmp_path / "log") as sampler,
            SampleLog(tmp_path / "light", checksums=False) as light,
            store.sampler("t", 6, view=view, seed=4, log=light) as other,
        ):
            given = [next(sampler), next(other)]
        play(store, "t", 1, 18 + int(given[0].step_ids.min()))
        assert store.stats("t").first_step == given[0].step_ids.min() > 0
        with pytest.raises(rs.NotFound, match=r"log: batch 0 \(steps \[\d+, .* its steps are kept, but other rows"):
            next(rs.replay_log(store, tmp_path / "log"))
        assert len(next(rs.replay_log(store, tmp_path / "light"))) == 6


def test_another_table_may_have_the_rows(tmp_path: Path) -> None:
    with rs.open(tmp_path / "data") as store:
        fill(store, "t", 1, 20)
        with store.sampler("t", 6, columns=["observation"], where=rs.Filter(min_age_steps=3), log=tmp_path / "log") as sampler:
            given = next(sampler)
        store.fork("t", "other")
        store.drop_table("t")
        check_equal(given, next(rs.replay_log(store, tmp_path / "log", table="other")))
        with pytest.raises(rs.NotFound, match="'t'"):
            next(rs.replay_log(store, tmp_path / "log"))


def test_several_samplers_share_a_log_and_it_says_what_they_asked_for(tmp_path: Path) -> None:
    with rs.open(tmp_path / "data") as store, SampleLog(tmp_path / "log") as log:
        fill(store, "a", 1, 20, selector=rs.Prioritized())
        fill(store, "b", 2, 20)
        with (
            store.sampler("a", 4, beta=0.5, seed=9, log=log) as one,
            store.sampler(
                "b", 5, view=rs.Transition(3), selector=rs.Uniform(), columns=["action"], where=rs.Filter(actors=(0,)), log=log
            ) as two,
        ):
            given = [next(sampler) for sampler in (one, two, one, two)]
    noted = list(SampleLog.read(tmp_path / "log"))
    assert [(entry.position, entry.index, entry.table) for entry in noted] == [(0, 0, "a"), (1, 0, "b"), (2, 1, "a"), (3, 1, "b")]
    assert noted[0].seed == rs.sampling.derive_seed(9, 0)
    assert noted[0].beta == 0.5
    assert noted[1].seed != noted[3].seed
    assert noted[1].view == rs.Transition(3)
    assert noted[1].columns == ("action",)
    assert noted[1].query["selector"] == {"type": "Uniform"}
    assert noted[1].query["where"]["actors"] == [0]
    for entry, batch in zip(noted, given, strict=True):
        for name, array in entry.arrays.items():
            np.testing.assert_array_equal(array, batch[name])
        assert entry.as_of == batch.next_step
        assert len(entry.arrays["step_ids"]) == len(batch)


def small_log(path: Path, batches: int) -> list[int]:
    """A log of `batches` batches; the sizes of the file after each."""
    sizes = []
    with SampleLog(path) as log:
        sizes.append(path.stat().st_size)
        for index in range(batches):
            ids = np.arange(3) + index
            fields = {f"info/{name}": ids.astype(dtype) for name, dtype in _DTYPES.items()}
            request = rs.sampling.SampleRequest(3, seed=index, selector=("td", "novelty")[index % 2])
            log.write("t", request, index, rs.Batch(fields, next_step=7))
            sizes.append(path.stat().st_size)
    return sizes


_DTYPES = {
    "step_ids": "i8", "probabilities": "f8", "ages": "i8", "priorities": "f4", "weights": "f4", "times_sampled": "u4",
}  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, list[int]]:
    path = tmp_path_factory.mktemp("logs") / "log"
    sizes = small_log(path, 5)
    return path.read_bytes(), sizes


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_torn_end_is_left_out_and_cut_off(whole: tuple[bytes, list[int]], tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    content, sizes = whole  # what power loss leaves: some of it, and zeros
    cut = data.draw(st.integers(len(MAGIC), len(content)))
    zeros = data.draw(st.integers(0, 40))
    path = tmp_path_factory.mktemp("torn") / "log"
    left = content[:cut] + bytes(zeros)
    path.write_bytes(left)
    kept = sum(left[:size] == content[:size] for size in sizes[1:])
    assert [entry.position for entry in SampleLog.read(path)] == list(range(kept))
    with SampleLog(path) as log:
        fields = {f"info/{name}": np.zeros(2, dtype) for name, dtype in _DTYPES.items()}
        log.write("t", rs.sampling.SampleRequest(2, seed=1, selector="novelty"), 77, rs.Batch(fields))
    noted = list(SampleLog.read(path))
    assert [entry.index for entry in noted] == [*range(kept), 77]
    assert noted[-1].query["selector"] == "novelty"


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_a_flipped_bit_is_found(whole: tuple[bytes, list[int]], tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    content, sizes = whole
    at, bit = data.draw(st.integers(len(MAGIC), sizes[4] - 1)), data.draw(st.integers(0, 7))
    path = tmp_path_factory.mktemp("flipped") / "log"
    path.write_bytes(content[:at] + bytes([content[at] ^ (1 << bit)]) + content[at + 1 :])
    with pytest.raises(rs.Corruption, match=r"the record at byte \d+ is damaged"):
        list(SampleLog.read(path))
    with pytest.raises(rs.Corruption):
        SampleLog(path)
    assert len(path.read_bytes()) == len(content)


def test_files_that_are_no_logs(tmp_path: Path) -> None:
    other = tmp_path / "notes.txt"
    for text in ("dear diary, today I sampled", "dear"):
        other.write_text(text)
        with pytest.raises(rs.InvalidArgument, match="no sample log"):
            SampleLog(other)
        with pytest.raises(rs.InvalidArgument, match="no sample log"):
            list(SampleLog.read(other))
        assert other.read_text() == text
    with pytest.raises(rs.NotFound, match="nowhere"):
        list(SampleLog.read(tmp_path / "nowhere"))
    with pytest.raises(rs.StorageError, match="cannot be opened"):
        SampleLog(tmp_path / "no" / "folder")
    other.write_bytes(MAGIC[:5])  # killed while it was made
    with SampleLog(other) as log:
        assert list(SampleLog.read(other)) == []
    with pytest.raises(rs.InvalidArgument, match="closed"):
        log.write("t", rs.sampling.SampleRequest(1, seed=1), 0, rs.Batch({"info/step_ids": np.zeros(1, int)}))
    with pytest.raises(rs.InvalidArgument, match="without a seed"):
        log.write("t", rs.sampling.SampleRequest(1), 0, rs.Batch({"info/step_ids": np.zeros(1, int)}))


def test_the_format_is_what_the_module_says(whole: tuple[bytes, list[int]]) -> None:
    content, sizes = whole
    length, crc, frame_crc = np.frombuffer(content, "<u4", 3, 8)
    assert zlib.crc32(content[8:16]) == frame_crc
    body = content[20 : 20 + length]
    assert zlib.crc32(body) == crc
    assert body.startswith(b'Q{"columns":null,"normalise":"batch","selector":"td","table":"t","view":{')
    assert sizes[3] - sizes[2] == 12 + 65 + 3 * 36  # the third batch has the first one's query
