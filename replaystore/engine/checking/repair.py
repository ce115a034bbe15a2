"""`repair`: mends what `verify` finds. What can be derived is derived again; what cannot is set aside, and its rows are never sampled.

Good rows are never touched, but for one thing: where an episode runs into lost rows, the link to them is cut. Files set aside go to the
table's quarantine folder, and nothing is deleted that anybody could still need. Safe to run again, also after being killed half-way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from replaystore.engine.checking.inspection import TableInspection
from replaystore.engine.checking.invariants import TIMES_SAMPLED, is_row_column
from replaystore.engine.checking.mending import Mender, Range
from replaystore.engine.checking.table_on_disk import QUARANTINE
from replaystore.engine.checking.verify import check_store, is_unfinished, reading_lock, table_names
from replaystore.engine.table import Table
from replaystore.errors import Locked, ReplayStoreError
from replaystore.storage.checksums import FILE_NAME, PIECE_BYTES, crc_of_file, read_checksums
from replaystore.storage.files import FileLock, read_json
from replaystore.storage.layout import PRIVATE_FOLDER, ArrayLayout
from replaystore.storage.zarr_metadata import Documents, publish, publish_root

ROUNDS = 6
"""One act may uncover what another has to mend; this many times at most."""


@dataclass(frozen=True, slots=True)
class Action:
    """One thing done, or refused."""

    table: str
    file: str
    """Below the store's folder."""
    what: str

    def __str__(self) -> str:
        return f"{self.what}: {self.file}"


@dataclass(slots=True)
class RepairReport:
    """What `repair` did, or would do."""

    path: Path
    dry_run: bool
    actions: list[Action] = field(default_factory=list)
    refused: list[Action] = field(default_factory=list)
    """What cannot be mended, and why."""


Step: TypeAlias = tuple[Action, Callable[[], None]]


def repair(path: str | Path, table: str | None = None, *, dry_run: bool = False) -> RepairReport:
    """Mends a store, or one table of it.

    Raises:
        NotFound: there is no store at `path`, or no such table.
        Locked: a process has it open for writing.
    """
    root = Path(path)
    check_store(root, table)
    report = RepairReport(root, dry_run)
    with _alone(root, dry_run=dry_run):
        for name in table_names(root) if table is None else [table]:
            try:
                _repair_table(root, name, report)
            except ReplayStoreError as error:
                report.refused.append(Action(name, name, str(error)))
        _repair_root(root, report)
    return report


@contextmanager
def _alone(root: Path, *, dry_run: bool) -> Iterator[None]:
    if dry_run:
        with reading_lock(root) as live:
            if live:
                raise Locked(f"{root} is open for writing in another process: stop that one first")
            yield
        return
    (root / PRIVATE_FOLDER).mkdir(exist_ok=True)
    lock = FileLock(root / PRIVATE_FOLDER / "LOCK")
    try:
        yield
    finally:
        lock.release()


def _repair_table(root: Path, name: str, report: RepairReport) -> None:
    if is_unfinished(root / name):
        return
    for _ in range(ROUNDS):
        found = TableInspection(root, name, live=False)
        found.check()
        steps = list(_plan(found))
        report.actions += [action for action, _ in steps]
        if not steps or report.dry_run:
            return
        for _, act in steps:
            act()
        Table(name, root / name, "rw").close()
    left = TableInspection(root, name, live=False)
    left.check()
    report.refused += [Action(name, finding.file, f"still wrong after {ROUNDS} rounds: {finding}") for finding in left.findings]


