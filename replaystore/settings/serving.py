"""Settings as what the server is given."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from replaystore.errors import InvalidArgument
from replaystore.server.options import ServerOptions
from replaystore.settings.describing import SETTINGS
from replaystore.settings.table import DEFAULTS, Settings

INTERNALS = frozenset(
    (
        "blocked_notice_s", "durable_poll_s", "inline_bytes", "inline_items", "inline_rows", "local_keep_s", "local_least_bytes",
    )
)  # fmt: skip
"""Numbers of `ServerOptions` that no operator should have to decide: measured once, or made short by tests."""


def server_options(settings: Settings) -> ServerOptions:
    """The settings that the server itself takes; fields of the same name. Empty ones are what the server calls none."""
    taken = {field.name for field in fields(ServerOptions)} & SETTINGS.keys()
    values = {name: getattr(settings, name) for name in taken}
    return ServerOptions(**{name: getattr(DEFAULTS, name) if value in ("", None) else value for name, value in values.items()})


def check_complete(settings: Settings) -> Path:
    """The store's folder; InvalidArgument when something that has to be given is not."""
    if settings.path is None:
        path = SETTINGS["path"]
        raise InvalidArgument(f'which store? Give its folder: {path.flag} DIR, {path.variable}=DIR, or path = "DIR" in replaystore.toml')
    if not settings.listen and settings.unix is None:
        raise InvalidArgument("listen is empty and there is no unix socket: give --listen HOST:PORT or --unix PATH")
    for one, other in (("tls_cert", "tls_key"), ("tls_key", "tls_cert"), ("tls_client_ca", "tls_cert")):
        if getattr(settings, one) is not None and getattr(settings, other) is None:
            raise InvalidArgument(f"{one} is set and {other} is not: TLS needs both, give {SETTINGS[other].flag} FILE")
    return settings.path
