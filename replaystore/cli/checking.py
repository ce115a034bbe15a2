"""`replaystore verify` and `replaystore repair`: what was found and what was done, as text or JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from replaystore.cli import text

Store = Annotated[Path, typer.Argument(metavar="PATH", help="The store's folder.")]
OneTable = Annotated[str | None, typer.Option("--table", metavar="TABLE", help="Only this table.")]
Json = Annotated[bool, typer.Option("--json", help="JSON on one line, for programs.")]


def verify(path: Store, table: OneTable = None, json: Json = False) -> None:
    """Check every promise of the disk format; exit code 1 when one is not kept. Changes nothing; also while the store is served."""
    from replaystore.engine.checking.verify import verify as check

    with _progress() as progress:
        report = check(path, table, progress)
    if json:
        text.say_json(
            {
                "path": str(report.path),
                "live": report.live,
                "tables": report.tables,
                "rows": report.rows,
                "bytes_read": report.bytes_read,
                "seconds": round(report.seconds, 3),
                "findings": [dataclasses.asdict(finding) for finding in report.findings],
                "notes": report.notes,
            }
        )
    else:
        for finding in report.findings:
            text.say(str(finding))
        for note in report.notes:
            text.say(f"note: {note}")
        speed = f"{text.size(report.bytes_read / max(report.seconds, 1e-9))}/s"
        state = ", as published beside a live writer" if report.live else ""
        checked = f"{text.count(report.rows)} rows of {len(report.tables)} tables, {text.size(report.bytes_read)} at {speed}{state}"
        text.say(f"{len(report.findings)} findings; {checked}" if report.findings else f"fine: {checked}")
    if report.findings:
        raise typer.Exit(1)


def repair(
    path: Store,
    table: OneTable = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
    json: Json = False,
) -> None:
    """Mend what `verify` found: rebuild what can be derived, set the rest aside. Good rows are never touched. No server may run."""
    from replaystore.engine.checking.repair import repair as mend

    report = mend(path, table, dry_run=dry_run)
    if json:
        text.say_json(
            {
                "path": str(report.path),
                "dry_run": report.dry_run,
                "actions": [dataclasses.asdict(action) for action in report.actions],
                "refused": [dataclasses.asdict(action) for action in report.refused],
            }
        )
    else:
        for action in report.actions:
            text.say(f"{'would ' if dry_run else ''}{action}")
        for action in report.refused:
            text.say(f"cannot: {action}")
        if not report.actions and not report.refused:
            text.say("nothing to repair")
    if report.refused:
        raise typer.Exit(1)


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None] | None]:
    """A bar on a terminal; nothing where a program listens."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    parts = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*parts, console=console, transient=True) as bar:
        tasks: dict[str, int] = {}

        def show(table: str, done: int, total: int) -> None:
            if table not in tasks:
                tasks[table] = bar.add_task(table, total=total)
            bar.update(tasks[table], completed=done, total=total)  # type: ignore[arg-type]

        yield show
