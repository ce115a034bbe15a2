"""The token file: who may connect, what each may do, and how much of it. Read again when it changes."""

from __future__ import annotations

import difflib
import hashlib
import hmac
import logging
import math
import re
import secrets
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from replaystore.errors import InvalidArgument, ReplayStoreError
from replaystore.server.access.callers import Caller, Quotas
from replaystore.server.access.files import Signature, read_file, signature_of
from replaystore.server.access.roles import Role

log = logging.getLogger("replaystore.server")

MAX_TOKENS = 4096
"""A token that nobody knows is compared with all of them."""

_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]{16,512}")
_TOKEN_RULE = "16 to 512 letters, digits or -._~+/= (openssl rand -hex 32 makes one)"
_DIGEST = re.compile(r"[0-9a-fA-F]{64}")
_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}\*?|\*")
_KINDS = ("secret", "sha256", "certificate")
_QUOTAS = tuple(field.name for field in fields(Quotas))
_RATES = ("steps_per_s", "bytes_per_s")
_EVERYTHING = (("*", Role.admin),)


def parse_tokens(text: str, origin: str) -> tuple[Caller, ...]:
    """The callers that `text` describes: TOML with a table ``[token.NAME]`` for each, or plain lines with one token each that may do all.

    Args:
        text: lines that begin with ``#`` and empty ones count for nothing; TOML where another begins with ``[``.
        origin: where it is from, for errors. These show no secrets.

    Raises:
        InvalidArgument: it is neither; says where and what.
    """
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1)]
    lines = [(number, line) for number, line in lines if line and not line.startswith("#")]
    if any(line.startswith("[") for _, line in lines):
        callers = _parse_toml(text, origin)
    else:
        for number, line in lines:
            if not _TOKEN.fullmatch(line):
                raise InvalidArgument(f"{origin}, line {number}: a token must be {_TOKEN_RULE}, and stand alone on its line")
        callers = [Caller(f"line-{number}", _EVERYTHING, Quotas(), _digest(line)) for number, line in lines]
    if not callers:
        raise InvalidArgument(f"{origin} has no tokens, so nobody could connect: write one, {_TOKEN_RULE}")
    if len(callers) > MAX_TOKENS:
        raise InvalidArgument(f"{origin} has {len(callers)} tokens, at most {MAX_TOKENS} are allowed")
    names: dict[bytes, str] = {}
    for caller in callers:
        other = names.setdefault(caller.credential, caller.name)
        if other != caller.name:
            raise InvalidArgument(f"{origin}: {other!r} and {caller.name!r} have the same token or certificate: give each its own")
    return tuple(callers)


def _parse_toml(text: str, origin: str) -> list[Caller]:
    try:
        document = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InvalidArgument(f"{origin} is not valid TOML: {error}") from None
    _check_keys(document, ("token",), origin)
    entries = document.get("token")
    if not isinstance(entries, dict) or not all(isinstance(entry, dict) for entry in entries.values()):
        raise InvalidArgument(f"{origin}: each token needs a table of its own, for example [token.learner-1]")
    return [_caller(name, entry, f"{origin}, [token.{name}]") for name, entry in entries.items()]


def _caller(name: str, entry: Mapping[str, Any], where: str) -> Caller:
    if not name or len(name) > 128 or not name.isprintable():
        raise InvalidArgument(f"{where}: a token's name must be 1 to 128 printable characters")
    _check_keys(entry, (*_KINDS, "roles", *_QUOTAS), where)
    kinds = [kind for kind in _KINDS if kind in entry]
    if len(kinds) != 1:
        raise InvalidArgument(f"{where} must have one of {', '.join(_KINDS)}, and has {' and '.join(kinds) or 'none'}")
    return Caller(name, _roles(entry.get("roles"), where), _quotas(entry, where), _credential(kinds[0], entry[kinds[0]], where))


def _credential(kind: str, value: Any, where: str) -> bytes:
    if not isinstance(value, str):
        raise InvalidArgument(f"{where}: {kind} must be a string")
    if kind == "certificate":
        if not 1 <= len(value) <= 64:
            raise InvalidArgument(f"{where}: certificate={value!r} must be the common name of a client's certificate, 1 to 64 characters")
        return certificate_credential(value)
    if kind == "secret":
        if not _TOKEN.fullmatch(value):
            raise InvalidArgument(f"{where}: secret must be {_TOKEN_RULE}")
        return _digest(value)
    if not _DIGEST.fullmatch(value):
        raise InvalidArgument(f"{where}: sha256 must be 64 hexadecimal digits: printf %s TOKEN | sha256sum")
    return bytes.fromhex(value)


