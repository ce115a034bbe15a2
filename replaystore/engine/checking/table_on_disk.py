"""One table's files without opening the table: what the small ones say, and rows read as they lie there. Changes nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from replaystore.core.indexes import LEAST_MASS
from replaystore.engine.checking.invariants import Leaves, RowChecker, Violation
from replaystore.engine.recovery import layouts_of, stored_layouts
from replaystore.errors import Corruption, ReplayStoreError
from replaystore.schema.selectors import KEEPS_LEAVES, Prioritized, WithoutReplacement
from replaystore.schema.table_config import TableConfig
from replaystore.storage.checksums import FILE_NAME
from replaystore.storage.files import read_json
from replaystore.storage.journal import BatchRecord, JournalFile, read_journal
from replaystore.storage.layout import FORMAT_VERSION, PRIVATE_FOLDER, ArrayLayout, episode_arrays, priority_path
from replaystore.storage.state_page import MAGIC, SIZE_BYTES, STATE_DTYPE
from replaystore.storage.zarr_metadata import ATTRIBUTES_FILE

Array = npt.NDArray[Any]

QUARANTINE = "quarantine"
LOST_FILE = "lost.json"
"""In the quarantine folder: which rows `repair` had to give up."""

REPAIR = "replaystore repair"
ATTRIBUTES = ("format_version", "created", "first_step", "next_step", "episodes", "table_config", "rows_per_chunk")


@dataclass(frozen=True, slots=True)
class Finding:
    """A promise of docs/FORMAT.md that is not kept."""

    kind: str
    """metadata, state, journal, chunk (missing or of a wrong size), checksum, rows, live (can be derived again), stray or table."""
    table: str
    file: str
    """Below the store's folder."""
    rows: tuple[int, int] | None
    """Step ids, or numbers of episodes for ``episodes/``; from the first to the end."""
    expected: str
    found: str
    remedy: str

    def __str__(self) -> str:
        where = "" if self.rows is None else f" rows {self.rows[0]}-{self.rows[1] - 1}"
        return f"{self.file}{where}: expected {self.expected}; found {self.found}. {self.remedy}"


