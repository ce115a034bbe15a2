"""What a report says in numbers: one row for each group, how each run did, and all points, as Markdown and CSV."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from replaystore_agents.reports.groups import IQM_SEEDS, Group, Panel, bootstrap, interquartile_mean, shown
from replaystore_agents.reports.runs import AXIS_NAMES, STEPS, UPDATES, Array, Run

POINT_FIGURES = (UPDATES, STEPS, "seconds", "return_mean", "return_std", "return_min", "return_kept")


def steps_to(run: Run, target: float) -> float | None:
    """Where on its axis a run's evaluations first reached `target`; None: never."""
    reached = run.x[run.returns >= target]
    return float(reached[0]) if len(reached) else None


def height(run: Run, horizon: float) -> float | None:
    """The mean height of a run's curve from 0 to `horizon`: the area under it, divided by its width.

    Before the first evaluation it is as high as there, and after the last one as there, where a run ended before the horizon; None for a
    run that has not got there yet.
    """
    if run.x[-1] < horizon and not run.finished:
        return None
    if horizon <= 0:
        return float(run.returns[0])
    x = np.concatenate([[0.0], run.x[run.x < horizon], [horizon]])
    return float(np.trapezoid(np.interp(x, run.x, run.returns), x) / horizon)


def wobble(run: Run) -> float:
    """Standard deviation of the evaluations in the last third of a run."""
    late: Array = run.returns[3 * run.x >= 2 * run.x[-1]]
    return float(late.std())


def summarise(panel: Panel, target: float | None = None) -> list[dict[str, Any]]:
    """One row for each group of a panel; numbers are None where there is nothing to say.

    Figures are of the finished runs of a group, of all where none is finished. The final return is that of the last evaluation, the best
    one that of the weights kept.
    """
    rows = []
    for group in panel.groups:
        runs = group.counted
        final, best = np.array([run.returns[-1] for run in runs]), np.array([run.kept for run in runs])
        low, high = (float(edge[0]) for edge in bootstrap(final[:, None]))
        robust = len(runs) >= IQM_SEEDS
        robust_low, robust_high = (float(edge[0]) for edge in bootstrap(final[:, None], robust=True)) if robust else (None, None)
        areas = [area for run in runs if (area := height(run, panel.horizon)) is not None]
        row: dict[str, Any] = {
            "env": panel.env, "axis": AXIS_NAMES[panel.axis], "group": group.label,
            "runs": len(group.runs), "finished": sum(run.finished for run in group.runs), "counted": len(runs),
            "seeds": " ".join(str(run.seed) for run in group.runs), "end": group.end,
            "final_mean": final.mean(), "final_std": _std(final), "final_min": final.min(), "final_max": final.max(),
            "final_low": low if len(runs) > 1 else None, "final_high": high if len(runs) > 1 else None,
            "final_iqm": float(interquartile_mean(final)) if robust else None,
            "final_iqm_low": robust_low, "final_iqm_high": robust_high,
            "best_mean": best.mean(), "best_std": _std(best),
            "area_mean": np.mean(areas) if areas else None, "area_std": _std(np.array(areas)) if areas else None, "area_to": panel.horizon,
            "wobble": np.mean([wobble(run) for run in runs]), "worst_run": str(runs[int(final.argmin())].path),
        }  # fmt: skip
        if target is not None:
            reached = [at for run in runs if (at := steps_to(run, target)) is not None]
            row |= {"target": target, "reached": len(reached), "to_target_median": np.median(reached) if reached else None}
            row |= {"to_target_min": min(reached, default=None), "to_target_max": max(reached, default=None)}
        rows.append({name: float(value) if isinstance(value, np.floating) else value for name, value in row.items()})
    return rows


