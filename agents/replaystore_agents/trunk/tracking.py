"""Trackers: where a run's figures go besides its metrics.jsonl. Each package is imported when it is asked for.

metrics.jsonl has every figure whatever happens here: a tracker that fails is let go, and the training goes on.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import replaystore as rs


class Tracker(Protocol):
    """Takes the figures of one run."""

    def log(self, figures: Mapping[str, float], step: int) -> None:
        """Finite numbers by name, at a step: environment steps where the run knows them, else updates."""

    def close(self, result: Mapping[str, float]) -> None:
        """Ends it; `result` is empty when the run was given up."""


class TensorBoard:
    """Event files in ``RUN/tensorboard``; ``tensorboard --logdir RUNS`` shows them, each run under the name of its folder."""

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(folder / "tensorboard"))
        rows = [f"| {name} | {str(value).replace('|', '/')} |" for name, value in config.items()]
        self._writer.add_text("config", "\n".join(["| name | value |", "|---|---|", *rows]))

    def log(self, figures: Mapping[str, float], step: int) -> None:
        """See `Tracker`."""
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self, result: Mapping[str, float]) -> None:
        """See `Tracker`."""
        for name, value in result.items():
            self._writer.add_scalar(f"result/{name}", value, 0)
        self._writer.close()


class WeightsAndBiases:
    """A run of `wandb`, in the project ``replaystore`` unless WANDB_PROJECT says another; WANDB_MODE=offline needs no network."""

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        wandb: Any = importlib.import_module("wandb")
        project = os.environ.get("WANDB_PROJECT", "replaystore")
        self._run: Any = wandb.init(project=project, name=folder.name, dir=str(folder), config=dict(config))

    def log(self, figures: Mapping[str, float], step: int) -> None:
        """See `Tracker`."""
        self._run.log(dict(figures), step=step)

    def close(self, result: Mapping[str, float]) -> None:
        """See `Tracker`."""
        self._run.summary.update(dict(result))
        self._run.finish()


TRACKERS: dict[str, tuple[Callable[[Path, Mapping[str, Any]], Tracker], str]] = {
    "tensorboard": (TensorBoard, 'pip install "replaystore[tracking]"'),
    "wandb": (WeightsAndBiases, "pip install wandb"),
}
"""By name: what makes one from a run's folder and configuration, and the command that brings the package of that name."""


def check_trackers(names: str) -> list[str]:
    """The names in ``"tensorboard,wandb"``; none in ``""``.

    Raises:
        InvalidArgument: there is no tracker of that name, or its package is not installed.
    """
    wanted = list(dict.fromkeys(filter(None, (part.strip() for part in names.split(",")))))
    for name in wanted:
        if name not in TRACKERS:
            raise rs.InvalidArgument(f"--log {name!r} is not known; known: {', '.join(TRACKERS)}")
        if importlib.util.find_spec(name) is None:
            raise rs.InvalidArgument(f"--log {name} needs the package {name}, which is not installed here: {TRACKERS[name][1]}")
    return wanted


def make_trackers(names: str, folder: Path, config: Mapping[str, Any]) -> dict[str, Tracker]:
    """Those that `names` asks for, started.

    Raises:
        InvalidArgument: see `check_trackers`; or one does not start.
    """
    started: dict[str, Tracker] = {}
    for name in check_trackers(names):
        try:
            started[name] = TRACKERS[name][0](folder, config)
        except Exception as error:  # whatever a package of others raises
            for tracker in started.values():
                tracker.close({})
            raise rs.InvalidArgument(
                f"--log {name} does not start: {type(error).__name__}: {error}; go without it, or see to that"
            ) from error
    return started


def numbers(figures: Mapping[str, Any]) -> dict[str, float]:
    """What of them trackers can take: finite numbers; switches count as 0 and 1."""
    return {name: float(v) for name, v in figures.items() if isinstance(v, bool | int | float) and math.isfinite(v)}
