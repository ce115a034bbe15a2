"""The table of settings itself: every name, type, bound, default and meaning stands here and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le
from pydantic import AfterValidator, BaseModel, BeforeValidator, ByteSize, ConfigDict, Field

from replaystore.errors import InvalidArgument
from replaystore.server.address import parse_address
from replaystore.server.options import ServerOptions

DEFAULTS = ServerOptions()
"""Where a setting is handed on to the server as it is, the server's own default counts."""

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Shown:
    """How a setting is shown."""

    section: str
    metavar: str = ""
    """What its value is, in help; empty for a switch."""
    unit: str = ""
    allowed: str = ""
    """What it may be, in words, where type and bounds do not say it."""
    on_line: bool = True
    """Whether the command line, which everybody on the machine can read, may set it."""
    in_file: bool = True
    """Whether the TOML file may."""
    secret: bool = False
    """It is never shown."""


def _address(value: str) -> str:
    if value:
        try:
            parse_address(value)
        except InvalidArgument as error:
            raise ValueError(str(error)) from None
    return value


def _place(value: Any) -> Any:
    if value == "":
        return None
    return str(Path(value).expanduser()) if isinstance(value, str) and value.startswith("~/") else value


Address = Annotated[str, AfterValidator(_address)]
Place = Annotated[Path | None, BeforeValidator(_place)]
"""A path; empty: none. ``~/`` is the home folder, also where no shell has looked at it."""


class Settings(BaseModel):
    """Everything that `replaystore serve` can be told."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    path: Annotated[Place, Shown("Store", "DIR")] = None
    """The store's folder; made when there is none. It has to be given."""

    durability: Annotated[Literal["interval", "fsync"], Shown("Store", "interval|fsync")] = "interval"
    """Acknowledge an insert when the kernel has it (survives kill -9), or when the disk has it."""

    commit_interval_ms: Annotated[float, Ge(1), Le(60_000), Shown("Store", "MS", "milliseconds")] = 200.0
    """Milliseconds between group commits to the disk."""

    snapshots: Annotated[Place, Shown("Store", "DIR")] = DEFAULTS.snapshots
    """Let clients have snapshots made, each in a folder of its own in DIR."""

    config: Annotated[Place, Shown("Store", "FILE", in_file=False)] = None
    """Read settings from this TOML file; empty: from none. Not given: replaystore.toml of the working directory, where there is one."""

    listen: Annotated[Address, Shown("Who may connect", "HOST:PORT", "", "HOST:PORT, or empty")] = "127.0.0.1:7777"
    """Port 0 takes a free one; empty for a unix socket only."""

    unix: Annotated[Place, Shown("Who may connect", "PATH")] = None
    """A unix socket to listen on as well; its owner alone can connect."""

    token_file: Annotated[Place, Shown("Who may connect", "FILE")] = DEFAULTS.token_file
    """Ask callers for a token of this file, and allow what the file says; read again when it changes. Clients take their token from the
    file that the same variable names: where both run in one environment, use the flag."""

    tokens: Annotated[str, Field(repr=False), Shown("Who may connect", allowed="text", on_line=False, in_file=False, secret=True)] = ""
    """What would be in a token file, for servers that are given it by their environment."""

    tls_cert: Annotated[Place, Shown("Who may connect", "FILE")] = DEFAULTS.tls_cert
    """Encrypt, with this certificate (PEM, the chain after it); read again when it changes."""

    tls_key: Annotated[Place, Shown("Who may connect", "FILE")] = DEFAULTS.tls_key
    """The certificate's private key (PEM)."""

    tls_client_ca: Annotated[Place, Shown("Who may connect", "FILE")] = DEFAULTS.tls_client_ca
    """Take only clients with a certificate that one of these authorities (PEM) has signed."""

    insecure: Annotated[bool, Shown("Who may connect")] = DEFAULTS.insecure
    """Allow addresses that other machines can reach, although others can then listen in or join in."""

    local: Annotated[bool, Shown("Who may connect")] = DEFAULTS.local
    """Let clients on this machine read the tables' files themselves; with --no-local everything is sent."""

    metrics: Annotated[Address, Shown("Seeing it run", "HOST:PORT", "", "HOST:PORT, or empty")] = DEFAULTS.metrics or ""
    """Serve metrics for Prometheus, /healthz and /readyz over HTTP there; empty: nowhere."""

    log_format: Annotated[Literal["text", "json"], Shown("Seeing it run", "text|json")] = "text"
    """Lines for people, or one JSON object a line."""

    log_level: Annotated[Literal["debug", "info", "warning", "error"], Shown("Seeing it run", "debug|info|warning|error")] = "warning"
    """Log what matters at least so much, on stderr."""

    otlp: Annotated[str, Shown("Seeing it run", "URL", "", "a URL, or empty")] = DEFAULTS.otlp or ""
    """Send traces to this OpenTelemetry endpoint (pip install 'replaystore[otel]'); empty: nowhere."""

    max_message_bytes: Annotated[ByteSize, Ge(MIB), Le((1 << 31) - 1), Shown("Bounds", "BYTES", "bytes")] = ByteSize(
        DEFAULTS.max_message_bytes
    )
    """Refuse larger messages."""

    max_parameters_bytes: Annotated[ByteSize, Ge(1), Shown("Bounds", "BYTES", "bytes")] = ByteSize(DEFAULTS.max_parameters_bytes)
    """Refuse larger parameter sets."""

    max_in_flight_bytes: Annotated[ByteSize, Ge(MIB), Shown("Bounds", "BYTES", "bytes")] = ByteSize(DEFAULTS.max_in_flight_bytes)
    """Refuse blocks and batches while so much is on its way in or out."""

    max_tables: Annotated[int, Ge(1), Shown("Bounds", "N", "tables")] = DEFAULTS.max_tables
    """Refuse to make more tables."""

    max_streams: Annotated[int, Ge(1), Shown("Bounds", "N", "streams")] = DEFAULTS.max_streams
    """Refuse more open streams of writers and samplers."""

    max_waiting: Annotated[int, Ge(1), Shown("Bounds", "N", "requests")] = DEFAULTS.max_waiting
    """Refuse more requests that wait for a limiter."""

    max_parameter_sets: Annotated[int, Ge(1), Shown("Bounds", "N", "names")] = DEFAULTS.max_parameter_sets
    """Refuse to publish parameters under more names."""

    max_parameters_total_bytes: Annotated[ByteSize, Ge(1), Shown("Bounds", "BYTES", "bytes")] = ByteSize(
        DEFAULTS.max_parameters_total_bytes
    )
    """Refuse to publish more parameters than these, all sets together; they are kept in memory."""

    max_wait_s: Annotated[float, Gt(0), Le(86_400), Shown("Bounds", "S", "seconds")] = DEFAULTS.max_wait_s
    """The longest that any call waits for a limiter, for durability or for parameters, whatever it asks for."""

    threads: Annotated[int, Ge(1), Le(256), Shown("Bounds", "N", "threads")] = DEFAULTS.threads
    """Threads that copy large blocks and batches."""

    waiting_threads: Annotated[int, Ge(1), Le(1024), Shown("Bounds", "N", "threads")] = DEFAULTS.waiting_threads
    """Threads that wait for the disk."""

    grace_s: Annotated[float, Ge(0), Le(3600), Shown("Bounds", "S", "seconds")] = DEFAULTS.grace_s
    """When told to stop, cut off what is still running after so long."""