def table_of(panel: Panel, rows: list[dict[str, Any]]) -> str:
    """A panel's rows as a Markdown table."""
    axis = AXIS_NAMES[panel.axis]
    head = ["", "runs", "final return", "min … max", "IQM [95 %]", "best", f"mean return up to {_number(panel.horizon)} {axis}", "wobble"]
    target = rows[0].get("target")
    if target is not None:
        head.append(f"{axis} to {target:g}")
    lines = []
    for row in rows:
        finished = f"{row['runs']}" if row["finished"] == row["runs"] else f"{row['finished']} of {row['runs']} finished"
        iqm = f"{row['final_iqm']:.1f} [{row['final_iqm_low']:.1f}, {row['final_iqm_high']:.1f}]" if row["final_iqm"] is not None else "—"
        line = [
            row["group"], finished, _spread(row, "final"), f"{row['final_min']:.1f} … {row['final_max']:.1f}", iqm,
            _spread(row, "best"), _spread(row, "area") if row["area_mean"] is not None else "not that far yet", f"{row['wobble']:.1f}",
        ]  # fmt: skip
        if target is not None:
            line.append(_reached(row))
        lines.append(line)
    return markdown_table(head, lines)


def differences(panel: Panel) -> str:
    """All hyper-parameters in which the groups of a panel differ, as a Markdown table; empty where there is one group."""
    if not panel.differing:
        return ""
    rows = [[group.label, *(shown(group.config[n]) if n in group.config else "" for n in panel.differing)] for group in panel.groups]
    return markdown_table(["", *panel.differing], rows)


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """With bars inside cells escaped."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def write_csv(file: Path, rows: list[dict[str, Any]]) -> None:
    """A header and one line for each row; nothing for None. Rows may lack columns of others."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    with file.open("w", newline="") as out:
        writer = csv.DictWriter(out, names, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: "" if value is None else value for name, value in row.items()} for row in rows)


def points_of(panels: Iterable[Panel]) -> list[dict[str, Any]]:
    """Every evaluation of every run."""
    return [
        {
            "env": panel.env, "group": group.label, "run": str(run.path), "seed": run.seed,
            **{name: line.get(name) for name in POINT_FIGURES},
        }
        for panel in panels for group in panel.groups for run in group.runs for line in run.lines
    ]  # fmt: skip


def curves_of(panels: Iterable[Panel]) -> list[dict[str, Any]]:
    """Every group's curve on its panel's grid, without points where no run has been."""
    rows = []
    for panel in panels:
        for group in panel.groups:
            curve = group.curve(panel.grid)
            for at in np.nonzero(curve.runs)[0]:
                figures = {"mean": curve.mean, "low": curve.low, "high": curve.high, "iqm": curve.iqm}
                numbers = {name: None if np.isnan(values[at]) else float(values[at]) for name, values in figures.items()}
                where = {"env": panel.env, "axis": AXIS_NAMES[panel.axis], "group": group.label, "x": float(curve.x[at])}
                rows.append({**where, "runs": int(curve.runs[at]), **numbers})
    return rows


def same_seeds(group: Group) -> list[str]:
    """Seeds that several runs of a group have, with how many."""
    seeds = [str(run.seed) for run in group.runs]
    return [f"{seed} ({seeds.count(seed)} runs)" for seed in dict.fromkeys(seeds) if seeds.count(seed) > 1]


def _std(values: Array) -> float | None:
    """Of a sample; None for one value."""
    return float(values.std(ddof=1)) if len(values) > 1 else None


def _spread(row: dict[str, Any], name: str) -> str:
    std = row[f"{name}_std"]
    return f"{row[f'{name}_mean']:.1f}" + (f" ± {std:.1f}" if std is not None else "")


def _reached(row: dict[str, Any]) -> str:
    if not row["reached"]:
        return f"0 of {row['counted']}"
    low, high = _number(row["to_target_min"]), _number(row["to_target_max"])
    between = f" ({low} … {high})" if low != high else ""
    return f"{_number(row['to_target_median'])}{between}, {row['reached']} of {row['counted']}"


def _number(value: float) -> str:
    return f"{value:,.0f}".replace(",", " ")
