"""Everything that can be wrong with one table's files, found without opening the table and without changing anything."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from crc32c import crc32c

from replaystore.engine.checking.invariants import RowChecker, Violation, check_episodes, is_row_column, merged
from replaystore.engine.checking.table_on_disk import ATTRIBUTES, QUARANTINE, REPAIR, TableOnDisk
from replaystore.errors import ReplayStoreError
from replaystore.schema.selectors import KEEPS_PRIORITIES
from replaystore.storage.checksums import FILE_NAME, PIECE_BYTES, crc_of_file, read_checksums
from replaystore.storage.files import read_json
from replaystore.storage.layout import EPISODE_DTYPES, PRIVATE_FOLDER, ArrayLayout, priority_path
from replaystore.storage.zarr_metadata import ATTRIBUTES_FILE, table_documents

Array = npt.NDArray[Any]

BLOCK_ROWS = 1 << 18
"""Rows looked at together: a few tens of MB."""

THREADS = 2
TRIES = 5
"""For what a live writer changes while we look: a difference that stays is one."""


class TableInspection(TableOnDisk):
    """`check` finds everything; repair asks for the parts."""

    # -- everything

    def check(self, progress: Callable[[int, int], None] | None = None) -> None:
        """Finds everything."""
        self.check_state()
        self.check_journal()
        self.check_documents()
        self.check_files()
        with ThreadPoolExecutor(1) as beside:
            checksums = beside.submit(self.check_checksums, progress)
            self.check_batches()
            self.check_rows()
            self.bytes_read += checksums.result()
        self.findings.sort(key=lambda finding: finding.file)
        for begin, end in self.lost["steps"]:
            if end > self.first:
                self.notes.append(
                    f"{self.name}: rows {begin}-{end - 1} were lost before; their files are in {self.name}/{PRIVATE_FOLDER}/{QUARANTINE}"
                )

    def check_state(self) -> None:
        """The state page against the journal and the attributes, after an orderly close."""
        state = self.state
        if state is None or self.newest is None or not self.clean:
            return
        checkpoint = self.newest.checkpoint
        assert checkpoint is not None
        where = f"{PRIVATE_FOLDER}/state"
        for field, expected in (
            ("durable_step", self.stop),
            ("durable_sequence", int(checkpoint["sequence"])),
            ("inserted_steps", int(checkpoint.get("inserted_steps", state["inserted_steps"]))),
        ):
            if int(state[field]) != expected:
                self.report("state", where, None, f"{field} {expected}, as the journal says", str(int(state[field])))
        for name, expected in (("next_step", self.stop), ("first_step", self.first), ("episodes", self.episode_count)):
            if int(self.attributes[name]) != expected:
                self.report("metadata", "zarr.json", None, f"{name} {expected}, as the journal says", str(self.attributes[name]))
        if self.stop > self.first and not state["rng"].any():
            self.report("state", where, None, "a state of the random numbers", "zeros")

    def check_journal(self) -> None:
        """Records in order and, after an orderly close, nothing behind them."""
        for file in self.journal:
            where = f"{PRIVATE_FOLDER}/journal/{file.path.name}"
            torn = file.size_bytes - file.good_bytes
            if torn and self.clean:
                self.report(
                    "journal",
                    where,
                    None,
                    f"records to the end of the file, {file.size_bytes} bytes",
                    f"unreadable from byte {file.good_bytes}",
                )
            elif torn and not self.live:
                self.notes.append(f"{self.name}/{where}: the last {torn} bytes are a torn record; opening cuts them off")
            if file.checkpoint is None:
                continue
            sequence, step, episodes = int(file.checkpoint["sequence"]), int(file.checkpoint["next_step"]), int(file.checkpoint["episodes"])
            for batch in file.batches:
                if (batch.sequence, batch.first_step) != (sequence + 1, step) or batch.episodes < episodes or batch.rows < 1:
                    found = f"batch {batch.sequence} of rows from {batch.first_step}"
                    self.report("journal", where, None, f"batch {sequence + 1} of rows from {step}", found)
                    break
                sequence, step, episodes = batch.sequence, batch.first_step + batch.rows, batch.episodes

    def check_documents(self) -> None:
        """Every zarr.json is what the attributes make it; while the table is open, arrays may be longer than the group says."""
        for again in range(TRIES if self.live else 1):
            if again:
                time.sleep(0.02)
            differences = list(self._differing_documents())
            if not differences:
                break
        for name, expected, found in differences:
            self.report("metadata", name, None, expected, found)
        copy = self.folder / PRIVATE_FOLDER / ATTRIBUTES_FILE
        try:
            stored = read_json(copy)
        except ReplayStoreError as error:
            if copy.exists():
                self.report("metadata", f"{PRIVATE_FOLDER}/{ATTRIBUTES_FILE}", None, "a copy of the attributes", str(error))
            return
        if self.clean and self.attributes_source == "zarr.json" and stored != self.attributes:
            keys = [key for key in ATTRIBUTES if stored.get(key) != self.attributes.get(key)]
            self.report("metadata", "zarr.json", None, f"the same {', '.join(keys)} as in {PRIVATE_FOLDER}/{ATTRIBUTES_FILE}", "others")

    def _differing_documents(self) -> Iterator[tuple[str, str, str]]:
        """Documents with what was expected in them and what is there."""
        files, _ = table_documents(self.steps, self.episodes, self._published_attributes())
        for path, expected in files.items():
            name = f"{path}/zarr.json" if path else "zarr.json"
            if not path and self.attributes_source != "zarr.json":
                continue
            try:
                found = read_json(self.folder / name)
            except ReplayStoreError as error:
                yield name, "a Zarr document", str(error)
                continue
            difference = _difference(found, expected, exact=self.clean or not path)
            if difference:
                yield name, *difference

    def _published_attributes(self) -> dict[str, Any]:
        """The attributes with what a live writer has moved on since they were read; the arrays are published before the group."""
        if not self.live or self.attributes_source != "zarr.json":
            return self.attributes
        try:
            newer = read_json(self.folder / "zarr.json")["attributes"]
            moved = {key: int(newer[key]) for key in ("first_step", "next_step", "episodes")}
        except (ReplayStoreError, KeyError, TypeError, ValueError):
            return self.attributes  # the comparison says what is wrong with the document
        return self.attributes | {key: max(value, int(self.attributes[key])) for key, value in moved.items()}

    # -- files

    def check_files(self) -> None:
        """Chunk files are there at full size; nothing else is."""
        expected: dict[str, set[str]] = {}
        for layout in self.layouts.values():
            folder = self.folder / layout.path
            sizes = _sizes(folder)
            first, _ = self.span(layout)
            known = {"zarr.json"}
            for chunk in self.chunks(layout):
                name = layout.chunk_name(chunk)
                if sizes.get(name) != layout.chunk_bytes and not self.evicted(layout, chunk):
                    found = "no file" if name not in sizes else f"{sizes[name]} bytes"
                    self.bad_chunks[layout.path, chunk] = found
                    kind = "live" if layout.derived else "episodes" if layout.path.startswith("episodes/") else "chunk"
                    self.report(kind, f"{layout.path}/{name}", self.rows_of(layout, chunk), f"{layout.chunk_bytes} bytes", found)
            for name, size in sizes.items():
                number = layout.chunk_of(name)
                if number is None:
                    continue
                known.add(name)
                if number in self.chunks(layout):
                    continue
                if (number + 1) * layout.rows_per_chunk <= first:
                    self.leftovers.append(f"{layout.path}/{name}")
                elif size > layout.chunk_bytes:  # a shorter one was being made when its process died; it is made whole before use
                    self.report("stray", f"{layout.path}/{name}", None, f"{layout.chunk_bytes} bytes at most", f"{size} bytes")
            expected[layout.path] = known
        self._check_strays(expected)
        if self.leftovers and not self.live:
            self.notes.append(f"{self.name}: {len(self.leftovers)} chunk files whose rows were all dropped are left; {REPAIR} removes them")

    def _check_strays(self, expected: dict[str, set[str]]) -> None:
        for path in self.strays(expected):
            folder, _, name = path.rpartition("/")
            if folder in expected and self.layouts[folder].chunk_of(name) is not None:
                continue  # all that were there have been looked at: a live writer has made it since
            self.report("stray", path, None, "nothing of this name", "a file" if (self.folder / path).is_file() else "a folder")

    # -- bytes

    def check_checksums(self, progress: Callable[[int, int], None] | None = None) -> int:
        """Every chunk file against its checksum: all the bytes of the table are read here. Returns how many."""
        entries = read_checksums(self.folder)
        if entries is None:
            if (self.folder / PRIVATE_FOLDER / FILE_NAME).exists():
                self.report(
                    "metadata", f"{PRIVATE_FOLDER}/{FILE_NAME}", None, "a readable file of checksums", "another", f"{REPAIR} makes it anew"
                )
            elif self.stop > self.first:
                self.notes.append(f"{self.name}: there are no checksums yet; they are taken while the table is open for writing")
            return 0
        work = []
        for path, of_array in entries.items():
            layout = self.layouts.get(path)
            if layout is None or layout.live:
                continue
            for chunk, (crc, rows) in of_array.items():
                if chunk in self.chunks(layout) and (path, chunk) not in self.bad_chunks:
                    work.append((layout, chunk, crc, min(rows, layout.rows_per_chunk)))
        total = sum(rows * layout.row_bytes for layout, _, _, rows in work)
        with ThreadPoolExecutor(THREADS) as pool:
            done = 0
            for (layout, chunk, crc, rows), found in zip(work, pool.map(self._crc, work), strict=True):
                done += rows * layout.row_bytes
                if progress is not None:
                    progress(done, total)
                if found is None or found == crc:
                    continue
                begin = chunk * layout.rows_per_chunk
                self.bad_chunks[layout.path, chunk] = f"CRC32C {found:08x}"
                kind = "episodes" if layout.path.startswith("episodes/") else "checksum"
                where = f"{layout.path}/{layout.chunk_name(chunk)}"
                self.report(kind, where, (begin, begin + rows), f"CRC32C {crc:08x} of its first {rows} rows", f"{found:08x}")
        return done

    def _crc(self, item: tuple[ArrayLayout, int, int, int]) -> int | None:
        layout, chunk, _, rows = item
        piece = np.empty(PIECE_BYTES, np.uint8)
        try:
            return crc_of_file(self.folder / layout.path / layout.chunk_name(chunk), 0, rows * layout.row_bytes, 0, piece)
        except FileNotFoundError:
            return None

    def check_batches(self) -> None:
        """The journal's batches against their rows. In a table that was not closed in order, what is torn at the end is cut off."""
        if self.newest is None or self.newest.checkpoint is None:
            return
        paths = sorted(path for path, layout in self.layouts.items() if not layout.live and not path.startswith("episodes/"))
        writable_paths = sorted(path for path, layout in self.layouts.items() if layout.live and not layout.derived)
        episode_paths = sorted(layout.path for layout in self.episodes)
        safe = int(self.state["durable_sequence"]) if self.state is not None else 0
        before = int(self.newest.checkpoint["episodes"])
        most = max(1, (64 << 20) // sum(self.layouts[path].row_bytes for path in paths))
        batches = self.newest.batches
        index = 0
        while index < len(batches):
            group = [batches[index]]
            while (
                index + len(group) < len(batches)
                and batches[index + len(group)].first_step + batches[index + len(group)].rows - group[0].first_step <= most
            ):
                group.append(batches[index + len(group)])
            index += len(group)
            start, stop = group[0].first_step, group[-1].first_step + group[-1].rows
            try:
                blocks = [self.read(path, start, stop) for path in paths]
                writable = [self.read(path, start, stop) for path in writable_paths]
                finished = [self.read(path, before, group[-1].episodes) for path in episode_paths] if group[-1].episodes > before else []
            except (FileNotFoundError, EOFError):
                blocks = []  # evicted meanwhile, or reported already
            offset = before
            for batch in group:
                crc = writable_crc = 0
                here = slice(batch.first_step - start, batch.first_step - start + batch.rows)
                for block in blocks:
                    crc = crc32c(block[here].reshape(-1).view(np.uint8).data, crc)
                for block in writable if blocks and batch.sequence > safe else ():
                    writable_crc = crc32c(block[here].reshape(-1).view(np.uint8).data, writable_crc)
                if batch.episodes > before:
                    for block in finished:
                        crc = crc32c(block[before - offset : batch.episodes - offset].view(np.uint8).data, crc)
                torn = not blocks or (crc, writable_crc) != (batch.crc, batch.writable_crc)
                if torn and batch.sequence > safe and not self.live:
                    self.notes.append(
                        f"{self.name}: rows from {batch.first_step} on are torn, and were never durable; opening cuts them off"
                    )
                    self.stop, self.episode_count = batch.first_step, before
                    return
                if blocks and crc != batch.crc:
                    self.bad_batches.append(batch)
                    where = f"{PRIVATE_FOLDER}/journal/{self.newest.path.name}"
                    self.report(
                        "rows", where, (batch.first_step, batch.first_step + batch.rows), f"rows of CRC32C {batch.crc:08x}", f"{crc:08x}"
                    )
                before = batch.episodes

    # -- rows

    def check_rows(self) -> None:
        """Links, kinds, leaves, counters and episodes."""
        live = [path for path, layout in self.layouts.items() if layout.derived] if self.live or self.clean else []
        paths = [*filter(is_row_column, self.layouts), *live]
        unreadable = [key for key, why in list(self.bad_chunks.items()) if not why.startswith("CRC")]
        needed = (*paths, "steps/terminated")
        bad = sorted(self.rows_of(self.layouts[path], chunk) for path, chunk in unreadable if path in needed)
        found: list[Violation] = []
        position = self.first
        for begin, end in [*bad, (self.stop, self.stop)]:
            if begin > position:
                checker = self._check_span(position, begin, paths, found, growing=begin < self.stop or self.live)
                if (checker.first, checker.next) == (self.first, self.stop):
                    self.checker = checker
            position = max(position, end)
        if self.stop == self.first:
            self.checker = RowChecker(self.first)
        if self.checker is not None and not any(path.startswith("episodes/") for path, _ in unreadable):
            table = {name: self.read(f"episodes/{name}", 0, self.episode_count) for name in EPISODE_DTYPES}
            returns = not any(layout.live and is_row_column(path) for path, layout in self.layouts.items() if not layout.derived)
            found += check_episodes(table, self.checker, [(begin, end) for begin, end in self.lost["episodes"]], returns=returns)
            self._check_counters(self.checker)
        self.violations = merged(found)
        for violation in self.violations:
            kind = "live" if violation.live else "episodes" if violation.array.startswith("episodes/") else "rows"
            what = f"{violation.found} at the first of {violation.count}" if violation.count > 1 else violation.found
            layout = self.layouts[violation.array]
            file = f"{violation.array}/{layout.chunk_name(violation.rows[0] // layout.rows_per_chunk)}"
            self.report(kind, file, violation.rows, violation.expected, what)

    def _check_span(self, start: int, stop: int, paths: list[str], found: list[Violation], *, growing: bool) -> RowChecker:
        checker = RowChecker(start, self.leaves(), growing=growing, cut=bool(self.lost["steps"]))
        position = start
        while position < stop:
            end = min(stop, position + BLOCK_ROWS)
            try:
                found += self._check_block(checker, position, end, paths)
            except FileNotFoundError:
                first = self.current_first()
                if not self.live or first <= position:
                    raise
                position = min(first, stop)  # evicted meanwhile: begin where the table begins now
                checker = RowChecker(position, self.leaves(), growing=growing, cut=bool(self.lost["steps"]))
                self.first = position
                continue
            position = end
        found += checker.finish()
        return checker

    def _check_block(self, checker: RowChecker, start: int, stop: int, paths: list[str]) -> list[Violation]:
        rows = {path: self.read(path, start, stop) for path in (*paths, "steps/terminated")}
        if not self.live:
            return checker.feed(rows)
        for _ in range(TRIES):
            trial = checker.copy()
            found = trial.feed(rows)
            if not any(violation.live for violation in found):
                break
            time.sleep(0.02)
            rows |= {path: self.read(path, start, stop) for path in paths if path.startswith("replay/")}
        checker.become(trial)
        return found

    def _check_counters(self, checker: RowChecker) -> None:
        """What the checkpoint counts, after an orderly close."""
        if not self.clean or self.newest is None or self.state is None or self.newest.checkpoint is None:
            return
        checkpoint = self.newest.checkpoint
        where = f"{PRIVATE_FOLDER}/journal/{self.newest.path.name}"
        for name, expected in (("anchors", checker.anchors), ("live_steps", checker.steps)):
            if checkpoint.get(name, expected) != expected:
                self.report("journal", where, None, f"{name} {expected}, as the rows say", str(checkpoint[name]))
        for index, (name, selector) in enumerate(self.config.selectors.items()):
            highest = checker.highest.get(priority_path(name), 0.0) if isinstance(selector, KEEPS_PRIORITIES) else 0.0
            stored = float(self.state["max_mass"][index])
            if highest > stored * (1 + 1e-5) and stored > 0:
                self.report("state", f"{PRIVATE_FOLDER}/state", None, f"a highest mass of {highest} or more", str(stored))
        known = checker.open_episodes
        for episode, first, last, rows, *_ in checkpoint["open"]:
            row = known.get(episode)
            if last >= self.first and (row is None or (row["last"], row["rows"]) != (last, rows) or row["first"] not in (-1, first)):
                self.report(
                    "journal", where, None, f"open episode {episode} as the rows have it: {row}", f"rows {first}-{last}, {rows} of them"
                )


def _sizes(folder: Path) -> dict[str, int]:
    """Bytes by name of what is in a folder; a live writer may take files away meanwhile."""
    found: dict[str, int] = {}
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    found[entry.name] = entry.stat().st_size
    except FileNotFoundError:
        pass
    return found


def _difference(found: Any, expected: dict[str, Any], *, exact: bool) -> tuple[str, str] | None:
    """The first thing in which two documents differ: what was expected, what is there."""
    if not isinstance(found, dict):
        return "a JSON object", str(found)[:80]
    if found == expected:
        return None
    for key, value in expected.items():
        there = found.get(key)
        if there == value:
            continue
        if not exact:
            longer = key == "shape" and isinstance(there, list) and there[1:] == value[1:] and there[0] >= value[0]
            if longer or (expected["node_type"] == "group" and key in ("attributes", "consolidated_metadata") and isinstance(there, dict)):
                continue
        return f"{key} {json.dumps(value)[:120]}", json.dumps(there)[:120]
    if exact:
        return "no other members", ", ".join(sorted(set(found) - set(expected)))
    return None
