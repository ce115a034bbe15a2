"""The commands that copy tables: `snapshot` and `fork`."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import Annotated, Any

import typer

import replaystore as rs
from replaystore.cli import text
from replaystore.cli.target import is_address
from replaystore.schema.limiters import LIMITERS
from replaystore.schema.record import from_json
from replaystore.schema.selectors import SELECTORS

Where = Annotated[str, typer.Argument(metavar="WHERE", help="A store's folder, HOST:PORT or unix:PATH.")]
Table = Annotated[str, typer.Argument(metavar="TABLE", help="The table's name.")]
Json = Annotated[bool, typer.Option("--json", help="JSON on one line, for programs.")]
Timeout = Annotated[float, typer.Option(metavar="S", min=0.1, help="Seconds to wait at most.")]


def snapshot(
    where: Where,
    table: Table,
    out: Annotated[str, typer.Argument(metavar="OUT", help="A new folder; for a server a name below its --snapshots folder.")],
    rebase: Annotated[bool, typer.Option("--rebase", help="Number the steps from 0; leaves out episodes whose beginning is gone.")] = False,
    episodes: Annotated[
        bool, typer.Option("--episodes", help="Write a plain dataset of the finished episodes instead (Zarr v2 and v3).")
    ] = False,
    closing_rows: Annotated[
        bool, typer.Option("--closing-rows", help="With --episodes: keep the row after each last step, with the final observation.")
    ] = False,
    timeout_s: Timeout = 3600.0,
    json: Json = False,
) -> None:
    """Copy a table as it is now into a store of its own, while writers and samplers go on."""
    options = {"rebase": rebase, "episodes": episodes, "closing_rows": closing_rows, "timeout_s": timeout_s}
    with _open(where) as api:
        report = api.snapshot(table, out, **options)
    if json:
        text.say_json(report.to_json())
        return
    what = "dataset" if episodes else "store"
    text.say(f"{report.path}: a {what} of {text.count(report.next_step - report.first_step)} rows, {text.count(report.episodes)} episodes")
    text.say(f"  {text.size(report.linked_bytes)} linked, {text.size(report.copied_bytes)} copied in {text.duration(report.seconds)}")
    if report.left_out_rows:
        why = "their episode is not finished or has lost its beginning" if episodes else "their episode has lost its beginning"
        text.say(f"  {text.count(report.left_out_rows)} rows left out: {why}")
    if report.note:
        text.note(report.note)


def fork(
    where: Where,
    table: Table,
    new: Annotated[str, typer.Argument(metavar="NEW", help="The new table's name.")],
    selector: Annotated[
        str | None, typer.Option(metavar="JSON", help='Another selector: {"type": "Prioritized", "alpha": 0.6}, or several by name.')
    ] = None,
    limiter: Annotated[
        str | None, typer.Option(metavar="JSON", help='Another rate limiter: {"type": "MinSize", "min_size_to_sample": 1000}.')
    ] = None,
    max_steps: Annotated[int | None, typer.Option(metavar="N", min=0, help="Keep the newest N rows; 0 keeps all.")] = None,
    timeout_s: Timeout = 3600.0,
    json: Json = False,
) -> None:
    """Make a new table over the rows that a table has now, with another configuration."""
    changes: dict[str, Any] = {"timeout_s": timeout_s}
    if selector is not None:
        changes["selector"] = _selector(_parse(selector, "--selector"))
    if limiter is not None:
        changes["rate_limiter"] = from_json(_parse(limiter, "--limiter"), LIMITERS, "rate limiter")
    if max_steps is not None:
        changes["retention"] = rs.Retention(max_steps or None)
    with _open(where) as api:
        config = api.fork(table, new, **changes)
    if json:
        text.say_json(config.to_json())
        return
    text.say(f"{new}: a table over the rows of {table}")
    for name, kind in config.selectors.items():
        text.say(f"  selector   {name}: {kind}")
    text.say(f"  limiter    {config.rate_limiter}")
    text.say(f"  retention  {config.retention}")


def _selector(data: Any) -> Any:
    if isinstance(data, dict) and "type" not in data:
        return {name: from_json(value, SELECTORS, "selector") for name, value in data.items()}
    return from_json(data, SELECTORS, "selector")


def _parse(value: str, option: str) -> Any:
    try:
        return json_module.loads(value)
    except ValueError as error:
        raise rs.InvalidArgument(f"{option} {value!r} is not valid JSON ({error})") from None


def _open(where: str) -> Any:
    """The server, or the store; one that a server has open is read beside it, as far as it is published."""
    if is_address(where):
        from replaystore_client import Client

        return Client(where)
    if not (Path(where) / "zarr.json").exists():
        raise rs.NotFound(f"{where} is no replaystore store: it has no zarr.json")
    try:
        return rs.open(where)
    except (rs.Locked, rs.PermissionDenied) as error:
        text.note(f"{error}; taking what is published")
        return rs.open(where, mode="r")