def _plan(found: TableInspection) -> Iterator[Step]:
    """What to do about what was found, in order."""
    mender, name = Mender(found.root, found.name), found.name
    kinds = {finding.kind for finding in found.findings}

    def action(what: str, file: str) -> Action:
        return Action(name, f"{name}/{file}", what)

    for finding in found.findings:
        if finding.kind == "metadata" and finding.file != f"{name}/{PRIVATE_FOLDER}/{FILE_NAME}":
            yield Action(name, finding.file, "write the metadata again"), lambda: _publish(found)
        elif finding.kind == "metadata":
            yield Action(name, finding.file, "take the checksums anew"), lambda: mender.set_aside(f"{PRIVATE_FOLDER}/{FILE_NAME}")
        elif finding.kind == "stray":
            path = finding.file[len(name) + 1 :]
            yield Action(name, finding.file, f"move to {QUARANTINE}"), lambda path=path: mender.set_aside(path)  # type: ignore[misc]

    bad = {(found.layouts[path], chunk): why for (path, chunk), why in found.bad_chunks.items()}
    for layout, moves in _swapped(found, bad).items():
        files = ", ".join(f"{layout.chunk_name(a)} to {layout.chunk_name(b)}" for a, b in moves.items())
        yield action(f"rename back ({files})", layout.path), lambda layout=layout, moves=moves: mender.swap_back(layout, moves)  # type: ignore[misc]
        bad = {key: why for key, why in bad.items() if key[0] is not layout or key[1] not in moves}
    swapped = len(bad) != len(found.bad_chunks)

    for layout, chunk in [key for key in bad if key[0].derived]:
        file = f"{layout.path}/{layout.chunk_name(chunk)}"

        def renew(layout: ArrayLayout = layout, chunk: int = chunk, file: str = file) -> None:
            mender.set_aside(file)
            mender.put_zeros(layout, chunk)

        yield action("derive again", file), renew

    lost, files_lost = _lost(found, bad, swapped=swapped)
    if lost:
        span = ", ".join(f"{begin}-{end - 1}" for begin, end in lost[:10])
        for layout, chunk in files_lost:
            yield action(f"set aside in {QUARANTINE}", f"{layout.path}/{layout.chunk_name(chunk)}"), lambda: None
        yield action(f"make rows {span} unsampleable", "meta/kind"), lambda: mender.give_up(lost, files_lost)

    wrong, files_wrong = _wrong_episodes(found, bad, swapped=swapped)
    if wrong:
        what = f"derive from the steps ({', '.join(sorted(wrong))})"
        yield action(what, "episodes"), lambda: mender.derive_episodes(wrong, files_wrong)

    if lost or "journal" in kinds:
        yield action("rebuild from the rows", f"{PRIVATE_FOLDER}/journal"), mender.rebuild_journal
    if "state" in kinds:
        yield action("rebuild; samples are counted anew", f"{PRIVATE_FOLDER}/state"), mender.rebuild_state
    live = [violation for violation in found.violations if violation.live]
    for violation in live:
        yield action("derive again", violation.array), lambda: None
        if violation.array == TIMES_SAMPLED:
            yield action("count no samples of rows that are no steps", TIMES_SAMPLED), lambda ids=violation.ids: mender.zero_samples(ids)  # type: ignore[misc]
    if found.leftovers and found.clean and not found.findings:
        yield action("remove what retention had left behind", f"{len(found.leftovers)} files"), lambda: mender.remove(found.leftovers)
    elif found.findings:
        yield (
            action("open once, which checks the journal and derives links and leaves again", f"{PRIVATE_FOLDER}/state"),
            mender.mark_unclean,
        )


def _publish(found: TableInspection) -> None:
    window = {"first_step": found.first, "next_step": found.stop, "episodes": found.episode_count}
    publish(found.folder, found.steps, found.episodes, {**found.attributes, **window}, durable=True)


