"""Callers: a name, roles by pattern, quotas. Knows nothing of tokens or networks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from replaystore.errors import NotFound, PermissionDenied
from replaystore.server.access.roles import Role

_ADVICE = "ask whoever keeps the server's token file, or use another token"


@dataclass(frozen=True, slots=True)
class Quotas:
    """How much a caller may do; None is without bound."""

    steps_per_s: float | None = None
    """Rows appended per second."""

    bytes_per_s: float | None = None
    """Bytes appended per second."""

    max_bytes: int | None = None
    """Bytes stored."""

    max_tables: int | None = None

    @property
    def on_appends(self) -> bool:
        """Whether blocks are to be looked at one by one."""
        return self.steps_per_s is not None or self.bytes_per_s is not None or self.max_bytes is not None


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody the server knows."""

    name: str
    """From the token file; unique there. ``""`` where nobody is asked."""

    roles: tuple[tuple[str, Role], ...]
    """Patterns and roles: a name, or the beginning of names and ``*``. Of those that fit a name the longest one counts."""

    quotas: Quotas = Quotas()

    credential: bytes = field(default=b"", repr=False)
    """What it is known by: a digest of its token, or its certificate's name."""

    @property
    def everything(self) -> bool:
        """Whether nothing at all is refused."""
        return all(role is Role.admin for _, role in self.roles) and any(pattern == "*" for pattern, _ in self.roles)

    def role_for(self, name: str) -> Role:
        """What it may do with the table or parameter set `name`, also with one that is not there yet."""
        best, role = -1, Role.none
        for pattern, given in self.roles:
            if pattern.endswith("*"):
                fits, weight = name.startswith(pattern[:-1]), 2 * len(pattern) - 2
            else:
                fits, weight = name == pattern, 2 * len(pattern) + 1
            if fits and weight > best:
                best, role = weight, given
        return role

    def check(self, need: Role, name: str, method: str) -> None:
        """PermissionDenied unless it has the role `need`, or a higher one, on `name`."""
        role = self.role_for(name)
        if role < need:
            has = f"has the role {role.name} on it" if role else "has no role on it"
            raise PermissionDenied(f"{method} on {name!r} needs the role {need.name}, and {self} {has}: {_ADVICE}")

    def not_found(self, name: str, tables: Iterable[str]) -> NotFound:
        """There is no such table. Names those that this caller may read, and no others."""
        there = ", ".join(table for table in tables if self.role_for(table)) or "none"
        return NotFound(f"there is no table {name!r}; tables that {self} may read: {there}")

    def __str__(self) -> str:
        return f"caller {self.name!r}" if self.name else "everybody"


ANYBODY = Caller("", (("*", Role.admin),))
"""The one caller of a server that asks nobody who they are."""
