"""``replaystore doctor``: what is misconfigured, nearly full or blocked, and what to do about it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from replaystore.cli import text
from replaystore.cli.target import is_address, open_target

if TYPE_CHECKING:
    from replaystore.diagnosis.facts import Facts, Finding

Where = Annotated[str, typer.Argument(metavar="WHERE", help="A store's folder (also while it is served), HOST:PORT or unix:PATH.")]


def doctor(
    where: Where,
    watch: Annotated[float, typer.Option(metavar="SECONDS", min=0.0, max=3600.0, help="Between the two looks at what moves.")] = 1.0,
    token_file: Annotated[Path | None, typer.Option(metavar="FILE", help="The server's tokens: who may read that file?")] = None,
    tls_cert: Annotated[Path | None, typer.Option(metavar="FILE", help="The server's certificates: until when are they valid?")] = None,
    json: Annotated[bool, typer.Option("--json", help="JSON on one line, for programs.")] = False,
) -> None:
    """Say what is misconfigured, nearly full or blocked, and what to do; exit code 1 when something is. docs/DOCTOR.md has all checks."""
    from replaystore.diagnosis.examination import CHECKS, examine
    from replaystore.diagnosis.facts import NOTE
    from replaystore.diagnosis.gathering import gather_folder, gather_server, look_at_certificates, look_at_token_file

    if is_address(where):
        with open_target(where) as client:
            facts = gather_server(client, where, watch)  # type: ignore[arg-type]  # an address: it is a client
    else:
        facts = gather_folder(where, watch)
    facts = dataclasses.replace(
        facts,
        token_file=None if token_file is None else look_at_token_file(token_file),
        certificates=() if tls_cert is None else look_at_certificates(tls_cert),
    )
    found = examine(facts)
    wrong = [finding for finding in found if finding.severity != NOTE]
    if json:
        findings = [dataclasses.asdict(finding) for finding in found]
        text.say_json({"where": where, "time": facts.time, "served": facts.served, "checks": len(CHECKS), "findings": findings})
    else:
        for finding in found:
            _say(finding)
        text.say(_summary(facts, len(CHECKS), len(wrong), len(found) - len(wrong)))
    if wrong:
        raise typer.Exit(1)


def _say(finding: Finding) -> None:
    about = f"table {finding.table!r}: " if finding.table else ""
    text.say(f"{finding.severity:<8} {finding.check}: {about}{finding.found}")
    text.say(f"         -> {finding.advice}")


def _summary(facts: Facts, checks: int, wrong: int, notes: int) -> str:
    rows = sum(table.stats.steps for table in facts.tables if table.stats is not None)
    looked = f"{checks} checks over {text.count(rows)} rows of {len(facts.tables)} tables"
    noted = f", {notes} {'note' if notes == 1 else 'notes'}" if notes else ""
    return f"{wrong} found{noted}; {looked}" if wrong else f"fine{noted}; {looked}"