def _swapped(found: TableInspection, bad: dict[tuple[ArrayLayout, int], str]) -> dict[ArrayLayout, dict[int, int]]:
    """Files whose bytes are those of another damaged chunk of the same array: by array, from chunk to chunk, in closed circles only."""
    entries = read_checksums(found.folder) or {}
    piece = np.empty(PIECE_BYTES, np.uint8)
    out = {}
    for layout in {layout for layout, _ in bad}:
        chunks = [chunk for (other, chunk), why in bad.items() if other is layout and why.startswith("CRC")]
        moves = {}
        for source in chunks if len(chunks) > 1 else []:
            for target in chunks:
                crc, rows = entries[layout.path][target]
                path = found.folder / layout.path / layout.chunk_name(source)
                if source != target and crc_of_file(path, 0, rows * layout.row_bytes, 0, piece) == crc:
                    moves[source] = target
        if moves and set(moves) == set(moves.values()):
            out[layout] = moves
    return out


def _lost(
    found: TableInspection, bad: dict[tuple[ArrayLayout, int], str], *, swapped: bool
) -> tuple[list[Range], list[tuple[ArrayLayout, int]]]:
    """Rows that cannot be had again, and the files in which they were."""
    files = [key for key in bad if not key[0].derived and not key[0].path.startswith("episodes/")]
    ranges = [found.rows_of(layout, chunk) for layout, chunk in files]
    if not files and not swapped:
        ranges += [(batch.first_step, batch.first_step + batch.rows) for batch in found.bad_batches]
    episodes_fine = not any(violation.array.startswith("episodes/") for violation in found.violations)
    if not any(is_row_column(layout.path) for layout, _ in files) and not swapped and not ranges:
        for violation in found.violations:
            row = not violation.live and not violation.array.startswith("episodes/")
            if row and (episodes_fine or "episodes/" not in violation.expected):
                ranges += [(step, step + 1) for step in violation.ids.tolist()]
    joined: list[list[int]] = []
    for begin, end in sorted((max(begin, found.first), min(end, found.stop)) for begin, end in ranges):
        if joined and begin <= joined[-1][1]:
            joined[-1][1] = max(end, joined[-1][1])
        elif end > begin:
            joined.append([begin, end])
    return [(begin, end) for begin, end in joined], files


def _wrong_episodes(
    found: TableInspection, bad: dict[tuple[ArrayLayout, int], str], *, swapped: bool
) -> tuple[dict[str, npt.NDArray[np.int64]], list[tuple[ArrayLayout, int]]]:
    """Rows of ``episodes/`` to derive again, by column, and files to set aside."""
    files = [key for key in bad if key[0].path.startswith("episodes/")]
    wrong: dict[str, list[npt.NDArray[np.int64]]] = {}
    for layout, chunk in files:
        wrong.setdefault(layout.path.removeprefix("episodes/"), []).append(np.arange(*found.rows_of(layout, chunk)))
    rows_fine = not any(is_row_column(layout.path) for layout, _ in bad) and not swapped
    for violation in found.violations:
        if violation.array.startswith("episodes/") and rows_fine and not files:
            wrong.setdefault(violation.array.removeprefix("episodes/"), []).append(violation.ids)
    return {name: np.unique(np.concatenate(numbers)) for name, numbers in wrong.items()}, files


def _repair_root(root: Path, report: RepairReport) -> None:
    """The store's zarr.json from those of its tables."""
    tables: dict[str, Documents] = {}
    for name in table_names(root):
        try:
            document = read_json(root / name / "zarr.json")
            own = {key: value for key, value in document.items() if key != "consolidated_metadata"}
            below = document["consolidated_metadata"]["metadata"]
        except (ReplayStoreError, KeyError, TypeError):
            continue
        tables[name] = {name: own, **{f"{name}/{path}": below[path] for path in sorted(below)}}
    try:
        there = read_json(root / "zarr.json")
        members = there["consolidated_metadata"]["metadata"]
        fine = there["attributes"]["tables"] == sorted(tables) and members == {k: v for part in tables.values() for k, v in part.items()}
    except (ReplayStoreError, KeyError, TypeError):
        fine = False
    if not fine:
        report.actions.append(Action("", "zarr.json", "write the metadata again"))
        if not report.dry_run:
            publish_root(root, tables, durable=True)
