"""All files of one table: creation, batches in, group commit, publication, recovery.

The order that makes promises 1 to 3 true: rows, then the journal's record, then the acknowledgement; at each commit fdatasync of the rows,
then of the journal, then the durable watermark, and only then does anything leave the disk.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from crc32c import crc32c

from replaystore.errors import AlreadyExists, Corruption, DiskFull
from replaystore.storage import calls
from replaystore.storage.address_range import Change
from replaystore.storage.checksums import Checksums
from replaystore.storage.column import ColumnSet
from replaystore.storage.files import read_json, storage_errors
from replaystore.storage.journal import BatchRecord, Journal, Recovered
from replaystore.storage.layout import FORMAT_VERSION, PRIVATE_FOLDER, ArrayLayout, episode_arrays
from replaystore.storage.state_page import StatePage
from replaystore.storage.zarr_metadata import Documents, publish

Array = npt.NDArray[Any]

COMMITS_AHEAD = 4
"""Files are made ahead of rows that would come in so many commits like the one under way."""

Capture = Callable[[], dict[str, Any]]


@dataclass(slots=True)
class Commit:
    """A commit under way: what was written when it was captured."""

    first_step: int
    next_step: int
    sequence: int
    syncs: list[Callable[[], None]]
    changes: int
    checkpoint: dict[str, Any] | None
    """Set when the journal is to begin a new file with it."""


class TableFiles:
    """One table on disk. Callers hold the table's lock for every method unless it says otherwise."""

    def __init__(self, folder: Path, mode: str, attributes: dict[str, Any], layouts: Iterable[ArrayLayout]) -> None:
        self.folder = folder
        self.attributes = attributes
        self.steps = ColumnSet(folder, layouts, mode)
        self.episodes = ColumnSet(folder, episode_arrays(), mode)
        self.state = StatePage(folder / PRIVATE_FOLDER / "state", mode)
        self.journal = Journal(folder / PRIVATE_FOLDER / "journal")
        self.checksums = Checksums(folder, (*self.steps.layouts, *self.episodes.layouts))
        self.next_step = 0
        self.next_episode = 0
        self.sequence = 0
        self.checkpoint_step = 0
        """Rows from here on are needed to recover, even if retention has passed them by: the journal's checkpoint knows those below."""
        self._checked = sorted(layout.path for layout in self.steps.layouts if not layout.live)
        self._writable = sorted(layout.path for layout in self.steps.layouts if layout.live and not layout.derived)
        self._episode_paths = sorted(self.episodes.columns)
        self._durable_first = 0  # the first step at the commit that raised the watermark: readers see both or neither
        self._published: tuple[int, int, int] | None = None
        self.documents: Documents = {}
        """What was published last."""
        self.on_publish: Callable[[], None] = lambda: None
        """Called after each publication."""
        self._since_capture: list[BatchRecord] = []
        self.changes = 0
        """Changes of live columns that a commit is to sync, since opening."""
        self.settled_step = 0
        """Rows below this are known to be durable even after power loss, which may leave an older state page behind."""
        self.durable_changes = 0
        """How many of them have been synced."""

    # -- creating and opening

    @staticmethod
    def create(folder: Path, config: Mapping[str, Any], layouts: Iterable[ArrayLayout]) -> None:
        """Makes an empty table; its group's zarr.json comes last, so that a crash or an error leaves no half table."""
        layouts = list(layouts)
        if (folder / "zarr.json").exists():
            raise AlreadyExists(f"{folder} is a table already")
        try:
            TableFiles._create(folder, config, layouts)
        except BaseException:
            (folder / "zarr.json").unlink(missing_ok=True)
            raise

    @staticmethod
    def _create(folder: Path, config: Mapping[str, Any], layouts: list[ArrayLayout]) -> None:
        private = folder / PRIVATE_FOLDER
        with storage_errors(folder, "creating"):
            for layout in (*layouts, *episode_arrays()):
                calls.make_folders(folder / layout.path)
            calls.make_folders(private / "journal")
            if (private / "state").exists():
                calls.unlink(private / "state")
        state = StatePage(private / "state", "rw")
        state["clean"] = 1
        state.sync()
        state.close()
        journal = Journal(private / "journal")
        journal.start({"next_step": 0, "first_step": 0, "episodes": 0, "sequence": 0, "open": [], "anchors": 0, "live_steps": 0})()
        journal.close()
        with storage_errors(private, "syncing"):
            calls.sync_folder(private)
        attributes = {
            "format_version": FORMAT_VERSION,
            "created": time.time(),
            "first_step": 0,
            "next_step": 0,
            "episodes": 0,
            "table_config": dict(config),
            "rows_per_chunk": {layout.path: layout.rows_per_chunk for layout in layouts},
        }
        publish(folder, layouts, episode_arrays(), attributes, durable=True)
        with storage_errors(folder.parent, "syncing"):
            calls.sync_folder(folder.parent)

    @staticmethod
    def is_half_made(folder: Path) -> bool:
        """Whether a folder is what a crash left of a table's creation: no zarr.json, no rows."""
        begun = (folder / PRIVATE_FOLDER).is_dir() and not (folder / "zarr.json").exists()
        return begun and not any(path.name.startswith("c.") for path in folder.rglob("c.*"))

    @staticmethod
    def read_attributes(folder: Path) -> dict[str, Any]:
        """The table's attributes; Corruption when the folder is no table, or one of a newer format."""
        attributes = read_json(folder / "zarr.json").get("attributes", {})
        version = attributes.get("format_version")
        if not isinstance(version, int) or "table_config" not in attributes:
            raise Corruption(f"{folder} is a Zarr group but no replaystore table: its attributes lack format_version or table_config")
        if version > FORMAT_VERSION:
            raise Corruption(f"{folder} has format version {version}, this replaystore reads up to {FORMAT_VERSION}: use a newer one")
        return dict(attributes)

    def open_published(self) -> None:
        """Maps what readers may see: the published rows."""
        self.next_step, self.next_episode = int(self.attributes["next_step"]), int(self.attributes["episodes"])
        self.steps.open(int(self.attributes["first_step"]), self.next_step)
        self.episodes.open(0, self.next_episode)

    def recover(self, progress: Callable[[int, int], None] | None = None) -> Recovered:
        """Opens for writing: maps the rows, checks what is not known to be durable, cuts at the last batch that is whole.

        Args:
            progress: called with rows checked and rows to check.

        Returns:
            The checkpoint and the batches after it that hold. The state page still says whether the last close was clean.
        """
        found = self._with_files(self.journal.recover())
        checkpoint = found.checkpoint
        _, stop, episodes = found.end
        first = max(int(checkpoint["first_step"]), self.state["first_step"])
        floor = min(first, int(checkpoint["next_step"]), stop)
        if self.state.fresh:  # nobody knows any more how far retention had come: as far as files are gone
            floor = self.steps.whole_from(floor, stop)
        self.steps.open(floor, stop)
        self.episodes.open(0, episodes)
        found = Recovered(checkpoint, found.batches[: self._count_good(found, progress)])
        self.sequence, self.next_step, self.next_episode = found.end
        durable = self.state["durable_step"]
        if self.next_step < durable:
            raise Corruption(
                f"{self.folder}: rows below {durable} were durable, but its journal ends at {self.next_step}: the journal was damaged or "
                "replaced; restore it from a snapshot, or run 'replaystore repair'"
            )
        if self.next_step < stop or self.next_episode < episodes:  # what comes after the last good batch is nobody's
            self.steps.open(min(floor, self.next_step), self.next_step)
            self.episodes.open(0, self.next_episode)
        self.state["first_step"] = min(max(first, floor), self.next_step)
        self.steps.mark_unsynced(max(self.state["durable_step"], int(checkpoint["next_step"])), self.next_step)
        self.episodes.mark_unsynced(int(checkpoint["episodes"]), self.next_episode)
        self._since_capture = list(found.batches)
        # files that a crash kept from going, or that were made for rows that never came
        self.steps.sweep(min(floor, int(self.attributes["first_step"])), self.next_step)
        self.episodes.sweep(0, self.next_episode)
        return found

    def _with_files(self, found: Recovered) -> Recovered:
        """Without the batches from the first on whose files power loss has taken. Those below the watermark must have theirs."""
        _, stop, episodes = found.end
        kept = Recovered(found.checkpoint, [batch for batch in found.batches if batch.sequence <= self.state["durable_sequence"]])
        _, safe_stop, safe_episodes = kept.end
        rows_until = self.steps.whole_until(safe_stop, stop)
        episodes_until = self.episodes.whole_until(safe_episodes, episodes)
        for batch in found.batches[len(kept.batches) :]:
            if batch.first_step + batch.rows > rows_until or batch.episodes > episodes_until:
                break
            kept.batches.append(batch)
        return kept

    def _count_good(self, found: Recovered, progress: Callable[[int, int], None] | None) -> int:
        """How many batches, from the oldest, hold bytes that check. Those below the watermark are known to."""
        safe = max(self.state["durable_sequence"], int(found.checkpoint["sequence"]))
        total = sum(batch.rows for batch in found.batches if batch.sequence > safe)
        done = 0
        episodes = int(found.checkpoint["episodes"])
        for index, batch in enumerate(found.batches):
            if batch.sequence > safe:
                if self._crc_on_disk(batch, episodes) != (batch.crc, batch.writable_crc):
                    return index
                done += batch.rows
                if progress is not None:
                    progress(done, total)
            episodes = batch.episodes
        return len(found.batches)

    def _crc_on_disk(self, batch: BatchRecord, episodes_before: int) -> tuple[int, int]:
        stop = batch.first_step + batch.rows
        crc = _crc((self.steps.rows(path, batch.first_step, stop) for path in self._checked), 0)
        writable = _crc((self.steps.rows(path, batch.first_step, stop) for path in self._writable), 0)
        if batch.episodes > episodes_before:
            crc = _crc((self.episodes.rows(path, episodes_before, batch.episodes) for path in self._episode_paths), crc)
        return crc, writable

    def restart_journal(self, checkpoint: dict[str, Any], *, live: bool) -> None:
        """After recovery or at a clean close: syncs everything, begins a journal with `checkpoint`, raises the watermark.

        Args:
            checkpoint: all that the journal before it said.
            live: syncs the live columns too, which only the opening after a clean close relies on.
        """
        for call in (*self.steps.take_dirty(), *self.episodes.take_dirty()):
            call()
        if live:
            self.steps.remove_made()
            self.steps.sync_live()
        self.journal.start(checkpoint)()
        self.checkpoint_step = int(checkpoint["next_step"])
        self._since_capture = []
        self._raise_watermark(self.next_step, self.sequence)
        self._durable_first = self.state["first_step"]
        self.settle()

    # -- writing

    def write_batch(
        self, arrays: Mapping[str, Array], episodes: Mapping[str, Array], seeds: tuple[tuple[int, int], ...]
    ) -> list[Callable[[], None]]:
        """Writes rows at `next_step`, finished episodes at `next_episode`, and the journal's record; then both counters move on.

        Args:
            arrays: by path, every array of steps/ and meta/, ``(rows, …)``, C-contiguous.
            episodes: by path, every array of episodes/, or nothing.
            seeds: (episode, seed) of the episodes that begin.

        Returns:
            Calls that close address reservations left behind; to be made once no gather is under way.

        Raises:
            StorageError: nothing counts as written; DiskFull may be tried again.
        """
        rows = len(arrays["meta/episode"])
        left = self.steps.prepare(self.state["first_step"], self.next_step + rows)
        crc = _crc((arrays[path] for path in self._checked), 0)
        writable_crc = _crc((arrays[path] for path in self._writable), 0)
        self.steps.write(self.next_step, arrays)
        count = 0
        if episodes:
            count = len(episodes["episodes/episode"])
            left += self.episodes.prepare(0, self.next_episode + count)
            crc = _crc((episodes[path] for path in self._episode_paths), crc)
            self.episodes.write(self.next_episode, episodes)
        record = BatchRecord(self.sequence + 1, self.next_step, rows, self.next_episode + count, crc, writable_crc, seeds)
        self.journal.append(record)
        self._since_capture.append(record)
        self.sequence += 1
        self.next_step += rows
        self.next_episode += count
        return [reservation.close for reservation in left]

    def touch(self, path: str, ids: npt.NDArray[np.int64]) -> None:
        """Rows `ids` of a live column were changed, and are to be as durable as rows inserted now. (Priorities and counts need not be.)"""
        self.steps.columns[path].touch(ids)
        self.changes += 1

    def settle(self) -> None:
        """Makes the watermark itself durable: recovery will not ask any more whether the rows below it are as inserted. Needs no lock."""
        step = self.state["durable_step"]
        self.state.sync()
        self.settled_step = step

    # -- group commit

    @property
    def commit_due(self) -> bool:
        """Whether anything has changed since the last commit."""
        moved = self.next_step != self.state["durable_step"] or self._durable_first != self.state["first_step"]
        return moved or self.changes > self.durable_changes or self.rotation_due

    @property
    def rotation_due(self) -> bool:
        """Whether the journal is to begin a new file: it is large, or files can go only once its checkpoint is past them."""
        first = self.state["first_step"]
        if self.journal.is_large:
            return True
        return first > self.checkpoint_step and self.steps.has_before(first)

    def drop_before(self, first: int) -> list[Callable[[], None]]:
        """See `ColumnSet.drop_before`; what recovery would need stays."""
        return self.steps.drop_before(min(first, self.checkpoint_step))

    def capture(self, checkpoint: Capture) -> Commit:
        """First half of a commit: what there is to sync. Under the lock."""
        rotate = self.rotation_due
        commit = Commit(
            self.state["first_step"],
            self.next_step,
            self.sequence,
            [
                *self.steps.due_ahead(self.next_step, COMMITS_AHEAD * (self.next_step - self.state["durable_step"])),
                *self.steps.take_dirty(),
                *self.episodes.take_dirty(),
                self.journal.sync_call(),
            ],
            self.changes,
            checkpoint() if rotate else None,
        )
        self._since_capture = []
        return commit

    @staticmethod
    def sync(commit: Commit) -> None:
        """Second half: the slow part. Without the lock. An error means that the table must refuse inserts from now on."""
        for call in commit.syncs:
            call()

    def finish(self, commit: Commit) -> Callable[[], None] | None:
        """Third: raises the watermark; returns a slow call, for outside the lock, when the journal began a new file."""
        self._raise_watermark(commit.next_step, commit.sequence)
        self._durable_first = commit.first_step
        self.durable_changes = commit.changes
        if commit.checkpoint is None:
            return None
        try:
            make_durable, step = self.journal.start(commit.checkpoint, self._since_capture), commit.next_step
        except DiskFull:
            return None  # the old file goes on; the next commit tries again

        def begun() -> None:
            make_durable()
            self.checkpoint_step = step

        return begun

    def _raise_watermark(self, step: int, sequence: int) -> None:
        self.state["durable_step"] = step
        self.state["durable_sequence"] = sequence

    def inspect(self, most: int) -> Change | None:
        """Whether something outside has changed chunk files; looks at the newest and at `most` others of each column. Needs no lock."""
        return self.steps.inspect(most) or self.episodes.inspect(most)

    # -- publication

    def prepare_publication(self) -> None:
        """Notes what is durable now, for the next `publish`. Under the lock."""
        stop = self.state["durable_step"]
        since = max(0, self.next_episode - 65536)
        closing_rows = self.episodes.rows("episodes/last_step", since, self.next_episode)
        episodes = since + int(np.searchsorted(closing_rows, stop, side="left"))
        self.attributes |= {"first_step": min(self._durable_first, stop), "next_step": stop, "episodes": episodes}

    def publish(self, *, durable: bool = False, force: bool = False) -> None:
        """Lets readers see what `prepare_publication` noted. Needs no lock, but one publisher at a time."""
        position = (self.attributes["first_step"], self.attributes["next_step"], self.attributes["episodes"])
        if position != self._published or force or durable:
            self.documents = publish(self.folder, self.steps.layouts, self.episodes.layouts, self.attributes, durable=durable)
            self._published = position
            self.on_publish()

    def seal(self, most_bytes: int | None, *, save: bool) -> None:
        """Takes checksums of what `prepare_publication` noted, reading `most_bytes` at most. Needs no lock, but one caller at a time."""
        self.checksums.extend(self.attributes["first_step"], self.attributes["next_step"], self.attributes["episodes"], most_bytes)
        self.checksums.save(now=save)

    def sync_publication(self) -> None:
        """Waits until what readers see is on stable storage: files are to be removed that the publication before it still counts in."""
        with storage_errors(self.folder, "syncing"):
            calls.sync_folder(self.folder)

    @property
    def nbytes(self) -> int:
        """Bytes of all chunk files."""
        return self.steps.nbytes + self.episodes.nbytes

    def close(self) -> None:
        """Closes everything, saving nothing."""
        self.journal.close()
        self.steps.close()
        self.episodes.close()
        self.state.close()


def _crc(arrays: Iterable[Array], crc: int) -> int:
    """Continues a CRC32C with the bytes of arrays, one after the other."""
    for array in arrays:
        crc = crc32c(array, crc)  # type: ignore[arg-type]  # C-contiguous, whatever its shape
    return int(crc)
