"""Who a client is and whom it trusts: its token and its certificates, from arguments or the environment."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from replaystore.errors import InvalidArgument

TOKEN, TOKEN_FILE = "REPLAYSTORE_TOKEN", "REPLAYSTORE_TOKEN_FILE"
TLS_CA, TLS_SERVER_NAME = "REPLAYSTORE_TLS_CA", "REPLAYSTORE_TLS_SERVER_NAME"
TLS_CLIENT_CERT, TLS_CLIENT_KEY = "REPLAYSTORE_TLS_CLIENT_CERT", "REPLAYSTORE_TLS_CLIENT_KEY"

_SYSTEM = "system"
_MAX_FILE_BYTES = 1 << 20
_MAX_TOKEN = 4096
_HUNG_UP = ("Socket closed", "Connection reset", "Broken pipe")


@dataclass(frozen=True, slots=True)
class TLS:
    """How a client encrypts, and what it shows: ``Client("replay:7777", tls=TLS("ca.pem", "actor.pem", "actor.key"))``.

    All files are PEM; they are read when a client is made.
    """

    ca: str | os.PathLike[str] | None = None
    """Certificates that the server's must be signed by; None: those that this machine trusts."""

    cert: str | os.PathLike[str] | None = None
    """The client's own certificate, for servers that ask for one,"""

    key: str | os.PathLike[str] | None = None
    """and its private key."""

    server_name: str | None = None
    """The name that the server's certificate is for, where that is another than the address has: behind a forwarded port, say."""


def token_of(given: str | None, environment: Mapping[str, str] = os.environ) -> tuple[str | None, str]:
    """The token to show, if any, and where it is from.

    Args:
        given: None takes that of REPLAYSTORE_TOKEN, or else the first one in the file that REPLAYSTORE_TOKEN_FILE names.
        environment: where these are.

    Raises:
        InvalidArgument: it cannot be one, or the file cannot be read. The text does not show it.
    """
    origin = "token"
    if given is None:
        origin, given = TOKEN, environment.get(TOKEN)
        if not given and environment.get(TOKEN_FILE):
            origin = f"{TOKEN_FILE}={environment[TOKEN_FILE]}"
            given = _first_token(_read(environment[TOKEN_FILE], TOKEN_FILE), origin)
    if not given and given != "":
        return None, origin
    if not isinstance(given, str) or not given.isascii() or not given.isprintable() or " " in given or len(given) > _MAX_TOKEN:
        raise InvalidArgument(f"{origin} must be at most {_MAX_TOKEN} printable ASCII characters without spaces (it is not shown here)")
    return given or None, origin


def _first_token(content: bytes, origin: str) -> str:
    for line in content.decode("utf-8", "replace").splitlines():
        word = line.strip()
        if word.startswith("["):
            raise InvalidArgument(
                f"{origin} is a server's table of tokens, not a client's token: set {TOKEN}, or a file that holds one alone"
            )
        if word and not word.startswith("#"):
            return word
    raise InvalidArgument(f"{origin} holds no token: write one, alone on its line")


def tls_of(given: Any, *, local_socket: bool, environment: Mapping[str, str] = os.environ) -> tuple[Any, str | None]:
    """``grpc.ChannelCredentials``, or None for none; and the name that the server's certificate is for, if it is not the address's.

    Args:
        given: as `Client` takes it; None takes what the environment says.
        local_socket: for a unix socket, about which the environment says nothing.
        environment: where the variables are.

    Raises:
        InvalidArgument: a file cannot be read or used.
    """
    if isinstance(given, grpc.ChannelCredentials):
        return given, None
    if given is None:
        given = None if local_socket else _of_environment(environment)
    if given is None or given is False:
        return None, None
    if given is True:
        given = TLS()
    elif isinstance(given, (str, os.PathLike)):
        given = TLS(given)
    if not isinstance(given, TLS):
        raise InvalidArgument(
            f"tls={given!r} must be True for what this machine trusts, the path of a PEM file of certificates to trust, a "
            "replaystore_client.TLS, a grpc.ChannelCredentials, or False"
        )
    return _credentials(given), given.server_name


def _of_environment(environment: Mapping[str, str]) -> TLS | None:
    ca, cert, key, name = (environment.get(variable) or None for variable in (TLS_CA, TLS_CLIENT_CERT, TLS_CLIENT_KEY, TLS_SERVER_NAME))
    if ca is None and cert is None and key is None:
        return None
    return TLS(None if ca == _SYSTEM else ca, cert, key, name)


def _credentials(tls: TLS) -> Any:
    if (tls.cert is None) != (tls.key is None):
        raise InvalidArgument(f"a client's certificate needs its key, and the other way round: cert={tls.cert!r}, key={tls.key!r}")
    roots, cert, key = (
        None if path is None else _read(path, what)
        for path, what in ((tls.ca, "certificates to trust"), (tls.cert, "certificate"), (tls.key, "key"))
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        if tls.ca is not None:
            context.load_verify_locations(tls.ca)
    except (OSError, ValueError) as error:
        raise InvalidArgument(f"{tls.ca} holds no certificates in PEM to trust ({_reason(error)})") from None
    try:
        if tls.cert is not None:
            context.load_cert_chain(tls.cert, tls.key, password=lambda: "")  # or it would be asked for at the terminal
    except (OSError, ValueError) as error:
        raise InvalidArgument(
            f"the certificate {tls.cert} and the key {tls.key} cannot be used ({_reason(error)}): both must be PEM and belong "
            "together, and the key must have no passphrase"
        ) from None
    return grpc.ssl_channel_credentials(roots, key, cert)


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", None) or error)


def _read(path: str | os.PathLike[str], what: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            content = file.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise InvalidArgument(f"{what} {os.fspath(path)} cannot be read: {error.strerror}") from None
    if len(content) > _MAX_FILE_BYTES:
        raise InvalidArgument(f"{what} {os.fspath(path)} is larger than {_MAX_FILE_BYTES} bytes: is it another file?")
    return content


def advice_for(details: str, *, encrypts: bool) -> str:
    """What to do about a connection that failed with gRPC's `details`."""
    if "connect again" in details:  # says the server, which stops or is not ready yet
        return "calls try again by themselves until their timeout_s, which may be too short"
    if "CERTIFICATE_VERIFY_FAILED" in details:
        return "the server's certificate is not signed by what tls= trusts: pass the path of the CA that signed it, or see which is newer"
    if "Hostname Verification" in details:
        return "the server's certificate is for another name: use that as the address, or TLS(ca, server_name=NAME)"
    if "WRONG_VERSION_NUMBER" in details:
        return "the server does not encrypt: pass tls=False, or start it with --tls-cert and --tls-key"
    if "failed to connect" in details and any(how in details for how in _HUNG_UP):
        asks = "a client's certificate, TLS(ca, cert, key)" if encrypts else "TLS: tls=True or tls=CA_FILE"
        return f"is it running? If it is, it may ask for {asks}"
    return "is it running? replaystore serve --path DATA --listen …"
