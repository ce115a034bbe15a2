"""Who makes a call: found out once, when it begins, from its metadata and its connection."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

import grpc
from grpc_reflection.v1alpha import reflection

from replaystore.errors import PermissionDenied
from replaystore.server.access.callers import ANYBODY, Caller, Quotas
from replaystore.server.access.roles import Role
from replaystore.server.access.tokens import Tokens, certificate_credential
from replaystore.server.options import ServerOptions

log = logging.getLogger("replaystore.server")

LOOK_EVERY_S = 1.0
"""Between two looks at whether the token file has changed."""

_SAID_EVERY_S = 10.0

_NO_TOKEN = "this server asks for a token: set REPLAYSTORE_TOKEN or REPLAYSTORE_TOKEN_FILE, or pass Client(address, token=…)"
_NO_CALLER = (
    "this server knows neither a token of this call nor the certificate {name!r}: set REPLAYSTORE_TOKEN, or have "
    'certificate = "{name}" added to the server\'s token file'
)
_UNKNOWN = "this server does not know the token that came: it is mistyped or was taken back; ask whoever keeps the server's token file"


class Gate:
    """Knows callers by their tokens or certificates. Without either, everybody may do everything."""

    def __init__(self, tokens: Tokens | None, *, certificates: bool) -> None:
        """`certificates`: clients show one that is verified; without tokens, each of them may do everything."""
        self._tokens, self._certificates = tokens, certificates
        self._refused = 0
        self._said_s = -_SAID_EVERY_S

    @classmethod
    def of(cls, options: ServerOptions) -> Gate:
        """As the options say; InvalidArgument or PermissionDenied when the token file cannot be used."""
        tokens = Tokens(options.token_file, options.tokens) if options.token_file is not None or options.tokens else None
        return cls(tokens, certificates=options.tls_client_ca is not None)

    @property
    def asks(self) -> bool:
        """Whether callers must be known."""
        return self._tokens is not None or self._certificates

    def identify(self, context: Any) -> Caller:
        """Who makes the call of a ``grpc.aio.ServicerContext``; PermissionDenied, and now and then a line in the log, for nobody known."""
        try:
            return self.find(context)
        except PermissionDenied:
            self._note_refused(context)
            raise

    def find(self, context: Any) -> Caller:
        """The same for calls that strangers may make: nothing is logged."""
        tokens = self._tokens
        if tokens is None and not self._certificates:
            return ANYBODY
        if tokens is not None:
            for key, value in context.invocation_metadata() or ():
                if key == "authorization":
                    caller = tokens.of_token(value[7:]) if value[:7].lower() == "bearer " else None
                    return caller or _refuse(_UNKNOWN)
        name = _common_name(context) if self._certificates else ""
        if tokens is None:
            return Caller(name, (("*", Role.admin),), Quotas(), certificate_credential(name)) if name else ANYBODY  # of a unix socket
        caller = tokens.of_certificate(name) if name else None
        return caller or _refuse(_NO_CALLER.format(name=name) if name else _NO_TOKEN)

    def _note_refused(self, context: Any) -> None:
        self._refused += 1
        now = time.monotonic()
        if now - self._said_s >= _SAID_EVERY_S:
            log.warning("refused %d calls of nobody known, the last from %s", self._refused, context.peer())
            self._refused, self._said_s = 0, now

    async def watch(self, changed: Callable[[Callable[[Caller], Caller | None]], None]) -> None:
        """Looks after the token file until cancelled; `changed` is given what tells the present rights of callers from before."""
        tokens = self._tokens
        while tokens is not None:
            await asyncio.sleep(LOOK_EVERY_S)
            try:
                if await asyncio.to_thread(tokens.refresh):
                    changed(tokens.again)
            except Exception:
                log.exception("looking after the token file failed; it is tried again")


def _refuse(why: str) -> Caller:
    raise PermissionDenied(why)


def _common_name(context: Any) -> str:
    names = context.auth_context().get("x509_common_name") or (b"",)
    return bytes(names[0]).decode("utf-8", "replace")


class Reflection(reflection.aio.ReflectionServicer):  # type: ignore[misc]  # grpcio has no type information
    """Says which methods there are, to callers that are known."""

    def __init__(self, names: tuple[str, ...], gate: Gate) -> None:
        super().__init__(names)
        self._gate = gate

    async def ServerReflectionInfo(self, request_iterator: Any, context: Any) -> Any:  # noqa: N802
        """The service's one method."""
        try:
            self._gate.identify(context)
        except PermissionDenied as refusal:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, str(refusal))
        async for reply in super().ServerReflectionInfo(request_iterator, context):
            yield reply