class TableOnDisk:
    """What the small files say, and rows read without mapping them."""

    def __init__(self, root: Path, name: str, *, live: bool) -> None:
        """Reads the small files.

        Raises:
            Corruption: nothing says what the table holds.
        """
        self.root, self.name, self.folder, self.live = root, name, root / name, live
        self.findings: list[Finding] = []
        self.notes: list[str] = []
        self.bytes_read = 0
        self.attributes_source = "zarr.json"
        self.attributes = self._find_attributes()
        if int(self.attributes["format_version"]) > FORMAT_VERSION:
            raise Corruption(
                f"{self.folder} has format version {self.attributes['format_version']}, this replaystore reads up to {FORMAT_VERSION}: "
                "use a newer one"
            )
        self.config = TableConfig.from_json(self.attributes["table_config"])
        self.steps = stored_layouts(self.config, self.attributes["rows_per_chunk"])
        self.episodes = episode_arrays()
        self.layouts = {layout.path: layout for layout in (*self.steps, *self.episodes)}
        self.state = self._read_state()
        self.journal: list[JournalFile] = read_journal(self.folder / PRIVATE_FOLDER / "journal")
        self.lost: dict[str, list[list[int]]] = read_lost(self.folder)
        self.bad_chunks: dict[tuple[str, int], str] = {}
        """(array path, chunk) of files that are missing, of a wrong size, or whose checksum differs: with what was found."""
        self.leftovers: list[str] = []
        """Chunk files below the table whose rows were all dropped."""
        self.violations: list[Violation] = []
        self.bad_batches: list[BatchRecord] = []
        self.checker: RowChecker | None = None
        self._bounds()

    @staticmethod
    def is_clean(folder: Path) -> bool:
        """Whether the last close was orderly."""
        data = (folder / PRIVATE_FOLDER / "state").read_bytes()
        return len(data) >= SIZE_BYTES and bool(np.frombuffer(data, STATE_DTYPE, count=1)["clean"][0])

    # -- what the small files say

    def _find_attributes(self) -> dict[str, Any]:
        private = self.folder / PRIVATE_FOLDER / ATTRIBUTES_FILE

        def of_table() -> Any:
            return read_json(self.folder / "zarr.json")["attributes"]

        def of_store() -> Any:
            return read_json(self.root / "zarr.json")["consolidated_metadata"]["metadata"][self.name]["attributes"]

        sources = {"zarr.json": of_table, f"{PRIVATE_FOLDER}/{ATTRIBUTES_FILE}": lambda: read_json(private), "the store": of_store}
        found: dict[str, dict[str, Any]] = {}
        for source, read in sources.items():
            try:
                found[source] = _checked(read())
            except (ReplayStoreError, KeyError, TypeError, ValueError) as error:
                if source == "zarr.json":
                    self.report("metadata", "zarr.json", None, "the table's group document with its attributes", str(error))
        if not found:
            raise Corruption(
                f"nothing says what the table {self.name!r} holds: neither {self.folder / 'zarr.json'}, nor {private}, nor the store's "
                "zarr.json can be read; restore one of them from a snapshot or a backup"
            )
        self.attributes_source, chosen = next(iter(found.items()))
        copy = found.get(f"{PRIVATE_FOLDER}/{ATTRIBUTES_FILE}")
        if copy is not None and copy is not chosen and self._was_closed():
            other = [key for key in ("created", "table_config", "rows_per_chunk") if copy[key] != chosen[key]]
            if other:  # nobody but the store writes the copy
                expected = f"{', '.join(other)} as in {PRIVATE_FOLDER}/{ATTRIBUTES_FILE}"
                self.report("metadata", "zarr.json", None, expected, json.dumps(chosen[other[0]])[:120])
                self.attributes_source, chosen = f"{PRIVATE_FOLDER}/{ATTRIBUTES_FILE}", copy
        return dict(chosen)

    def _was_closed(self) -> bool:
        try:
            return not self.live and self.is_clean(self.folder)
        except OSError:
            return True

    def _read_state(self) -> np.void | None:
        """The state page, or None when it is not one."""
        path = self.folder / PRIVATE_FOLDER / "state"
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            self.report("state", f"{PRIVATE_FOLDER}/state", None, "the state page", "no file")
            return None
        if len(data) != SIZE_BYTES:
            self.report("state", f"{PRIVATE_FOLDER}/state", None, f"{SIZE_BYTES} bytes", f"{len(data)} bytes")
            return None
        state: np.void = np.frombuffer(data, STATE_DTYPE, count=1)[0]
        wrong = ""
        if int(state["magic"]) != MAGIC or int(state["format_version"]) != FORMAT_VERSION:
            wrong = "another magic number or version"
        elif int(state["clean"]) not in (0, 1):
            wrong = f"clean={state['clean']}"
        elif (
            not 0 <= state["first_step"] <= max(state["durable_step"], self.attributes["next_step"]) + (1 << 40)
            or state["durable_step"] < 0
        ):
            wrong = f"first_step={state['first_step']}, durable_step={state['durable_step']}"
        elif min(state["durable_sequence"], state["inserted_steps"], state["sampled_items"]) < 0:
            wrong = "a negative counter"
        elif not (np.isfinite(state["max_mass"]).all() and (state["max_mass"] >= 0).all()):
            wrong = "a highest mass that is negative or not finite"
        if wrong:
            self.report("state", f"{PRIVATE_FOLDER}/state", None, "a state page whose numbers can be", wrong)
            return None
        return state

    def _bounds(self) -> None:
        """Which rows there are, and how the table was left."""
        attributes, state = self.attributes, self.state
        readable = [file for file in self.journal if file.checkpoint is not None]
        self.newest = readable[-1] if readable else None
        self.clean = not self.live and state is not None and bool(state["clean"])
        self.first, self.stop = int(attributes["first_step"]), int(attributes["next_step"])
        self.episode_count = int(attributes["episodes"])
        if self.live:
            self.first = min(max(self.first, self.current_first()), self.stop)
            return
        durable = int(attributes["next_step"]) if state is None else int(state["durable_step"])
        if self.newest is None:
            found = f"{len(self.journal)} files, none with one"
            self.report("journal", f"{PRIVATE_FOLDER}/journal", None, "a journal with a readable checkpoint", found)
        else:
            checkpoint, batches = self.newest.checkpoint, self.newest.batches
            assert checkpoint is not None
            self.stop = batches[-1].first_step + batches[-1].rows if batches else int(checkpoint["next_step"])
            self.episode_count = batches[-1].episodes if batches else int(checkpoint["episodes"])
            self.first = int(checkpoint["first_step"])
        if durable > self.stop:  # the journal does not go as far as it must: what the state page promises is there all the same
            if self.newest is not None:
                where = f"{PRIVATE_FOLDER}/journal/{self.newest.path.name}"
                self.report("journal", where, (self.stop, durable), "records of every durable row", f"none from row {self.stop} on")
            self.stop = durable
            self.episode_count = self._count_episodes(self.episode_count, durable)
        if state is None:  # files are removed only after readers were told
            self.first = max(self.first, int(attributes["first_step"]))
        else:
            self.first = max(self.first, int(state["first_step"]))
        self.first = min(self.first, self.stop)

    def _count_episodes(self, known: int, stop: int) -> int:
        """How many episodes ended before row `stop`, `known` of them at least."""
        layout = next(layout for layout in self.episodes if layout.path == "episodes/last_step")
        size, count, last = layout.rows_per_chunk, known, -1
        while True:
            try:
                ends = self.read(layout.path, count, (count // size + 1) * size)
            except (FileNotFoundError, EOFError):
                return count
            rising = np.diff(ends, prepend=last) > 0
            fine = rising & (ends < stop) & (ends > 0)
            more = int(np.argmin(fine)) if not fine.all() else len(fine)
            count += more
            if more < len(fine):
                return count
            last = int(ends[-1])

    def current_first(self) -> int:
        """The oldest step kept right now: a live writer moves it on."""
        path = self.folder / PRIVATE_FOLDER / "state"
        try:
            return int(np.frombuffer(path.read_bytes(), STATE_DTYPE, count=1)["first_step"][0])
        except (OSError, ValueError):
            return self.first

    # -- reporting

    def report(self, kind: str, file: str, rows: tuple[int, int] | None, expected: str, found: str, remedy: str = "") -> None:
        """Notes a finding; `file` is below the table."""
        text = remedy or {
            "metadata": f"{REPAIR} writes it again",
            "state": f"{REPAIR} rebuilds it; counters of samples begin again",
            "journal": f"{REPAIR} rebuilds it from the rows",
            "chunk": f"{REPAIR} puts zeros in its place and makes its rows unsampleable",
            "checksum": f"{REPAIR} moves it to {QUARANTINE} and makes its rows unsampleable",
            "rows": f"{REPAIR} makes these rows unsampleable",
            "episodes": f"{REPAIR} derives them from the steps",
            "live": f"{REPAIR} derives it again",
            "stray": f"{REPAIR} moves it to {QUARANTINE}",
        }.get(kind, f"see {REPAIR} --dry-run")
        self.findings.append(Finding(kind, self.name, f"{self.name}/{file}", rows, expected, found, text))

    # -- rows and files

    def chunks(self, layout: ArrayLayout) -> range:
        """Chunks that must be there."""
        first, stop = self.span(layout)
        size = layout.rows_per_chunk
        return range(first // size, -(-stop // size)) if stop > first else range(0)

    def span(self, layout: ArrayLayout) -> tuple[int, int]:
        """First row and end of the rows of an array."""
        return (0, self.episode_count) if layout.path.startswith("episodes/") else (self.first, self.stop)

    def rows_of(self, layout: ArrayLayout, chunk: int) -> tuple[int, int]:
        """The rows of a chunk that are rows of the table."""
        first, stop = self.span(layout)
        size = layout.rows_per_chunk
        return max(first, chunk * size), min(stop, (chunk + 1) * size)

    def evicted(self, layout: ArrayLayout, chunk: int) -> bool:
        """Whether a live writer has dropped the chunk meanwhile."""
        return self.live and not layout.path.startswith("episodes/") and (chunk + 1) * layout.rows_per_chunk <= self.current_first()

    def read(self, path: str, start: int, stop: int) -> Array:
        """Rows [start, stop) of an array, ``(rows, *shape)``, read and not mapped. FileNotFoundError or EOFError where there is none."""
        layout = self.layouts[path]
        out = np.empty((stop - start, *layout.shape), layout.dtype)
        data = memoryview(out.reshape(-1).view(np.uint8))  # type: ignore[arg-type]
        position = start
        while position < stop:
            chunk = position // layout.rows_per_chunk
            end = min(stop, (chunk + 1) * layout.rows_per_chunk)
            part = data[(position - start) * layout.row_bytes : (end - start) * layout.row_bytes]
            fd = os.open(self.folder / path / layout.chunk_name(chunk), os.O_RDONLY | os.O_CLOEXEC)
            try:
                offset, done = (position - chunk * layout.rows_per_chunk) * layout.row_bytes, 0
                while done < len(part):
                    count = os.preadv(fd, [part[done:]], offset + done)
                    if not count:
                        raise EOFError(f"{path} ends early")
                    done += count
            finally:
                os.close(fd)
            position = end
        self.bytes_read += out.nbytes
        return out

    def leaves(self) -> list[Leaves]:
        """What the leaves of each selector that has some may be."""
        found = []
        for name, selector in self.config.selectors.items():
            if isinstance(selector, KEEPS_LEAVES):
                is_pass = isinstance(selector, WithoutReplacement)
                may_vanish = isinstance(selector, Prioritized) and selector.alpha > 0 and selector.epsilon**selector.alpha < LEAST_MASS
                found.append(Leaves(priority_path(name), zero_allowed=is_pass or may_vanish, is_pass=is_pass))
        return found

    def strays(self, expected: dict[str, set[str]]) -> Iterator[str]:
        """Files and folders below the table that no format page names."""
        groups = {""}
        for path in expected:
            parts = path.split("/")
            groups.update("/".join(parts[:depth]) for depth in range(1, len(parts)))
        private = {"state", "journal", FILE_NAME, ATTRIBUTES_FILE, QUARANTINE}
        for group in sorted(groups):
            below = {path.split("/")[-1] for path in (*groups, *expected) if path and path.rpartition("/")[0] == group}
            yield from self._strangers(group, below | {"zarr.json"} | ({PRIVATE_FOLDER} if not group else set()))
        for path, names in expected.items():
            yield from self._strangers(path, names)
        yield from self._strangers(PRIVATE_FOLDER, private)
        yield from self._strangers(f"{PRIVATE_FOLDER}/journal", {file.path.name for file in self.journal})

    def _strangers(self, path: str, known: Iterable[str]) -> Iterator[str]:
        folder = self.folder / path if path else self.folder
        names = sorted(os.listdir(folder)) if folder.is_dir() else []
        for name in names:
            if name not in known and not (name.endswith(".partial") and not self.clean) and not (self.live and name.endswith(".log")):
                yield f"{path}/{name}" if path else name


def _checked(attributes: Any) -> dict[str, Any]:
    missing = [key for key in ATTRIBUTES if key not in attributes]
    if missing:
        raise Corruption(f"attributes lack {', '.join(missing)}")
    if int(attributes["format_version"]) > FORMAT_VERSION:
        return dict(attributes)
    config = TableConfig.from_json(attributes["table_config"])
    missing = [layout.path for layout in layouts_of(config) if layout.path not in attributes["rows_per_chunk"]]
    if missing:
        raise Corruption(f"rows_per_chunk lacks {', '.join(missing)}")
    return dict(attributes)


def read_lost(folder: Path) -> dict[str, list[list[int]]]:
    """Ranges of rows and of episodes that `repair` had to give up."""
    path = folder / PRIVATE_FOLDER / QUARANTINE / LOST_FILE
    try:
        found = json.loads(path.read_text())
        return {
            "steps": [list(map(int, pair)) for pair in found["steps"]],
            "episodes": [list(map(int, pair)) for pair in found["episodes"]],
        }
    except (OSError, ValueError, KeyError, TypeError):
        return {"steps": [], "episodes": []}
