"""Gathers the facts: from a server over its calls, from a folder by opening its tables read-only beside whoever writes them."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

import replaystore as rs
from replaystore.diagnosis.facts import CertificateFacts, Facts, FileFacts, FolderFacts, TableFacts
from replaystore.errors import NotFound, ReplayStoreError
from replaystore.schema.columns import is_reward
from replaystore.schema.selectors import KEEPS_LEAVES
from replaystore.server.observing import surroundings
from replaystore.status import ServerStatus, TableDescription, TableStats
from replaystore.storage.files import read_json
from replaystore.storage.layout import PRIVATE_FOLDER, priority_path
from replaystore.storage.state_page import STATE_DTYPE

if TYPE_CHECKING:
    from replaystore_client import Client

Array = npt.NDArray[Any]

TIMES_ROWS = 4096
"""Newest rows whose times of insertion are read."""
MASSES_ROWS = 1 << 18
"""Newest rows whose priorities are read: a megabyte."""
LOOKED_ROWS = 256
LOOKED_BYTES = 16 << 20
"""Of the newest rows' columns, at most."""


class Rows(Protocol):
    """A table's verbs, by whichever way."""

    def describe(self) -> TableDescription:
        """What it is."""

    def stats(self) -> TableStats:
        """How it stands."""

    def read_steps(self, start: int, stop: int, columns: Any = None) -> dict[str, Array]:
        """Rows [start, stop)."""


class _Remote:
    """A table of a server."""

    def __init__(self, client: Client, name: str) -> None:
        self._client, self._name = client, name

    def describe(self) -> TableDescription:
        return self._client.describe(self._name)

    def stats(self) -> TableStats:
        return self._client.stats(self._name)

    def read_steps(self, start: int, stop: int, columns: Any = None) -> dict[str, Array]:
        return self._client.read_steps(self._name, start, stop, columns)


def status_of(client: Client) -> ServerStatus | None:
    """How a server stands; None for one that knows no such call."""
    try:
        return client.server_status()
    except ReplayStoreError as error:
        # what a method that there is not comes to has no class of its own
        if type(error) is not ReplayStoreError or "another version" not in str(error):
            raise
        return None


def gather_server(client: Client, where: str, seconds: float = 1.0, sleep: Callable[[float], None] = time.sleep) -> Facts:
    """Facts of a server, and of its folder where that is on this machine; looks twice, `seconds` apart."""
    start = time.monotonic()
    try:
        info = client.server_info()
        before = _stats_of(client, status_of(client))
        sleep(seconds)
        status = status_of(client)
        now = time.time()
        after = _stats_of(client, status)
    except ReplayStoreError as error:
        return Facts(where, time.time(), rs.__version__, served=True, problem=str(error), socket=_socket(where))
    elapsed = time.monotonic() - start
    live = {} if status is None else {table.stats.name: table for table in status.tables}
    tables = []
    for name, stats in after.items():
        facts = look_at(name, lambda name=name: _Remote(client, name), stats, before.get(name))  # type: ignore[misc]
        known = live.get(name)
        if known is not None:
            facts = dataclasses.replace(facts, commit_lag_s=known.commit_lag_s, failure=known.failure or "", idle_s=known.idle_s)
        version = facts.description.format_version if facts.description else None
        tables.append(dataclasses.replace(facts, format_version=version))
    disk = None if status is None else surroundings.Disk(status.disk_free_bytes, status.disk_total_bytes, status.filesystem)
    return Facts(
        where=where,
        time=now,
        version=rs.__version__,
        seconds=elapsed,
        served=True,
        status=status,
        server_version=str(info["version"]),
        protocol=int(info["protocol"]),
        tables=tuple(tables),
        disk=disk,
        memory_limit_bytes=0 if status is None else status.memory_limit_bytes,
        strict_overcommit=status is not None and status.strict_overcommit,
        folder=_folder_of_server(status),
        socket=_socket(where),
    )