def _roles(value: Any, where: str) -> tuple[tuple[str, Role], ...]:
    if not isinstance(value, dict) or not value:
        raise InvalidArgument(f'{where}: roles must say what it may do with which tables, for example roles = {{ "pong*" = "write" }}')
    roles = []
    for pattern, role in value.items():
        if not _PATTERN.fullmatch(pattern):
            raise InvalidArgument(f"{where}: roles: {pattern!r} must be a table's name, the beginning of names and *, or * alone")
        if role not in Role.__members__:
            near = _nearest(str(role), Role.__members__)
            raise InvalidArgument(f"{where}: roles: {pattern!r} = {role!r} must be one of {', '.join(Role.__members__)}{near}")
        roles.append((pattern, Role[role]))
    return tuple(roles)


def _quotas(entry: Mapping[str, Any], where: str) -> Quotas:
    given: dict[str, Any] = {}
    for name in _QUOTAS:
        if name in entry:
            value = entry[name]
            whole = name not in _RATES
            if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)) or not 0 < value < math.inf:
                raise InvalidArgument(f"{where}: {name}={value!r} must be a {'whole ' if whole else ''}number above 0")
            given[name] = value
    return Quotas(**given)


def _check_keys(given: Mapping[str, Any], known: Iterable[str], where: str) -> None:
    known = tuple(known)
    for key in given:
        if key not in known:
            raise InvalidArgument(f"{where}: {key!r} means nothing here; there is {', '.join(known)}{_nearest(key, known)}")


def _nearest(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(known), 1)
    return f" (did you mean {near[0]}?)" if near else ""


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def certificate_credential(common_name: str) -> bytes:
    """What a caller is known by whose certificate has this common name."""
    return b"certificate:" + common_name.encode()


class Tokens:
    """The callers of a token file, or of a text that was given in its place. Safe for use by several threads."""

    def __init__(self, path: Path | None, text: str = "") -> None:
        """Reads the file at `path`, or else takes `text`.

        Raises:
            InvalidArgument, PermissionDenied: it cannot be read, says nonsense, or others can read it.
        """
        if path is not None and text:
            raise InvalidArgument(f"tokens are given twice, by the token file {path} and by REPLAYSTORE_TOKENS: leave one of them out")
        self._path = path
        self._key = secrets.token_bytes(32)
        self._signature: Signature = ()
        if path is None:
            self._take(parse_tokens(text, "REPLAYSTORE_TOKENS"))
        else:
            self._signature = self._look(path)
            self._take(_read(path))

    def _take(self, callers: tuple[Caller, ...]) -> None:
        # one assignment: other threads see all of it or nothing
        self._known: tuple[dict[bytes, Caller], dict[bytes, Caller]] = {caller.credential: caller for caller in callers}, {}

    def of_token(self, token: str) -> Caller | None:
        """Whose token it is. How long that takes says nothing about the tokens of others."""
        known, seen = self._known
        presented = token.encode("utf-8", "surrogateescape")
        short = hashlib.blake2b(presented, key=self._key, digest_size=32).digest()  # keyed: what finds it cannot be aimed at
        caller = seen.get(short)
        if caller is None:
            digest = hashlib.sha256(presented).digest()
            for credential, one in known.items():
                if hmac.compare_digest(credential, digest):
                    caller = one
            if caller is not None:
                seen[short] = caller
        return caller

    def of_certificate(self, common_name: str) -> Caller | None:
        """Whose certificate has this common name."""
        return self._known[0].get(certificate_credential(common_name))

    def again(self, caller: Caller) -> Caller | None:
        """What the file says now of a caller from before; None when it is not there any more."""
        return self._known[0].get(caller.credential)

    def refresh(self) -> bool:
        """Reads the file again if it has changed; True if that changed any rights. What cannot be used is logged and changes nothing."""
        if self._path is None:
            return False
        signature = self._look(self._path)
        if signature == self._signature:
            return False
        self._signature = signature
        try:
            callers = _read(self._path)
        except ReplayStoreError as error:
            log.error("the tokens known before stay in force: %s", error)
            return False
        before = self._known[0]
        self._take(callers)
        log.warning("read %s again: %d callers", self._path, len(callers))
        return before != self._known[0]

    @staticmethod
    def _look(path: Path) -> Signature:
        try:
            return signature_of(path)
        except OSError:
            return ()


def _read(path: Path) -> tuple[Caller, ...]:
    content = read_file(path, "token file", secret=True)
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise InvalidArgument(f"token file {path} is not text in UTF-8") from None
    return parse_tokens(text, f"token file {path}")
