"""Is it really the same file? An offer of a table's files is checked against what this process sees, and nothing of it is believed."""

from __future__ import annotations

import hashlib
import hmac
import os
import sys
from typing import Any

from replaystore.errors import ReplayStoreError
from replaystore.mapping.boot import boot_id
from replaystore.mapping.columns import ColumnFiles, MappedTable, open_folder
from replaystore.schema.columns import check_name
from replaystore.wire.local import columns_of

_MOST_TOKEN_BYTES = 64


class NotShared(Exception):
    """Why this process cannot use the files."""


def open_table(offer: Any, nonce: bytes, table: str) -> MappedTable:
    """The table that a LocalOffer is of, to be read from its files.

    Args:
        offer: answers `nonce`.
        nonce: random bytes.
        table: its name.

    Raises:
        NotShared: it was refused, or it is not true of what this process sees.
    """
    if offer.refused:
        raise NotShared(offer.refused)
    if sys.platform != "linux":
        raise NotShared(f"files are shared on Linux only, and this is {sys.platform}")
    here = boot_id()
    if here is None or offer.boot_id != here:
        raise NotShared("the server runs on another machine")
    try:
        check_name(table, "table")
        columns = [ColumnFiles(column.path, column.dtype, column.shape, column.rows_per_chunk) for column in columns_of(offer)]
        store = open_folder(offer.store)
        try:
            _check_token(store, offer, nonce)
            folder = open_folder(table, store)
        finally:
            os.close(store)
    except (OSError, ReplayStoreError) as error:
        raise NotShared(f"the server's files are not to be seen here: {error}") from None
    try:
        _check_same(folder, offer.table_device, offer.table_inode, f"{offer.store}/{table}")
        return MappedTable(folder, columns)
    except BaseException:
        os.close(folder)
        raise


def _check_token(store: int, offer: Any, nonce: bytes) -> None:
    below, _, name = offer.token.rpartition("/")
    folder = open_folder(below, store)
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=folder)
    finally:
        os.close(folder)
    try:
        where = f"{offer.store}/{offer.token}"
        _check_same(fd, offer.token_device, offer.token_inode, where)
        content = os.read(fd, _MOST_TOKEN_BYTES + 1)
        if len(content) > _MOST_TOKEN_BYTES or not hmac.compare_digest(hashlib.sha256(nonce + content).digest(), offer.proof):
            raise NotShared(f"{where} as it is seen here is not the server's: another store is in its place, or a copy")
    finally:
        os.close(fd)


def _check_same(fd: int, device: int, inode: int, where: str) -> None:
    found = os.fstat(fd)
    if (found.st_dev, found.st_ino) != (device, inode):
        raise NotShared(f"{where} as it is seen here is another file than the server's: another mount, or a copy")