def _stats_of(client: Client, status: ServerStatus | None) -> dict[str, TableStats]:
    if status is not None:
        return {table.stats.name: table.stats for table in status.tables}
    found = {}
    for name in client.tables():
        with contextlib.suppress(NotFound):  # dropped meanwhile
            found[name] = client.stats(name)
    return found


def gather_folder(path: str | Path, seconds: float = 1.0, sleep: Callable[[float], None] = time.sleep) -> Facts:
    """Facts of a store's folder, whether or not it is served.

    Raises:
        NotFound: there is no store.
    """
    from replaystore.engine.checking.verify import check_store, table_names

    root = Path(path)
    check_store(root, None)
    folder = look_at_folder(root)
    start = time.monotonic()
    earlier = {name: _counters(root / name) for name in table_names(root)}
    if folder.live:
        sleep(seconds)
    tables = []
    for name, (inserted, sampled) in earlier.items():
        facts = _on_disk(root, name)
        if facts.stats is not None and folder.live:
            now_inserted, now_sampled = _counters(root / name)
            stats = dataclasses.replace(facts.stats, inserted_steps=now_inserted, sampled_items=now_sampled)
            facts = dataclasses.replace(
                facts, stats=stats, before=dataclasses.replace(stats, inserted_steps=inserted, sampled_items=sampled)
            )
        tables.append(facts)
    return Facts(
        where=str(path),
        time=time.time(),
        version=rs.__version__,
        seconds=time.monotonic() - start,
        tables=tuple(tables),
        disk=surroundings.disk_of(root),
        memory_limit_bytes=surroundings.memory_limit_bytes(),
        strict_overcommit=surroundings.strict_overcommit(),
        folder=folder,
    )


def _on_disk(root: Path, name: str) -> TableFacts:
    """One table of a folder: opened for itself, so that a damaged one is a finding and not the end."""
    from replaystore.engine.checking.table_on_disk import TableOnDisk
    from replaystore.engine.table import Table

    clean, version = None, None
    with contextlib.suppress(OSError, ReplayStoreError, KeyError, TypeError, ValueError):
        clean = TableOnDisk.is_clean(root / name)
        version = int(read_json(root / name / "zarr.json")["attributes"]["format_version"])
    opened: list[Table] = []

    def open_table() -> Table:
        opened.append(Table(name, root / name, "r"))
        return opened[0]

    try:
        facts = look_at(name, open_table)
    finally:
        for table in opened:
            table.close(save=False)
    return dataclasses.replace(facts, clean=clean, format_version=version)


def look_at(name: str, open_table: Callable[[], Rows], stats: TableStats | None = None, before: TableStats | None = None) -> TableFacts:
    """What a table is and what its newest rows hold; why not, where it cannot be read."""
    description = None
    try:
        table = open_table()
        description, stats = table.describe(), stats or table.stats()
        return _rows_of(TableFacts(name, description, before, stats), table)
    except ReplayStoreError as error:
        return TableFacts(name, description, before, stats, problem=str(error))


