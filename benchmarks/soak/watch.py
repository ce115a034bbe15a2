"""A server seen from outside, and what its growth is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.soak.ledger import TEMPORARY

MOST_POINTS = 300
"""Of a series that a line is laid through."""

ALLOWED = {"own_mb": 6.0, "descriptors": 20.0, "threads": 12.0, "journal_mb": 4.0, "files": 60.0}
"""How much the line may rise between the warm-up and the end. Own memory: what allocators keep for the largest moment so far, which comes
later and later; descriptors and files: what comes and goes by chance; threads: pools that fill up; journal: one checkpoint's worth."""


def look(pid: int, store: Path) -> dict[str, float]:
    """How a server stands now: megabytes, threads, sockets; descriptors and files, but those of tables that come and go."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    journal, files, links = 0, 0, open_links(pid)
    for folder, below, names in os.walk(store):
        below[:] = [name for name in below if TEMPORARY not in name]
        files += len(names)
        if folder.endswith("/journal"):
            journal += sum(_size(os.path.join(folder, name)) for name in names)
    return {
        "own_mb": int(fields["RssAnon"].split()[0]) / 1024,
        "resident_mb": int(fields["VmRSS"].split()[0]) / 1024,
        "threads": int(fields["Threads"]),
        "sockets": sum(link.startswith("socket:") for link in links),
        "descriptors": sum(not link.startswith("socket:") and not of_gone_tables(link) for link in links),
        "journal_mb": journal / 2**20,
        "files": files,
    }


def cpu_s(pid: int) -> float:
    """Seconds of CPU that a process has used."""
    ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(ticks[11]) + int(ticks[12])) / os.sysconf("SC_CLK_TCK")


def open_links(pid: int) -> list[str]:
    """What the descriptors of a process are of."""
    links = []
    for number in os.listdir(f"/proc/{pid}/fd"):
        try:
            links.append(os.readlink(f"/proc/{pid}/fd/{number}"))
        except FileNotFoundError:
            pass
    return links


def of_gone_tables(link: str) -> bool:
    """Whether a descriptor is of a table that comes and goes, or has gone."""
    return TEMPORARY in link or "/dropped-" in link


def sockets(pid: int) -> int:
    """Connections and listening sockets that a process has open."""
    return sum(link.startswith("socket:") for link in open_links(pid))


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:  # dropped meanwhile
        return 0


def rise(seconds: npt.NDArray[Any], values: npt.NDArray[Any]) -> float:
    """How much the Theil-Sen line rises from the first to the last of the points: the median of all pairs' slopes, times the time."""
    if len(seconds) > MOST_POINTS:
        pick = np.linspace(0, len(seconds) - 1, MOST_POINTS).astype(int)
        seconds, values = seconds[pick], values[pick]
    if len(seconds) < 2:
        return 0.0
    one, other = np.triu_indices(len(seconds), 1)
    slopes = (values[other] - values[one]) / (seconds[other] - seconds[one])
    return float(np.median(slopes) * (seconds[-1] - seconds[0]))


class Growth:
    """A server's looks, one after the other."""

    def __init__(self, warm_up_s: float) -> None:
        self._warm_up_s = warm_up_s
        self._seconds: list[float] = []
        self._looks: list[dict[str, float]] = []
        self._dropping = False

    def add(self, seconds: float, seen: dict[str, float], dropping: bool) -> None:
        """`seconds` since everybody was there; whether retention is at work by now."""
        if seconds < self._warm_up_s:
            self._dropping = dropping
        self._seconds.append(seconds)
        self._looks.append(seen)

    def report(self) -> dict[str, dict[str, float | None]]:
        """By what was looked at: after the warm-up and at the end (medians of five looks), the most, the rise, and what is allowed.

        Files are not judged where, on a slow machine, tables were still being filled after the warm-up.
        """
        seconds = np.array(self._seconds)
        after = int(np.searchsorted(seconds, self._warm_up_s))
        found: dict[str, dict[str, float | None]] = {}
        for name in self._looks[0] if self._looks else ():
            values = np.array([seen[name] for seen in self._looks])
            found[name] = {
                "begin": float(values[0]),
                "warm": float(np.median(values[after : after + 5])) if after < len(values) else None,
                "end": float(np.median(values[-5:])),
                "most": float(values.max()),
                "rise": rise(seconds[after:], values[after:]),
                "allowed": ALLOWED.get(name) if self._dropping or name != "files" else None,
            }
        return found


def grown(report: dict[str, dict[str, float | None]], slack: float = 1.0) -> list[str]:
    """What rose by more than `slack` times what it may."""
    return [
        f"{name} rose by {part['rise']:.1f} after the warm-up, {part['warm']:.1f} to {part['end']:.1f}; {slack * part['allowed']:g} may be"
        for name, part in report.items()
        if part["allowed"] is not None and part["rise"] is not None and part["rise"] > slack * part["allowed"]
    ]


class Fairness:
    """Who waits while others of the same group go on. Told of everybody's answers now and then."""

    STARVED, STALLED_S = 20.0, 180.0

    def __init__(self) -> None:
        self._before: dict[tuple[str, int], int] = {}
        self._behind: dict[tuple[str, int], float] = {}
        self._moved: dict[int, float] = {}
        self.worst = 0.0
        """The most that anybody fell behind: answers that the median of his group got while he waited for one."""

    def look(self, now: float, ledgers: dict[str, npt.NDArray[np.void]]) -> list[str]:
        """The slots of live processes by the process's name; returns who starves, and what stands still."""
        moved: dict[int, list[tuple[tuple[str, int], int, bool]]] = {}
        for name, slots in ledgers.items():
            for index, slot in enumerate(slots.copy()):
                if slot["waiting_since"] or slot["answers"]:
                    key, answers = (name, index), int(slot["answers"])
                    more = answers - self._before.get(key, answers)
                    moved.setdefault(int(slot["group"]), []).append((key, more, bool(slot["waiting_since"])))
                    self._before[key] = answers
        wrong = []
        for group, members in moved.items():
            median = float(np.median([more for _, more, _ in members]))
            if any(more for _, more, _ in members) or group not in self._moved or not any(waiting for _, _, waiting in members):
                self._moved[group] = now
            elif now - self._moved[group] > self.STALLED_S:
                wrong.append(f"group {group}: {len(members)} clients and no answer for {now - self._moved[group]:.0f} s")
            for key, more, waiting in members:
                self._behind[key] = 0.0 if more or not waiting else self._behind.get(key, 0.0) + median
                self.worst = max(self.worst, self._behind[key])
                if self._behind[key] >= self.STARVED:
                    wrong.append(
                        f"client {key[1]} of process {key[0]} (group {group}) waits while others got {self._behind[key]:.0f} answers"
                    )
        return wrong

    def forget(self, name: str) -> None:
        """A process is gone."""
        for table in (self._before, self._behind):
            for key in [key for key in table if key[0] == name]:
                del table[key]
