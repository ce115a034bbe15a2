"""``replaystore top``: a server, or a store's folder, as it stands and what passes per second; read again and again."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from replaystore.cli import text
from replaystore.cli.target import is_address, open_target
from replaystore.errors import ReplayStoreError

if TYPE_CHECKING:
    from replaystore.diagnosis.watching import Rates, Reading, TableReading

NUMBERS = ["steps", "in/s", "out/s", "MB/s in", "MB/s out", "waiting", "lag", "replays", "priorities", "highest"]
"""Headings of the columns that hold numbers."""

Where = Annotated[str, typer.Argument(metavar="WHERE", help="A store's folder (also while it is served), HOST:PORT or unix:PATH.")]


def top(
    where: Where,
    interval: Annotated[float, typer.Option(metavar="SECONDS", min=0.05, max=3600.0, help="Between two looks.")] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Look twice, print what passed in between, and end.")] = False,
    json: Annotated[bool, typer.Option("--json", help="One line of JSON per look, for programs.")] = False,
) -> None:
    """Watch a server: streams, memory, what comes in and goes out of each table, who waits and why. A folder tells less. Ctrl-C ends it."""
    try:
        with _reader(where) as read, _screen(live=not once and not json) as show:
            _watch(where, read, show, interval, once=once, as_json=json)
    except KeyboardInterrupt:
        return


def _watch(where: str, read: Callable[[], Reading], show: Callable[[Any], None], interval: float, *, once: bool, as_json: bool) -> None:
    before = read()
    if not once:
        show(_view(where, None, before, as_json=as_json))
    while True:
        time.sleep(interval)
        try:
            after = read()
        except ReplayStoreError as error:
            if once:
                raise
            show(_failed(where, error, as_json=as_json))
            continue
        show(_view(where, before, after, as_json=as_json))
        if once:
            return
        before = after


@contextmanager
def _reader(where: str) -> Iterator[Callable[[], Reading]]:
    from replaystore.diagnosis.watching import read_folder, read_server

    if not is_address(where):
        yield lambda: read_folder(where)
        return
    with open_target(where) as client:
        yield lambda: read_server(client)  # type: ignore[arg-type]  # an address: it is a client


@contextmanager
def _screen(*, live: bool) -> Iterator[Callable[[Any], None]]:
    """Shows one view after the other: in place on a terminal, else below each other."""
    from rich.console import Console
    from rich.live import Live

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=text.WIDE)

    def line(view: Any) -> None:
        if isinstance(view, str):
            text.say(view)
        else:
            console.print(view)
        sys.stdout.flush()

    if not live or not console.is_terminal:
        yield line
        return
    with Live(console=console, auto_refresh=False, screen=True) as display:
        yield lambda view: display.update(view, refresh=True)


# -- what is shown


def _view(where: str, before: Reading | None, after: Reading, *, as_json: bool) -> Any:
    from replaystore.diagnosis.watching import rates

    passed = rates(before, after)
    if as_json:
        return text.json_line(_as_json(where, before, after, passed))
    from rich.console import Group
    from rich.text import Text

    lines = [Text(line) for line in _heading(where, after)]
    reasons = [Text(reason) for table in after.tables for reason in _reasons(table)]
    if not after.tables:
        return Group(*lines, Text("no tables yet"))
    return Group(*lines, Text(), _table(after, passed), *([Text(), *reasons] if reasons else []))


def _failed(where: str, error: ReplayStoreError, *, as_json: bool) -> Any:
    if as_json:
        return text.json_line({"where": where, "time": time.time(), "error": str(error)})
    from rich.text import Text

    return Text(f"{where}   {text.moment(time.time())}\n{error}")


def _heading(where: str, reading: Reading) -> list[str]:
    disk = reading.disk
    free = (
        f"disk {text.size(disk.free_bytes)} free of {text.size(disk.total_bytes)}"
        if disk is not None and disk.total_bytes
        else "disk unknown"
    )
    status = reading.server
    if status is None:
        note = "an older server, which tells less" if reading.source == "older server" else "read from its small files"
        return [f"{where}   {note}   {text.moment(reading.time)}", free]
    limit = f" of {text.size(status.memory_limit_bytes)}" if status.memory_limit_bytes else ""
    streams = f"streams {status.append_streams} write, {status.sample_streams} sample"
    return [
        f"{', '.join(status.addresses)}   replaystore {status.version}, up {text.duration(status.uptime_s)}   {text.moment(status.time)}",
        f"memory {text.size(status.rss_bytes)}{limit}   {streams}   in flight {text.size(status.in_flight_bytes)}   {free}",
    ]


def _table(reading: Reading, passed: dict[str, Rates]) -> Any:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for heading in ["table", *NUMBERS, "blocked"]:
        table.add_column(heading, justify="right" if heading in NUMBERS else "left")
    for one in reading.tables:
        rate = passed[one.name]
        table.add_row(
            one.name,
            text.count(one.steps),
            _number(rate.inserted_per_s),
            _number(rate.sampled_per_s),
            _number(_millions(rate.received_bytes_per_s)),
            _number(_millions(rate.sent_bytes_per_s)),
            _waiting(one),
            _lag(one),
            _number(one.replays_per_step),
            _number(sum(one.total_priority.values()) if one.total_priority else None),
            _number(max(one.max_priority.values()) if one.max_priority else None),
            _blocked(one),
        )
    return table


def _number(value: float | None) -> str:
    return "-" if value is None else text.number(value)


def _millions(value: float | None) -> float | None:
    return None if value is None else value / 1e6


def _waiting(table: TableReading) -> str:
    if table.waiting_inserts is None or table.waiting_samples is None:
        return "-"
    return f"{table.waiting_inserts} in, {table.waiting_samples} out" if table.waiting_inserts or table.waiting_samples else "0"


def _lag(table: TableReading) -> str:
    if table.commit_lag_s is None:
        return f"{table.not_durable} rows" if table.not_durable else "0"
    return text.duration(table.commit_lag_s) if table.commit_lag_s else "0"


def _blocked(table: TableReading) -> str:
    if table.failure is not None:
        return "inserts are refused"
    sides = [side for side, why, waiting in _sides(table) if why is not None and waiting]
    return " and ".join(sides)


def _sides(table: TableReading) -> list[tuple[str, str | None, int | None]]:
    return [("inserting", table.blocked_insert, table.waiting_inserts), ("sampling", table.blocked_sample, table.waiting_samples)]


def _reasons(table: TableReading) -> list[str]:
    reasons = [f"{table.name}: {table.failure}"] if table.failure is not None else []
    waits = [(side, why) for side, why, waiting in _sides(table) if why is not None and waiting]
    return reasons + [f"{table.name}: {side} waits: {why.removeprefix(f'table {table.name!r}: ')}" for side, why in waits]


def _as_json(where: str, before: Reading | None, after: Reading, passed: dict[str, Rates]) -> dict[str, Any]:
    server = None
    if after.server is not None:
        server = after.server.to_json()
        del server["tables"]
    disk = None if after.disk is None else dataclasses.asdict(after.disk)
    tables = [
        {**dataclasses.asdict(table), **dataclasses.asdict(passed[table.name]), "replays_per_step": table.replays_per_step}
        for table in after.tables
    ]
    seconds = None if before is None else after.clock - before.clock
    return {
        "where": where,
        "source": after.source,
        "time": after.time,
        "seconds": seconds,
        "server": server,
        "disk": disk,
        "tables": tables,
    }
