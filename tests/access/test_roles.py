"""Every method for every role: what is refused, what is not, and what a refusal says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import replaystore as rs
from replaystore.server.access.callers import ANYBODY, Caller
from replaystore.server.access.roles import NEEDS, Role
from replaystore.server.options import ServerOptions
from replaystore.server.thread import start_in_thread
from replaystore.v1 import service_pb2 as pb
from replaystore_client import Client
from tests.access.conftest import Caller as Calling
from tests.access.conftest import messages, secret, tokens_text, write_private
from tests.fuzz.mutations import CONFIG

ROLES = ("none", "read", "write", "admin")
LEAST = {  # said once more, so that a change is meant
    "Append": "write",
    "Sample": "read",
    "UpdatePriorities": "write",
    "UpdateColumns": "write",
    "Delete": "write",
    "Flush": "write",
    "CreateTable": "admin",
    "AlterTable": "admin",
    "DropTable": "admin",
    "Snapshot": "admin",
    "ForkTable": "admin",
    "ListTables": "none",
    "DescribeTable": "read",
    "GetStats": "read",
    "ReadSteps": "read",
    "ReadEpisodes": "read",
    "PublishParameters": "write",
    "FetchParameters": "read",
    "GetServerInfo": "none",
    "GetServerStatus": "none",
}
METHODS = [method.name for method in pb.DESCRIPTOR.services_by_name["ReplayStore"].methods]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("roles")
    text = tokens_text(**{role: {"*": role} for role in ROLES}, half={"t": "read", "mine-*": "admin"}, other={"elsewhere": "admin"})
    options = ServerOptions(token_file=write_private(folder / "tokens.toml", text), snapshots=folder / "snapshots", max_wait_s=0.1)
    with rs.open(folder / "data") as store, start_in_thread(store, options=options) as server:
        store.create_table("t", CONFIG)
        store.create_table("hidden", CONFIG)
        yield server.address


def test_every_method_needs_something_said() -> None:
    assert set(NEEDS) == set(METHODS) == set(LEAST)


def test_names_in_the_table_are_fields() -> None:
    requests = {method.name: method.input_type for method in pb.DESCRIPTOR.services_by_name["ReplayStore"].methods}
    streams = {"Append", "Sample", "UpdatePriorities", "UpdateColumns", "Delete", "PublishParameters"}  # named in a header or a query
    for method, needs in NEEDS.items():
        if method not in streams:
            assert {field for field, _ in needs} <= set(requests[method].fields_by_name), method


@pytest.mark.parametrize("method", METHODS)
def test_a_method_and_the_roles(address: str, method: str) -> None:
    for number, role in enumerate(ROLES):
        if method == "DropTable":
            Calling(address, secret("admin")).refusal("CreateTable", [part.encode() for part in messages("CreateTable")])
        sent = messages(method, number)
        if method == "Sample":  # without the priorities that ride on it
            sent = [part for part in sent if part.layout is None] or sent
            for part in sent:
                part.layout, part.payload = None, b""
                part.header.ClearField("update_selector")
        kind, text = Calling(address, secret(role)).refusal(method, [part.encode() for part in sent])
        if Role[role] >= Role[LEAST[method]]:
            assert kind != "PermissionDenied", (role, text)
            assert kind != "UNIMPLEMENTED"
        else:
            assert kind == "PermissionDenied"
            assert text.startswith(f"{method} on ")
            assert f"caller {role!r}" in text
            assert secret(role) not in text


def test_what_a_refusal_says(address: str) -> None:
    with Client(address, token=secret("read")) as reader, Client(address, token=secret("none")) as nobody:
        with pytest.raises(rs.PermissionDenied) as refused:
            reader.drop_table("t")
        assert str(refused.value) == (
            "DropTable on 't' needs the role admin, and caller 'read' has the role read on it: ask whoever keeps the server's token file, "
            "or use another token"
        )
        with pytest.raises(rs.PermissionDenied, match="caller 'none' has no role on it"):
            nobody.stats("t")
        with pytest.raises(rs.PermissionDenied, match="Append on 't' needs the role write"):
            write_a_step(reader)


def write_a_step(client: Client) -> None:
    with client.writer("t") as writer:
        writer.reset({"a": [0, 0, 0], "b": [0, 0]})
        writer.append(0, 0.0, True, False, {"a": [0, 0, 0], "b": [0, 0]})
        writer.flush()


def test_priorities_that_ride_on_a_request_need_what_a_call_for_them_does(address: str) -> None:
    for role, refused in (("read", True), ("write", False)):
        parts = messages("Sample")
        assert parts[0].layout is not None
        kind, text = Calling(address, secret(role)).refusal("Sample", [part.encode() for part in parts])
        assert (kind == "PermissionDenied") == refused, text


def test_only_tables_that_may_be_read_are_shown(address: str) -> None:
    with Client(address, token=secret("half")) as half, Client(address, token=secret("read")) as reader:
        assert half.tables() == ["t"]
        assert {"hidden", "t"} <= set(reader.tables())
        with pytest.raises(rs.NotFound) as missing:
            half.describe("mine-1")
        assert str(missing.value) == "there is no table 'mine-1'; tables that caller 'half' may read: t"
        with pytest.raises(rs.NotFound) as missing:
            half.sample("mine-1", 1)
        assert "hidden" not in str(missing.value)
        for name in ("hidden", "nowhere"):
            with pytest.raises(rs.PermissionDenied, match=f"GetStats on '{name}' needs the role read"):  # whether it is there is not said
                half.stats(name)
        assert half.server_info()["path"] == ""
        assert [table.stats.name for table in half.server_status().tables] == ["t"]
        assert half.server_status().path == ""


def test_a_fork_needs_both_ends(address: str) -> None:
    with Client(address, token=secret("half")) as half, Client(address, token=secret("read")) as reader:
        half.fork("t", "mine-2")
        assert half.tables() == ["mine-2", "t"]
        with pytest.raises(rs.PermissionDenied, match="ForkTable on 'yours' needs the role admin"):
            half.fork("t", "yours")
        with pytest.raises(rs.PermissionDenied, match="ForkTable on 'hidden' needs the role read"):
            half.fork("hidden", "mine-3")
        with pytest.raises(rs.PermissionDenied):
            reader.fork("t", "mine-4")
        half.drop_table("mine-2")


def test_the_longest_pattern_counts() -> None:
    caller = Caller("x", (("*", Role.read), ("pong*", Role.write), ("pong", Role.admin), ("pong-secret*", Role.none)))
    roles = {name: caller.role_for(name).name for name in ("", "p", "pon", "pong", "pong-1", "pong-secret", "pong-secret-2")}
    assert roles == {
        "": "read", "p": "read", "pon": "read", "pong": "admin", "pong-1": "write", "pong-secret": "none", "pong-secret-2": "none",
    }  # fmt: skip
    assert not caller.everything
    assert ANYBODY.everything
    assert not Caller("x", (("*", Role.admin), ("secret", Role.none))).everything


def test_the_page_has_the_same_table() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs/SECURITY.md").read_text()
    for method, needs in NEEDS.items():
        wanted = " and ".join(f"{role.name} on `{field}`" for field, role in needs) or "a known caller"
        assert f"| `{method}` | {wanted} |" in page, f"| `{method}` | {wanted} |"
