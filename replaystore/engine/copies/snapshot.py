"""Copies of a table that goes on meanwhile: snapshots, forks, and rows numbered anew.

Under the table's lock only its positions are noted (`Moment`). Outside it, sealed chunk files get a second name, the newest chunk of every
array and the live columns of `replay/` are copied, and a journal and a state page are written as after an orderly close. Before the copy
gets its name, the table's own rows are durable: otherwise power loss could cut the table back into files that the copy shares.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from replaystore.core.indexes import PrioritizedIndex
from replaystore.core.links import DELETED, KEPT, USED_UP
from replaystore.engine.checking.table_on_disk import LOST_FILE, QUARANTINE
from replaystore.engine.copies.kept import AllRows, RenumberedRows, open_episodes_of
from replaystore.engine.copies.moment import Moment
from replaystore.engine.recovery import layouts_of
from replaystore.engine.selection.masses import made_with, masses_under, terms
from replaystore.engine.table import Table
from replaystore.errors import InvalidArgument
from replaystore.schema.selectors import KEEPS_LEAVES, KEEPS_PRIORITIES, WithoutReplacement
from replaystore.schema.table_config import TableConfig
from replaystore.status import SnapshotReport
from replaystore.storage.checksums import Entries, read_checksums, write_checksums
from replaystore.storage.copying import ChunkWriter, Linker, Staging
from replaystore.storage.files import replace_file
from replaystore.storage.journal import Journal
from replaystore.storage.layout import PRIVATE_FOLDER, ArrayLayout, priority_path
from replaystore.storage.state_page import StatePage
from replaystore.storage.zarr_metadata import Documents, publish, publish_root

Array = npt.NDArray[Any]
Kept = AllRows | RenumberedRows
Change = Callable[[TableConfig], TableConfig]

LIVE_BLOCK_ROWS = 1 << 18
COPY_BLOCK_BYTES = 16 << 20

DEFAULT_TIMEOUT_S = 60.0


def take_snapshot(table: Table, out: Path, *, rebase: bool = False, timeout_s: float = DEFAULT_TIMEOUT_S) -> SnapshotReport:
    """Writes a store at `out` that holds `table` as it is now; it appears there complete or not at all.

    Args:
        table: goes on meanwhile.
        out: must not exist.
        rebase: numbers the steps from 0, which copies every row and leaves out episodes whose beginning is gone.
        timeout_s: how long to wait for the table's own group commit.

    Raises:
        AlreadyExists: `out`.
        StorageError, NotReady: nothing is left behind.
    """
    started = time.monotonic()
    with Staging(out) as staging:
        copied = copy_table(table, staging.folder / table.name, rebase=rebase)
        publish_root(staging.folder, {table.name: copied.documents}, durable=True)
        if table.mode != "r":
            table.wait_durable(copied.source_next_step, timeout_s)
        staging.finish()
    return copied.report(out, table.name, time.monotonic() - started)


@dataclass(frozen=True, slots=True)
class CopiedTable:
    """What `copy_table` made."""

    documents: Documents
    """Of the copy, for the root of its store."""
    source_next_step: int
    """The table's rows below this must be durable before the copy is used."""
    first_step: int
    next_step: int
    episodes: int
    left_out_rows: int
    linked_bytes: int
    copied_bytes: int
    note: str

    def report(self, path: Path, table: str, seconds: float) -> SnapshotReport:
        """For the caller."""
        return SnapshotReport(
            str(path.absolute()), table, self.first_step, self.next_step, self.episodes, self.linked_bytes, self.copied_bytes,
            self.left_out_rows, seconds, self.note,
        )  # fmt: skip


def copy_table(table: Table, folder: Path, *, change: Change | None = None, rebase: bool = False) -> CopiedTable:
    """Writes the files of a table equal to `table` as it is now into the new `folder`.

    Args:
        table: goes on meanwhile.
        folder: its name is the copy's.
        change: makes the copy's configuration from the table's; columns must stay.
        rebase: numbers the steps from 0.
    """
    moment = table.capture()
    try:
        if table.mode == "r":
            moment.checkpoint["open"] = open_episodes_of(moment)
        while True:
            copy = _Copy(moment, folder, moment.config if change is None else change(moment.config), rebase)
            copy.live_columns()
            later = table.capture()
            if later.config == moment.config:
                copy.clean = later.deletions == moment.deletions  # if not, the copy's first opening derives its links
                highest = later.state["max_mass"][0]
                later.close()
                break
            shutil.rmtree(folder)  # altered meanwhile: some priorities are under the old exponent and some under the new
            moment.close()
            moment = later
        copy.rows()
        return copy.finish(highest)
    finally:
        moment.close()


