"""``replaystore bench``: runs the suite in benchmarks/ of a source checkout, which wheels do not carry."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from replaystore.errors import NotFound

SUITE = Path(__file__).resolve().parents[2] / "benchmarks" / "run.py"


def bench(
    peers: Annotated[
        bool,
        typer.Option("--peers", help="Measure cpprb, TorchRL, Stable-Baselines3 and Reverb too, each in a virtual environment of its own."),
    ] = False,
    peers_folder: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep these virtual environments here; otherwise they are made anew and removed.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Tiny tables and short times: whether it runs, not how fast it is.")] = False,
    rounds: Annotated[int | None, typer.Option(metavar="N", min=1, help="How often each runs, in turn: 3, or 1 with --quick.")] = None,
    folder: Annotated[Path | None, typer.Option(metavar="DIR", help="Where the data goes meanwhile: here, if not given.")] = None,
    json: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write everything measured.")] = None,
    png: Annotated[Path | None, typer.Option("--png", metavar="FILE", help="Draw it; needs the extra 'bench'.")] = None,
    check: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Fail when a ratio to memcpy or cpprb is below half of that in FILE, an earlier --json."),
    ] = None,
) -> None:
    """Measure how fast it is beside the machine's limits and, with --peers, beside others. Needs a source checkout."""
    if not SUITE.exists():
        raise NotFound("replaystore bench needs a source checkout: the suite, benchmarks/, is not part of the installed package")
    given = {"--peers-folder": peers_folder, "--rounds": rounds, "--folder": folder, "--json": json, "--png": png, "--check": check}
    options = [text for name, value in given.items() if value is not None for text in (name, str(value))]
    options += [name for name, wanted in (("--peers", peers), ("--quick", quick)) if wanted]
    raise typer.Exit(subprocess.run([sys.executable, str(SUITE), *options], check=False).returncode)
