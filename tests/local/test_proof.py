"""Nothing that a server says of its files is believed: it is found true, or batches come by wire."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import replaystore as rs
from replaystore.mapping.columns import ColumnFiles, MappedTable, open_folder
from replaystore.server.local import Lending
from replaystore.server.options import ServerOptions
from replaystore.server.thread import start_in_thread
from replaystore.store import Store
from replaystore.v1 import data_pb2 as pb
from replaystore_client import Client
from replaystore_client.local import LocalPath
from replaystore_client.local.proof import NotShared, open_table
from tests.local.conftest import check, config, play

NONCE = bytes(range(16))
Tamper = Callable[[Any, Path], None]


@pytest.fixture
def lending(store: Store) -> Lending:
    store.create_table("t", config())
    play(store, "t", 20)
    return Lending(store, enabled=True, longest_s=60.0)


def offered(lending: Lending, store: Store, peer: str = "ipv4:127.0.0.1:5000") -> Any:
    return lending.offer(store.table("t"), NONCE, peer)


def test_a_true_offer(lending: Lending, store: Store) -> None:
    table = open_table(offered(lending, store), NONCE, "t")
    column = table.column("steps/action", 0, 20)
    np.testing.assert_array_equal(column.array[:20] - column.origin, np.arange(20))
    table.close()
    assert (store.path / "__replaystore/local").stat().st_size == 32
    lending.close()
    assert not (store.path / "__replaystore/local").exists()


def descriptors_of_this_thread(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """Those that it opens from now on and has not closed."""
    found: set[int] = set()
    thread = threading.get_ident()

    def opening(call: Callable[..., int]) -> Callable[..., int]:
        def opened(*args: Any, **options: Any) -> int:
            fd = call(*args, **options)
            if threading.get_ident() == thread:
                found.add(fd)
            return fd

        return opened

    def closed(fd: int, close: Callable[[int], None] = os.close) -> None:
        if threading.get_ident() == thread:
            found.discard(fd)
        close(fd)

    monkeypatch.setattr(os, "open", opening(os.open))
    monkeypatch.setattr(os, "dup", opening(os.dup))
    monkeypatch.setattr(os, "close", closed)
    return found


def _another_store(offer: Any, path: Path) -> None:
    """A copy, as a mount of a backup would show it."""
    shutil.copytree(offer.store, path / "copy")
    offer.store = str(path / "copy")


def _another_token(offer: Any, path: Path) -> None:
    """The same file, of other content."""
    (Path(offer.store) / offer.token).write_bytes(bytes(32))


def _a_link(offer: Any, path: Path) -> None:
    token = Path(offer.store) / offer.token
    token.rename(path / "token")
    token.symlink_to(path / "token")


def _a_linked_table(offer: Any, path: Path) -> None:
    (Path(offer.store) / "t").rename(path / "elsewhere")
    (Path(offer.store) / "t").symlink_to(path / "elsewhere")


def _a_new_table_of_the_name(offer: Any, path: Path) -> None:
    (Path(offer.store) / "t").rename(path / "elsewhere")
    shutil.copytree(path / "elsewhere", Path(offer.store) / "t")


def _another_boot(offer: Any, path: Path) -> None:
    offer.boot_id = "00000000-0000-0000-0000-000000000000"


def _another_nonce(offer: Any, path: Path) -> None:
    offer.proof = bytes(32)


def _a_store_that_is_not_there(offer: Any, path: Path) -> None:
    offer.store = str(path / "nowhere")


def _a_token_outside(offer: Any, path: Path) -> None:
    shutil.copy(Path(offer.store) / offer.token, path / "token")
    offer.token = "../token"


def _a_strange_column(offer: Any, path: Path) -> None:
    offer.columns.add(path="steps/x", dtype="object", rows_per_chunk=1)


@pytest.mark.parametrize(
    ("tamper", "said"),
    [
        (_another_store, "another mount, or a copy"),
        (_another_token, "another store is in its place"),
        (_a_link, "not to be seen here"),
        (_a_linked_table, "not to be seen here"),
        (_a_new_table_of_the_name, "another mount, or a copy"),
        (_another_boot, "another machine"),
        (_another_nonce, "another store is in its place"),
        (_a_store_that_is_not_there, "No such file"),
        (_a_token_outside, "no path below a store"),
        (_a_strange_column, "cannot be"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_an_offer_that_is_not_true(
    lending: Lending, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tamper: Tamper, said: str
) -> None:
    offer = offered(lending, store)
    tamper(offer, tmp_path)
    still_open = descriptors_of_this_thread(monkeypatch)
    with pytest.raises(NotShared, match=said):
        open_table(offer, NONCE, "t")
    monkeypatch.undo()
    assert not still_open
    if tamper in (_a_linked_table, _a_new_table_of_the_name):  # as it was, for the store that is still open
        there = store.path / "t"
        there.unlink() if there.is_symlink() else shutil.rmtree(there)
        (tmp_path / "elsewhere").rename(there)


@pytest.mark.parametrize("peer", ["ipv4:10.1.2.3:5000", "ipv6:%5B2001:db8::1%5D:5000", "ipv6:[fe80::1]:77", "", "vsock:3:5", "ipv4:"])
def test_only_who_calls_from_this_machine_hears_of_files(lending: Lending, store: Store, peer: str) -> None:
    offer = offered(lending, store, peer)
    assert "not on the server's machine" in offer.refused
    assert not offer.store
    assert not offer.columns
    assert not (store.path / "__replaystore/local").exists()


@pytest.mark.parametrize("peer", ["ipv4:127.0.0.1:5000", "ipv6:%5B::1%5D:5000", "ipv6:[::1]:77", "unix:", "unix:/run/replay.sock"])
def test_who_calls_from_this_machine(lending: Lending, store: Store, peer: str) -> None:
    assert not offered(lending, store, peer).refused


def test_a_store_that_is_only_read_is_not_offered(lending: Lending, store: Store) -> None:
    path = store.path
    store.close()
    with rs.open(path, mode="r") as reader:
        assert "for reading only" in Lending(reader, enabled=True, longest_s=1.0).offer(reader.table("t"), NONCE, "unix:").refused


def test_a_server_told_not_to(store: Store) -> None:
    store.create_table("t", config())
    play(store, "t", 20)
    with start_in_thread(store, options=ServerOptions(local=False)) as server:
        with Client(server.address) as client, client.sampler("t", 8, prefetch=1) as sampler:
            for _ in range(3):
                check(next(sampler))
            assert (sampler.path, sampler.path_reason) == ("wire", "the server was told not to offer its files")
        with Client(server.address, local=True) as client, pytest.raises(rs.InvalidArgument, match=r"local=True, but .* told not to offer"):
            client.sample("t", 4)


def test_files_that_are_not_as_they_should_be(tmp_path: Path) -> None:
    folder = tmp_path / "t/steps/action"
    folder.mkdir(parents=True)
    rows = np.arange(4 * 512)
    for chunk in range(3):
        (folder / f"c.{chunk}").write_bytes(rows[512 * chunk : 512 * (chunk + 1)].tobytes())
    table = MappedTable(open_folder(str(tmp_path / "t")), [ColumnFiles("steps/action", np.dtype("int64"), (), 512)])
    column = table.column("steps/action", 600, 1500)
    assert (column.origin, column.rows) == (512, range(512, 1536))
    np.testing.assert_array_equal(column.array[88:988], rows[600:1500])
    with pytest.raises(rs.NotFound, match=r"steps/action/c\.3 is gone"):
        table.column("steps/action", 600, 1537)
    (folder / "c.3").write_bytes(rows[1536:-1].tobytes())
    with pytest.raises(rs.Corruption, match=r"c\.3 has 4088 bytes instead of 4096"):
        table.column("steps/action", 600, 1537)
    (folder / "c.3").unlink()
    (folder / "c.3").symlink_to(folder / "c.0")
    with pytest.raises(rs.StorageError, match=r"c\.3 cannot be opened"):
        table.column("steps/action", 600, 1537)
    (folder / "c.3").unlink()
    (folder / "c.3").write_bytes(rows[1536:].tobytes())
    assert table.column("steps/action", 1400, 2048).rows == range(1024, 2048)
    np.testing.assert_array_equal(column.array[1024 - 512 : 2048 - 512], rows[1024:])
    assert table.column("steps/action", 0, 2048).rows == range(2048)  # never so with a table that lives
    with pytest.raises(rs.NotFound, match="no column 'steps/reward'; the table has steps/action"):
        table.column("steps/reward", 0, 1)
    table.close()


def test_a_column_that_cannot_be_opened_is_not_one_that_is_gone(tmp_path: Path) -> None:
    (tmp_path / "t/steps").mkdir(parents=True)
    (tmp_path / "t/steps/action").write_bytes(b"")
    files = [ColumnFiles(f"steps/{name}", np.dtype("int64"), (), 512) for name in ("action", "reward")]
    table = MappedTable(open_folder(str(tmp_path / "t")), files)
    with pytest.raises(rs.StorageError, match="steps/action cannot be opened: Not a directory"):
        table.column("steps/action", 0, 1)
    with pytest.raises(rs.NotFound, match="steps/reward is gone"):
        table.column("steps/reward", 0, 1)
    table.close()


def test_who_insists_hears_every_time(store: Store) -> None:
    store.create_table("t", config())
    play(store, "t", 20)
    with (
        start_in_thread(store, options=ServerOptions(local=False)) as server,
        Client(server.address, local=True) as client,
        client.sampler("t", 4, prefetch=2) as sampler,
    ):
        for _ in range(3):
            with pytest.raises(rs.InvalidArgument, match=r"local=True, but .* told not to offer"):
                next(sampler)


def test_what_cannot_be_read_from_files_comes_by_wire(store: Store, local: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    store.create_table("t", config())
    play(store, "t", 50)
    with local.sampler("t", 8, prefetch=2) as sampler:
        for _ in range(4):
            check(next(sampler))
        assert sampler.path == "local"
        monkeypatch.setattr(MappedTable, "column", lambda *_: (_ for _ in ()).throw(rs.Corruption("a file was cut")))
        for _ in range(4):
            check(next(sampler))
        assert (sampler.path, sampler.path_reason) == ("wire", "a file was cut")


@pytest.mark.parametrize("local", [1, "auto", 0.0])
def test_options_that_are_none(local: Any) -> None:
    with pytest.raises(rs.InvalidArgument, match="local="):
        Client("127.0.0.1:1", local=local)


def test_an_older_server_offers_nothing() -> None:
    path = LocalPath("t", None, 1.0)
    assert pb.SampleHeader.FromString(path.ask(4)).local_nonce
    assert path.ask(5) == b""  # it is asked once
    assert path.fields(pb.SampleReplyHeader(request=3), {}) == {}
    assert path.fields(pb.SampleReplyHeader(request=4, waiting="…"), {}) == {}
    assert path.ask(6) == b""
    assert path.fields(pb.SampleReplyHeader(request=4), {}) == {}
    assert (path.path, path.reason) == ("wire", "the server is of a version that offers no files")
    assert path.ask(7) == b""


def test_after_an_error_it_is_asked_again() -> None:
    path = LocalPath("t", None, 1.0)
    path.ask(1)
    path.fields(pb.SampleReplyHeader(request=1, error=pb.Error(kind="NotReady", message="…")), {})
    assert pb.SampleHeader.FromString(path.ask(2)).local_nonce
    path.failed(1)
    assert path.ask(3) == b""  # 2 has still to be answered
    path.failed(2)
    assert path.ask(1) == b""  # goes again, behind 3
    assert pb.SampleHeader.FromString(path.ask(4)).local_nonce
    path.forget()
    assert pb.SampleHeader.FromString(path.ask(5)).local_nonce


@pytest.mark.parametrize("path", ["../t", "/etc", "t/../..", "", "t//steps", "./t"])
def test_paths_stay_below_the_store(tmp_path: Path, path: str) -> None:
    (tmp_path / "t/steps").mkdir(parents=True)
    parent = open_folder(str(tmp_path))
    try:
        with pytest.raises(rs.NotFound, match="no path below"):
            open_folder(path, parent)
    finally:
        os.close(parent)
