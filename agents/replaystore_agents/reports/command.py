"""The command ``replaystore-agents report``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:  # matplotlib is loaded when a report is asked for
    from replaystore_agents.reports.report import Report

Target = Annotated[float | None, typer.Option(help="A mean return; the table says after how many steps it was reached.")]


def report_command(
    runs: Annotated[list[str], typer.Argument(metavar="RUN…", help="Run folders, folders of such, or patterns like 'runs/*/seed-[0-4]'.")],
    out: Annotated[Path, typer.Option(help="Folder for report.md, PNG and CSV.")] = Path("report"),
    target: Target = None,
    title: Annotated[str, typer.Option(help="The page's heading.")] = "Runs",
) -> None:
    """Curves with confidence bands, a table and CSV of any runs. Runs that differ only in their seeds make one curve."""
    from replaystore_agents.reports.report import write_report

    show(write_report(runs, out, target, title))


def show(report: Report) -> None:
    """Prints a report's tables, then what is wrong with runs and where everything is, to stderr."""
    from replaystore_agents.reports.summary import table_of

    for panel, rows in zip(report.panels, report.rows, strict=True):
        typer.echo(f"{panel.title}\n\n{table_of(panel, rows)}\n")
    for note in report.notes:
        typer.echo(f"note: {note}", err=True)
    typer.echo(f"written: {', '.join(str(file) for file in (report.page, *report.plots))}", err=True)
