"""The single acts of `repair` upon one table's files: set aside, put zeros, give rows up, derive episodes, journal and state again.

Every act can be made again after it was interrupted. Files that a snapshot may share (hard links) are copied before a byte is changed.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from replaystore.engine.checking.inspection import TableInspection
from replaystore.engine.checking.invariants import LOST
from replaystore.engine.checking.table_on_disk import LOST_FILE, QUARANTINE
from replaystore.schema.selectors import KEEPS_PRIORITIES
from replaystore.storage import calls
from replaystore.storage.checksums import read_checksums, write_checksums
from replaystore.storage.files import replace_file, storage_errors
from replaystore.storage.journal import Journal
from replaystore.storage.layout import EPISODE_DTYPES, PRIVATE_FOLDER, ArrayLayout, priority_path
from replaystore.storage.state_page import StatePage

Ids = npt.NDArray[np.int64]
Range = tuple[int, int]
BLOCK_ROWS = 1 << 20
NO_VALUE = {"seed": -1, "policy_version": -1, "return": float("nan")}
"""What stands for an unknown value in ``episodes/``; 0 for the others."""


class Mender:
    """Acts on the files of one table. The caller holds the store's lock."""

    def __init__(self, root: Path, name: str) -> None:
        self._root, self._name, self._folder = root, name, root / name
        self._quarantine = self._folder / PRIVATE_FOLDER / QUARANTINE

    def inspect(self) -> TableInspection:
        """The table as it is now."""
        return TableInspection(self._root, self._name, live=False)

    # -- files

    def set_aside(self, path: str) -> None:
        """Moves a file or folder, named below the table, into the quarantine folder."""
        source = self._folder / path
        if not source.exists():
            return
        with storage_errors(source, "setting aside"):
            calls.make_folders(self._quarantine)
            name = path.replace("/", "+")
            number = 0
            while (self._quarantine / (name if not number else f"{name}~{number}")).exists():
                number += 1
            calls.rename(source, self._quarantine / (name if not number else f"{name}~{number}"))
            calls.sync_folder(self._quarantine)

    def put_zeros(self, layout: ArrayLayout, chunk: int) -> None:
        """A new chunk file in place of one that was set aside."""
        path = self._folder / layout.path / layout.chunk_name(chunk)
        with storage_errors(path, "creating"):
            calls.make_folders(path.parent)
            fd = calls.open_file(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
            try:
                calls.preallocate(fd, layout.chunk_bytes)
                calls.sync_data(fd)
            finally:
                os.close(fd)
            calls.sync_folder(path.parent)
        self.forget_checksums([(layout.path, chunk)])

    def swap_back(self, layout: ArrayLayout, moves: dict[int, int]) -> None:
        """Renames chunk files that stand in each other's place: from chunk to chunk."""
        folder = self._folder / layout.path
        with storage_errors(folder, "renaming in"):
            for source in moves:
                calls.rename(folder / layout.chunk_name(source), folder / f"{layout.chunk_name(source)}.partial")
            for source, target in moves.items():
                calls.rename(folder / f"{layout.chunk_name(source)}.partial", folder / layout.chunk_name(target))
            calls.sync_folder(folder)

    def remove(self, paths: Iterable[str]) -> None:
        """Removes chunk files, all of whose rows were dropped long ago."""
        for path in paths:
            with storage_errors(self._folder / path, "removing"):
                calls.unlink(self._folder / path)

    def forget_checksums(self, chunks: Iterable[tuple[str, int]]) -> None:
        """Their bytes change now; the next opening takes them anew."""
        entries = read_checksums(self._folder)
        if entries is None:
            return
        for path, chunk in chunks:
            entries.get(path, {}).pop(chunk, None)
        write_checksums(self._folder, entries)

    def patch(self, layout: ArrayLayout, ids: Ids, values: Any) -> None:
        """Writes single values into rows `ids` of an array of scalars."""
        values = np.broadcast_to(np.asarray(values, layout.dtype), ids.shape)
        chunks = ids // layout.rows_per_chunk
        for chunk in np.unique(chunks).tolist():
            path = self._folder / layout.path / layout.chunk_name(chunk)
            here = chunks == chunk
            with storage_errors(path, "writing"):
                if path.stat().st_nlink > 1:  # a snapshot's file too
                    copy = path.with_name(f"{path.name}.partial")
                    shutil.copyfile(path, copy)
                    calls.rename(copy, path)
                mapped = np.memmap(path, layout.dtype, "r+")
                mapped[ids[here] - chunk * layout.rows_per_chunk] = values[here]
                mapped.flush()
        if not layout.live and len(ids):
            self.forget_checksums((layout.path, chunk) for chunk in np.unique(chunks).tolist())

    # -- rows

    def give_up(self, ranges: list[Range], files: list[tuple[ArrayLayout, int]]) -> None:
        """Makes the rows of `ranges` LOST: no links to or from them, never sampled. `files` are set aside, and zeros put in their place."""
        found = self.inspect()
        self._note("steps", ranges)
        for layout, chunk in files:
            self.set_aside(f"{layout.path}/{layout.chunk_name(chunk)}")
            self.put_zeros(layout, chunk)
        lost = np.concatenate([np.arange(begin, end) for begin, end in ranges])
        self.patch(found.layouts["meta/kind"], lost, LOST)
        self.patch(found.layouts["meta/previous"], lost, -1)
        self.patch(found.layouts["replay/times_sampled"], lost, 0)
        begins, ends = (np.array(bounds) for bounds in zip(*sorted(ranges), strict=True))
        for start in range(found.first, found.stop, BLOCK_ROWS):
            stop = min(found.stop, start + BLOCK_ROWS)
            previous = found.read("meta/previous", start, stop)
            at = np.searchsorted(begins, previous, side="right") - 1
            into = (at >= 0) & (previous < ends[at])
            self.patch(found.layouts["meta/previous"], start + np.flatnonzero(into), -1)

    def _note(self, what: str, ranges: Iterable[Range]) -> None:
        """Adds ranges to the list of what was lost."""
        lost = self.inspect().lost
        joined: list[list[int]] = []
        for begin, end in sorted([(begin, end) for begin, end in lost[what]] + list(ranges)):
            if joined and begin <= joined[-1][1]:
                joined[-1][1] = max(end, joined[-1][1])
            else:
                joined.append([begin, end])
        calls.make_folders(self._quarantine)
        replace_file(self._quarantine / LOST_FILE, json.dumps({**lost, what: joined}).encode(), durable=True)

    def zero_samples(self, ids: Ids) -> None:
        """Rows that are no steps were never sampled."""
        self.patch(self.inspect().layouts["replay/times_sampled"], ids, 0)

    # -- episodes

    def derive_episodes(self, wrong: dict[str, Ids], files: list[tuple[ArrayLayout, int]]) -> None:
        """Puts the rows `wrong` (by column) of ``episodes/`` right, as far as the steps are kept; notes the others as lost."""
        for layout, chunk in files:
            self.set_aside(f"{layout.path}/{layout.chunk_name(chunk)}")
            self.put_zeros(layout, chunk)
        found = self.inspect()
        found.check_rows()
        assert found.checker is not None
        closing, whole, count = found.checker.closing, found.checker.whole, found.episode_count
        key = "episode" if "last_step" in wrong else "last_step"
        stored = found.read(f"episodes/{key}", 0, count)
        order = np.argsort(closing[key])
        lost = np.zeros(count, bool)
        for name, numbers in wrong.items():
            values = np.full(len(numbers), NO_VALUE.get(name, 0), EPISODE_DTYPES[name])
            if name != "seed":
                at = np.searchsorted(closing[key][order], stored[numbers])
                known = at < len(order)
                known[known] = closing[key][order][at[known]] == stored[numbers][known]
                source = order[at[known]]
                values[known] = closing[name][source]
                if name in ("return", "first_step", "actor", "start_time"):
                    complete = whole[source] if name != "first_step" else closing["first_step"][source] >= 0
                    values[np.flatnonzero(known)[~complete]] = NO_VALUE.get(name, 0)
                    known[np.flatnonzero(known)[~complete]] = False
                lost[numbers[~known]] = True
                if name == "last_step":  # never falls, for it is searched
                    column = found.read("episodes/last_step", 0, count)
                    column[numbers] = values
                    values = np.maximum.accumulate(column)[numbers]
            self.patch(found.layouts[f"episodes/{name}"], numbers, values)
        edges = np.flatnonzero(np.diff(np.concatenate([[False], lost, [False]]).astype(np.int8)))
        if lost.any():
            self._note("episodes", [(int(begin), int(end)) for begin, end in edges.reshape(-1, 2)])

    # -- journal and state

    def rebuild_journal(self) -> None:
        """A journal that begins with a checkpoint taken from the rows."""
        found = self.inspect()
        found.check_rows()
        assert found.checker is not None
        known: dict[int, list[Any]] = {}
        seeds: dict[int, int] = {}
        sequence = 0 if found.state is None else int(found.state["durable_sequence"])
        if found.newest is not None and found.newest.checkpoint is not None:
            known = {row[0]: row for row in found.newest.checkpoint["open"]}
            seeds = {episode: seed for batch in found.newest.batches for episode, seed in batch.seeds}
            sequence = max([sequence, int(found.newest.checkpoint["sequence"]), *(batch.sequence for batch in found.newest.batches)])
        rows = []
        for episode, now in found.checker.open_episodes.items():
            old = known.get(episode)
            first = now["first"] if now["first"] >= 0 else old[1] if old is not None else found.first
            seed = seeds.get(episode, old[6] if old is not None else -1)
            if old is not None and old[2] == now["last"]:
                rows.append(old)
            else:
                rows.append([episode, first, now["last"], now["rows"], now["total"], now["actor"], seed, now["start_time"]])
        journal = Journal(self._folder / PRIVATE_FOLDER / "journal")
        calls.make_folders(self._folder / PRIVATE_FOLDER / "journal")
        journal.start(
            {
                "next_step": found.stop,
                "first_step": found.first,
                "episodes": found.episode_count,
                "sequence": sequence,
                "inserted_steps": found.stop - found.episode_count,
                "open": rows,
            }
        )()
        journal.close()

    def rebuild_state(self) -> None:
        """A state page from the journal and the rows; the random numbers begin anew."""
        found = self.inspect()
        found.check_rows()
        assert found.newest is not None
        assert found.newest.checkpoint is not None
        assert found.checker is not None
        sampled = sum(
            int(found.read("replay/times_sampled", start, min(found.stop, start + BLOCK_ROWS)).sum(dtype=np.int64))
            for start in range(found.first, found.stop, BLOCK_ROWS)
        )
        path = self._folder / PRIVATE_FOLDER / "state"
        if found.state is None:
            self.set_aside(f"{PRIVATE_FOLDER}/state")
        state = StatePage(path, "rw")
        if found.state is None:
            checkpoint = found.newest.checkpoint
            state["durable_step"], state["durable_sequence"] = int(checkpoint["next_step"]), int(checkpoint["sequence"])
            state["first_step"], state["sampled_items"] = found.first, sampled
            state["inserted_steps"] = int(checkpoint.get("inserted_steps", found.stop - found.episode_count))
        for index, (name, selector) in enumerate(found.config.selectors.items()):
            if isinstance(selector, KEEPS_PRIORITIES):
                state.max_mass[index] = max(float(state.max_mass[index]), self._highest_mass(found, priority_path(name)))
        state["clean"] = 0
        state.sync()
        state.close()

    @staticmethod
    def _highest_mass(found: TableInspection, path: str) -> float:
        highest = 0.0
        for start in range(found.first, found.stop, BLOCK_ROWS):
            mass = found.read(path, start, min(found.stop, start + BLOCK_ROWS))
            highest = max(highest, float(np.max(mass, where=np.isfinite(mass), initial=0.0)))
        return highest

    def mark_unclean(self) -> None:
        """The next opening derives links and leaves again."""
        state = StatePage(self._folder / PRIVATE_FOLDER / "state", "rw")
        state["clean"] = 0
        state.sync()
        state.close()
