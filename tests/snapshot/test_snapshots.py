"""A snapshot is the table at one moment; from then on both are by themselves."""

from __future__ import annotations

import copy as copying
import errno
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import replaystore as rs
from replaystore.engine.checking.repair import repair
from replaystore.engine.table import Table
from replaystore.errors import AlreadyExists, NotFound, NotReady
from replaystore.storage import calls
from replaystore.storage.checksums import crc_of_file, read_checksums
from replaystore.storage.state_page import StatePage
from replaystore.store import Store
from tests.snapshot.conftest import Actor, check, config, contents, filled, same, shared_files, whole

SMALL = rs.Retention(6_000)


def test_it_is_the_table(store: Store, tmp_path: Path) -> None:
    filled(store, retention=SMALL)
    before = contents(store, "t")
    report = store.snapshot("t", tmp_path / "out")
    whole(tmp_path / "out")
    same(contents(store, "t"), before)
    with rs.open(tmp_path / "out") as copy:
        assert copy.tables() == ["t"]
        assert copy.table("t").config == config(retention=SMALL)
        same(contents(copy, "t"), before)
        check(copy, "t")
        for _ in range(3):  # random numbers go on from where they were
            np.testing.assert_array_equal(copy.sample("t", 64).step_ids, store.sample("t", 64).step_ids)
    assert (report.first_step, report.next_step, report.episodes) == (before["first_step"], before["next_step"], before["episodes"])
    assert report.linked_bytes > report.copied_bytes > 0
    assert report.note == ""
    assert Path(report.path) == tmp_path / "out"


def test_it_needs_no_recovery(store: Store, tmp_path: Path) -> None:
    """Opening it read-only, or with Zarr, sees all of it at once: it looks like a store closed in order."""
    zarr = pytest.importorskip("zarr")
    filled(store)
    store.snapshot("t", tmp_path / "out")
    page = StatePage(tmp_path / "out/t/__replaystore/state", "r")
    assert (page["clean"], page["durable_step"]) == (1, store.stats("t").next_step)
    page.close()
    group = zarr.open(tmp_path / "out", mode="r")
    assert group["t/steps/observation"].shape[0] == store.stats("t").next_step
    assert group.attrs["tables"] == ["t"]
    with rs.open(tmp_path / "out", mode="r") as reader:
        same(contents(reader, "t") | {"open_episodes": 4}, contents(store, "t"))


def test_while_writers_and_samplers_run(store: Store, tmp_path: Path) -> None:
    store.create_table("t", config(retention=SMALL))
    Actor(store, "t", seed=9).play(500)
    done, errors = threading.Event(), []

    def work(step: Any) -> None:
        try:
            while not done.is_set():
                step()
        except Exception as error:
            errors.append(error)

    actors = [Actor(store, "t", seed=seed) for seed in (1, 2)]

    def learn() -> None:
        batch = store.sample("t", 64)
        store.update_priorities("t", batch.step_ids, np.random.default_rng(0).random(64))

    steps = [*(lambda actor=actor: actor.play(20) for actor in actors), learn]
    threads = [threading.Thread(target=work, args=(step,)) for step in steps]
    for thread in threads:
        thread.start()
    acknowledged, reports = [], []
    try:
        for number in range(6):
            acknowledged.append(store.stats("t").next_step)
            reports.append(store.snapshot("t", tmp_path / f"out-{number}", rebase=number % 3 == 2))
            while store.stats("t").next_step < acknowledged[-1] + 2000 and not errors:
                done.wait(0.01)
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert not errors
    everything = store.read_steps("t", 0, 10**9)
    for number, (least, report) in enumerate(zip(acknowledged, reports, strict=True)):
        whole(tmp_path / f"out-{number}")
        with rs.open(tmp_path / f"out-{number}") as copy:
            check(copy, "t")
            if number % 3 == 2:
                continue
            assert report.next_step >= least
            rows = copy.read_steps("t", 0, 10**9)
            both = max(int(rows["step_id"][0]), int(everything["step_id"][0]))
            for name, values in rows.items():  # a prefix of what the table has
                here, there = (
                    values[both - rows["step_id"][0] :],
                    everything[name][both - everything["step_id"][0] :][: report.next_step - both],
                )
                if report.next_step > both:
                    np.testing.assert_array_equal(here, there, err_msg=name)
            Actor(copy, "t", seed=50).play(50)
            check(copy, "t")


