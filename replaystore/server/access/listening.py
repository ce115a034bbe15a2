"""How connections come in: who is asked, what is encrypted, and which addresses are allowed with that."""

from __future__ import annotations

import os
from typing import Any

from replaystore.server.access.certificates import Certificates
from replaystore.server.access.gate import Gate
from replaystore.server.address import check_exposure
from replaystore.server.options import ServerOptions


class Access:
    """The gate of a server and its encryption, as its options say."""

    def __init__(self, options: ServerOptions) -> None:
        """Reads the token file and the certificates.

        Raises:
            InvalidArgument: one of them cannot be used.
            PermissionDenied: others can read what is secret in them.
        """
        self.gate = Gate.of(options)
        certificates = Certificates.of(options)
        self._credentials = None if certificates is None else certificates.credentials()
        self._insecure = options.insecure

    @property
    def encrypts(self) -> bool:
        """Whether all but unix sockets are encrypted."""
        return self._credentials is not None

    def check(self, host: str) -> None:
        """PermissionDenied for an address that others can reach, unless they are asked who they are and what they say is encrypted."""
        check_exposure(host, self._insecure, asks=self.gate.asks, encrypts=self.encrypts)

    def add_port(self, server: Any, address: str) -> int:
        """Has a ``grpc.aio.Server`` listen on ``host:port``; returns the port. RuntimeError when it cannot be had."""
        if self._credentials is None:
            return int(server.add_insecure_port(address))
        return int(server.add_secure_port(address, self._credentials))

    def add_socket(self, server: Any, path: str) -> int:
        """The same with a unix socket, which only this process's user can connect to; what goes through it never leaves the machine."""
        before = os.umask(0o177)  # the owner's alone from its first moment
        try:
            return int(server.add_insecure_port(f"unix:{path}"))
        finally:
            os.umask(before)