def _rows_of(facts: TableFacts, table: Rows) -> TableFacts:
    assert facts.description is not None and facts.stats is not None  # noqa: PT018
    config, first, stop = facts.description.config, facts.stats.first_step, facts.stats.next_step
    times = table.read_steps(max(first, stop - TIMES_ROWS), stop, ["meta/insert_time"])["meta/insert_time"]
    paths = {name: priority_path(name) for name, selector in config.selectors.items() if isinstance(selector, KEEPS_LEAVES)}
    masses = {}
    if paths:
        leaves = table.read_steps(max(first, stop - MASSES_ROWS), stop, ["replay/successor", *paths.values()])
        masses = {name: leaves[path][leaves["replay/successor"] > 0] for name, path in paths.items()}
    columns = {name: column for name, column in config.columns.items() if column.row_bytes <= LOOKED_BYTES // 8}
    row_bytes = sum(column.row_bytes for column in columns.values())
    rows = min(LOOKED_ROWS, max(1, LOOKED_BYTES // max(row_bytes, 1)))
    newest = table.read_steps(max(first, stop - rows), stop, [*columns, "meta/kind"])
    steps = newest.pop("meta/kind") == 0
    zero, odd = [], []
    for name in columns:
        values = newest[name][steps]
        if values.dtype.kind in "fc" and not np.isfinite(values).all():
            odd.append(name)
        elif len(values) and not values.any() and name not in ("terminated", "truncated") and not is_reward(name):
            zero.append(name)
    return dataclasses.replace(
        facts, insert_times=times, masses=masses, looked_rows=int(steps.sum()), zero_columns=tuple(zero), odd_columns=tuple(odd)
    )


def _counters(folder: Path) -> tuple[int, int]:
    """Steps ever inserted and items ever sampled, as whoever writes counts them at this moment."""
    state = state_of(folder)
    return (0, 0) if state is None else (int(state["inserted_steps"]), int(state["sampled_items"]))


def state_of(folder: Path) -> Any:
    """A table's state page as it is now, one record of `STATE_DTYPE`; None where it cannot be read."""
    try:
        data = (folder / PRIVATE_FOLDER / "state").read_bytes()
        return np.frombuffer(data, STATE_DTYPE, count=1)[0]
    except (OSError, ValueError):
        return None


# -- what lies around


def look_at_folder(root: Path) -> FolderFacts:
    """Permissions of a store's folder, and whether a process has it open for writing."""
    found = root.stat()
    return FolderFacts(
        path=str(root),
        mode=stat.S_IMODE(found.st_mode),
        owned=found.st_uid == os.getuid(),
        writable=os.access(root, os.W_OK | os.X_OK),
        live=_is_locked(root),
    )


def _is_locked(root: Path) -> bool:
    try:
        fd = os.open(root / PRIVATE_FOLDER / "LOCK", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except OSError:
        return True
    finally:
        os.close(fd)


def _folder_of_server(status: ServerStatus | None) -> FolderFacts | None:
    """The server's folder, if it is to be seen from here: its lock then names the server's process."""
    if status is None:
        return None
    root = Path(status.path)
    try:
        if f"process {status.pid}" == (root / PRIVATE_FOLDER / "LOCK").read_text().strip() and _is_locked(root):
            return look_at_folder(root)
    except OSError:
        pass
    return None


def _socket(where: str) -> FileFacts | None:
    if not where.startswith("unix:"):
        return None
    path = where.removeprefix("unix:")
    with contextlib.suppress(OSError):
        return FileFacts(path, stat.S_IMODE(os.stat(path).st_mode))
    return None  # that nothing listens is said elsewhere


def look_at_token_file(path: str | Path) -> FileFacts:
    """Permissions of a file of tokens. Its content is not read."""
    try:
        mode = stat.S_IMODE(os.stat(path).st_mode)
        readable = os.access(path, os.R_OK)
    except OSError as error:
        return FileFacts(str(path), problem=f"{path}: {error.strerror}")
    return FileFacts(str(path), mode, "" if readable else f"{path} cannot be read by this user (mode {mode:04o})")


def look_at_certificates(path: str | Path) -> tuple[CertificateFacts, ...]:
    """The certificates of a PEM file."""
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    try:
        found = x509.load_pem_x509_certificates(Path(path).read_bytes())
    except OSError as error:
        return (CertificateFacts(str(path), problem=str(error.strerror)),)
    except ValueError as error:
        return (CertificateFacts(str(path), problem=f"no certificates in PEM ({error})"),)
    facts = []
    for one in found:
        names = one.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        subject = str(names[0].value) if names else one.subject.rfc4514_string()
        facts.append(CertificateFacts(str(path), subject, one.not_valid_before_utc.timestamp(), one.not_valid_after_utc.timestamp()))
    return tuple(facts)
