"""What one stream of requests for one table knows of the local path: whether there is one, why not, and what the server is to hear."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any, TypeVar

import numpy.typing as npt

from replaystore.errors import InvalidArgument, NotFound, ReplayStoreError
from replaystore.mapping.columns import MappedTable
from replaystore.schema.record import check_number
from replaystore.v1 import data_pb2 as pb
from replaystore.wire.samples import split_batches
from replaystore_client.local.gathering import Gathering, Later
from replaystore_client.local.proof import NotShared, open_table

Array = npt.NDArray[Any]
Mode = bool | None
T = TypeVar("T")

log = logging.getLogger("replaystore.client")

_NONCE_BYTES = 16
_NOT_YET = "the server has not been asked yet"


def check_mode(local: Any) -> Mode:
    """InvalidArgument unless `local` is None, True or False."""
    if local is not None and not isinstance(local, bool):
        raise InvalidArgument(f"local={local!r} must be None (where it can be), True (or an error) or False (never)")
    return local


class Gone(Exception):
    """A batch's rows have left the disk before they were gathered: it is to be asked for again, by wire."""


class LocalPath:
    """For one thread at a time.

    The first request asks the server for an offer of the table's files; what is answered before the offer was found true comes by wire.
    From then on replies name rows, and `fields` gathers them. When the server, or the table, is another one, it begins anew.
    """

    def __init__(self, table: str, mode: Mode, keep_s: float) -> None:
        """See the class.

        Args:
            table: its name.
            mode: None uses the files where that can be, True insists, False never does.
            keep_s: how long the server is to keep the files of a batch that was not gathered yet.
        """
        self._name, self._mode, self._keep_s = table, mode, keep_s
        check_number("keep_s", keep_s, 0.0, 86400.0)
        self._table: MappedTable | None = None
        self._gathering: Gathering | None = None
        self._key = 0
        self._nonce, self._asked_in, self._newest = b"", 0, 0
        self._gathered = 0
        self.reason = "local=False" if mode is False else _NOT_YET
        """Why batches come by wire; empty when they do not."""

    @property
    def path(self) -> str:
        """How batches come by now: ``"local"`` or ``"wire"``."""
        return "wire" if self._table is None else "local"

    def ask(self, number: int) -> bytes:
        """What request `number` says of it: part of a SampleHeader, encoded."""
        if self._key:
            return bytes(pb.SampleHeader(local=self._key, gathered=self._gathered, keep_s=self._keep_s).SerializeToString())
        newest, self._newest = number >= self._newest, max(number, self._newest)
        # not with a request that goes again, behind others of higher numbers: their answers would seem to be those of an older server
        if newest and self.reason == _NOT_YET and not self._nonce:
            self._nonce, self._asked_in = os.urandom(_NONCE_BYTES), number
            return bytes(pb.SampleHeader(local_nonce=self._nonce).SerializeToString())
        return b""

    def fields(self, header: Any, arrays: dict[str, Array]) -> dict[str, Array]:
        """The fields of what a reply brought; those that it only names are gathered.

        Args:
            header: SampleReplyHeader.
            arrays: of the payload.

        Raises:
            Gone: rows that it names have left the disk.
            InvalidArgument: there is no local path, and `mode` is True.
        """
        gathering = self._heard(header)
        if gathering is None:
            return arrays
        return self.gather(lambda: gathering.fields(header.recipe, arrays, header.first_step, header.next_step))

    def batches(self, header: Any, arrays: dict[str, Array], batches: int) -> list[dict[str, Array] | Later]:
        """The fields of each of several batches, or what is to be given to `gather` once they are wanted, before any later message.

        Args:
            header, arrays: see `fields`.
            batches: how many follow each other in the arrays.

        Raises:
            Gone, InvalidArgument: as `fields`.
        """
        gathering = self._heard(header)
        if gathering is None:
            return [*split_batches(arrays, batches)]
        return self.gather(lambda: gathering.batches(header.recipe, arrays, header.first_step, header.next_step, batches))

    def gather(self, make: Callable[[], T]) -> T:
        """What `make` gathers; Gone when that cannot be."""
        try:
            return make()
        except NotFound as error:
            log.debug("a batch of table %r is asked for again: %s", self._name, error)
            raise Gone from None
        except ReplayStoreError as error:
            self._refuse(str(error))
            raise Gone from None

    def _heard(self, header: Any) -> Gathering | None:
        """What gathers a reply; None when it came by wire."""
        if self._mode is False:
            return None
        if self._mode and self.reason not in ("", _NOT_YET):
            self._refuse(self.reason)
        if header.local_gone and self._table is not None:
            self._end(_NOT_YET)
        if self._nonce:
            self._hear(header)
        if not header.recipe:
            return None
        if self._gathering is None:
            raise Gone
        return self._gathering

    def failed(self, number: int) -> None:
        """Request `number` was answered with an error, which says nothing of the files: if it asked for an offer, the next one does."""
        if number >= self._asked_in:
            self._nonce = b""

    def forget(self) -> None:
        """No request is in flight any more: the next one asks for an offer, if none is there."""
        self._nonce = b""

    def gathered(self, number: int) -> None:
        """Everything that the requests up to `number` were answered with is gathered, or will not be."""
        self._gathered = number

    def _hear(self, header: Any) -> None:
        if header.HasField("local_offer"):
            nonce, self._nonce = self._nonce, b""
            try:
                self._table = open_table(header.local_offer, nonce, self._name)
            except NotShared as why:
                self._refuse(str(why))
                return
            self._gathering = Gathering(self._table)
            self._key, self.reason = header.local_offer.key, ""
            log.debug("table %r is read from its files in %s", self._name, header.local_offer.store)
        elif header.request >= self._asked_in and not header.HasField("waiting"):
            self._nonce = b""
            if not header.HasField("error"):
                self._refuse("the server is of a version that offers no files")

    def _refuse(self, why: str) -> None:
        self._end(why)
        log.debug("batches of table %r come by wire: %s", self._name, why)
        if self._mode:
            raise InvalidArgument(f"local=True, but table {self._name!r} cannot be read from its files: {why}")

    def _end(self, why: str) -> None:
        # unmapped when nothing refers to it any more: who closes may be another thread than that which gathers at this moment
        self._table = self._gathering = None
        self._key, self.reason = 0, why

    def close(self) -> None:
        """Unmaps the files, once nobody is gathering from them. From any thread."""
        self._end("closed")
