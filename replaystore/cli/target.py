"""What a reading command is pointed at: a folder, opened read-only without its lock, or a server. Both have the same verbs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Protocol, Self

import numpy.typing as npt

import replaystore as rs

_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.\-]+):\d{1,5}")


class Readable(Protocol):
    """The verbs that the reading commands use."""

    def tables(self) -> list[str]:
        """Names of the tables."""

    def describe(self, name: str) -> rs.TableDescription:
        """What a table is."""

    def stats(self, name: str) -> rs.TableStats:
        """How a table stands."""

    def read_steps(self, name: str, start: int, stop: int, columns: Any = None) -> dict[str, npt.NDArray[Any]]:
        """Rows [start, stop)."""

    def episodes(self, name: str, start: int | None = None, stop: int | None = None) -> dict[str, npt.NDArray[Any]]:
        """Finished episodes [start, stop)."""

    def __enter__(self) -> Self:
        """A context manager."""

    def __exit__(self, *arguments: Any) -> None:
        """Closes it."""


def is_address(where: str) -> bool:
    """Whether `where` names a server. A folder of that name wins: write ``./localhost:7777`` or the address in full."""
    return where.startswith("unix:") or (_ADDRESS.fullmatch(where) is not None and not Path(where).exists())


def open_target(where: str) -> Readable:
    """The store or the server at `where`.

    Raises:
        NotFound: a folder that is no store.
    """
    if is_address(where):
        from replaystore_client import Client

        return Client(where, timeout_s=5.0)
    return rs.open(where, mode="r")
