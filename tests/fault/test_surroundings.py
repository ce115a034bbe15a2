"""What others do to a store: files cut, removed or replaced; folders not to be written; a second process; no locks; a lost state page."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

import replaystore as rs
from replaystore.errors import Corruption, Locked, PermissionDenied, ReplayStoreError, StorageError
from replaystore.storage import calls
from tests.crash.script import Script, abandon, block_of


@pytest.fixture
def script(tmp_path: Path) -> Iterator[Script]:
    """A life with some rows on disk, at work."""
    made = Script(tmp_path / "data")
    for step in (made.open, made.create, made.write, made.write, made.commit, made.publish):
        step()
    yield made
    if made.store is not None:
        abandon(made.store)


def fails(code: int, *names: str) -> Callable[..., None]:
    """A hook under which the calls `names` fail."""

    def hook(name: str, *details: Any) -> None:
        if name in names:
            raise OSError(code, os.strerror(code))

    return hook


def write_past_a_chunk(script: Script) -> None:
    for _ in range(10):
        script.write()


def write_durably(script: Script) -> None:
    assert script.store is not None
    script.write()
    table = script.store.table("t")
    table.wait_durable(table.next_step, 5)


def replace(path: Path) -> None:
    other = path.with_name("other")
    shutil.copy(path, other)
    os.replace(other, path)


@pytest.mark.parametrize(
    ("change", "text"),
    [(Path.unlink, "was removed by something outside"), (replace, "was replaced by something outside")],
    ids=["removed", "replaced"],
)
@pytest.mark.parametrize("column", ["steps/observation/c.0.0", "meta/previous/c.0", "replay/priority/c.0", "episodes/length/c.0"])
def test_a_chunk_file_that_is_not_ours_any_more(script: Script, change: Callable[[Path], None], text: str, column: str) -> None:
    """What is mapped is served, but nothing is acknowledged that the next opening would not find."""
    assert script.store is not None
    table, path = script.store.table("t"), script.path / "t" / column
    if column.startswith("episodes"):
        script.write()
        script.commit()
    change(path)
    with pytest.raises(Corruption, match=text) as caught:
        write_durably(script)
    assert str(path) in str(caught.value)
    assert "restore the file" in str(caught.value)
    with pytest.raises(Corruption, match="refuses inserts since"):
        table.append(block_of([(9, 0, 0)]), 0)
    batch = script.store.sample("t", 16, timeout_s=0)
    np.testing.assert_array_equal(batch["action"] % 1000, batch["observation"][:, 1].astype(int))


def test_a_chunk_file_that_was_cut(script: Script) -> None:
    """Touching the missing part would kill the process: nothing is read any more."""
    assert script.store is not None
    path = script.path / "t/steps/action/c.0"
    size = path.stat().st_size
    os.truncate(path, size // 2)
    script.store.table("t").commit()
    for call in (lambda: script.store.sample("t", 4, timeout_s=0), lambda: script.store.read_steps("t", 0, 10), script.write):  # type: ignore[union-attr]
        with pytest.raises(Corruption, match=r"steps/action/c\.0 was set to 2048 bytes by something outside replaystore: .* are lost"):
            call()
    script.die()
    with pytest.raises(Corruption, match=r"c\.0 has 2048 bytes instead of 4096"):
        rs.open(script.path)
    os.truncate(path, size)
    with rs.open(script.path) as store:
        assert store.stats("t").next_step == script.oracle.acknowledged


def test_a_zarr_tool_that_writes_into_a_live_store(script: Script) -> None:
    assert script.store is not None
    zarr.open_array(script.path / "t/steps/reward", mode="r+")[:] = 7.0
    script.write()
    script.store.table("t").commit()
    with pytest.raises(Corruption, match=r"reward/c\.0 was replaced"):
        script.write()
    assert script.store.read_steps("t", 0, 6, ["reward"])["reward"].tolist() == [1, 2, 3, 4, 5, 6]


def test_a_missing_file_below_the_durable_rows_is_named(script: Script) -> None:
    script.die()
    (script.path / "t/meta/kind/c.0").unlink()
    with pytest.raises(StorageError, match=r"opening .*/t/meta/kind/c\.0"):
        rs.open(script.path)
    with pytest.raises(StorageError, match=r"opening .*/t/meta/kind/c\.0"):  # and not: Locked
        rs.open(script.path)


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.EPERM])
def test_a_folder_that_may_not_be_written(script: Script, code: int) -> None:
    script.close()
    calls.hook = fails(code, "open", "mkdir")
    with pytest.raises(PermissionDenied, match=r"check owner and mode, or open the store with mode='r'"):
        rs.open(script.path)
    with pytest.raises(PermissionDenied, match=r"while creating .*new"):
        rs.open(script.path.parent / "new")
    calls.hook = None
    with rs.open(script.path, mode="r") as reader:
        assert len(reader.sample("t", 4)) == 4


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_really_may_not_be_written(script: Script) -> None:
    script.close()
    script.path.chmod(0o555)
    (script.path / "__replaystore/LOCK").chmod(0o444)
    try:
        with pytest.raises(PermissionDenied, match="mode='r'"):
            rs.open(script.path)
        with rs.open(script.path, mode="r") as reader:
            assert len(reader.sample("t", 4)) == 4
    finally:
        script.path.chmod(0o755)


def test_permission_lost_on_the_way(script: Script) -> None:
    """New files are refused, so inserts fail at the next chunk; nothing is acknowledged; with the permission back they go on."""
    assert script.store is not None
    calls.hook = fails(errno.EACCES, "open")
    with pytest.raises(PermissionDenied, match="not allowed while creating"):
        write_past_a_chunk(script)
    state = list(script._streams[0]), script.oracle.acknowledged
    assert len(script.store.sample("t", 8, timeout_s=0)) == 8
    calls.hook = None
    table = script.store.table("t")
    made = script.oracle.rows[state[1] :]
    assert table.append(block_of(made), 0).next_step == state[1] + len(made)


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks(script: Script, code: int) -> None:
    script.close()
    calls.hook = fails(code, "flock")
    with pytest.raises(StorageError, match=r"LOCK cannot be locked \(.*\): a store must lie on a file system with locks"):
        rs.open(script.path)
    calls.hook = None
    with rs.open(script.path) as store:
        assert store.tables() == ["t"]


def test_a_second_process_is_refused_and_a_dead_one_is_not_in_the_way(tmp_path: Path) -> None:
    program = "import sys, replaystore as rs; store = rs.open(sys.argv[1]); print('open', flush=True); sys.stdin.read()"
    process = subprocess.Popen([sys.executable, "-c", program, tmp_path / "a"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == "open\n"
    with pytest.raises(Locked, match=f"is open for writing in process {process.pid}: stop that one, connect to it"):
        rs.open(tmp_path / "a")
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdin.close()
    process.stdout.close()
    assert (tmp_path / "a/__replaystore/LOCK").read_text().strip() == f"process {process.pid}"
    rs.open(tmp_path / "a").close()


def test_a_removed_state_page_costs_only_counters(script: Script) -> None:
    for step in [script.write] * 14 + [script.commit, script.publish, script.commit, script.publish, script.write, script.die]:
        step()
    assert not (script.path / "t/meta/previous/c.0").exists(), "retention must have come past a file"
    (script.path / "t/__replaystore/state").unlink()
    script.open()
    assert script.store is not None
    assert script.store.stats("t").first_step > 0
    script.oracle.check(script.store)


@pytest.mark.parametrize("damage", [b"", b"\x00" * 4096, b"\xff" * 4096, b"short"], ids=["empty", "zeros", "ones", "short"])
def test_a_damaged_state_page(script: Script, damage: bytes) -> None:
    """Nothing in it is as if it were not there; garbage is refused with a remedy that works."""
    script.die()
    page = script.path / "t/__replaystore/state"
    page.write_bytes(damage)
    if damage.strip(b"\0"):
        with pytest.raises(Corruption, match="remove it, its content is rebuilt but for counters"):
            rs.open(script.path)
        page.unlink()
    script.open()
    assert script.store is not None
    script.oracle.check(script.store)


def test_a_fault_of_the_commit_thread_reaches_those_who_wait(tmp_path: Path) -> None:
    """With durability="fsync" an append is acknowledged after the sync: its failure is the append's."""
    with rs.open(tmp_path / "a", durability="fsync", commit_interval_s=3600) as store:
        script = Script(tmp_path / "a")
        script.store = store
        script.create()
        script.write()
        calls.hook = fails(errno.EIO, "fdatasync")
        with pytest.raises(StorageError, match="refuses inserts since: Input/output error while"):
            script.write()
        calls.hook = None
    with rs.open(tmp_path / "a") as store:
        script.oracle.check(store)


