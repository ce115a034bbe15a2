"""The server's side of the local path: offers of tables, and batches that are kept while clients gather them."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import mmap
import os
import secrets
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakKeyDictionary, ref

import numpy as np
import numpy.typing as npt

from replaystore.errors import ReplayStoreError
from replaystore.mapping.boot import boot_id
from replaystore.server.address import is_loopback
from replaystore.server.describing import Described
from replaystore.storage import calls
from replaystore.storage.files import storage_errors
from replaystore.storage.layout import PRIVATE_FOLDER
from replaystore.storage.residency import SUPPORTED, Part, Residency, page_ranges
from replaystore.v1 import data_pb2 as pb
from replaystore.wire.layout import Layout
from replaystore.wire.local import MAX_NONCE_BYTES, FileColumn, add_columns

if TYPE_CHECKING:
    from replaystore.engine.table import Table
    from replaystore.engine.views.gathering import GatheredSample
    from replaystore.store import Store

Array = npt.NDArray[Any]
Ids = npt.NDArray[np.int64]

TOKEN_FILE = "local"
"""In the store's private folder."""

MAX_KEPT = 4096
"""Replies of one stream whose rows are kept. A client asks for fewer."""

_LOOKED_EVERY = 64
"""Messages between two looks at whether their rows are in memory. Looking takes about as long as gathering."""

_GONE = bytes(pb.SampleReplyHeader(local_gone=True).SerializeToString())


class Closing(Protocol):
    """What is kept."""

    def close(self) -> None:
        """Lets go of it."""


