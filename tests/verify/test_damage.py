"""Every kind of damage is found by `verify`, with the file named, and mended by `repair` without touching a good row."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import replaystore as rs
from replaystore.engine.checking.inspection import TableInspection
from replaystore.engine.checking.repair import repair
from replaystore.engine.checking.verify import verify
from tests.verify.conftest import config, content, edit_json, fill, flip, set_value, swap

T = "t"
Damage = Callable[[Path], object]
FIRST, STOP = 2997, 11997


def test_a_store_without_damage_has_no_findings(closed: Path) -> None:
    before = content(closed)
    report = verify(closed)
    assert report.findings == []
    assert report.tables == ["other", "t"]
    assert report.rows > STOP - FIRST
    assert content(closed) == before, "verify changed something"


def test_nor_has_one_whose_process_was_killed(killed: Path) -> None:
    before = content(killed)
    assert verify(killed).findings == []
    assert content(killed) == before
    with rs.open(killed):
        pass
    assert verify(killed).findings == []


def lines(path: Path) -> list[str]:
    return [f"{finding.kind} {finding.file}" for finding in verify(path).findings]


LOSSLESS: dict[str, tuple[Damage, str]] = {
    "two chunk files swapped": (
        lambda t: swap(t / "steps/observation/c.5.0", t / "steps/observation/c.6.0"),
        "checksum t/steps/observation/c.5.0",
    ),
    "array document edited": (
        lambda t: edit_json(t / "meta/kind/zarr.json", lambda d: d["shape"].__setitem__(0, 7)),
        "metadata t/meta/kind/zarr.json",
    ),
    "array document deleted": (lambda t: (t / "steps/reward/zarr.json").unlink(), "metadata t/steps/reward/zarr.json"),
    "group document deleted": (lambda t: (t / "steps/zarr.json").unlink(), "metadata t/steps/zarr.json"),
    "group document is no JSON": (lambda t: (t / "replay/zarr.json").write_text("{"), "metadata t/replay/zarr.json"),
    "table document deleted": (lambda t: (t / "zarr.json").unlink(), "metadata t/zarr.json"),
    "table document's length edited": (
        lambda t: edit_json(t / "zarr.json", lambda d: d["attributes"].update(next_step=STOP + 5)),
        "metadata t/zarr.json",
    ),
    "chunk sizes edited": (
        lambda t: edit_json(t / "zarr.json", lambda d: d["attributes"]["rows_per_chunk"].update({"meta/kind": 8192})),
        "metadata t/zarr.json",
    ),
    "configuration edited": (
        lambda t: edit_json(t / "zarr.json", lambda d: d["attributes"]["table_config"]["retention"].update(max_steps=77)),
        "metadata t/zarr.json",
    ),
    "store document deleted": (lambda t: (t.parent / "zarr.json").unlink(), "metadata zarr.json"),
    "store document forgets a table": (
        lambda t: edit_json(t.parent / "zarr.json", lambda d: d["attributes"].update(tables=["other"])),
        "metadata zarr.json",
    ),
    "forward link broken": (lambda t: set_value(t / "replay/successor/c.5", "i4", 3, 7), "live t/replay/successor/c.5"),
    "forward link cut": (lambda t: set_value(t / "replay/successor/c.5", "i4", slice(0, 9), 0), "live t/replay/successor/c.5"),
    "negative priority": (lambda t: set_value(t / "replay/priority/c.6", "f4", 10, -1.0), "live t/replay/priority/c.6"),
    "priority not a number": (lambda t: set_value(t / "replay/priority/c.6", "f4", 10, np.nan), "live t/replay/priority/c.6"),
    "priorities deleted": (lambda t: (t / "replay/priority/c.6").unlink(), "live t/replay/priority/c.6"),
    "mark of removal that is none": (lambda t: set_value(t / "replay/removed/c.1", "u1", 9, 7), "live t/replay/removed/c.1"),
    "marks of removal truncated": (lambda t: (t / "replay/removed/c.1").write_bytes(b"1"), "live t/replay/removed/c.1"),
    "links truncated": (lambda t: (t / "replay/successor/c.6").write_bytes(b"1234"), "live t/replay/successor/c.6"),
    "stray file": (lambda t: (t / "steps/notes.txt").write_text("hello"), "stray t/steps/notes.txt"),
    "stray file among chunks": (lambda t: (t / "steps/reward/c.5.0").write_text("hello"), "stray t/steps/reward/c.5.0"),
    "stray folder": (lambda t: (t / "extra").mkdir(), "stray t/extra"),
    "chunk file beyond the end, too long": (lambda t: (t / "meta/kind/c.9").write_bytes(bytes(5000)), "stray t/meta/kind/c.9"),
    "journal deleted": (lambda t: shutil.rmtree(t / "__replaystore/journal"), "journal t/__replaystore/journal"),
    "journal torn": (
        lambda t: [path.write_bytes(path.read_bytes()[:-3]) for path in (t / "__replaystore/journal").glob("*.log")],
        "journal t/__replaystore/journal",
    ),
    "journal with rubbish behind it": (
        lambda t: [path.write_bytes(path.read_bytes() + b"rubbish") for path in (t / "__replaystore/journal").glob("*.log")],
        "journal t/__replaystore/journal/",
    ),
    "state page deleted": (lambda t: (t / "__replaystore/state").unlink(), "state t/__replaystore/state"),
    "state page cut": (lambda t: (t / "__replaystore/state").write_bytes(b"RPLSTATE"), "state t/__replaystore/state"),
    "state page with another magic": (lambda t: flip(t / "__replaystore/state", 1), "state t/__replaystore/state"),
    "state page with a negative counter": (lambda t: set_value(t / "__replaystore/state", "i8", 7, -4), "state t/__replaystore/state"),
    "checksums damaged": (lambda t: flip(t / "__replaystore/checksums", 100), "metadata t/__replaystore/checksums"),
    "copy of the attributes damaged": (
        lambda t: (t / "__replaystore/attributes.json").write_text("?"),
        "metadata t/__replaystore/attributes.json",
    ),
    "return of an episode edited": (lambda t: set_value(t / "episodes/return/c.0", "f8", 300, 1e9), "episodes t/episodes/return/c.0"),
    "length of an episode edited": (lambda t: set_value(t / "episodes/length/c.0", "i8", 300, 1), "episodes t/episodes/length/c.0"),
    "last step of an episode edited": (
        lambda t: set_value(t / "episodes/last_step/c.0", "i8", 300, 1),
        "episodes t/episodes/last_step/c.0",
    ),
    "episodes deleted": (lambda t: (t / "episodes/length/c.0").unlink(), "episodes t/episodes/length/c.0"),
}
"""What, and the finding that there must be at least."""

LOSSY: dict[str, tuple[Damage, str, tuple[int, int]]] = {
    "byte flipped in a full chunk": (
        lambda t: flip(t / "steps/observation/c.5.0", 4000),
        "checksum t/steps/observation/c.5.0",
        (5120, 6144),
    ),
    "byte flipped in the newest chunk": (
        lambda t: flip(t / "steps/observation/c.11.0", 40),
        "checksum t/steps/observation/c.11.0",
        (11264, STOP),
    ),
    "chunk truncated": (
        lambda t: (t / "steps/action/c.12").write_bytes(b"\0" * 100),
        "chunk t/steps/action/c.12",
        (6144, 6656),
    ),
    "chunk deleted": (lambda t: (t / "steps/reward/c.6").unlink(), "chunk t/steps/reward/c.6", (6144, 7168)),
    "backward link broken": (lambda t: set_value(t / "meta/previous/c.12", "i8", 9, 6100), "checksum t/meta/previous/c.12", (6144, 6656)),
    "ends deleted": (lambda t: (t / "steps/terminated/c.1").unlink(), "chunk t/steps/terminated/c.1", (4096, 8192)),
    "kinds deleted": (lambda t: (t / "meta/kind/c.1").unlink(), "chunk t/meta/kind/c.1", (4096, 8192)),
    "episode numbers edited": (lambda t: set_value(t / "meta/episode/c.12", "i8", 9, -3), "checksum t/meta/episode/c.12", (6144, 6656)),
    "oldest chunk damaged": (lambda t: flip(t / "meta/previous/c.5", 4000), "checksum t/meta/previous/c.5", (FIRST, 3072)),
}


def rows_of(path: Path) -> dict[str, np.ndarray]:
    with rs.open(path, mode="r") as store:
        return store.read_steps(T, 0, 10**9)


@pytest.mark.parametrize("name", LOSSLESS)
def test_mended_without_loss(name: str, closed: Path) -> None:
    damage, expected = LOSSLESS[name]
    before, episodes = rows_of(closed), None
    with rs.open(closed, mode="r") as store:
        episodes = store.episodes(T)
    damage(closed / T)
    damaged = content(closed)
    found = lines(closed)
    assert any(line.startswith(expected) for line in found), found
    planned = repair(closed, dry_run=True)
    assert planned.actions
    assert not planned.refused
    assert content(closed) == damaged, "a dry run changed something"
    done = repair(closed)
    assert done.actions
    assert not done.refused, done.refused
    assert lines(closed) == []
    after = rows_of(closed)
    for column, values in before.items():
        np.testing.assert_array_equal(after[column], values, err_msg=column)
    with rs.open(closed) as store:
        repaired = store.episodes(T)
        at = np.ones(len(episodes["episode"]), bool)
        if name.startswith(("episodes", "return", "length", "last")):  # those whose rows are gone cannot be derived
            at = episodes["first_step"] >= FIRST
        for column, values in episodes.items():
            np.testing.assert_array_equal(repaired[column][at], values[at], err_msg=column)
        fill(store, T, 20, seed=9)
    assert repair(closed).refused == []
    assert verify(closed).findings == []


@pytest.mark.parametrize("name", LOSSY)
def test_what_cannot_be_mended_is_set_aside(name: str, closed: Path) -> None:
    damage, expected, (begin, end) = LOSSY[name]
    before = rows_of(closed)
    damage(closed / T)
    found = lines(closed)
    assert expected in found, found
    done = repair(closed)
    assert any("unsampleable" in action.what for action in done.actions)
    assert not done.refused, done.refused
    assert lines(closed) == []
    assert [list(pair) for pair in json.loads((closed / T / "__replaystore/quarantine/lost.json").read_text())["steps"]] == [[begin, end]]
    assert not repair(closed, dry_run=True).actions, "a second repair finds more to do"

    after = rows_of(closed)
    good = (before["step_id"] < begin) | (before["step_id"] >= end)
    for column, values in before.items():
        cut = good & ~((before["meta/previous"] >= begin) & (before["meta/previous"] < end)) if column == "meta/previous" else good
        np.testing.assert_array_equal(after[column][cut], values[cut], err_msg=column)
    lost = ~good
    assert (after["meta/kind"][lost] == 2).all()
    with rs.open(closed) as store:
        view = rs.Transition(n_step=5, frame_stack=4)
        stats = store.stats(T)
        batch = store.sample(T, 4 * stats.anchors, view=view, selector=rs.Uniform(), seed=3)
        assert not ((batch.step_ids >= begin) & (batch.step_ids < end)).any()
        assert len(np.unique(batch.step_ids)) > stats.anchors // 2
        # no item shows a row that was lost: no frame of real data is all zeros
        assert np.abs(batch["next_observation"]).max(axis=-1).min() > 0
        assert np.abs(batch["observation"]).max(axis=-1).min() > 0
        fill(store, T, 200, seed=9)
    assert verify(closed).findings == []


def test_everything_at_once(closed: Path) -> None:
    t = closed / T
    flip(t / "steps/observation/c.8.0", 77)
    (t / "meta/actor/c.7").unlink()
    (t / "zarr.json").unlink()
    (t / "__replaystore/state").unlink()
    shutil.rmtree(t / "__replaystore/journal")
    (t / "episodes/return/c.0").unlink()
    set_value(t / "replay/successor/c.5", "i4", 3, 7)
    (closed / "zarr.json").unlink()
    assert {line.split()[0] for line in lines(closed)} == {"checksum", "chunk", "episodes", "journal", "metadata", "state"}
    assert repair(closed).refused == []
    assert verify(closed).findings == []
    with rs.open(closed) as store:
        fill(store, T, 100, seed=4)
    assert verify(closed).findings == []


def test_a_batch_whose_rows_differ_is_found_without_checksums(journaled: Path) -> None:
    """A killed store: the journal knows the newest batches."""
    flip(journaled / T / "steps/observation/c.0.0", 12 * 700)
    found = verify(journaled).findings
    assert [finding.kind for finding in found] == ["rows"]
    assert found[0].rows is not None
    begin, end = found[0].rows
    assert begin <= 700 < end
    assert repair(journaled).refused == []
    assert verify(journaled).findings == []
    with rs.open(journaled, mode="r") as store:
        kinds = store.read_steps(T, 0, 10**6, "meta/kind")["meta/kind"]
        assert np.flatnonzero(kinds == 2).tolist() == list(range(begin, end))


def test_a_durable_row_that_the_journal_lost_is_found_and_kept(journaled: Path) -> None:
    for path in (journaled / T / "__replaystore/journal").glob("*.log"):
        path.write_bytes(path.read_bytes()[:-500])
    with rs.open(journaled, mode="r") as store:
        before = store.read_steps(T, 0, 10**6)
    assert any(finding.kind == "journal" and "durable" in finding.expected for finding in verify(journaled).findings)
    assert repair(journaled).refused == []
    assert verify(journaled).findings == []
    with rs.open(journaled) as store:
        after = store.read_steps(T, 0, 10**6)
        for column, values in before.items():
            np.testing.assert_array_equal(after[column], values, err_msg=column)
        assert store.stats(T).open_episodes > 0


def test_a_torn_tail_of_a_killed_store_is_no_damage(journaled: Path) -> None:
    state = journaled / T / "__replaystore/state"
    rows = np.fromfile(state, "i8", 5)
    set_value(state, "i8", 3, rows[3] - 48)  # as if the newest batches had not been durable yet
    set_value(state, "i8", 4, rows[4] - 3)
    flip(journaled / T / "steps/reward/c.0", 4 * (int(rows[3]) - 20))
    report = verify(journaled)
    assert report.findings == []
    assert any("torn" in note for note in report.notes)


def test_without_any_configuration_it_refuses(closed: Path) -> None:
    (closed / T / "zarr.json").unlink()
    (closed / T / "__replaystore/attributes.json").unlink()
    (closed / "zarr.json").unlink()
    refused = repair(closed).refused
    assert len(refused) == 1
    assert "nothing says what the table 't' holds" in refused[0].what


def test_what_is_left_of_a_table_being_made_is_no_damage(closed: Path) -> None:
    with rs.open(closed) as store:
        store.create_table("half", config())
    (closed / "half/zarr.json").unlink()
    (closed / "half/__replaystore/attributes.json").unlink()
    edit_json(closed / "zarr.json", lambda document: document["attributes"].update(tables=["other", "t"]))
    report = verify(closed)
    assert report.findings == []
    assert any("half is what a crash left" in note for note in report.notes)
    assert repair(closed).refused == []
    with rs.open(closed) as store:
        assert store.tables() == ["other", "t"]
    assert verify(closed).notes == []


def test_a_newer_format_is_left_alone(closed: Path) -> None:
    edit_json(closed / T / "zarr.json", lambda document: document["attributes"].update(format_version=2))
    before = (closed / T / "zarr.json").read_bytes()
    refused = repair(closed).refused
    assert "use a newer one" in refused[0].what
    assert (closed / T / "zarr.json").read_bytes() == before


def test_a_snapshots_files_are_not_changed(closed: Path, tmp_path: Path) -> None:
    """A repair cuts links in place, and sealed files may be shared by hard links."""
    with rs.open(closed) as store:
        store.snapshot(T, tmp_path / "copy")
    before = content(tmp_path / "copy")
    (closed / T / "steps/reward/c.6").unlink()
    repair(closed)
    assert content(tmp_path / "copy") == before
    assert verify(tmp_path / "copy").findings == []


def test_a_store_in_use_is_not_repaired_but_can_be_verified(closed: Path) -> None:
    with rs.open(closed) as store:
        fill(store, T, 2000, seed=3)
        report = verify(closed)
        assert report.live
        assert report.findings == []
        with pytest.raises(rs.Locked):
            repair(closed)
        with pytest.raises(rs.Locked):
            repair(closed, dry_run=True)
        flip(closed / T / "steps/observation/c.8.0", 9)
        assert [finding.file for finding in verify(closed).findings] == ["t/steps/observation/c.8.0"]


def test_files_made_while_a_live_store_is_verified_are_no_finding(closed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The writer makes a chunk's file between two looks at a folder."""
    with rs.open(closed):
        inspection = TableInspection(closed, T, live=True)
        strays = inspection.strays

        def later(expected: dict[str, set[str]]) -> Iterator[str]:
            for name in ("steps/observation/c.99.0", "meta/kind/c.99", "meta/kind/c.99.0"):
                (closed / T / name).write_bytes(b"")
            return strays(expected)

        monkeypatch.setattr(inspection, "strays", later)
        inspection.check_files()
        assert [finding.file for finding in inspection.findings] == ["t/meta/kind/c.99.0"]


def test_documents_published_while_a_live_store_is_verified_are_no_finding(closed: Path) -> None:
    """The writer publishes again between the reading of the attributes and the comparison of the documents."""
    published = closed / T / "zarr.json"
    with rs.open(closed) as store:
        inspection = TableInspection(closed, T, live=True)
        before = published.read_bytes()
        fill(store, T, 2000, seed=3)
        deadline = time.monotonic() + 60
        while published.read_bytes() == before and time.monotonic() < deadline:
            time.sleep(0.05)
        assert published.read_bytes() != before
        inspection.check_documents()
        assert inspection.findings == []
        edit_json(published, lambda document: document["consolidated_metadata"]["metadata"].pop("steps/reward"))
        inspection.check_documents()
        assert [finding.file for finding in inspection.findings] == ["t/zarr.json"]
