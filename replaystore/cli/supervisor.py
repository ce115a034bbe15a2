"""Tells systemd how a server is, as sd_notify(3) does: one datagram to the socket named by NOTIFY_SOCKET. Nothing where there is none."""

from __future__ import annotations

import os
import socket

TOLD_WITHIN_S = 120
"""A start may last as long as it wants, if it tells how far it is so often."""

_PATIENCE_S = 1.0


def tell(*lines: str) -> bool:
    """Sends lines such as ``READY=1``; whether somebody was told. A supervisor that does not listen is no reason to fail."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.settimeout(_PATIENCE_S)
            sender.sendto("\n".join(lines).encode(), f"\0{address[1:]}" if address[0] == "@" else address)
    except OSError:
        return False
    return True


def tell_ready(status: str) -> bool:
    """It serves."""
    return tell("READY=1", f"STATUS={status}")


def tell_starting(status: str) -> bool:
    """It is not there yet, and will be heard of again."""
    return tell(f"STATUS={status}", f"EXTEND_TIMEOUT_USEC={TOLD_WITHIN_S * 1_000_000}")


def tell_stopping(status: str) -> bool:
    """It ends."""
    return tell("STOPPING=1", f"STATUS={status}")
