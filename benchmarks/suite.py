"""Runs the contestants in turn, several rounds, each in a process of its own; keeps every value."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from peers import NotInstallable, interpreter, last_line, names
from workload import INSERTED_BYTES, LATENCY, SAMPLED_BYTES, UNITS

HERE = Path(__file__).resolve().parent
CONTESTANT_S = 1800

Key = tuple[str, str, str, str]
"""Contestant with its version, how it was done, workload, figure."""


@dataclass
class Results:
    """Everything measured in one run of the suite."""

    options: dict[str, Any]
    machine: dict[str, Any]
    values: dict[Key, list[float]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def median(self, contestant: str, workload: str, figure: str, way: str | None = None) -> float | None:
        """The best way's median, or that way's; None when there is none."""
        found = [
            statistics.median(values)
            for (name, how, work, what), values in self.values.items()
            if name.split()[0] == contestant and (work, what) == (workload, figure) and way in (None, how)
        ]
        return (min if figure == LATENCY else max)(found, default=None)

    def ratio_to_memcpy(self, key: Key) -> float | None:
        """Payload bytes per second of a figure, by those of one copying thread."""
        _, _, workload, figure = key
        copied = self.median("machine", "machine", "memcpy")
        bytes_ = (INSERTED_BYTES if figure.startswith("insert") else SAMPLED_BYTES).get(workload)
        if copied is None or bytes_ is None or figure in UNITS:
            return None
        return statistics.median(self.values[key]) * bytes_ / (copied * 1e9)

    def ratio_to(self, peer: str, key: Key) -> float | None:
        """A figure by the same one of a peer, above 1 where the peer is slower, whether that means more or less."""
        name, _, workload, figure = key
        reference = self.median(peer, workload, figure)
        if reference is None or name.startswith("machine"):
            return None
        ratio = statistics.median(self.values[key]) / reference
        return 1 / ratio if figure == LATENCY else ratio

    def ratios(self) -> dict[str, dict[str, float]]:
        """Ours by memcpy and by cpprb: what a later run is checked against."""
        found: dict[str, dict[str, float]] = {"memcpy": {}, "cpprb": {}}
        for key in self.values:
            if not key[0].startswith("replaystore"):
                continue
            name = " | ".join(key[1:])
            for reference, ratio in (("memcpy", self.ratio_to_memcpy(key)), ("cpprb", self.ratio_to("cpprb", key))):
                if ratio is not None:
                    found[reference][name] = ratio
        return found

    def as_json(self) -> dict[str, Any]:
        """All of it, for a file."""
        results = [
            {"contestant": name, "way": way, "workload": workload, "figure": figure, "unit": unit(figure), "values": values}
            for (name, way, workload, figure), values in self.values.items()
        ]
        return {"options": self.options, "machine": self.machine, "results": results, "missing": self.missing, "ratios": self.ratios()}


def unit(figure: str) -> str:
    """What a figure's values are in."""
    if figure in UNITS:
        return UNITS[figure]
    if figure.startswith("ping-pong"):
        return "µs"
    if figure.startswith("insert"):
        return "steps/s"
    return "items/s" if figure.startswith(("sample", "learner")) else "GB/s"


def run(sizes: list[str], rounds: int, with_peers: bool, folder: Path, peers_folder: Path | None, say: Callable[[str], None]) -> Results:
    """Measures.

    Args:
        sizes: options of every contestant, see `workload.arguments`.
        rounds: how often each contestant runs; they alternate.
        with_peers: also those of `peers`.
        folder: the data goes into a temporary folder in here; on a disk, not in memory.
        peers_folder: the peers' virtual environments, kept; a temporary one by default.
        say: told what is being done.

    Raises:
        RuntimeError: one of ours failed; a peer that fails is noted as missing instead.
    """
    results = Results({"sizes": sizes, "rounds": rounds}, machine())
    with tempfile.TemporaryDirectory(dir=folder, prefix="replaystore-bench-") as data, tempfile.TemporaryDirectory() as made:
        contestants = {
            "machine": [sys.executable, "limits.py"],
            "embedded": [sys.executable, "ours.py", "--part", "embedded"],
            "served": [sys.executable, "ours.py", "--part", "served"],
            "crowd": [sys.executable, "crowd.py", "--brief"],
        }
        ours = set(contestants)
        for name in names() if with_peers else ():
            say(f"{name}: installing")
            try:
                contestants[name] = [interpreter(name, peers_folder or Path(made)), f"peer_{name}.py"]
            except NotInstallable as reason:
                results.missing[name] = str(reason)
        for number in range(rounds):
            for name, (python, script, *more) in list(contestants.items()):
                say(f"round {number + 1} of {rounds}: {name}")
                try:
                    _add(results, _run([python, str(HERE / script), *more, *sizes], data))
                except RuntimeError as error:
                    if name in ours:
                        raise
                    results.missing[name] = str(error)
                    del contestants[name]
    results.machine["load_after"] = os.getloadavg()[0]
    return results


def _run(command: list[str], folder: str) -> dict[str, Any]:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=CONTESTANT_S, check=False)
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"took more than {CONTESTANT_S} s") from None
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        raise RuntimeError(f"{Path(command[1]).name} failed: {last_line(done.stderr, done.returncode)}")
    result: dict[str, Any] = json.loads(lines[-1])
    return result


def _add(results: Results, result: dict[str, Any]) -> None:
    name = f"{result['name']} {result['version']}"
    for way, workload, figure, value in result["figures"]:
        results.values.setdefault((name, way, workload, figure), []).append(value)
    for figure, reason in result["missing"].items():
        results.missing[f"{result['name']}, {figure}"] = reason


def machine() -> dict[str, Any]:
    """What ran it, as far as it matters for the figures."""
    return {
        "cpus": os.cpu_count(),
        "architecture": platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "numpy": np.__version__,
        "load_before": os.getloadavg()[0],
    }
