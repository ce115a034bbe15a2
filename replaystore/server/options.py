"""Bounds and habits of the server."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from replaystore.wire.methods import MAX_MESSAGE_BYTES, MAX_PARAMETERS_BYTES


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """Everything about the server that a number or a flag decides."""

    insecure: bool = False
    """Listen on addresses that other machines can reach, although nothing is encrypted and nobody is asked who they are."""

    token_file: Path | None = None
    """Callers must show a token of this file, and may do what it says of them; read again when it changes. See docs/SECURITY.md."""

    tokens: str = field(default="", repr=False)
    """What would be in such a file, for servers that are given it by their environment."""

    tls_cert: Path | None = None
    """PEM file of the server's certificate, those between it and its root appended: all but unix sockets are encrypted. Read again when it
    changes, as are the next two."""

    tls_key: Path | None = None
    """PEM file of the certificate's private key."""

    tls_client_ca: Path | None = None
    """PEM file of certificates: clients must show one that one of these has signed."""

    max_message_bytes: int = MAX_MESSAGE_BYTES
    """Larger messages are refused."""

    max_parameters_bytes: int = MAX_PARAMETERS_BYTES
    """Larger parameter sets are refused."""

    max_streams: int = 4096
    """Streams that may be open at once: of writers, samplers, rows and parameters on their way. As many single calls may run besides."""

    max_in_flight_bytes: int = 4 << 30
    """Of messages in memory: half for what comes in (blocks that are not stored yet, parameters), half for what goes out (batches, rows,
    parameters), so that blocks that wait for samples leave room for these. One message is always let through."""

    max_waiting: int = 4096
    """Samples and blocks that may wait for limiters at once, those of all tables together."""

    max_tables: int = 4096
    """No more can be made, forks counted in."""

    max_parameter_sets: int = 1024
    """No more names can be published under."""

    max_parameters_total_bytes: int = 16 << 30
    """Of all parameter sets together, which are kept in memory."""

    max_wait_s: float = 3600.0
    """The longest that any call may wait for a limiter, for durability or for parameters, whatever it asks for."""

    blocked_notice_s: float = 0.5
    """A writer whose block is held back is told after so long, and again every ten times as long."""

    durable_poll_s: float = 0.2
    """How often a writer is told of a durable watermark that moved while it did not write."""

    local: bool = True
    """Offer clients on this machine to read the tables' files themselves."""

    local_least_bytes: int = 256 << 10
    """What is smaller is sent to such clients all the same: that is faster."""

    local_keep_s: float = 60.0
    """For so long, at most, files that such a client has not read yet are kept although the table has dropped them."""

    inline_bytes: int = 256 << 10
    """Blocks and batches up to this size are copied on the event loop; larger ones in a thread (copying 256 KiB takes about 50 µs)."""

    inline_items: int = 4096
    """More priorities than this are updated in a thread."""

    inline_rows: int = 16384
    """Batches of more rows, items times what the view walks over for each, are drawn in a thread."""

    snapshots: Path | None = None
    """Where clients may have snapshots made, each in a folder of its own; None: nowhere."""

    metrics: str | None = None
    """``HOST:PORT`` where metrics, ``/healthz`` and ``/readyz`` are served over HTTP; None: nowhere."""

    otlp: str | None = None
    """URL of an OpenTelemetry collector that gets a trace of every message and commit; None: there are no traces."""

    threads: int = 4
    """For copying."""

    waiting_threads: int = 32
    """For waiting on the disk."""

    grace_s: float = 5.0
    """Calls that are still running so long after the server was told to stop are cut off."""
