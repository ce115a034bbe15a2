"""Facts of real stores and servers, and readings of them."""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import trustme

import replaystore as rs
from replaystore.diagnosis.gathering import gather_folder, gather_server, look_at_certificates, look_at_token_file, status_of
from replaystore.diagnosis.watching import Rates, rates, read_folder, read_server
from replaystore.errors import NotFound, ReplayStoreError
from replaystore.server.thread import ServerThread, start_in_thread
from replaystore.store import Store
from replaystore_client import Client
from replaystore_client.connection import Connection

from .conftest import found

COLUMNS = {"observation": rs.Column((3,)), "action": rs.Column(), "info/spare": rs.Column(), "info/odd": rs.Column()}


def write(store: Any, steps: int, table: str = "t") -> None:
    with store.writer(table) as writer:
        writer.reset(np.ones(3))
        for step in range(steps):
            writer.append(1.0, 1.0, step == steps - 1, False, np.ones(3), **{"info/spare": 0.0, "info/odd": np.inf if step == 3 else 1.0})


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with rs.open(tmp_path / "data") as opened:
        opened.create_table("t", rs.TableConfig(COLUMNS, selector=rs.Prioritized()))
        opened.create_table("empty", rs.TableConfig({"observation": rs.Column(), "action": rs.Column()}))
        write(opened, 200)
        yield opened


@pytest.fixture
def server(store: Store, tmp_path: Path) -> Iterator[ServerThread]:
    with start_in_thread(store, unix=str(tmp_path / "s")) as running:
        yield running


def never(_: float) -> None:
    pass


def test_a_server(store: Store, server: ServerThread) -> None:
    with Client(server.address) as client:
        facts = gather_server(client, server.address, 0.5, lambda _: write(client, 20))
    assert facts.status is not None
    assert (facts.served, facts.problem, facts.server_version) == (True, "", rs.__version__)
    empty, table = facts.tables
    assert (empty.name, empty.problem, len(empty.insert_times), empty.looked_rows) == ("empty", "", 0, 0)
    assert table.before is not None
    assert table.stats is not None
    assert (table.before.inserted_steps, table.stats.inserted_steps) == (200, 220)
    assert len(table.insert_times) == 222
    assert len(table.masses["default"]) == table.stats.anchors == 220
    assert (table.zero_columns, table.odd_columns, table.looked_rows) == (("info/spare",), ("info/odd",), 220)
    assert table.format_version == 1
    assert facts.disk is not None
    assert facts.disk.total_bytes == facts.status.disk_total_bytes
    assert facts.folder is not None  # the same machine: its lock names the server's process
    assert (facts.folder.path, facts.folder.live) == (str(store.path.absolute()), True)
    assert facts.socket is None


def test_a_server_at_a_socket(server: ServerThread) -> None:
    where = server.addresses[1]
    with Client(where) as client:
        facts = gather_server(client, where, 0, never)
        assert facts.socket is not None
        assert facts.socket.mode == 0o600
        assert found(facts, "permissions") == []
        os.chmod(facts.socket.path, 0o666)
        assert found(gather_server(client, where, 0, never), "permissions")[0].advice == f"chmod 600 {facts.socket.path}"


def test_a_server_that_does_not_answer() -> None:
    with Client("127.0.0.1:1", timeout_s=0.2) as client:
        facts = gather_server(client, "127.0.0.1:1", 0, never)
    assert "127.0.0.1:1" in facts.problem
    assert [finding.severity for finding in found(facts, "answers")] == ["error"]


