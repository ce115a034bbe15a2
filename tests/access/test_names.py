"""No name that a client sends leads anywhere but to what has that name, and nothing that it sends is executed."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

import replaystore as rs
from replaystore.schema.columns import check_name
from replaystore.server.access.roles import NEEDS
from replaystore.server.options import ServerOptions
from replaystore.server.thread import start_in_thread
from replaystore.storage.layout import PRIVATE_FOLDER
from tests.access.conftest import Caller, messages, secret, tokens_text, write_private
from tests.fuzz.mutations import CONFIG, NAMES

ROOT = Path(__file__).resolve().parents[2]
HOSTILE = [name for name in NAMES if len(name) < 100_000 and name not in ("c.0", "CON", "t", "")] + [
    PRIVATE_FOLDER, f"{PRIVATE_FOLDER}/local", "../outside", "..\\outside", "t/../../outside",
    "file:///etc/passwd", "\ufeffT", "\uff54", "t ", ".t",
]  # fmt: skip
THEIR_FAULT = {"InvalidArgument", "NotFound", "AlreadyExists", "PermissionDenied", "SchemaMismatch"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("names")


@pytest.fixture(scope="module")
def caller(folder: Path) -> Iterator[Caller]:
    text = tokens_text(boss={"*": "admin"})
    (folder / "outside").mkdir()
    options = ServerOptions(token_file=write_private(folder / "tokens.toml", text), snapshots=folder / "snapshots", max_wait_s=0.02)
    with rs.open(folder / "data") as store, start_in_thread(store, options=options) as server:
        store.create_table("t", CONFIG)
        yield Caller(server.address, secret("boss"))


def strings(message: Message) -> Iterator[tuple[Message, FieldDescriptor]]:
    """Every field of text, in messages below it too."""
    for field in message.DESCRIPTOR.fields:
        if field.type == FieldDescriptor.TYPE_STRING and not field.name.endswith("_json"):  # what JSON may say, tests/fuzz asks
            yield message, field
        elif field.type == FieldDescriptor.TYPE_MESSAGE and not field.is_repeated and message.HasField(field.name):
            yield from strings(getattr(message, field.name))


def put(message: Message, field: FieldDescriptor, name: str) -> None:
    if field.is_repeated:
        del getattr(message, field.name)[:]
        getattr(message, field.name).append(name)
    else:
        setattr(message, field.name, name)


@pytest.mark.parametrize("method", sorted(method for method in NEEDS if NEEDS[method]))
def test_a_name_leads_nowhere_else(caller: Caller, folder: Path, method: str) -> None:
    before = tree(folder)
    places = len(list(text_fields(messages(method))))
    assert places
    for place in range(places):
        for number, name in enumerate(HOSTILE):
            sent = messages(method, number)
            found = list(text_fields(sent))
            put(*found[min(place, len(found) - 1)], name)
            kind, text = caller.refusal(method, [part.encode() for part in sent])
            assert kind in THEIR_FAULT | {"", "NotReady"}, (name[:50], kind, text)
            assert len(text) < 5000
            assert str(folder) not in text or kind == "AlreadyExists"
    for made in (folder / "data").iterdir():
        if made.name not in (PRIVATE_FOLDER, "zarr.json"):
            check_name(made.name, "table")
    for made in (folder / "snapshots").glob("*"):
        check_name(made.name, "snapshot")
    for made in (folder / "data" / PRIVATE_FOLDER).rglob("*.npz"):
        check_name(made.stem, "parameter set")
    assert tree(folder) == before
    assert caller.refusal("ListTables", [b""]) == ("", "")


def text_fields(sent: list[Any]) -> Iterator[tuple[Message, FieldDescriptor]]:
    for part in sent[:1]:
        for message in (part.plain, part.header, part.query):
            if message is not None:
                yield from strings(message)


def tree(folder: Path) -> set[Path]:
    """All but what the server may write to."""
    return {path for path in folder.rglob("*") if path.relative_to(folder).parts[0] not in ("data", "snapshots")}


def test_nothing_is_unpickled_or_evaluated() -> None:
    """In what a client's bytes reach: the engine, the server, the wire and the client."""
    forbidden_modules = {"pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "yaml"}
    forbidden_calls = {"eval", "exec", "compile", "__import__"}
    for path in [*(ROOT / "replaystore").rglob("*.py"), *(ROOT / "client").rglob("*.py")]:
        text = path.read_text()
        if "/v1/" in str(path) or not any(word in text for word in (*forbidden_modules, *forbidden_calls, "np.load", "numpy.load")):
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Import):
                assert not {alias.name.split(".")[0] for alias in node.names} & forbidden_modules, path
            elif isinstance(node, ast.ImportFrom):
                assert (node.module or "").split(".")[0] not in forbidden_modules, path
            elif isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in forbidden_calls, (path, called)
                if called in ("np.load", "numpy.load"):
                    assert "allow_pickle=False" in ast.unparse(node), path
