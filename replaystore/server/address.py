"""Where a server listens, and who could reach it there."""

from __future__ import annotations

import ipaddress
import os
import socket
from pathlib import Path

from replaystore.errors import InvalidArgument, PermissionDenied

MAX_SOCKET_PATH_BYTES = 107
"""Of a unix socket on Linux."""


def parse_address(listen: str) -> tuple[str, int]:
    """Host and port of ``host:port`` or ``[v6]:port``; InvalidArgument when it is neither. Port 0 takes a free one."""
    host, colon, port = listen.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise InvalidArgument(f"listen={listen!r} must be HOST:PORT, for example 127.0.0.1:7777 (port 0 takes a free one)")
    return host, int(port)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_exposure(host: str, insecure: bool, *, asks: bool = False, encrypts: bool = False) -> None:
    """PermissionDenied for an address that others can reach, unless that is meant, or safe.

    Args:
        host: as it was given.
        insecure: it is meant.
        asks: callers show a token or a certificate.
        encrypts: connections are encrypted.
    """
    if insecure or is_loopback(host) or (asks and encrypts):
        return
    if encrypts:
        why, then = "asks nobody who they are", "pass --token-file (token_file), or --tls-client-ca (tls_client_ca)"
    elif asks:
        why, then = "sends tokens unencrypted, for anybody between to read", "pass --tls-cert and --tls-key (tls_cert, tls_key)"
    else:
        why, then = "neither encrypts nor asks who is there", "pass --tls-cert, --tls-key and --token-file (tls_cert, tls_key, token_file)"
    raise PermissionDenied(
        f"{host} can be reached from other machines, and this server {why}: {then}, listen on 127.0.0.1 and forward the port (ssh -L), "
        "or pass --insecure (insecure=True) on a network where everybody may read and write"
    )


def join_address(host: str, port: int) -> str:
    """The address as clients type it."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def claim_socket_path(path: str) -> Path:
    """The path of a unix socket to be made: absolute, short enough, not in use; a dead server's socket there is removed."""
    absolute = Path(path).absolute()
    if len(os.fsencode(absolute)) > MAX_SOCKET_PATH_BYTES:
        raise InvalidArgument(f"unix={path!r}: {absolute} is longer than the {MAX_SOCKET_PATH_BYTES} bytes that a socket's path may have")
    if absolute.exists():
        if not absolute.is_socket():
            raise InvalidArgument(f"unix={path!r} exists and is no socket: choose another path")
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(absolute))
            except OSError:
                absolute.unlink(missing_ok=True)
            else:
                raise InvalidArgument(f"unix={path!r}: another server is listening there")
    return absolute
