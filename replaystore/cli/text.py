"""Numbers, times, values and tables as text; JSON. Knows nothing of stores."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from replaystore.diagnosis.words import duration as duration
from replaystore.diagnosis.words import size as size

WIDE = 10_000
"""Columns of output that is no terminal: nothing is cut off for a program that reads it."""


def note(line: str) -> None:
    """A line for people, on stderr."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def say(line: str = "") -> None:
    """A line of output."""
    sys.stdout.write(f"{line}\n")


def say_json(value: Any) -> None:
    """One line of JSON. Arrays become lists; NaN and infinity, which JSON has not, become null."""
    say(json_line(value))


def json_line(value: Any) -> str:
    """What `say_json` says."""
    return json.dumps(plain(value), allow_nan=False)


def plain(value: Any) -> Any:
    """`value` as what JSON knows."""
    if isinstance(value, dict):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    if isinstance(value, np.ndarray):
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            return plain(value.tolist())
        return value.tolist()
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def say_table(headings: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str] = ()) -> None:
    """Rows under headings; the columns named in `right` are aligned to the right."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=WIDE)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for heading in headings:
        table.add_column(heading, justify="right" if heading in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)


def count(number: int) -> str:
    """1,234,567."""
    return f"{number:,}"


def moment(seconds: float | None) -> str:
    """Local date and time of seconds since 1970."""
    return "-" if seconds is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def number(value: float) -> str:
    """A figure with as many digits as say something."""
    return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"


def cell(value: npt.NDArray[Any]) -> str:
    """One row of a column: a scalar, a short vector, or what a large array is like."""
    if value.dtype.kind == "b":
        return ("yes" if value else "") if value.ndim == 0 else f"{int(value.sum())} of {value.size} set"
    if value.ndim == 0:
        return number(float(value)) if value.dtype.kind == "f" else str(value)
    if value.ndim == 1 and value.size <= 6:
        return " ".join(number(float(part)) if value.dtype.kind == "f" else str(part) for part in value)
    shape = "x".join(map(str, value.shape))
    return f"{shape}, {number(float(value.min()))} to {number(float(value.max()))}"