def test_both_go_on_and_neither_writes_into_what_they_share(store: Store, tmp_path: Path) -> None:
    actor = filled(store, retention=rs.Retention(20_000))
    store.snapshot("t", tmp_path / "out")
    shared = shared_files(tmp_path / "out")
    assert len(shared) > 20
    assert all("/replay/" not in str(path) and "__replaystore" not in str(path) for path in shared)
    before = store.stats("t").next_step
    with rs.open(tmp_path / "out") as copy:
        Actor(copy, "t", seed=3).play(1500)  # past several chunk files
        batch = copy.sample("t", 64)
        copy.update_priorities("t", batch.step_ids, np.ones(64))
        check(copy, "t")
        assert copy.stats("t").next_step > before + 5_500
    with rs.open(tmp_path / "out") as copy:  # and after closing, into the chunk file that it left half full
        Actor(copy, "t", seed=4).play(500)
    whole(tmp_path / "out")
    actor.play(1000)
    check(store, "t")
    for path, content in shared.items():
        assert not path.exists() or path.read_bytes() == content, path
    crashed = tmp_path / "crashed"  # recovery, which cuts and clears, does not touch them either
    subprocess.run(["cp", "-al", tmp_path / "out", crashed], check=True)
    for path in crashed.rglob("*"):
        if path.is_file() and ("/replay/" in str(path) or "__replaystore" in str(path)):
            content = path.read_bytes()
            path.unlink()
            path.write_bytes(content)
    page = bytearray((crashed / "t/__replaystore/state").read_bytes())
    page[16] = 0  # not closed in order
    (crashed / "t/__replaystore/state").write_bytes(page)
    shared = shared_files(crashed)
    with rs.open(crashed) as copy:
        check(copy, "t")
    for path, content in shared.items():
        assert path.read_bytes() == content, path


def test_a_linked_last_file_is_refused(store: Store, tmp_path: Path) -> None:
    """Somebody's ``cp -al`` shares also the file that is written next; new rows must not get into it."""
    filled(store, 100)
    store.close()
    tail = next((tmp_path / "data/t/steps/action").glob("c.*"))
    os.link(tail, tmp_path / "other-name")
    before = tail.read_bytes()
    with rs.open(tmp_path / "data") as again, pytest.raises(rs.StorageError, match=r"has 2 names \(hard links\)"):
        Actor(again, "t", seed=3).play(10)
    assert tail.read_bytes() == before


def test_the_snapshot_stays_whole_when_the_table_evicts(store: Store, tmp_path: Path) -> None:
    actor = filled(store, retention=SMALL)
    store.snapshot("t", tmp_path / "out")
    with rs.open(tmp_path / "out", mode="r") as copy:
        before = contents(copy, "t")
    assert shared_files(tmp_path / "out")
    actor.play(2500)
    table = store.table("t")
    table.wait_durable(table.next_step, 60)
    table.publish()
    assert store.stats("t").first_step > before["next_step"]
    assert not [path for path in shared_files(tmp_path / "out") if "/episodes/" not in str(path)], "the table's files are gone"
    store.drop_table("t")
    assert not shared_files(tmp_path / "out")
    with rs.open(tmp_path / "out") as copy:
        same(contents(copy, "t") | {"open_episodes": before["open_episodes"]}, before)
        check(copy, "t")