class _Copy:
    """One copy under way."""

    def __init__(self, moment: Moment, folder: Path, config: TableConfig, rebase: bool) -> None:
        if config.columns != moment.config.columns:
            raise InvalidArgument("columns: a fork shares the rows of its table, so its columns stay as they are")
        self._moment, self._folder, self._config, self._rebase = moment, folder, config, rebase
        stored = {layout.path: layout.rows_per_chunk for layout in moment.step_layouts}
        scalar = stored["replay/successor"]  # of one row size with every array of priorities
        self._layouts = [replace(layout, rows_per_chunk=stored.get(layout.path, scalar)) for layout in layouts_of(config)]
        most = config.retention.max_steps
        self._kept: Kept = RenumberedRows(moment) if rebase else AllRows(moment, most)
        self._linker, self._copied_bytes = Linker(), 0
        self._anchors = self._steps = 0
        self.clean = True
        """Whether links and marks of removal are of one moment."""
        for layout in (*self._layouts, *moment.episode_layouts):
            (folder / layout.path).mkdir(parents=True, exist_ok=True)
        (folder / PRIVATE_FOLDER / "journal").mkdir(parents=True)

    # -- rows

    def live_columns(self) -> None:
        """replay/: links as of the moment, priorities as they are by now."""
        moment, kept = self._moment, self._kept
        live = {layout.path: ChunkWriter(self._folder, layout) for layout in self._layouts if layout.derived}
        selectors = self._config.selectors.items()
        leaves = {priority_path(name): self._leaves(name) for name, kind in selectors if isinstance(kind, KEEPS_LEAVES)}
        for start in range(kept.first, kept.stop, LIVE_BLOCK_ROWS):
            stop = min(start + LIVE_BLOCK_ROWS, kept.stop)
            ids = kept.ids(start, stop)
            distances = moment.take("replay/successor", ids)
            removed = moment.take("replay/removed", ids)  # after the links: what has gone since is no anchor of the copy
            following = ids + np.abs(distances)
            linked = (distances != 0) & (following < moment.next_step) & (removed != DELETED)  # a link that has come since leads beyond
            distances[linked] = kept.translate(following[linked]) - np.flatnonzero(linked) - start
            distances[~linked] = 0
            distances[removed == USED_UP] *= -1
            is_anchor = distances > 0
            self._anchors += int(np.count_nonzero(is_anchor))
            self._steps += int(np.count_nonzero((moment.take("meta/kind", ids) == 0) & (removed == KEPT)))
            live["replay/successor"].write(start, distances)
            live["replay/removed"].write(start, removed)
            live["replay/times_sampled"].write(start, moment.take("replay/times_sampled", ids))
            for path, masses in leaves.items():
                live[path].write(start, masses(ids, is_anchor))
        for writer in live.values():
            writer.close()
            self._copied_bytes += writer.nbytes

    def _leaves(self, name: str) -> Callable[[Array, npt.NDArray[np.bool_]], Array]:
        """Leaves of rows in the copy's selector `name`, given their ids in the table and which of them are anchors, ``(n,)`` each."""
        moment, after, path = self._moment, self._config.selectors[name], priority_path(name)
        before = moment.config.selectors.get(name)
        is_pass = isinstance(after, WithoutReplacement)
        new = np.float32(1.0 if is_pass else PrioritizedIndex(*terms(after)).max_mass)
        taken_over = isinstance(before, WithoutReplacement if is_pass else KEEPS_PRIORITIES)

        def masses(ids: Array, is_anchor: npt.NDArray[np.bool_]) -> Array:
            if before is None or not taken_over:
                return np.where(is_anchor, new, np.float32(0))
            found = moment.take(path, ids)
            if terms(after) != terms(before):
                found = masses_under(found, before, after, is_anchor)
            found[~is_anchor] = 0
            return found

        return masses

    def rows(self) -> None:
        """steps/, meta/ and episodes/."""
        for layout in self._layouts:
            if layout.derived:
                continue
            if self._rebase or layout.live:
                self._renumber(layout)
            else:
                self._share(layout, self._kept.first, self._kept.stop)
        for layout in self._moment.episode_layouts:
            if isinstance(self._kept, RenumberedRows):
                self._write(layout, 0, self._kept.episode_rows(layout.path.removeprefix("episodes/")))
            else:
                self._share(layout, 0, self._moment.episodes)

    def _share(self, layout: ArrayLayout, first: int, stop: int) -> None:
        """Links the sealed chunk files of rows [first, stop), copies the rows of the others."""
        size = layout.rows_per_chunk
        for chunk in range(first // size, -(-stop // size)) if stop > first else ():
            begin, end = chunk * size, (chunk + 1) * size
            name = f"{layout.path}/{layout.chunk_name(chunk)}"
            # only rows below the end of the table are in a file that is shared, so no append of either side can ever touch it
            if end <= stop and self._linker.link(self._moment.folder / name, self._folder / name):
                continue
            end = min(end, stop)
            if layout.path.startswith("episodes/"):
                self._write(layout, begin, self._moment.episode_rows(layout.path.removeprefix("episodes/"), begin, end))
            else:
                self._write(layout, begin, self._moment.rows(layout.path, begin, end))

    def _write(self, layout: ArrayLayout, start: int, rows: Array) -> None:
        with ChunkWriter(self._folder, layout) as writer:
            writer.write(start, rows)
        self._copied_bytes += writer.nbytes

    def _renumber(self, layout: ArrayLayout) -> None:
        moment, kept = self._moment, self._kept
        block = max(1, COPY_BLOCK_BYTES // layout.row_bytes)
        with ChunkWriter(self._folder, layout) as writer:
            for start in range(kept.first, kept.stop, block):
                rows = moment.take(layout.path, kept.ids(start, min(start + block, kept.stop)))
                if layout.path == "meta/previous":
                    has = rows >= 0
                    rows[has] = kept.translate(rows[has])
                writer.write(start, rows)
        self._copied_bytes += writer.nbytes

    # -- what says what the rows are

    def finish(self, highest: npt.NDArray[np.float64]) -> CopiedTable:
        """Journal, state page and zarr.json; `highest` are the table's highest masses, ``(16,)``, read after its leaves."""
        moment, kept = self._moment, self._kept
        checkpoint = {
            "next_step": kept.stop,
            "first_step": kept.first,
            "episodes": kept.episodes,
            "sequence": moment.sequence,
            "inserted_steps": int(moment.state["inserted_steps"][0]),
            "anchors": self._anchors,
            "live_steps": self._steps,
            "open": kept.open_episodes(),
        }
        journal = Journal(self._folder / PRIVATE_FOLDER / "journal")
        journal.start(checkpoint)()
        journal.close()
        self._write_state(highest)
        if not self._rebase:
            self._take_checksums_over()
            self._take_losses_over()
        attributes = {
            **moment.attributes,
            "first_step": kept.first,
            "next_step": kept.stop,
            "episodes": kept.episodes,
            "table_config": self._config.to_json(),
            "rows_per_chunk": {layout.path: layout.rows_per_chunk for layout in self._layouts},
            "copied_from": {"table": moment.name, "time": time.time(), "next_step": moment.next_step, "renumbered": self._rebase},
        }
        documents = publish(self._folder, self._layouts, moment.episode_layouts, attributes, durable=True)
        note = f"no hard links from {moment.folder}: {self._linker.obstacle}" if self._linker.obstacle else ""
        return CopiedTable(
            documents, moment.next_step, kept.first, kept.stop, kept.episodes, kept.left_out_rows, self._linker.nbytes,
            self._copied_bytes, note,
        )  # fmt: skip

    def _take_checksums_over(self) -> None:
        """What the table knows of its chunk files holds for the same rows of the copy: damage of before shows in both."""
        known = read_checksums(self._moment.folder) or {}
        entries: Entries = {}
        for layout in (*self._layouts, *self._moment.episode_layouts):
            first, stop = (0, self._moment.episodes) if layout.path.startswith("episodes/") else (self._kept.first, self._kept.stop)
            size = layout.rows_per_chunk
            there = range(first // size, -(-stop // size)) if stop > first else range(0)
            of_array = known.get(layout.path, {}).items()
            entries[layout.path] = {chunk: pair for chunk, pair in of_array if chunk in there and chunk * size + pair[1] <= stop}
        write_checksums(self._folder, entries)

    def _take_losses_over(self) -> None:
        """Rows that a repair had to give up are the copy's losses too; the files that it set aside stay where they are."""
        noted = Path(PRIVATE_FOLDER) / QUARANTINE / LOST_FILE
        if (self._moment.folder / noted).exists():
            (self._folder / noted).parent.mkdir()
            replace_file(self._folder / noted, (self._moment.folder / noted).read_bytes(), durable=True)

    def _write_state(self, highest: npt.NDArray[np.float64]) -> None:
        moment, page = self._moment, StatePage(self._folder / PRIVATE_FOLDER / "state", "rw")
        page.fields[...] = moment.state
        page["clean"] = int(self.clean)
        page["durable_step"], page["durable_sequence"], page["first_step"] = self._kept.stop, moment.sequence, self._kept.first
        limiter = self._config.rate_limiter
        if limiter != moment.config.rate_limiter:  # it counts from now on, as after `Table.alter`
            page["limiter_inserted"] = page["inserted_steps"] - min(self._steps, limiter.min_size_to_sample)
            page["limiter_sampled"] = page["sampled_items"]
        before = moment.config.selectors
        page.max_mass[:], page.made_with[:] = 0, 0
        for place, (name, after) in enumerate(self._config.selectors.items()):
            was = before.get(name)
            if isinstance(after, KEEPS_PRIORITIES):
                page.made_with[place] = made_with(after)
            if was is not None and isinstance(after, KEEPS_PRIORITIES) and isinstance(was, KEEPS_PRIORITIES):
                mass = highest[list(before).index(name)]
                page.max_mass[place] = mass if terms(after) == terms(was) else masses_under(np.array([mass]), was, after)[0]
        page.sync()
        page.close()
