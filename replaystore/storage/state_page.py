"""The state page: the few numbers of a table that change with every call, in one mapped page of ``__replaystore/state``.

A mapped page survives ``kill -9`` to the last store instruction, so sampling needs no journal. After power loss it may be a little old,
which costs nothing but exactness of counters; the one field that safety hangs on, `durable_step`, is only ever raised after the sync.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from replaystore.errors import Corruption
from replaystore.storage import calls
from replaystore.storage.files import storage_errors
from replaystore.storage.layout import FORMAT_VERSION

MAGIC = int.from_bytes(b"RPLSTATE", "little")
SIZE_BYTES = 4096

STATE_DTYPE = np.dtype(
    [
        ("magic", "<u8"),
        ("format_version", "<u8"),
        ("clean", "<u8"),  # 1 after an orderly close, 0 while a process has the table open for writing
        ("durable_step", "<i8"),  # rows below survive power loss
        ("durable_sequence", "<i8"),  # batches of the journal up to this one do
        ("first_step", "<i8"),
        ("inserted_steps", "<i8"),  # closing rows not counted
        ("sampled_items", "<i8"),
        ("rng", "<u8", (4,)),  # xoshiro256++
        ("max_mass", "<f8", (16,)),  # per selector, in the order of the configuration
        ("limiter_inserted", "<i8"),  # steps inserted that the rate limiter does not count: it was set after them
        ("limiter_sampled", "<i8"),  # items sampled likewise
        ("made_with", "<f8", (16, 2)),  # per selector, alpha and epsilon that its leaves and max_mass stand under; zeros: as configured
        ("version_count", "<i8"),  # the highest policy version ever inserted, plus one; 0: none known
    ]
)


class StatePage:
    """`fields[name]` is read and written in place."""

    def __init__(self, path: Path, mode: str) -> None:
        self._path = path
        fresh = mode != "r" and (not path.exists() or path.stat().st_size == 0)
        with storage_errors(path, "opening"):
            fd = calls.open_file(path, os.O_RDONLY if mode == "r" else os.O_RDWR | os.O_CREAT)
            try:
                if fresh:
                    calls.preallocate(fd, SIZE_BYTES)
                if os.fstat(fd).st_size < SIZE_BYTES:
                    raise Corruption(f"{path} is shorter than {SIZE_BYTES} bytes: remove it, its content is rebuilt but for counters")
                access = mmap.ACCESS_COPY if mode == "r" else mmap.ACCESS_WRITE
                self._map = mmap.mmap(fd, SIZE_BYTES, access=access)
            finally:
                os.close(fd)
        self._show(np.frombuffer(self._map, STATE_DTYPE, count=1))
        self.fresh = mode != "r" and not self.fields.view(np.uint8).any()
        """Whether there was nothing: every number begins at 0."""
        if self.fresh:
            self.fields["magic"], self.fields["format_version"] = MAGIC, FORMAT_VERSION
        elif int(self.fields["magic"][0]) != MAGIC:
            raise Corruption(
                f"{path} does not begin with the state page's magic number: remove it, its content is rebuilt but for counters"
            )

    def _show(self, fields: npt.NDArray[Any]) -> None:
        self.fields = fields
        self._numbers = {name: fields[name] for name in STATE_DTYPE.names or ()}  # looked up at every call
        self.rng: npt.NDArray[np.uint64] = fields["rng"][0]
        """State of the table's random numbers, uint64[4], changed in place."""

    def __getitem__(self, name: str) -> int:
        return int(self._numbers[name].item(0))

    def __setitem__(self, name: str, value: int) -> None:
        self._numbers[name][0] = value

    @property
    def max_mass(self) -> npt.NDArray[np.float64]:
        """Highest mass seen per selector, float64[16], changed in place."""
        return self.fields["max_mass"][0]  # type: ignore[no-any-return]

    @property
    def made_with(self) -> npt.NDArray[np.float64]:
        """Alpha and epsilon of the leaves per selector, float64[16, 2], changed in place."""
        return self.fields["made_with"][0]  # type: ignore[no-any-return]

    def sync(self) -> None:
        """Waits until the page is on stable storage."""
        with storage_errors(self._path, "syncing"):
            calls.sync_map(self._path, self._map)

    def close(self) -> None:
        """Drops the mapping once no array over it is left."""
        self._show(np.zeros(1, STATE_DTYPE))
