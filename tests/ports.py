"""Where servers listen that are to come back at the same address."""

from __future__ import annotations

import random
import socket

_RANGE = range(10_000, 32_000)  # below the ports that Linux gives to connections


def address_to_keep() -> str:
    """``127.0.0.1:PORT``, free now, of those ports that no connection gets by chance while its server is away."""
    chance = random.SystemRandom()  # seeds are the same in all processes of tests
    while True:
        port = chance.choice(_RANGE)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return f"127.0.0.1:{port}"