class Lending:
    """Which tables of a store clients on this machine may map, and under which keys."""

    def __init__(self, store: Store, *, enabled: bool, longest_s: float, least_bytes: int = 0) -> None:
        """Nothing is written before the first offer.

        Args:
            store: what is served.
            enabled: False offers nothing.
            longest_s: how long at most the files of a batch are kept for a client that has not gathered it.
            least_bytes: messages with less to gather are sent as if there was no local path.
        """
        self._store, self._enabled, self.longest_s, self._least_bytes = store, enabled, longest_s, least_bytes
        self._boot = boot_id()
        self._token: bytes | None = None
        self._tables: WeakKeyDictionary[Table, _Lent] = WeakKeyDictionary()

    def offer(self, table: Table, nonce: bytes, peer: str) -> Any:
        """A LocalOffer of a table's files to a client at `peer`, or one that says why not."""
        refused = self._refuses(table, nonce, peer)
        if refused is None:
            try:
                return self._offer(table, nonce)
            except (OSError, ReplayStoreError) as error:
                refused = f"the server cannot offer the files: {error}"
        return pb.LocalOffer(refused=refused)

    def _refuses(self, table: Table, nonce: bytes, peer: str) -> str | None:
        if not self._enabled:
            return "the server was told not to offer its files"
        if not _is_near(peer):
            return "the client is not on the server's machine as far as its address tells"
        if self._boot is None:
            return "the server's machine has no boot id, so nothing proves that the client is on it"
        if table.mode != "rw":
            return "the store is open for reading only: what it serves is not what its files have"
        return f"{len(nonce)} bytes are too long a nonce" if len(nonce) > MAX_NONCE_BYTES else None

    def _offer(self, table: Table, nonce: bytes) -> Any:
        store = self._store.path.resolve()
        token, status = self._prove(store / PRIVATE_FOLDER / TOKEN_FILE)
        folder = os.stat(store / table.name, follow_symlinks=False)
        lent = self._of(table)
        offer = pb.LocalOffer(
            key=lent.key,
            boot_id=self._boot,
            store=str(store),
            token=f"{PRIVATE_FOLDER}/{TOKEN_FILE}",
            token_device=status.st_dev,
            token_inode=status.st_ino,
            proof=hashlib.sha256(nonce + token).digest(),
            table_device=folder.st_dev,
            table_inode=folder.st_ino,
        )
        layouts = (layout for layout, _, _ in table.mapped_columns())
        add_columns(offer, (FileColumn(layout.path, layout.dtype, layout.shape, layout.rows_per_chunk) for layout in layouts))
        return offer

    def _prove(self, path: Path) -> tuple[bytes, os.stat_result]:
        """What is in the token's file, which is made anew when it is not this run's."""
        with storage_errors(path, "writing"):
            if self._token is None:
                token = secrets.token_bytes(32)
                calls.unlink(path)
                fd = calls.open_file(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
                try:
                    calls.pwrite_all(fd, memoryview(token), 0)
                finally:
                    os.close(fd)
                self._token = token
            return self._token, os.stat(path, follow_symlinks=False)

    def _of(self, table: Table) -> _Lent:
        lent = self._tables.get(table)
        if lent is None:
            lent = self._tables[table] = _Lent(table, self._least_bytes)
        return lent

    def lent(self, table: Table, key: int) -> _Lent | None:
        """The table as it was offered under `key`; None when it was not."""
        lent = self._tables.get(table)
        return lent if lent is not None and lent.key == key else None

    def close(self) -> None:
        """Takes the token away."""
        if self._token is not None:
            self._token = None
            with contextlib.suppress(OSError):
                calls.unlink(self._store.path / PRIVATE_FOLDER / TOKEN_FILE)


def _is_near(peer: str) -> bool:
    kind, _, rest = peer.partition(":")
    if kind == "unix":
        return True
    host = rest.rpartition(":")[0].replace("%5B", "[").replace("%5D", "]").strip("[]")
    return kind in ("ipv4", "ipv6") and is_loopback(host)


class _Ahead(Residency):
    """Page faults of who gathers are not to be seen here: in a while when all seems to be in memory, pages of a batch are looked at."""

    __slots__ = ()

    def due(self) -> bool:
        """Whether pages of the next message are to be looked at; to be called once per message. Looking at them may wait for the disk."""
        if not self.asking:
            self._batches += 1
        return SUPPORTED and (self.asking or not self._batches % _LOOKED_EVERY)

    def ahead(self, parts: Callable[[], Iterable[Part]], block_bytes: int = mmap.PAGESIZE) -> None:
        """Looks at them, and asks for those that are missing."""
        was_asking = self.asking
        self._ask(*page_ranges(parts(), block_bytes))
        if not was_asking:
            self.asking, self._quiet = self._quiet == 0, 0


class _Lent:
    """One table that was offered."""

    def __init__(self, table: Table, least_bytes: int) -> None:
        self._table, self._least_bytes = ref(table), least_bytes  # or tables that were dropped would stay, as these are found by them
        self.key = secrets.randbits(63) | 1
        self._ahead = _Ahead()
        self._arrays: dict[int, tuple[str, Array, int]] = {}
        self._layouts: dict[tuple[Any, ...], Layout] = {}  # hashing a tuple of fields takes longer than all the rest

    def due(self) -> bool:
        """Whether the next message's rows are to be looked for on the disk, which is nothing for the event loop."""
        return self._ahead.due()

    def lends(self, gathered: GatheredSample) -> bool:
        """Whether it is so much that a client gathers it."""
        return _gathered_bytes(gathered) >= self._least_bytes

    def look(self, gathered: GatheredSample) -> None:
        """Has the disk read what a client is about to gather and is not in memory."""
        if self.lends(gathered):
            self._ahead.ahead(lambda: [(take.source, take.at) for take in gathered.takes.values()])

    def describe(self, gathered: GatheredSample) -> Described | None:
        """How a client gathers it; None when it is little, or the columns have just moved: then it is to be gathered here."""
        takes = gathered.takes
        size = _gathered_bytes(gathered)
        if size < self._least_bytes:
            return None
        if any(id(take.source) not in self._arrays for take in takes.values()):
            table = self._table()
            if table is None:
                return None
            # held here, so that no other array gets their ids
            self._arrays = {id(array): (layout.path, array, origin) for layout, array, origin in table.mapped_columns()}
        places = [self._arrays.get(id(take.source)) for take in takes.values()]
        if None in places:
            return None
        described = Described(gathered, self._layouts, size)
        for (name, take), place in zip(takes.items(), places, strict=True):
            assert place is not None
            described.add(name, place[0], place[2], take)
        return described


def _gathered_bytes(gathered: GatheredSample) -> int:
    return sum(take.at.size * take.source.strides[0] for take in gathered.takes.values())


class Asked:
    """What one request wants to hear of the local path."""

    __slots__ = ("_lent", "_said")

    def __init__(self, lent: _Lent | None, said: bytes) -> None:
        self._lent, self._said = lent, said

    @property
    def local(self) -> bool:
        """Whether the client gathers itself."""
        return self._lent is not None

    def due(self) -> bool:
        """See `_Lent.due`."""
        return self._lent is not None and self._lent.due()

    def lends(self, gathered: GatheredSample) -> bool:
        """See `_Lent.lends`."""
        return self._lent is not None and self._lent.lends(gathered)

    def look(self, gathered: GatheredSample) -> None:
        """See `_Lent.look`."""
        if self._lent is not None:
            self._lent.look(gathered)

    def describe(self, gathered: GatheredSample) -> Described | None:
        """For a client that gathers itself."""
        return None if self._lent is None else self._lent.describe(gathered)

    def answer(self, described: Described | None, first_step: int) -> bytes:
        """The part of the reply's header, encoded."""
        if described is None:
            return self._said
        return self._said + bytes(pb.SampleReplyHeader(recipe=described.recipe, first_step=first_step).SerializeToString())


_NOTHING = Asked(None, b"")


class Borrowing:
    """One stream's part: what it has asked for, and batches that its client may still be gathering. For the event loop's thread."""

    def __init__(self, lending: Lending, peer: str) -> None:
        self._lending, self._peer = lending, peer
        self._kept: deque[tuple[int, float, Closing]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def asked(self, table: Table, header: Any, *, first: bool) -> Asked:
        """What a SampleHeader says. `first`: no part of its request has been answered yet."""
        if header.local:
            self._gathered(header.gathered)
            lent = self._lending.lent(table, header.local)
            return Asked(lent, b"" if lent is not None else _GONE)
        if not header.local_nonce or not first:
            return _NOTHING
        offer = self._lending.offer(table, header.local_nonce, self._peer)
        return Asked(None, bytes(pb.SampleReplyHeader(local_offer=offer).SerializeToString()))

    def keep(self, header: Any, batch: Closing) -> None:
        """Keeps what a request was answered with until it is gathered, its stream ends or some time has passed."""
        loop = asyncio.get_running_loop()
        longest = self._lending.longest_s
        seconds = min(header.keep_s, longest) if header.keep_s > 0 else longest  # NaN is no number > 0
        self._kept.append((header.request, loop.time() + seconds, batch))
        if len(self._kept) > MAX_KEPT:
            self._kept.popleft()[2].close()
        if self._timer is None:
            self._timer = loop.call_later(seconds, self._expire)

    def _gathered(self, number: int) -> None:
        while self._kept and self._kept[0][0] <= number:
            self._kept.popleft()[2].close()

    def _expire(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = None
        now = loop.time()
        while self._kept and self._kept[0][1] <= now:
            self._kept.popleft()[2].close()
        if self._kept:
            self._timer = loop.call_later(self._kept[0][1] - now, self._expire)

    def __len__(self) -> int:
        return len(self._kept)

    def close(self) -> None:
        """Lets go of everything."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._kept:
            self._kept.popleft()[2].close()
