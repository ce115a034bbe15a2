"""A report of any runs: report.md with a table and a plot for each environment, and every number as CSV. Changes nothing in the runs."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from replaystore_agents.reports.curves import draw
from replaystore_agents.reports.groups import Panel, group_runs
from replaystore_agents.reports.runs import AXIS_NAMES, Found, Run, find_runs
from replaystore_agents.reports.summary import curves_of, differences, points_of, same_seeds, summarise, table_of, write_csv

HOW = """Final: mean return of the last evaluation, mean ± standard deviation over runs (those that are finished, all where none is). IQM:
interquartile mean (Agarwal et al. 2021), for 4 runs and more. Best: of the weights kept. The mean return up to a step is the area under the
curve divided by its width, which says how efficiently samples were used: a run that ended before counts with its last return. Wobble:
standard deviation of the evaluations in the last third of a run, averaged over runs. Bands and brackets: 95 % percentile bootstrap
intervals over runs, 2000 resamples. Curves are dotted where not all runs have got to; evaluations are joined by straight lines."""


@dataclass(frozen=True, slots=True)
class Report:
    """What was written."""

    page: Path
    """report.md; beside it points.csv, curves.csv and summary.csv."""
    plots: list[Path]
    """One PNG for each panel."""
    panels: list[Panel]
    rows: list[list[dict[str, Any]]]
    """Of summary.csv: for each panel one for each of its groups."""
    notes: list[str]
    """What is wrong with runs, one line each."""


def write_report(places: Iterable[str | Path], out: Path, target: float | None = None, title: str = "Runs", text: str = "") -> Report:
    """Reads the runs in `places` and writes the report into the folder `out`.

    Args:
        places: see `find_runs`.
        out: made when there is none; files of an earlier report are replaced.
        target: a mean return; the table says after how many steps it was reached.
        title: the page's heading.
        text: Markdown that comes first.

    Raises:
        NotFound, InvalidArgument: see `find_runs`.
    """
    found = find_runs(places)
    panels = group_runs(found.runs)
    rows_of = [summarise(panel, target) for panel in panels]
    notes = _notes(found, panels)
    out.mkdir(parents=True, exist_ok=True)
    names = _file_names(panels)
    parts = [f"# {title}", text, HOW]
    for panel, rows, name in zip(panels, rows_of, names, strict=True):
        draw(out / name, panel, target)
        parts += [f"## {panel.title}", table_of(panel, rows), f"![{panel.title}]({name})"]
        if differing := differences(panel):
            parts += ["Where they differ:", differing]
    if notes:
        parts += ["## About these runs", "\n".join(f"- {note}" for note in notes)]
    parts.append("Numbers: [summary.csv](summary.csv), [curves.csv](curves.csv), [points.csv](points.csv).")
    page = out / "report.md"
    page.write_text("\n\n".join(filter(None, parts)) + "\n")
    write_csv(out / "summary.csv", [row for rows in rows_of for row in rows])
    write_csv(out / "curves.csv", curves_of(panels))
    write_csv(out / "points.csv", points_of(panels))
    return Report(page, [out / name for name in names], panels, rows_of, notes)


def _file_names(panels: list[Panel]) -> list[str]:
    names = [f"returns-{re.sub(r'[^A-Za-z0-9.]+', '-', f'{p.env} {AXIS_NAMES[p.axis]}').strip('-')}" for p in panels]
    return [f"{name}-{at}.png" if names.count(name) > 1 else f"{name}.png" for at, name in enumerate(names)]


def _store(run: Run) -> str:
    """Where an offline run has its data from."""
    return f"{run.config.get('path') if run.config.get('server') is None else run.config['server']}:{run.config.get('table')}"


def _notes(found: Found, panels: list[Panel]) -> list[str]:
    notes = [f"{folder}: left out: {why}" for folder, why in found.unusable]
    notes += [f"{run.path}: {note}" for run in found.runs for note in run.notes]
    for panel in panels:
        for group in panel.groups:
            if len(stores := {_store(run) for run in group.runs if run.config.get("command") == "offline"}) > 1:
                notes.append(f"{panel.env}, {group.label}: learned from {len(stores)} different tables: {', '.join(sorted(stores))}")
            notes += [f"{panel.env}, {group.label}: more than one run of seed {seed}" for seed in same_seeds(group)]
            notes += [
                f"{run.path}: ended at {run.x[-1]:g} of {group.end:g} {AXIS_NAMES[panel.axis]}"
                for run in group.runs
                if run.finished and run.x[-1] < 0.99 * group.end
            ]
    return notes
