"""The address ranges of columns as a store has them: every mapping is a system call that tests can follow, and knows its files."""

from __future__ import annotations

from dataclasses import dataclass

from replaystore.errors import Corruption
from replaystore.mapping import addresses
from replaystore.storage import calls


class AddressRange(addresses.AddressRange):
    """Tells of its calls."""

    __slots__ = ()

    @classmethod
    def _map(cls, address: int | None, size_bytes: int, protection: int, flags: int, fd: int) -> int:
        calls.before("mmap", size_bytes, fd)
        return super()._map(address, size_bytes, protection, flags, fd)


@dataclass(frozen=True, slots=True)
class Reservation:
    """Addresses for a column's rows, with its files mapped into them."""

    origin: int
    rows: int
    addresses: AddressRange
    attached: dict[int, tuple[int, int]]
    """Device and inode by chunk."""


@dataclass(frozen=True, slots=True)
class Change:
    """What something outside has done to a chunk file."""

    error: Corruption
    still_served: bool
    """Whether the mapping still has the rows; if not, touching them would kill the process."""
