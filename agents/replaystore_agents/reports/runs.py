"""Run folders as a report reads them: found wherever they lie, used as far as they go, with a word on what is wrong with each.

Changes nothing; a run that is being written is read up to its last whole line.
"""

from __future__ import annotations

import glob
import json
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import replaystore as rs

Array = npt.NDArray[np.float64]

STEPS, UPDATES = "inserted_steps", "update"
"""What returns are drawn over: environment steps where the run knows them (online), else updates (offline)."""

AXIS_NAMES = {STEPS: "environment steps", UPDATES: "updates"}

DEEPEST = 8
"""Folders below a given one that are searched."""


@dataclass(frozen=True, slots=True)
class Run:
    """One training, and its evaluations in order."""

    path: Path
    config: dict[str, Any]
    axis: str
    """`STEPS` or `UPDATES`."""
    x: Array
    """Where on that axis it was evaluated, strictly rising ``(evaluations,)``."""
    returns: Array
    """Mean returns ``(evaluations,)``."""
    lines: list[dict[str, Any]] = field(repr=False)
    """The lines of metrics.jsonl that these are from."""
    result: dict[str, Any] | None
    """result.json; None: it goes on, or was killed or stopped before its end."""
    notes: tuple[str, ...] = ()
    """What is wrong with it."""

    @property
    def finished(self) -> bool:
        """Whether it ended by itself."""
        return self.result is not None

    @property
    def seed(self) -> Any:
        """As its configuration says; None where that says nothing."""
        return self.config.get("seed")

    @property
    def env(self) -> str:
        """The environment's id."""
        return str(self.config.get("env") or "unknown environment")

    @property
    def kept(self) -> float:
        """Mean return of the weights kept (best.pt), which an evaluation chose; where nobody says, the best evaluation."""
        told = [(self.result or {}).get("best_return"), *(line.get("return_kept") for line in reversed(self.lines))]
        return next((float(value) for value in told if _finite(value)), float(self.returns.max()))


@dataclass(frozen=True, slots=True)
class Found:
    """What lies below the places that were given."""

    runs: list[Run]
    unusable: list[tuple[Path, str]]
    """Folders of runs that say nothing of returns, and why."""


def find_runs(places: Iterable[str | Path]) -> Found:
    """All runs in these places, sorted by path.

    Args:
        places: run folders, folders of such (8 deep), or patterns like ``runs/*/seed-[0-4]``.

    Raises:
        NotFound: a place does not exist, a pattern matches nothing, or there is no run in it.
        InvalidArgument: there are runs, and not one that can be used.
    """
    folders: dict[Path, None] = {}
    for place in places:
        below = [folder for path in _matches(place) for folder in _run_folders(path)]
        if not below:
            raise rs.NotFound(f"there is no run in {place}: a run is a folder with config.json and metrics.jsonl, as train --out makes it")
        folders |= dict.fromkeys(below)
    runs, unusable = [], []
    for folder in sorted(folders):
        read = read_run(folder)
        if isinstance(read, Run):
            runs.append(read)
        else:
            unusable.append((folder, read))
    if not runs:
        raise rs.InvalidArgument("no run can be used: " + "; ".join(f"{folder}: {why}" for folder, why in unusable[:8]))
    return Found(runs, unusable)


def read_run(folder: Path) -> Run | str:
    """The run in `folder`, or why it cannot be used."""
    config = _json(folder / "config.json")
    if not isinstance(config, dict):
        return "config.json is missing or no JSON object"
    try:
        text = (folder / "metrics.jsonl").read_text(errors="replace")
    except OSError:
        return "there is no metrics.jsonl: it has not been evaluated yet"
    lines, broken = _lines(text)
    notes = [f"{broken} broken lines of metrics.jsonl are left out"] if broken else []
    evaluated = [line for line in lines if _finite(line.get("return_mean"))]
    if not evaluated:
        return "metrics.jsonl has no return_mean: it has not been evaluated yet, or was trained without an environment"
    left_out = sum("return_mean" in line for line in lines) - len(evaluated)
    if left_out:
        notes.append(f"{left_out} evaluations without a finite return are left out")
    axis = STEPS if all(_finite(line.get(STEPS)) for line in evaluated) else UPDATES
    if not all(_finite(line.get(axis)) for line in evaluated):
        return f"metrics.jsonl has lines with neither {STEPS} nor {UPDATES}"
    kept = _rising(evaluated, axis)
    if len(kept) < len(evaluated):
        notes.append(f"{len(evaluated) - len(kept)} evaluations were made again after it was resumed; the later ones count")
    result = _json(folder / "result.json")
    result = result if isinstance(result, dict) else None
    if result is not None and (left := _left(config, result)):
        result = None
        notes.append(f"stopped before its end: {left}")
    elif result is None:
        notes.append(f"not finished: it has got as far as {kept[-1][axis]:g} {AXIS_NAMES[axis]}")
    x, returns = (np.array([line[name] for line in kept], np.float64) for name in (axis, "return_mean"))
    return Run(folder, config, axis, x, returns, kept, result, tuple(notes))


def _matches(place: str | Path) -> list[Path]:
    path = Path(place)
    if path.is_dir():
        return [path]
    if path.exists():
        raise rs.NotFound(f"{place} is a file: give the folder of a run, or one with such folders in it")
    found = [Path(match) for match in sorted(glob.glob(str(place), recursive=True)) if Path(match).is_dir()]
    if not found:
        raise rs.NotFound(f"{place} does not exist" if not glob.has_magic(str(place)) else f"no folder matches {place}")
    return found


def _run_folders(path: Path) -> list[Path]:
    """`path` if it is a run, else the runs below it."""
    found = []
    for where, folders, files in os.walk(path):
        if "config.json" in files or "metrics.jsonl" in files:
            found.append(Path(where))
            folders.clear()
        elif "zarr.json" in files or len(Path(where).parts) - len(path.parts) >= DEEPEST:  # a store has no runs in it, and many files
            folders.clear()
    return found


def _left(config: dict[str, Any], result: dict[str, Any]) -> str:
    """What a run that was asked to stop has left undone; empty where it ended by itself."""
    target, best = config.get("target_return") or 0.0, result.get("best_return")
    if result.get("reached") or (target and _finite(best) and float(best or 0.0) >= target):
        return ""
    wanted, got = ("steps", "inserted_steps") if "steps" in config else ("max_updates", "updates")
    if not (_finite(config.get(wanted)) and _finite(result.get(got))) or result[got] >= config[wanted]:
        return ""
    return f"{result[got]} of {config[wanted]} {wanted.removeprefix('max_')}"


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError):
        return None


def _lines(text: str) -> tuple[list[dict[str, Any]], int]:
    """Whole lines that are JSON objects, and how many others there are; the last one may be on its way."""
    whole, _, _ = text.rpartition("\n")
    lines: list[dict[str, Any]] = []
    broken = 0
    for part in whole.splitlines():
        try:
            line = json.loads(part)
        except ValueError:
            line = None
        if isinstance(line, dict):
            lines.append(line)
        else:
            broken += 1
    return lines, broken


def _rising(lines: list[dict[str, Any]], axis: str) -> list[dict[str, Any]]:
    """Lines of a run that was resumed from an earlier checkpoint: those that it went over again are left out."""
    kept: list[dict[str, Any]] = []
    for line in lines:
        while kept and kept[-1][axis] >= line[axis]:
            kept.pop()
        kept.append(line)
    return kept


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
