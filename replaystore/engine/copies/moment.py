"""A table at one moment, for whoever copies it while it goes on. Knows nothing of where the copy goes.

Rows of `steps/`, `meta/` and `episodes/` below the noted positions never change again and stay mapped until `close`. Those of `replay/`
go on changing: a link that has come since leads to `next_step` or beyond, a priority may be a newer one, and rows may be removed.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from replaystore.engine.rows import Rows
from replaystore.schema.table_config import TableConfig
from replaystore.storage.layout import ArrayLayout
from replaystore.storage.table_files import TableFiles

Array = npt.NDArray[Any]


class Moment:
    """Made under the table's lock, in microseconds. Close it: until then no file of the table leaves the disk."""

    def __init__(
        self,
        name: str,
        config: TableConfig,
        files: TableFiles,
        rows: Rows,
        checkpoint: dict[str, Any],
        deletions: int,
        close: Callable[[], None],
    ) -> None:
        self.name = name
        self.config = config
        self.folder: Path = files.folder
        self.checkpoint = checkpoint
        self.deletions = deletions
        """Deletions since the table was opened: when two moments differ in it, links read in between do not fit each other."""
        self.close = close
        self.attributes: dict[str, Any] = dict(files.attributes)
        self.state = files.state.fields.copy()
        """The state page, ``(1,)`` of `STATE_DTYPE`."""
        self.origin, self.first_step, self.next_step = rows.origin, rows.first, rows.stop
        self.episodes = files.next_episode
        self.sequence = max(files.sequence, files.state["durable_sequence"])
        self.step_layouts: list[ArrayLayout] = list(files.steps.layouts)
        self.episode_layouts: list[ArrayLayout] = list(files.episodes.layouts)
        self._arrays = {layout.path: rows.array(layout.path) for layout in self.step_layouts}
        self._arrays |= {layout.path: files.episodes.columns[layout.path].array for layout in self.episode_layouts}

    def rows(self, path: str, start: int, stop: int) -> Array:
        """A view of rows [start, stop) of an array along the steps, ``(stop - start, *shape)``."""
        return self._arrays[path][start - self.origin : stop - self.origin]

    def take(self, path: str, ids: npt.NDArray[np.int64]) -> Array:
        """Copies of the rows `ids` of an array along the steps, ``(len(ids), *shape)``."""
        taken: Array = np.take(self._arrays[path], ids - self.origin, axis=0)
        return taken

    def episode_rows(self, name: str, start: int = 0, stop: int | None = None) -> Array:
        """A view of rows [start, stop) of ``episodes/NAME``, of all by default."""
        return self._arrays[f"episodes/{name}"][start : self.episodes if stop is None else stop]
