"""The commands of ``replaystore`` and their options; what they do is in the modules beside this one."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

import replaystore as rs
from replaystore.cli import bench, checking, conformance, doctor, health, inspect, snapshots, top
from replaystore.cli.options import say_settings, takes_settings
from replaystore.cli.target import open_target

app = typer.Typer(
    help="A persistent, on-disk experience-replay store for reinforcement learning.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # help that looks the same on every terminal, and in docs/CLI.md
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Where = Annotated[str, typer.Argument(metavar="WHERE", help="A store's folder (also while it is served), HOST:PORT or unix:PATH.")]
Table = Annotated[str, typer.Argument(metavar="TABLE", help="The table's name.")]
Json = Annotated[bool, typer.Option("--json", help="JSON on one line, for programs.")]
Newest = Annotated[int, typer.Option("-n", "--number", metavar="N", min=1, max=100_000, help="How many, the newest ones.")]


@app.command()
@takes_settings
def serve(
    *,
    json_ready: Annotated[bool, typer.Option("--json-ready", help="When ready, print one line of JSON instead of text.")] = False,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Print each setting, its value and its origin; serve nothing.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="With --print-config: JSON on one line, for programs.")] = False,
    **given: Any,
) -> None:
    """Serve a store over gRPC until SIGTERM or Ctrl-C.

    Every setting can also come from an environment variable (REPLAYSTORE_MAX_TABLES) or from replaystore.toml (max_tables); the command
    line counts most, then the environment, then the file.
    """
    from replaystore.settings.loading import load
    from replaystore.settings.serving import check_complete, server_options

    loaded = load(given)
    settings = loaded.settings
    if print_config:
        say_settings(loaded, as_json=json)
        return
    if json:
        raise rs.InvalidArgument("--json goes with --print-config; --json-ready prints JSON when the server is ready")
    path = check_complete(settings)

    from replaystore.cli import logs, serving  # the engine too: what is wrong with settings is said before it is loaded
    from replaystore.server.run import serve as until_signal

    logs.log_to_stderr(settings.log_format, settings.log_level)
    if loaded.file is not None:
        logs.note(f"settings from {loaded.file}")
    running = until_signal(
        path,
        settings.listen or None,
        None if settings.unix is None else str(settings.unix),
        durability=settings.durability,
        commit_interval_s=settings.commit_interval_ms / 1000,
        options=server_options(settings),
        on_ready=lambda info: serving.say_ready(info, as_json=json_ready),
        on_stopping=serving.say_stopping,
        on_compiling=serving.say_compiling,
        progress=serving.Progress(),
    )
    asyncio.run(running)
    logs.note("stopped; everything acknowledged is on disk")


@app.command()
def demo(
    path: Annotated[Path, typer.Option(metavar="DIR", help="Where the demo's store goes; its report goes beside it.")] = Path("data"),
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Of environments and networks.")] = 0,
) -> None:
    """The whole story in a few minutes: serve, act, learn, stop, learn again offline from what was saved."""
    from replaystore_agents.demo import run_demo

    raise typer.Exit(run_demo(path, seed=seed))


@app.command()
def ls(where: Where, json: Json = False) -> None:
    """List the tables: steps, episodes, bytes, time span."""
    with open_target(where) as api:
        inspect.ls(api, as_json=json)


@app.command()
def info(where: Where, table: Table, json: Json = False) -> None:
    """Say what a table is and how it stands: columns, configuration, counters, returns."""
    with open_target(where) as api:
        inspect.info(api, table, as_json=json)


@app.command()
def head(
    where: Where,
    table: Table,
    number: Newest = 10,
    columns: Annotated[list[str] | None, typer.Option("-c", "--column", metavar="NAME", help="Only this column; may be repeated.")] = None,
    json: Json = False,
) -> None:
    """Show the newest steps."""
    with open_target(where) as api:
        inspect.head(api, table, number, columns, as_json=json)


@app.command()
def episodes(where: Where, table: Table, number: Newest = 20, json: Json = False) -> None:
    """Show the newest finished episodes: length, return, how they ended, when, who."""
    with open_target(where) as api:
        inspect.episodes(api, table, number, as_json=json)


app.command()(health.health)
app.command()(top.top)
app.command()(doctor.doctor)
app.command()(snapshots.snapshot)
app.command()(snapshots.fork)
app.command()(checking.verify)
app.command()(checking.repair)
app.command()(bench.bench)
app.command()(conformance.conformance)


def _version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"replaystore {rs.__version__}\n")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")] = False,
) -> None:
    """A persistent, on-disk experience-replay store for reinforcement learning."""