def test_an_older_server(server: ServerThread, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(self: Client) -> rs.ServerStatus:
        raise ReplayStoreError(f"{self.address} is no replaystore server, or one of another version (Method not found!)")

    monkeypatch.setattr(Client, "server_status", unknown)
    with Client(server.address) as client:
        facts = gather_server(client, server.address, 0, never)
        reading = read_server(client)
    assert facts.status is None
    assert [table.name for table in facts.tables] == ["empty", "t"]
    assert [finding.severity for finding in found(facts, "answers")] == ["note"]
    assert (reading.source, reading.server, [table.steps for table in reading.tables]) == ("older server", None, [0, 201])


def test_how_a_method_that_there_is_not_is_told_from_other_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    class Unimplemented(grpc.RpcError):  # type: ignore[misc]
        def code(self) -> Any:
            return grpc.StatusCode.UNIMPLEMENTED

        def details(self) -> str:
            return "Method not found!"

        def trailing_metadata(self) -> tuple[()]:
            return ()

    def lacking(self: Client) -> rs.ServerStatus:
        raise Connection("h:1").translate(Unimplemented())

    def failing(self: Client) -> rs.ServerStatus:
        raise ReplayStoreError("the server failed unexpectedly")

    with Client("h:1") as client:
        monkeypatch.setattr(Client, "server_status", lacking)
        assert status_of(client) is None
        monkeypatch.setattr(Client, "server_status", failing)
        with pytest.raises(ReplayStoreError, match="unexpectedly"):
            status_of(client)


def test_a_folder_that_is_served(store: Store) -> None:
    def meanwhile(_: float) -> None:
        write(store, 20)
        store.table("t").wait_durable(store.table("t").next_step, 60)
        store.table("t").publish()

    facts = gather_folder(store.path, 0.5, meanwhile)
    assert facts.folder is not None
    assert (facts.folder.live, facts.served, facts.status) == (True, False, None)
    _, table = facts.tables
    assert table.before is not None
    assert table.stats is not None
    assert (table.before.inserted_steps, table.stats.inserted_steps) == (200, 220)
    assert (table.zero_columns, table.odd_columns) == (("info/spare",), ("info/odd",))


def test_a_folder_at_rest(store: Store) -> None:
    store.close()
    facts = gather_folder(store.path, 60.0)  # nothing moves: there is no second look
    assert facts.folder is not None
    assert not facts.folder.live
    assert [table.clean for table in facts.tables] == [True, True]
    assert found(facts, "recovery_pending") == []


def test_no_store(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="is no replaystore store"):
        gather_folder(tmp_path)
    with pytest.raises(NotFound, match="is no replaystore store"):
        read_folder(tmp_path)


def test_a_writer_that_was_killed(store: Store, tmp_path: Path) -> None:
    table = store.table("t")
    table.wait_durable(table.next_step, 60)
    table.publish()  # from here on no file comes or goes while it is copied
    shutil.copytree(store.path, tmp_path / "left")  # as it lies there when its process is killed
    facts = gather_folder(tmp_path / "left", 0, never)
    assert found(facts, "recovery_pending")[0].found.endswith("did not close empty, t")
    rs.open(tmp_path / "left").close()
    assert found(gather_folder(tmp_path / "left", 0, never), "recovery_pending") == []


def test_a_table_that_is_damaged_and_one_that_is_newer(store: Store) -> None:
    store.close()
    for path in (store.path / "t/steps/action").glob("c.*"):
        path.unlink()
    document = store.path / "empty/zarr.json"
    newer = json.loads(document.read_text())
    newer["attributes"]["format_version"] = 2
    document.write_text(json.dumps(newer))
    facts = gather_folder(store.path, 0, never)
    (problem,) = [finding for finding in found(facts, "tables_readable") if finding.table == "t"]
    assert "steps/action" in problem.found
    assert [(finding.severity, finding.table) for finding in found(facts, "format_version")] == [("error", "empty")]


def test_nobody_may_write_a_folder_of_others(store: Store) -> None:
    store.close()
    store.path.chmod(0o777)
    assert [finding.severity for finding in found(gather_folder(store.path, 0, never), "permissions")] == ["warning"]


def test_a_file_of_tokens(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    assert look_at_token_file(path).problem == f"{path}: No such file or directory"
    path.write_text("secret\n")
    path.chmod(0o640)
    assert (look_at_token_file(path).mode, look_at_token_file(path).problem) == (0o640, "")


def test_certificates(tmp_path: Path) -> None:
    ends = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=10)
    path = tmp_path / "server.pem"
    certificate = trustme.CA().issue_cert("replay.lan", common_name="replay", not_after=ends)
    certificate.cert_chain_pems[0].write_to_path(path)
    (one,) = look_at_certificates(path)
    assert (one.subject, one.problem) == ("replay", "")
    assert abs(one.not_after - ends.timestamp()) < 2
    assert one.not_before < time.time()
    path.write_text("no certificate")
    assert look_at_certificates(path)[0].problem.startswith("no certificates in PEM")
    assert look_at_certificates(tmp_path / "none")[0].problem == "No such file or directory"


# -- readings


def test_readings_of_a_server(store: Store, server: ServerThread) -> None:
    with Client(server.address) as client:
        before = read_server(client)
        write(client, 30)
        client.sample("t", 8)
        after = read_server(client)
    assert before.source == "server"
    empty, table = after.tables
    assert (table.steps, table.inserted_steps, table.replays_per_step) == (232, 230, 8 / 230)
    assert empty.replays_per_step is None
    passed = rates(before, after)
    assert passed["empty"] == Rates(0.0, 0.0, 0.0, 0.0)
    seconds = after.clock - before.clock
    assert passed["t"].inserted_per_s == pytest.approx(30 / seconds)
    assert passed["t"].sampled_per_s == pytest.approx(8 / seconds)
    assert (passed["t"].received_bytes_per_s or 0) > 0
    assert (passed["t"].sent_bytes_per_s or 0) > 0


def test_readings_of_a_folder(store: Store) -> None:
    before = read_folder(store.path)
    write(store, 30)
    store.sample("t", 8)
    after = read_folder(store.path)
    passed = rates(before, after)["t"]
    assert passed.inserted_per_s == pytest.approx(30 / (after.clock - before.clock))
    assert passed.sampled_per_s == pytest.approx(8 / (after.clock - before.clock))
    assert (passed.received_bytes_per_s, passed.sent_bytes_per_s) == (None, None)
    store.close()
    assert [table.steps for table in read_folder(store.path).tables] == [0, 232]


def test_what_passed_where_nothing_can_be_said(server: ServerThread) -> None:
    with Client(server.address) as client:
        reading = read_server(client)
    assert set(rates(None, reading).values()) == {Rates()}
    later = dataclasses.replace(reading, clock=reading.clock + 1)
    assert rates(reading, later)["t"] == Rates(0.0, 0.0, 0.0, 0.0)
    fewer = dataclasses.replace(later, tables=tuple(dataclasses.replace(table, inserted_steps=0) for table in later.tables))
    assert rates(reading, fewer)["t"] == Rates()  # dropped, and made anew
    assert later.server is not None
    restarted = dataclasses.replace(later, server=dataclasses.replace(later.server, instance="another"))
    assert rates(reading, restarted)["t"] == Rates()
