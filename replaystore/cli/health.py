"""``replaystore health``: one question to a server's health service, for probes and people."""

from __future__ import annotations

from typing import Annotated

import typer

from replaystore.cli import text
from replaystore.wire.methods import TABLE_HEALTH

_CHECK = "/grpc.health.v1.Health/Check"


def health(
    where: Annotated[str, typer.Argument(metavar="WHERE", help="HOST:PORT or unix:PATH.")] = "127.0.0.1:7777",
    table: Annotated[str | None, typer.Option(metavar="TABLE", help="Ask for this table: does the disk take what is written?")] = None,
    timeout_s: Annotated[float, typer.Option(metavar="S", min=0.1, max=600, help="Seconds to wait for an answer.")] = 5.0,
    json: Annotated[bool, typer.Option("--json", help="JSON on one line, for programs.")] = False,
) -> None:
    """Say whether a server serves: exit code 0 if so; 1 while it recovers or stops, or when there is none."""
    from grpc_health.v1 import health_pb2

    from replaystore_client.connection import Connection

    connection = Connection(where)
    try:
        request = health_pb2.HealthCheckRequest(service="" if table is None else f"{TABLE_HEALTH}{table}")
        reply = health_pb2.HealthCheckResponse.FromString(connection.unary(_CHECK, request.SerializeToString(), timeout_s))
    finally:
        connection.close()
    state = health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status)
    if json:
        text.say_json({"server": where, "table": table, "status": state})
    else:
        text.say(f"{where if table is None else f'table {table!r} at {where}'}: {state.lower().replace('_', ' ')}")
    if state != "SERVING":
        raise typer.Exit(1)
