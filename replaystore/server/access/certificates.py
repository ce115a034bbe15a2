"""TLS of a server: certificates from files, read again at a handshake when they have changed."""

from __future__ import annotations

import logging
import ssl
import time
from pathlib import Path
from typing import Any

import grpc

from replaystore.errors import InvalidArgument, ReplayStoreError
from replaystore.server.access.files import Signature, read_file, signature_of
from replaystore.server.options import ServerOptions

log = logging.getLogger("replaystore.server")

LOOK_EVERY_S = 1.0
"""No more often than this; connections may come by the hundred."""


class Certificates:
    """A certificate with its key, and those that clients' certificates must be signed by."""

    def __init__(self, cert: Path, key: Path, client_ca: Path | None) -> None:
        """Paths of PEM files; nothing is read yet."""
        self._cert, self._key, self._client_ca = cert, key, client_ca
        self._signature: tuple[Signature, ...] = ()
        self._looked_s = 0.0

    @classmethod
    def of(cls, options: ServerOptions) -> Certificates | None:
        """As the options say; None without TLS. InvalidArgument for half of it."""
        cert, key, client_ca = options.tls_cert, options.tls_key, options.tls_client_ca
        if cert is not None and key is not None:
            return cls(Path(cert), Path(key), None if client_ca is None else Path(client_ca))
        for name, given in (("tls_cert", cert), ("tls_key", key), ("tls_client_ca", client_ca)):
            if given is not None:
                raise InvalidArgument(f"{name}={str(given)!r} is only a part of what TLS needs: give tls_cert and tls_key")
        return None

    def credentials(self) -> Any:
        """``grpc.ServerCredentials`` that follow the files.

        Raises:
            InvalidArgument: a file cannot be read, holds no PEM, or key and certificate do not belong together.
            PermissionDenied: others can read the key.
        """
        self._signature = self._look()
        return grpc.dynamic_ssl_server_credentials(self._load(), self._fetch, require_client_authentication=self._client_ca is not None)

    def _look(self) -> tuple[Signature, ...]:
        try:
            return tuple(signature_of(path) for path in (self._cert, self._key, self._client_ca) if path is not None)
        except OSError:
            return ()

    def _load(self) -> Any:
        cert, key, roots = read_pems(self._cert, self._key, self._client_ca)
        return grpc.ssl_server_certificate_configuration([(key, cert)], root_certificates=roots)

    def _fetch(self) -> Any:
        """Called by gRPC before each handshake: another configuration, or None for the one there is."""
        now = time.monotonic()
        if now - self._looked_s < LOOK_EVERY_S:
            return None
        self._looked_s = now
        signature = self._look()
        if signature == self._signature:
            return None
        try:
            loaded = self._load()
        except ReplayStoreError as error:
            log.error("the certificate loaded before stays in use: %s", error)
            loaded = None
        else:
            log.warning("read the certificate %s again", self._cert)
        self._signature = signature
        return loaded


def read_pems(cert: Path, key: Path, client_ca: Path | None) -> tuple[bytes, bytes, bytes | None]:
    """The contents of a server's files, which have been seen to belong together."""
    for _ in range(3):
        contents = _read(cert, key, client_ca)
        _check(cert, key, client_ca)
        if _read(cert, key, client_ca) == contents:  # or somebody is replacing them, and other ones were checked
            return contents
    raise InvalidArgument(f"tls_cert {cert} and its key keep changing while they are read")


def _read(cert: Path, key: Path, client_ca: Path | None) -> tuple[bytes, bytes, bytes | None]:
    roots = None if client_ca is None else read_file(client_ca, "tls_client_ca", secret=False)
    return read_file(cert, "tls_cert", secret=False), read_file(key, "tls_key", secret=True), roots


def _check(cert: Path, key: Path, client_ca: Path | None) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(cert, key, password=lambda: "")  # or it would be asked for at the terminal
    except (OSError, ValueError) as error:
        why = getattr(error, "reason", None) or error
        raise InvalidArgument(
            f"tls_cert {cert} and tls_key {key} cannot be used ({why}): both must be PEM, the key must be that of the (first) certificate "
            "and have no passphrase"
        ) from None
    if client_ca is not None:
        try:
            context.load_verify_locations(client_ca)
        except (OSError, ValueError) as error:
            raise InvalidArgument(
                f"tls_client_ca {client_ca} cannot be used ({getattr(error, 'reason', None) or error}): must be PEM"
            ) from None
