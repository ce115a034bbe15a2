"""A client made of the .proto files alone passes every exercise, and one that is wrong is told how."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

from replaystore.conformance import running
from replaystore.conformance.exercises import EXERCISES, by_name
from replaystore.conformance.running import run
from replaystore.errors import InvalidArgument
from tests.cli.conftest import replaystore

CLIENT = Path(__file__).with_name("plain_client.py")


def outcomes(folder: Path, command: list[str], *names: str, timeout_s: float = 200.0) -> dict[str, str]:
    exercises = [by_name(name) for name in names] or list(EXERCISES)
    return {outcome.exercise.name: outcome.wrong for outcome in run(command, exercises, folder / "store", timeout_s)}


def test_the_plain_client_passes_every_exercise(tmp_path: Path) -> None:
    assert outcomes(tmp_path, [sys.executable, str(CLIENT)]) == dict.fromkeys([exercise.name for exercise in EXERCISES], "")


def test_the_plain_client_knows_nothing_but_the_messages() -> None:
    tree = ast.parse(CLIENT.read_text())
    names = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name for name in names if name and name.startswith("replaystore")} == {"replaystore.v1"}


def client(tmp_path: Path, code: str) -> list[str]:
    """A client that does `code`, with `name` and `address`."""
    path = tmp_path / "client.py"
    path.write_text(f"import sys, json\nname, address = sys.stdin.readline().split()\n{code}\n")
    return [sys.executable, "-S", str(path)]


@pytest.mark.parametrize(
    ("exercise", "code", "said"),
    [
        ("info", "print(json.dumps({'protocol': 2, 'path': ''}))", "protocol is 2, not 1"),
        ("info", "print(json.dumps({}))", "the client did not print 'protocol'"),
        ("info", "print('fine')", "the line that the client printed is no JSON object: fine"),
        ("info", "", "the client ended with 0: it said nothing on stderr"),
        ("flush", "sys.exit('cannot flush')", "the client ended with 1: cannot flush"),
        ("flush", "print(json.dumps({'failed': 'no'}))", "the client failed: no"),
        ("append", "print('{}')", "column observation of table append is [], not [[0.0, 0.0], [1.0, 0.0]"),
        ("retry", "print('{}')", "no block arrived, so no connection was lost"),
    ],
)
def test_a_wrong_client_is_told_what_differs(tmp_path: Path, exercise: str, code: str, said: str) -> None:
    assert outcomes(tmp_path, client(tmp_path, code), exercise)[exercise].startswith(said)


def test_a_client_that_does_not_end_is_given_up(tmp_path: Path) -> None:
    found = outcomes(tmp_path, client(tmp_path, "import time; time.sleep(600)"), "info", timeout_s=0.5)
    assert found["info"] == "the client did not answer within 0.5 s"


def test_a_client_that_is_silent_but_does_not_end_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "_END_S", 0.2)
    found = outcomes(tmp_path, client(tmp_path, "import os, time; os.close(1); time.sleep(600)"), "info")
    assert found["info"] == "the client closed its standard input or output and did not end within 0.2 s"


def test_a_client_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="the client '/there/is/none' cannot be run"):
        outcomes(tmp_path, ["/there/is/none"], "info")
    with pytest.raises(InvalidArgument, match="there is no exercise 'fly'; there are info, create,"):
        outcomes(tmp_path, ["x"], "fly")


def test_the_command(tmp_path: Path) -> None:
    done = replaystore("conformance", "--only", "info", "--only", "create", "--", *client(tmp_path, "print(json.dumps({'protocol': 1}))"))
    assert done.stdout == "info: the client did not print 'path'\ncreate: the client did not print 'again'\n0 of 2 passed\n"
    assert done.returncode == 1
    done = replaystore("conformance")
    assert done.stderr.startswith("error: name the client under test: replaystore conformance -- ./my-client")
    assert done.returncode == 2
