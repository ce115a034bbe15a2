"""`verify`: is every promise of docs/FORMAT.md kept by the files of a store? Changes nothing, needs no server to stop, opens no table.

While another process has the store open for writing, what is published is checked and no more. Otherwise a shared lock keeps writers away
until the check is over.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from replaystore.engine.checking.inspection import TableInspection
from replaystore.engine.checking.table_on_disk import Finding
from replaystore.errors import NotFound, ReplayStoreError
from replaystore.storage.files import read_json
from replaystore.storage.layout import PRIVATE_FOLDER
from replaystore.storage.zarr_metadata import ATTRIBUTES_FILE

Progress = Callable[[str, int, int], None]
"""Told the table, bytes read so far and bytes to read."""


@dataclass(slots=True)
class VerifyReport:
    """What `verify` found."""

    path: Path
    live: bool
    """Whether another process had the store open for writing."""
    tables: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    """Promises that are not kept."""
    notes: list[str] = field(default_factory=list)
    """What is fine but worth knowing."""
    rows: int = 0
    bytes_read: int = 0
    seconds: float = 0.0


def verify(path: str | Path, table: str | None = None, progress: Progress | None = None) -> VerifyReport:
    """Checks a store, or one table of it.

    Raises:
        NotFound: there is no store at `path`, or no such table.
    """
    root = Path(path)
    started = time.monotonic()
    check_store(root, table)
    with reading_lock(root) as live:
        report = VerifyReport(root, live)
        if table is None:
            _check_root(report)
        for name in table_names(root) if table is None else [table]:
            if is_unfinished(root / name):
                report.notes.append(f"{name} is what a crash left of a table being made; it never held anything, and may be removed")
                continue
            report.tables.append(name)
            try:
                inspection = TableInspection(root, name, live=live)
                inspection.check(None if progress is None else lambda done, total, name=name: progress(name, done, total))  # type: ignore[misc]
            except ReplayStoreError as error:
                report.findings.append(Finding("table", name, name, None, "a table that can be read", str(error), "see the message"))
                continue
            report.findings += inspection.findings
            report.notes += inspection.notes
            report.rows += max(0, inspection.stop - inspection.first)
            report.bytes_read += inspection.bytes_read
    report.seconds = time.monotonic() - started
    return report


def check_store(root: Path, table: str | None) -> None:
    """Raises NotFound unless `root` looks like a store and has the table."""
    if not (root / PRIVATE_FOLDER).is_dir() and not (root / "zarr.json").exists():
        raise NotFound(f"{root} is no replaystore store: it has neither zarr.json nor {PRIVATE_FOLDER}")
    check_no_other(root)
    if table is not None and table not in table_names(root):
        raise NotFound(f"there is no table {table!r} in {root}; tables: {', '.join(table_names(root)) or 'none'}")


def check_no_other(root: Path) -> None:
    """Raises NotFound where `root` is a Zarr group that is none of ours: there is nothing to mend, and nothing to write over."""
    if (root / PRIVATE_FOLDER).is_dir() or not (root / "zarr.json").exists() or table_names(root):
        return
    try:
        document = read_json(root / "zarr.json")
    except ReplayStoreError:
        return
    attributes = document.get("attributes") if isinstance(document, dict) else None
    if isinstance(attributes, dict) and "tables" not in attributes:
        raise NotFound(f"{root} is no replaystore store but another Zarr group, such as a dataset of episodes: there are no tables in it")


def table_names(root: Path) -> list[str]:
    """Folders that are tables, also those without a zarr.json."""
    return sorted(path.name for path in root.iterdir() if path.name != PRIVATE_FOLDER and (path / PRIVATE_FOLDER).is_dir())


def is_unfinished(folder: Path) -> bool:
    """Whether a crash while a table was made left it: no attributes anywhere and no chunk files."""
    known = (folder / "zarr.json", folder / PRIVATE_FOLDER / ATTRIBUTES_FILE)
    return not any(path.exists() for path in known) and next(folder.glob("**/c.*"), None) is None


@contextmanager
def reading_lock(root: Path) -> Iterator[bool]:
    """Keeps writers from opening the store meanwhile; yields whether one has it open already."""
    try:
        fd = os.open(root / PRIVATE_FOLDER / "LOCK", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield False
        return
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            live = False
        except OSError:
            live = True
        yield live
    finally:
        os.close(fd)


def _check_root(report: VerifyReport) -> None:
    path = report.path / "zarr.json"
    names = table_names(report.path)

    def report_it(expected: str, found: str) -> None:
        report.findings.append(Finding("metadata", "", "zarr.json", None, expected, found, "replaystore repair writes it again"))

    try:
        document: Any = read_json(path)
    except ReplayStoreError as error:
        report_it("the store's group document", str(error))
        return
    if not isinstance(document, dict) or document.get("node_type") != "group" or document.get("zarr_format") != 3:
        report_it("a Zarr v3 group", str(document)[:80])
        return
    complete = [name for name in names if (report.path / name / "zarr.json").exists()]
    listed = document.get("attributes", {}).get("tables")
    if listed != complete and not report.live:
        report_it(f"tables {complete}", f"tables {listed}")
    members = document.get("consolidated_metadata", {}).get("metadata", {})
    if not report.live:
        for name in complete:
            expected = _inline(report.path, name)
            there = {key: value for key, value in members.items() if key == name or key.startswith(f"{name}/")}
            if expected is not None and there != expected:
                report_it(f"the same metadata of {name!r} as {name}/zarr.json", "other metadata")
    known = {"zarr.json", PRIVATE_FOLDER, *names}
    for entry in sorted(os.listdir(report.path)):
        if entry not in known and not entry.endswith(".partial"):
            report.notes.append(f"{entry} is no part of the store")


def _inline(root: Path, name: str) -> dict[str, Any] | None:
    """What the store's zarr.json must hold of a table whose last close was orderly; None where it may lag behind."""
    try:
        document = read_json(root / name / "zarr.json")
        clean = TableInspection.is_clean(root / name)
        own = {key: value for key, value in document.items() if key != "consolidated_metadata"}
        below = document["consolidated_metadata"]["metadata"]
    except (ReplayStoreError, OSError, KeyError, TypeError, AttributeError):
        return None
    return {name: own, **{f"{name}/{path}": value for path, value in below.items()}} if clean else None
