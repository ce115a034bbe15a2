"""Run folders: what a training leaves behind. config.json, metrics.jsonl (one line per evaluation), result.json, checkpoints.

Knows files only; what stands in them is the algorithms' business.
"""

from __future__ import annotations

import json
import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch

import replaystore as rs
from replaystore_agents.trunk.tracking import Tracker, make_trackers, numbers


class RunFolder:
    """One training's folder. Checkpoints are replaced by a rename, so a kill leaves the last whole one.

    A context manager where figures go to trackers too: leaving it closes them.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.path.mkdir(parents=True, exist_ok=True)
        self._trackers: dict[str, Tracker] = {}

    def track(self, names: str, config: dict[str, Any]) -> Self:
        """Sends all figures to these trackers too, ``"tensorboard,wandb"``; see trunk/tracking.py."""
        self._trackers |= make_trackers(names, self.path, config)
        return self

    @classmethod
    def begin(cls, path: str | Path, config: dict[str, Any], log: str = "") -> Self:
        """Starts a run: notes its configuration and forgets the figures of an earlier run in the same folder.

        Figures go to the trackers `log`, too; where one of them does not start, the earlier run is left as it was.
        """
        run = cls(path)
        events = list(run.path.glob("tensorboard/events.out.tfevents.*"))
        run.track(log, config)
        (run.path / "config.json").write_text(json.dumps(config, indent=1) + "\n")
        leftovers = (run.path / name for name in ("metrics.jsonl", "result.json", "replayed.npz", "best.pt", "last.pt"))
        for leftover in (*leftovers, *events):
            leftover.unlink(missing_ok=True)
        return run

    def log(self, **figures: Any) -> None:
        """Appends one line of metrics."""
        with (self.path / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(figures) + "\n")
        step = int(figures.get("inserted_steps", figures.get("update", 0)))
        self._tell(lambda tracker: tracker.log(numbers(figures), step))

    def metrics(self) -> list[dict[str, Any]]:
        """All lines of metrics."""
        file = self.path / "metrics.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def save(self, name: str, state: dict[str, Any]) -> Path:
        """Writes the checkpoint ``NAME.pt``."""
        target = self.path / f"{name}.pt"
        hidden = self.path / f".{name}.pt.new"
        torch.save(state, hidden)
        os.replace(hidden, target)
        return target

    def finish(self, result: dict[str, Any]) -> None:
        """Writes result.json."""
        (self.path / "result.json").write_text(json.dumps(result, indent=1) + "\n")
        self.close(result)

    def close(self, result: dict[str, Any] | None = None) -> None:
        """Ends the trackers; `finish` does it with the result."""
        self._tell(lambda tracker: tracker.close(numbers(result or {})))
        self._trackers.clear()

    def _tell(self, what: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._trackers.items()):
            try:
                what(tracker)
            except Exception as error:  # whatever a package of others raises, the training is worth more
                del self._trackers[name]
                sys.stderr.write(f"{name} gets no more figures: {type(error).__name__}: {error}; {self.path}/metrics.jsonl has them all\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Reads a checkpoint: tensors and plain values only, nothing in it is executed.

    Raises:
        NotFound: there is no such file.
        InvalidArgument: it is no checkpoint of an algorithm.
    """
    if not Path(path).is_file():
        raise rs.NotFound(f"there is no file {path}")
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, ValueError, EOFError, pickle.UnpicklingError):
        state = {}
    if not isinstance(state, dict) or not {"algorithm", "policy", "policy_arrays"} <= state.keys():
        raise rs.InvalidArgument(f"{path} is no checkpoint: give the best.pt or last.pt of a run folder")
    return state
