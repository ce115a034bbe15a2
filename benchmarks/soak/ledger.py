"""What a process under load did, in a file that others map: it is there also when the process was killed in the middle of something."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

BINS, PER_OCTAVE = 264, 8
"""Of latencies: from 1 µs to two hours, 9 % wide."""

CROWD, LIMITED, TEMPORARY = "crowd", "limited", "temporary"
"""Tables: one that everybody uses, one whose limiter blocks both sides all the time, and how those that come and go begin."""

AUDITED = "audited"
"""File that is touched whenever every row has been read."""

GROUPS = ("appends to crowd", "appends to limited", "batches from crowd", "batches from limited", "tables made and dropped", "parameters")
APPENDS, LIMITED_APPENDS, BATCHES, LIMITED_BATCHES, TABLES, PARAMETERS = range(len(GROUPS))

SLOT = np.dtype(
    [
        ("group", "<i4"),
        ("actor", "<i4"),
        ("sent", "<i8"),  # steps numbered below were given to gRPC, or may have been
        ("acknowledged", "<i8"),  # steps numbered below are
        ("answers", "<i8"),
        ("losses", "<i8"),  # calls that ended by themselves, as when making a connection took too long
        ("waiting_since", "<f8"),  # monotonic seconds; 0: it waits for nothing
    ]
)


class Ledger:
    """One slot for each client in the process, and latencies by group."""

    def __init__(self, path: Path, clients: int) -> None:
        kind = np.dtype([("latencies", "<i8", (len(GROUPS), BINS)), ("slots", SLOT, (clients,))])
        new = not path.exists()
        mapped = np.memmap(path, kind, "r+" if not new else "w+", shape=(1,))
        self.latencies: npt.NDArray[np.int64] = mapped["latencies"][0]
        self.slots: npt.NDArray[np.void] = mapped["slots"][0]

    def join(self, slot: int, group: int, actor: int = 0) -> Entry:
        """The slot's owner begins."""
        self.slots[slot] = (group, actor, 0, 0, 0, 0, 0.0)
        return Entry(self, slot, group)


class Entry:
    """One client's slot."""

    def __init__(self, ledger: Ledger, slot: int, group: int) -> None:
        self._slot, self._latencies = ledger.slots[slot], ledger.latencies[group]
        self._since = 0.0

    def sending(self, sent: int = 0) -> None:
        """From now on it waits for an answer."""
        self._since = time.monotonic()
        self._slot["sent"] = sent
        self._slot["waiting_since"] = self._since

    def lost(self) -> None:
        """Its call has ended, and not because it wanted that."""
        self._slot["losses"] += 1

    def answered(self, acknowledged: int = 0) -> None:
        """It has one."""
        self._slot["acknowledged"] = acknowledged
        self._slot["answers"] += 1
        self._slot["waiting_since"] = 0.0
        self._latencies[bin_of(time.monotonic() - self._since)] += 1


def bin_of(seconds: float) -> int:
    """Of a latency."""
    return min(BINS - 1, max(0, math.ceil(PER_OCTAVE * math.log2(max(seconds, 1e-6) * 1e6))))


def quantiles_ms(counts: npt.NDArray[np.int64]) -> dict[str, Any]:
    """Upper edges, in milliseconds, of the bins that hold the median, the 99th percentile and the worst."""
    total = int(counts.sum())
    if not total:
        return {"count": 0, "p50_ms": None, "p99_ms": None, "worst_ms": None}
    ranks = np.cumsum(counts)

    def edge(share: float) -> float:
        return float(2 ** (int(np.searchsorted(ranks, math.ceil(share * total))) / PER_OCTAVE) / 1e3)

    return {"count": total, "p50_ms": edge(0.5), "p99_ms": edge(0.99), "worst_ms": edge(1.0)}


def fail(folder: Path, who: str, why: str) -> None:
    """Tells the process that watches."""
    note(folder, "failures", f"{who}: {why}")


def note(folder: Path, name: str, text: str) -> None:
    """A line into a file that grows by few of them."""
    with (folder / name).open("a") as file:
        file.write(f"{' '.join(text.split())}\n")