def test_files_stay_until_they_have_their_second_name(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    actor = filled(store, retention=SMALL)
    table = store.table("t")
    before = contents(store, "t")
    seen: list[str] = []

    def evict_all(name: str, *details: Any) -> None:
        if name == "link" and not seen:
            seen.append(name)
            actor.play(2500)
            table.wait_durable(table.next_step, 60)
            table.publish()
            assert store.stats("t").first_step > before["next_step"]

    monkeypatch.setattr(calls, "hook", evict_all)
    report = store.snapshot("t", tmp_path / "out")
    assert seen
    assert report.linked_bytes > report.copied_bytes
    with rs.open(tmp_path / "out") as copy:
        check(copy, "t")
        same(contents(copy, "t"), before)


def test_an_episode_goes_on_in_the_snapshot(store: Store, tmp_path: Path) -> None:
    """Whoever writes to a restored store may send what the snapshot already has, and goes on from there."""
    store.create_table("t", config())
    blocks: list[Any] = []
    table = store.table("t")
    original = table.append
    table.append = lambda block, timeout_s: (blocks.append(copying.deepcopy(block)), original(block, timeout_s))[1]  # type: ignore[method-assign]
    with store.writer("t", block_rows=5) as writer:
        writer.reset(np.zeros(5), seed=3)
        for t in range(20):
            writer.append(10 * t, t, t == 19, False, np.full(5, t + 1))
            if t == 11:
                writer.flush()
                store.snapshot("t", tmp_path / "out")
                store.snapshot("t", tmp_path / "renumbered", rebase=True)
    for name in ("out", "renumbered"):
        with rs.open(tmp_path / name) as copy:
            assert (copy.stats("t").next_step, copy.stats("t").open_episodes) == (12, 1)
            for block in blocks:
                copy.table("t").append(block, 1.0)
            episodes = copy.episodes("t")
            assert (episodes["length"].tolist(), episodes["return"].tolist(), episodes["seed"].tolist()) == ([20], [190.0], [3])
            check(copy, "t")


def test_numbered_anew(store: Store, tmp_path: Path) -> None:
    actor = filled(store, 200, retention=SMALL)
    Actor(store, "t", streams=1, seed=5).play(10, ends=0.0)  # an episode that goes on, but whose rows will be gone
    actor.play(2000)
    rows = store.read_steps("t", 0, 10**9, None) | store.read_steps("t", 0, 10**9, ["replay/priority", "replay/times_sampled"])
    first = store.stats("t").first_step
    assert first > 0
    previous = rows["meta/previous"]
    headless = rows["meta/episode"][(previous >= 0) & (previous < first)]
    kept = ~np.isin(rows["meta/episode"], headless)
    report = store.snapshot("t", tmp_path / "out", rebase=True)
    whole(tmp_path / "out")
    assert (report.first_step, report.next_step, report.left_out_rows) == (0, kept.sum(), (~kept).sum())
    assert report.left_out_rows > 0
    assert report.linked_bytes == 0
    with rs.open(tmp_path / "out") as copy:
        check(copy, "t")
        again = copy.read_steps("t", 0, 10**9, [name for name in rows if name not in ("step_id", "meta/previous")])
        for name in again.keys() - {"step_id"}:
            np.testing.assert_array_equal(again[name], rows[name][kept], err_msg=name)
        assert (copy.episodes("t")["first_step"] >= 0).all()
        assert (store.stats("t").open_episodes, copy.stats("t").open_episodes) == (5, 4)
        Actor(copy, "t", seed=3).play(100)
        check(copy, "t")


def test_nothing_to_number(store: Store, tmp_path: Path) -> None:
    store.create_table("t", config(retention=rs.Retention(50)))
    store.snapshot("t", tmp_path / "empty")
    store.snapshot("t", tmp_path / "empty-renumbered", rebase=True)
    for name in ("empty", "empty-renumbered"):
        whole(tmp_path / name)
        with rs.open(tmp_path / name) as copy:
            assert copy.stats("t").steps == 0
            Actor(copy, "t").play(100)
    Actor(store, "t", streams=1).play(200, ends=0.0)
    with pytest.raises(rs.InvalidArgument, match="none of its episodes still has all of its steps"):
        store.snapshot("t", tmp_path / "out", rebase=True)
    assert not [path for path in tmp_path.iterdir() if "out" in path.name]


def test_without_hard_links_everything_is_copied(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(store, retention=SMALL)

    def no_links(name: str, *details: Any) -> None:
        if name == "link":
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(calls, "hook", no_links)
    report = store.snapshot("t", tmp_path / "out")
    monkeypatch.setattr(calls, "hook", None)
    assert report.linked_bytes == 0
    assert "Invalid cross-device link" in report.note
    assert not shared_files(tmp_path / "out")
    with rs.open(tmp_path / "out") as copy:
        same(contents(copy, "t"), contents(store, "t"))


def test_of_a_table_altered_meanwhile(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Priorities under the old exponent and under the new one never mix."""
    filled(store)
    original, moments = Table.capture, []

    def capture(table: Table) -> Any:
        if len(moments) == 1:
            table.alter(selector=rs.Prioritized(0.2))
        moments.append(original(table))
        return moments[-1]

    monkeypatch.setattr(Table, "capture", capture)
    store.snapshot("t", tmp_path / "out")
    assert len(moments) == 3
    with rs.open(tmp_path / "out") as copy:
        assert copy.describe("t").config.selector == rs.Prioritized(0.2)
        same(contents(copy, "t"), contents(store, "t"))


def test_of_a_store_that_is_only_read(store: Store, tmp_path: Path) -> None:
    """Beside a live server, whose retention may take files away while they are linked."""
    actor = filled(store, retention=SMALL)
    table = store.table("t")
    table.wait_durable(table.next_step, 60)
    table.publish()
    before = contents(store, "t")
    with rs.open(tmp_path / "data", mode="r") as reader:
        actor.play(2500)
        table.wait_durable(table.next_step, 60)
        table.publish()
        report = reader.snapshot("t", tmp_path / "out")
    assert report.linked_bytes < report.copied_bytes
    with rs.open(tmp_path / "out") as copy:
        check(copy, "t")
        live = {"inserted_steps": 0, "sampled_items": 0}  # of a page that the server goes on changing
        same(contents(copy, "t") | live, before | live)
        assert copy.stats("t").open_episodes == 4


def test_open_episodes_are_found_again_in_the_rows(store: Store, tmp_path: Path) -> None:
    filled(store, 300)
    table = store.table("t")
    table.wait_durable(table.next_step, 60)
    table.publish()
    with rs.open(tmp_path / "data", mode="r") as reader:
        reader.snapshot("t", tmp_path / "out")
    whole(tmp_path / "out")
    with rs.open(tmp_path / "out") as copy:
        key = lambda row: row[0]  # noqa: E731
        assert sorted(copy.table("t")._book.to_json(), key=key) == sorted(table._book.to_json(), key=key)


def test_of_a_table_that_was_repaired(store: Store, tmp_path: Path) -> None:
    """What could not be brought back is lost in the copy too, and in nobody's way where rows are numbered anew."""
    filled(store, retention=rs.Retention(20_000))
    store.close()
    path = tmp_path / "data/t/steps/observation/c.2.0"
    content = bytearray(path.read_bytes())
    content[5000] ^= 1
    path.write_bytes(content)
    assert not repair(tmp_path / "data").refused
    with rs.open(tmp_path / "data") as mended:
        stats = mended.stats("t")
        kept = {}
        for name, options in {"out": {}, "renumbered": {"rebase": True}, "set": {"episodes": True}}.items():
            kept[name] = mended.snapshot("t", tmp_path / name, **options)
        mended.fork("t", "u")
        rows = mended.read_steps("t", 0, 10**9, ["observation", "meta/kind"])
    lost = int((rows["meta/kind"] > 1).sum())
    assert lost > 0
    assert kept["out"].next_step == stats.next_step
    assert 0 < kept["renumbered"].next_step < stats.next_step - lost
    assert 0 < kept["set"].episodes < stats.episodes
    assert kept["renumbered"].episodes == kept["set"].episodes
    for name in ("data", "out", "renumbered"):
        whole(tmp_path / name)
    with rs.open(tmp_path / "renumbered") as copy:
        check(copy, "t")


def test_checksums_go_along(store: Store, tmp_path: Path) -> None:
    filled(store, retention=SMALL)
    store.close()
    with rs.open(tmp_path / "data") as again:
        Actor(again, "t", seed=3).play(300)
        assert again.stats("t").first_step > 0
        again.snapshot("t", tmp_path / "out")
        again.fork("t", "u", retention=rs.Retention(2000))
        layouts = [*again.table("t").capture().step_layouts, *again.table("t").capture().episode_layouts]
        piece, seen = np.empty(1 << 16, np.uint8), 0
        for folder in (tmp_path / "out/t", tmp_path / "data/u"):
            taken = read_checksums(folder)
            assert taken is not None
            for layout in layouts:
                for chunk, (crc, rows) in taken.get(layout.path, {}).items():
                    path = folder / layout.path / layout.chunk_name(chunk)
                    assert crc_of_file(path, 0, rows * layout.row_bytes, 0, piece) == crc, path
                    seen += 1
        assert seen > 20


def test_names_that_are_taken(store: Store, tmp_path: Path) -> None:
    filled(store, 50)
    store.snapshot("t", tmp_path / "out")
    with pytest.raises(AlreadyExists, match="out exists: choose another name"):
        store.snapshot("t", tmp_path / "out")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(AlreadyExists):
        store.snapshot("t", tmp_path / "file", episodes=True)
    assert (tmp_path / "file").read_text() == "mine"
    with pytest.raises(NotFound, match="there is no table 'u'"):
        store.snapshot("u", tmp_path / "other")
    with pytest.raises(rs.InvalidArgument, match="closing_rows=True belongs to episodes=True"):
        store.snapshot("t", tmp_path / "other", closing_rows=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "file", "out"]


def test_two_at_once_under_one_name(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(store, 50)

    def inside(name: str, *details: Any) -> None:
        if name == "link" or (name == "open" and "replay" in str(details[0])):
            monkeypatch.setattr(calls, "hook", None)
            with pytest.raises(rs.errors.Locked, match="is being made by somebody else"):
                store.snapshot("t", tmp_path / "out")
            inner.append(True)

    inner: list[bool] = []
    monkeypatch.setattr(calls, "hook", inside)
    store.snapshot("t", tmp_path / "out")
    assert inner
    with rs.open(tmp_path / "out") as copy:
        check(copy, "t")


def test_rows_that_never_become_durable_are_no_snapshot(tmp_path: Path) -> None:
    """The table could be cut back into files that the snapshot shares: so there is none."""
    with rs.open(tmp_path / "data", commit_interval_s=3600) as store:
        filled(store, 50)
        store.table("t").request_commit = lambda: None
        with pytest.raises(NotReady, match="to be on stable storage"):
            store.snapshot("t", tmp_path / "out", timeout_s=0.05)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


KILLED = """
import os, sys
import replaystore as rs
from replaystore.storage import calls

number, at = 0, sys.argv[3]

def hook(name, *details):
    global number
    number += 1
    last = name == "rename" and str(details[1]) == sys.argv[2]
    if str(number) == at or (last and at == "rename"):
        os._exit(9)

store = rs.open(sys.argv[1])
calls.hook = hook
store.snapshot("t", sys.argv[2], **eval(sys.argv[4]))
calls.hook = None
store.close()
"""


@pytest.mark.parametrize(
    ("at", "options"),
    [
        ("1", {}),
        ("40", {}),
        ("rename", {}),
        ("140", {"rebase": True}),
        ("60", {"episodes": True}),
        ("rename", {"episodes": True}),
        ("-", {}),
    ],
    ids=["at once", "early", "at the last", "renumbering", "dataset", "dataset, at the last", "not at all"],
)
def test_killed_on_the_way(tmp_path: Path, at: str, options: dict[str, bool]) -> None:
    with rs.open(tmp_path / "data") as store:
        filled(store)
        store.table("t").wait_durable(store.table("t").next_step, 60)
        before = contents(store, "t")
    out = tmp_path / "out"
    command = [sys.executable, "-c", KILLED, tmp_path / "data", out, at, repr(options)]
    code = subprocess.run(command, check=False, timeout=60).returncode
    assert code == (0 if at == "-" else 9)
    assert out.exists() == (code == 0)
    with rs.open(tmp_path / "data") as store:
        check(store, "t")
        same({**contents(store, "t"), "open_episodes": 4}, {**before, "open_episodes": 4})
        if code:
            store.snapshot("t", out)  # what was left half is in nobody's way
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "out"]
    with rs.open(out) as copy:
        check(copy, "t")
