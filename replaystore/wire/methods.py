"""Names and bounds that server and client share."""

from __future__ import annotations

SERVICE = "replaystore.v1.ReplayStore"

TABLE_HEALTH = "replaystore.table/"
"""Before a table's name, in the standard health service."""

PROTOCOL = 1
"""Version of the contract; raised when a client of the older one could misunderstand."""

MAX_MESSAGE_BYTES = 256 << 20
"""Larger messages are refused on both sides."""

PART_BYTES = 4 << 20
"""Rows and parameters travel in messages of about this size."""

MAX_PARAMETERS_BYTES = 1 << 30
"""Of one parameter set."""


def path_of(method: str) -> str:
    """The gRPC path of a method of the service; one of another service is given as a path."""
    return method if method.startswith("/") else f"/{SERVICE}/{method}"
