"""Reports: curves as PNG and a page of Markdown, from run folders and a table. Knows matplotlib; trains nothing and changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

Array = npt.NDArray[Any]

SIZE_INCHES = (7.0, 4.0)


def _new(title: str, x: str, y: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=SIZE_INCHES, layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.3)
    return figure, axes


def online_curve(file: Path, metrics: list[dict[str, Any]], episodes: dict[str, Array], target: float) -> None:
    """Returns of the actors' episodes, as stored, and greedy evaluations, over the steps in the table."""
    figure, axes = _new("Learning online", "step id", "return")
    axes.plot(episodes["last_step"], episodes["return"], ".", ms=2, alpha=0.4, color="0.5", label="actors' episodes (exploring)")
    axes.plot([m["inserted_steps"] for m in metrics], [m["return_mean"] for m in metrics], "o-", ms=3, label="greedy evaluation, mean")
    axes.axhline(target, ls="--", color="C2", lw=1, label=f"target {target:g}")
    axes.legend(loc="lower right", fontsize=8)
    figure.savefig(file, dpi=110)


def offline_curve(file: Path, metrics: list[dict[str, Any]], behaviour: float, target: float) -> None:
    """Greedy evaluations of the network trained from the saved store, beside the mean return of the episodes it learned from."""
    figure, axes = _new("A fresh network, trained from the saved store", "update", "return")
    axes.plot([m["update"] for m in metrics], [m["return_mean"] for m in metrics], "o-", ms=3, label="greedy evaluation, mean")
    axes.axhline(behaviour, ls=":", color="C1", label=f"mean return in the data: {behaviour:.0f}")
    axes.axhline(target, ls="--", color="C2", lw=1, label=f"asked for: {target:g}")
    axes.legend(loc="lower right", fontsize=8)
    figure.savefig(file, dpi=110)


def age_distribution(file: Path, replayed: dict[str, Array]) -> None:
    """How old the replayed steps were, early, in the middle and late in the training, beside the newest step at that time."""
    figure, axes = _new("Age of what was replayed", "age in steps (0 = newest)", "share of the batch")
    count = len(replayed["update"])
    top = float(replayed["ages"].max()) + 1.0
    for index in sorted({0, count // 2, count - 1}):
        ages = replayed["ages"][index]
        weights = np.full(len(ages), 1.0 / len(ages))
        axes.hist(ages, bins=30, range=(0, top), weights=weights, histtype="step", label=f"update {replayed['update'][index]}")
    axes.legend(fontsize=8)
    figure.savefig(file, dpi=110)


def priority_distribution(file: Path, stored: Array, replayed: dict[str, Array]) -> None:
    """Priorities of all steps kept, beside those that the last logged batches drew: what prioritization prefers."""
    figure, axes = _new("Priorities: stored and replayed", "priority = |TD error|", "density")
    drawn = replayed["priorities"][-5:].ravel()
    both = np.concatenate([stored, drawn])
    low = max(float(np.quantile(both[both > 0], 0.001)), 1e-6) if (both > 0).any() else 1e-6
    edges = np.geomspace(low, max(float(both.max()), low * 10), 50)
    for values, label in ((stored, "all steps kept"), (drawn, "drawn (last logged batches)")):
        weights = np.full(len(values), 1.0 / max(len(values), 1))
        axes.hist(np.clip(values, low, None), bins=edges.tolist(), weights=weights, histtype="step", label=label)
    axes.set_xscale("log")
    axes.set_ylabel("share")
    axes.legend(fontsize=8)
    figure.savefig(file, dpi=110)


def table(rows: list[tuple[str, str]]) -> str:
    """Two columns of Markdown."""
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])