def test_only_our_errors_leave_the_store(script: Script) -> None:
    """Too many open files, too little memory for maps: they are named as well."""
    assert script.store is not None
    calls.hook = fails(errno.EMFILE, "open")
    with pytest.raises(ReplayStoreError, match="Too many open files while creating"):
        write_past_a_chunk(script)


def test_a_damaged_journal_is_not_taken_for_the_truth(script: Script) -> None:
    """Rows that were durable are not given up because a record cannot be read: that is damage, not a crash."""
    for step in (script.write, script.commit, script.die):
        step()
    (journal,) = (script.path / "t/__replaystore/journal").iterdir()
    data = bytearray(journal.read_bytes())
    data[-20] ^= 1
    journal.write_bytes(data)
    with pytest.raises(Corruption, match=r"rows below 360 were durable, but its journal ends at \d+: .*'replaystore repair'"):
        rs.open(script.path)
    data[-20] ^= 1
    journal.write_bytes(data)
    script.open()
    assert script.store is not None
    script.oracle.check(script.store)


def test_what_crashes_leave_lying_about_is_swept_up(script: Script) -> None:
    """Files that were to go, files for rows that never came, a table that was never whole; and nothing that is not ours."""
    script.die()
    kind = script.path / "t/meta/kind"
    (kind / "c.1").write_bytes(b"")
    (kind / "c.notes").write_bytes(b"mine")
    (script.path / "half/__replaystore/journal").mkdir(parents=True)
    (script.path / "other").mkdir()
    script.open()
    assert not (kind / "c.1").exists()
    assert (kind / "c.notes").read_bytes() == b"mine"
    assert not (script.path / "half").exists()
    assert (script.path / "other").exists()
    assert script.store is not None
    script.oracle.check(script.store)


def test_a_table_that_lost_its_metadata_keeps_its_rows(script: Script) -> None:
    script.close()
    (script.path / "t/zarr.json").rename(script.path / "kept")
    with rs.open(script.path) as store:
        assert store.tables() == []
    (script.path / "kept").rename(script.path / "t/zarr.json")
    script.open()
    assert script.store is not None
    script.oracle.check(script.store)
