"""The table of settings itself: every name, type, bound, default and meaning stands here and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, NewType

from replaystore.server.options import ServerOptions

DEFAULTS = ServerOptions()
"""What is handed on to the server as it is has the server's own default."""

MIB = 1 << 20
STORE, CONNECT, SEE, BOUNDS = "Store", "Who may connect", "Seeing it run", "Bounds"

Address = NewType("Address", str)
"""``HOST:PORT``, or empty for none."""
Size = NewType("Size", int)
"""Bytes."""


@dataclass(frozen=True, slots=True)
class Shown:
    """What a setting is beside its name, type and default."""

    section: str
    metavar: str
    """What its value is, in help; empty for a switch."""
    meaning: str
    unit: str = ""
    least: float | None = None
    above: float | None = None
    most: float | None = None
    on_line: bool = True
    """Whether the command line, which everybody on the machine can read, may set it."""
    in_file: bool = True
    """Whether the TOML file may."""
    secret: bool = False
    """It is never shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that `replaystore serve` can be told."""

    path: Annotated[Path | None, Shown(STORE, "DIR", "The store's folder; made when there is none. It has to be given.")] = None
    durability: Annotated[
        Literal["interval", "fsync"],
        Shown(STORE, "interval|fsync", "Acknowledge an insert when the kernel has it (survives kill -9), or when the disk has it."),
    ] = "interval"
    commit_interval_ms: Annotated[
        float, Shown(STORE, "MS", "Milliseconds between group commits to the disk.", unit="milliseconds", least=1, most=60000)
    ] = 200.0
    snapshots: Annotated[Path | None, Shown(STORE, "DIR", "Let clients have snapshots made, each in a folder of its own in DIR.")] = (
        DEFAULTS.snapshots
    )
    config: Annotated[
        Path | None,
        Shown(
            STORE,
            "FILE",
            "Read settings from this TOML file; empty: from none. Not given: replaystore.toml of the working "
            "directory, where there is one.",
            in_file=False,
        ),
    ] = None

    listen: Annotated[Address, Shown(CONNECT, "HOST:PORT", "Port 0 takes a free one; empty for a unix socket only.")] = Address(
        "127.0.0.1:7777"
    )
    unix: Annotated[Path | None, Shown(CONNECT, "PATH", "A unix socket to listen on as well; its owner alone can connect.")] = None
    token_file: Annotated[
        Path | None,
        Shown(
            CONNECT,
            "FILE",
            "Ask callers for a token of this file, and allow what the file says; read again when it changes. "
            "Clients take their token from the file that the same variable names: where both run in one environment, use the flag.",
        ),
    ] = DEFAULTS.token_file
    tokens: Annotated[
        str,
        Shown(
            CONNECT,
            "",
            "What would be in a token file, for servers that are given it by their environment.",
            on_line=False,
            in_file=False,
            secret=True,
        ),
    ] = field(default=DEFAULTS.tokens, repr=False)
    tls_cert: Annotated[
        Path | None, Shown(CONNECT, "FILE", "Encrypt, with this certificate (PEM, the chain after it); read again when it changes.")
    ] = DEFAULTS.tls_cert
    tls_key: Annotated[Path | None, Shown(CONNECT, "FILE", "The certificate's private key (PEM).")] = DEFAULTS.tls_key
    tls_client_ca: Annotated[
        Path | None, Shown(CONNECT, "FILE", "Take only clients with a certificate that one of these authorities (PEM) has signed.")
    ] = DEFAULTS.tls_client_ca
    insecure: Annotated[
        bool, Shown(CONNECT, "", "Allow addresses that other machines can reach, although others can then listen in or join in.")
    ] = DEFAULTS.insecure
    local: Annotated[
        bool, Shown(CONNECT, "", "Let clients on this machine read the tables' files themselves; with --no-local everything is sent.")
    ] = DEFAULTS.local

    metrics: Annotated[
        Address, Shown(SEE, "HOST:PORT", "Serve metrics for Prometheus, /healthz and /readyz over HTTP there; empty: nowhere.")
    ] = Address(DEFAULTS.metrics or "")
    log_format: Annotated[Literal["text", "json"], Shown(SEE, "text|json", "Lines for people, or one JSON object a line.")] = "text"
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        Shown(SEE, "debug|info|warning|error", "Log what matters at least so much, on stderr."),
    ] = "warning"
    otlp: Annotated[
        str, Shown(SEE, "URL", "Send traces to this OpenTelemetry endpoint (pip install 'replaystore[otel]'); empty: nowhere.")
    ] = DEFAULTS.otlp or ""

    max_message_bytes: Annotated[Size, Shown(BOUNDS, "BYTES", "Refuse larger messages.", unit="bytes", least=MIB, most=(1 << 31) - 1)] = (
        Size(DEFAULTS.max_message_bytes)
    )
    max_parameters_bytes: Annotated[Size, Shown(BOUNDS, "BYTES", "Refuse larger parameter sets.", unit="bytes", least=1)] = Size(
        DEFAULTS.max_parameters_bytes
    )
    max_in_flight_bytes: Annotated[
        Size, Shown(BOUNDS, "BYTES", "Refuse blocks and batches while so much is on its way in or out.", unit="bytes", least=MIB)
    ] = Size(DEFAULTS.max_in_flight_bytes)
    max_tables: Annotated[int, Shown(BOUNDS, "N", "Refuse to make more tables.", unit="tables", least=1)] = DEFAULTS.max_tables
    max_streams: Annotated[int, Shown(BOUNDS, "N", "Refuse more open streams of writers and samplers.", unit="streams", least=1)] = (
        DEFAULTS.max_streams
    )
    max_waiting: Annotated[int, Shown(BOUNDS, "N", "Refuse more requests that wait for a limiter.", unit="requests", least=1)] = (
        DEFAULTS.max_waiting
    )
    max_parameter_sets: Annotated[int, Shown(BOUNDS, "N", "Refuse to publish parameters under more names.", unit="names", least=1)] = (
        DEFAULTS.max_parameter_sets
    )
    max_parameters_total_bytes: Annotated[
        Size,
        Shown(
            BOUNDS,
            "BYTES",
            "Refuse to publish more parameters than these, all sets together; they are kept in memory.",
            unit="bytes",
            least=1,
        ),
    ] = Size(DEFAULTS.max_parameters_total_bytes)
    max_wait_s: Annotated[
        float,
        Shown(
            BOUNDS,
            "S",
            "The longest that any call waits for a limiter, for durability or for parameters, whatever it asks for.",
            unit="seconds",
            above=0,
            most=86400,
        ),
    ] = DEFAULTS.max_wait_s
    threads: Annotated[int, Shown(BOUNDS, "N", "Threads that copy large blocks and batches.", unit="threads", least=1, most=256)] = (
        DEFAULTS.threads
    )
    waiting_threads: Annotated[int, Shown(BOUNDS, "N", "Threads that wait for the disk.", unit="threads", least=1, most=1024)] = (
        DEFAULTS.waiting_threads
    )
    grace_s: Annotated[
        float, Shown(BOUNDS, "S", "When told to stop, cut off what is still running after so long.", unit="seconds", least=0, most=3600)
    ] = DEFAULTS.grace_s
