"""``replaystore conformance``: a client in any language, run through the exercises."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from replaystore.cli import text
from replaystore.errors import InvalidArgument


def conformance(
    command: Annotated[list[str] | None, typer.Argument(metavar="[--] COMMAND...", help="The client under test.")] = None,
    only: Annotated[list[str] | None, typer.Option("--only", metavar="NAME", help="Only this exercise; may be repeated.")] = None,
    tasks: Annotated[bool, typer.Option("--list", help="Print what each exercise asks for; run nothing.")] = False,
    timeout_s: Annotated[float, typer.Option(metavar="S", min=0.1, max=3600, help="Seconds that the client may take for each.")] = 60,
    json: Annotated[bool, typer.Option("--json", help="JSON on one line, for programs.")] = False,
) -> None:
    """Run a client, in whatever language, through exercises against a server made for it; exit code 1 when one fails.

    COMMAND reads lines of two words, an exercise and a server's address, does what the exercise asks for (--list), and answers each with a
    line of JSON, or {"failed": "why"}. The protocol is in docs/PROTOCOL.md.
    """
    from replaystore.conformance.exercises import EXERCISES, by_name

    chosen = [by_name(name) for name in only] if only else list(EXERCISES)
    if tasks:
        for exercise in chosen:
            text.say(f"{exercise.name}: {exercise.task}")
        return
    if not command:
        raise InvalidArgument("name the client under test: replaystore conformance -- ./my-client; --list says what it is asked to do")
    from replaystore.conformance.running import run

    with tempfile.TemporaryDirectory() as folder:
        outcomes = []
        for outcome in run(command, chosen, Path(folder) / "store", timeout_s):
            outcomes.append(outcome)
            if not json:
                text.say(f"{outcome.exercise.name}: {outcome.wrong or 'passed'}")
    failed = [outcome for outcome in outcomes if outcome.wrong]
    if json:
        text.say_json({outcome.exercise.name: outcome.wrong or None for outcome in outcomes})
    else:
        text.say(f"{len(outcomes) - len(failed)} of {len(outcomes)} passed")
    if failed:
        raise typer.Exit(1)
