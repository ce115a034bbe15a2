"""Curves of groups as PNG. Knows matplotlib, without a display."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from replaystore_agents.reports.groups import Panel
from replaystore_agents.reports.runs import AXIS_NAMES

SIZE_INCHES = (8.0, 4.8)
LEGEND_INSIDE = 6
"""More groups have their legend beside the plot."""


def draw(file: Path, panel: Panel, target: float | None = None) -> None:
    """A panel's groups: means with their bands, single runs thin behind them, dotted where not all runs of a group have got to."""
    figure = Figure(figsize=SIZE_INCHES, layout="constrained")
    axes = figure.add_subplot()
    axes.set(
        title=f"{panel.env}: mean over runs, 95 % bootstrap band", xlabel=AXIS_NAMES[panel.axis], ylabel="mean return of greedy episodes"
    )
    axes.grid(alpha=0.3)
    for number, group in enumerate(panel.groups):
        color = f"C{number % 10}"
        style = ("-", "--", "-.")[number // 10 % 3]
        curve = group.curve(panel.grid)
        seeds = f"{len(group.runs)} run{'s' if len(group.runs) > 1 else ''}"
        for run in group.runs:
            axes.plot(run.x, run.returns, lw=0.5, alpha=0.3, color=color)
        whole = curve.runs == len(group.runs)
        marker = "o" if np.isfinite(curve.mean).sum() == 1 else None
        axes.plot(curve.x, np.where(curve.runs > 0, curve.mean, np.nan), ":", lw=1.5, color=color)
        axes.plot(curve.x, np.where(whole, curve.mean, np.nan), style, lw=1.8, color=color, marker=marker, label=f"{group.label} ({seeds})")
        banded = np.isfinite(curve.low)
        if banded.any():
            axes.fill_between(curve.x, curve.low, curve.high, where=banded, color=color, alpha=0.18, lw=0)
    if target is not None:
        axes.axhline(target, ls="--", lw=1, color="0.3", label=f"target {target:g}")
    if len(panel.groups) > LEGEND_INSIDE:
        axes.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1.01, 1.0))
    else:
        axes.legend(fontsize=8)
    figure.savefig(file, dpi=110)
