"""The parameter shelf: the newest named arrays a learner published, for actors to fetch. Kept on disk as .npz, without pickle."""

from __future__ import annotations

import io
import threading
import time
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from replaystore.errors import Corruption, InvalidArgument
from replaystore.schema.columns import DTYPES, check_name
from replaystore.storage import calls
from replaystore.storage.files import replace_file, storage_errors

Array = npt.NDArray[Any]

MAX_BYTES = 1 << 30


class ParameterShelf:
    """Named sets of arrays; each publication replaces the set and raises its version by one."""

    def __init__(self, folder: Path, mode: str) -> None:
        self._folder = folder
        self._changed = threading.Condition()
        self._sets: dict[str, tuple[dict[str, Array], int]] = {}
        self._callbacks: list[Callable[[], None]] = []
        if mode == "rw":
            with storage_errors(folder, "creating"):
                calls.make_folders(folder)
        for path in sorted(folder.glob("*.npz")) if folder.is_dir() else []:
            self._sets[path.stem] = _load(path)

    def publish(self, name: str, arrays: Mapping[str, Any]) -> int:
        """Replaces the set `name`; returns its new version, from 1 on."""
        check_name(name, "parameter set")
        copies = {str(key): np.array(value, order="C") for key, value in arrays.items()}
        if not copies:
            raise InvalidArgument(f"parameter set {name!r} must hold at least one array")
        for key, array in copies.items():
            if array.dtype.name not in DTYPES:
                raise InvalidArgument(f"parameter {key!r} has dtype {array.dtype}; use one of {', '.join(DTYPES)}")
            copies[key] = _native(array)
        size = sum(array.nbytes for array in copies.values())
        if size > MAX_BYTES:
            raise InvalidArgument(f"parameter set {name!r} has {size} bytes; at most {MAX_BYTES} are allowed")
        with self._changed:
            version = self._sets.get(name, ({}, 0))[1] + 1
            file = io.BytesIO()
            np.savez(file, **{f"array:{key}": array for key, array in copies.items()}, version=np.int64(version))  # type: ignore[arg-type]
            replace_file(self._folder / f"{name}.npz", file.getvalue(), durable=False)
            self._sets[name] = copies, version
            self._changed.notify_all()
            callbacks = list(self._callbacks)
        for callback in callbacks:
            callback()
        return version

    def fetch(self, name: str, newer_than: int, timeout_s: float) -> tuple[dict[str, Array], int] | None:
        """The set and its version once that is above `newer_than`, or None after `timeout_s`. The arrays must not be changed."""
        check_name(name, "parameter set")
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while True:
                found = self._sets.get(name)
                if found is not None and found[1] > newer_than:
                    return dict(found[0]), found[1]
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    return None
                self._changed.wait(remaining)

    def sizes(self) -> dict[str, int]:
        """Bytes of the arrays of each set, by name."""
        with self._changed:
            return {name: sum(array.nbytes for array in arrays.values()) for name, (arrays, _) in self._sets.items()}

    def on_publish(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Calls `callback` after each publication, until the returned call is made."""
        with self._changed:
            self._callbacks.append(callback)

        def remove() -> None:
            with self._changed:
                if callback in self._callbacks:
                    self._callbacks.remove(callback)

        return remove


def _native(array: Array) -> Array:
    """In the machine's byte order, as a server sends them."""
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _load(path: Path) -> tuple[dict[str, Array], int]:
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {key.removeprefix("array:"): _native(stored[key]) for key in stored.files if key.startswith("array:")}
            return arrays, int(stored["version"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise Corruption(f"{path} cannot be read ({error}): remove it, learners publish again") from error
