"""ls, info, head, episodes: the same on a folder, on the folder of a live server, and on its address; errors are one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer.testing

import replaystore as rs
from replaystore.cli import text
from replaystore.cli.app import app
from replaystore.cli.target import is_address
from tests.cli.conftest import replaystore


def run(*arguments: str) -> str:
    """In this process, which is quicker; `replaystore` for what only a process can show."""
    result = typer.testing.CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def run_json(*arguments: str) -> Any:
    return json.loads(run(*arguments, "--json"))


def test_ls(data: Path) -> None:
    empty, maze = run_json("ls", str(data))
    assert (maze["name"], maze["steps"], maze["anchors"], maze["episodes"]) == ("maze", 16, 12, 4)
    assert (empty["name"], empty["steps"], empty["oldest_time"]) == ("empty", 0, None)
    assert maze["oldest_time"] <= maze["newest_time"]
    lines = run("ls", str(data)).splitlines()
    assert lines[0].split("  ")[0] == "table"
    assert any(line.startswith("maze") and "16" in line and "12" in line for line in lines)


def test_ls_of_a_store_without_tables(tmp_path: Path) -> None:
    rs.open(tmp_path / "new").close()
    assert run("ls", str(tmp_path / "new")) == "no tables yet\n"
    assert run_json("ls", str(tmp_path / "new")) == []


def test_info(data: Path) -> None:
    found = run_json("info", str(data), "maze")
    assert found["config"]["selectors"]["default"]["alpha"] == 0.5
    assert found["stats"]["inserted_steps"] == 12
    figures = {"mean": 4.5, "std": pytest.approx(np.std([0, 3, 6, 9])), "min": 0.0, "max": 9.0, "mean_length": 3.0}
    assert found["recent_episodes"] == {"episodes": 4, **figures}
    shown = run("info", str(data), "maze")
    assert "16 kept, ids 0 to 15; 12 can be sampled" in shown
    for words in ("Prioritized(alpha=0.5", "observation/image", "4x4", "Discrete(n=5, start=0)", "MinSize", "mean 4.5"):
        assert words in shown
    assert "none yet" in run("info", str(data), "empty")


def test_head(data: Path) -> None:
    rows = run_json("head", str(data), "maze", "-n", "5")
    assert [row["step_id"] for row in rows] == [11, 12, 13, 14, 15]
    assert [row["meta/kind"] for row in rows] == [1, 0, 0, 0, 1]
    assert rows[-2]["truncated"] is True
    assert rows[-1]["observation/where"] == [3.0, 3.0]
    only = run_json("head", str(data), "maze", "-c", "observation", "-c", "reward")
    always = {"step_id", "meta/episode", "meta/step_in_episode", "meta/kind"}
    assert set(only[0]) == {"observation/where", "observation/image", "reward"} | always
    assert len(only) == 10
    lines = run("head", str(data), "maze", "-n", "3").splitlines()
    assert [line.split()[0] for line in lines[2:5]] == ["13", "14", "15"]
    assert " end " in lines[4]
    assert "4x4, 0 to 0" in lines[2]
    assert run("head", str(data), "empty") == "no steps yet\n"


def test_episodes(data: Path) -> None:
    found = run_json("episodes", str(data), "maze", "-n", "2")
    rows = [(row["length"], row["return"], row["ending"], row["seed"]) for row in found]
    assert rows == [(3, 6.0, "terminated", 2), (3, 9.0, "truncated", 3)]
    assert {(row["actor"], row["policy_version"]) for row in found} == {(3, 9)}
    assert "12-15" in run("episodes", str(data), "maze")
    assert run("episodes", str(data), "empty") == "no finished episodes yet\n"


def test_values_that_json_has_not_become_null(tmp_path: Path) -> None:
    with rs.open(tmp_path / "data") as store:
        store.create_table("t", rs.TableConfig({"observation": rs.Column((2,)), "action": rs.Column()}))
        with store.writer("t") as writer:
            writer.reset([0.0, np.nan])
            writer.append(1.0, np.inf, True, False, [1.0, 2.0])
    rows = run_json("head", str(tmp_path / "data"), "t")
    assert rows[0]["observation"] == [0.0, None]
    assert rows[0]["reward"] is None


def test_the_same_from_a_live_server_its_folder_and_its_socket(data: Path, tmp_path: Path, start: Callable[..., Any]) -> None:
    before = {verb: run_json(verb, str(data), "maze") for verb in ("info", "head", "episodes")}
    _, ready = start("--path", str(data), "--listen", "127.0.0.1:0", "--unix", str(tmp_path / "s"))
    assert ready["addresses"] == [ready["listen"], f"unix:{tmp_path / 's'}"]
    for where in (str(data), *ready["addresses"]):
        assert [row["name"] for row in run_json("ls", where)] == ["empty", "maze"]
        for verb, expected in before.items():
            assert run_json(verb, where, "maze") == expected, (verb, where)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["ls", "/no/such/store"], 1, "is no replaystore store"),
        (["info", "DATA", "nope"], 1, "there is no table 'nope'; tables: empty, maze"),
        (["head", "DATA", "maze", "-c", "nope"], 1, "there is no column 'nope'"),
        (["serve", "--path", "DATA", "--listen", "nonsense"], 2, "must be HOST:PORT"),
        (["serve", "--path", "DATA", "--listen", "0.0.0.0:0"], 1, "--insecure"),
        (["serve"], 2, "which store? Give its folder: --path DIR"),
    ],
    ids=lambda value: "-".join(value[:1]) if isinstance(value, list) else None,
)
def test_errors_are_one_line_and_an_exit_code(data: Path, arguments: list[str], code: int, said: str) -> None:
    done = replaystore(*[str(data) if part == "DATA" else part for part in arguments])
    assert done.returncode == code
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("arguments", [["ls"], ["nonsense"], ["head", "x", "t", "-n", "0"]], ids=" ".join)
def test_wrong_usage_is_exit_code_2(arguments: list[str]) -> None:
    done = replaystore(*arguments)
    assert done.returncode == 2
    assert "Usage: replaystore" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_server_that_is_not_there() -> None:
    done = replaystore("ls", "127.0.0.1:1")
    assert done.returncode == 1
    assert "127.0.0.1:1" in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_version() -> None:
    assert run("--version") == f"replaystore {rs.__version__}\n"


def test_what_is_an_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "host:1").mkdir()
    addresses = ["localhost:7777", "unix:data/s", "[::1]:7777", "10.0.0.1:1", "my-host.lan:80"]
    folders = ["data", "./localhost:7777", "/data:7777/x", "C:", "host:1", "data/"]
    assert [where for where in [*addresses, *folders] if is_address(where)] == addresses


def test_figures_as_text() -> None:
    sizes = [text.size(n) for n in (0, 1023, 1024, 5 << 20, 3 << 40, 5000 << 40)]
    assert sizes == ["0 B", "1023 B", "1.0 KiB", "5.0 MiB", "3.0 TiB", "5000.0 TiB"]
    assert [text.duration(s) for s in (0.421, 12, 200, 18_600, 273_600)] == ["0.42 s", "12 s", "3 min 20 s", "5 h 10 min", "3 d 4 h"]
    assert [text.number(v) for v in (0.0, -1.23456, 123456.7, 0.000012)] == ["0", "-1.235", "123,457", "1.2e-05"]
    assert text.cell(np.arange(12, dtype=np.uint8).reshape(3, 4)) == "3x4, 0 to 11"
    assert text.cell(np.array([True, False, True])) == "2 of 3 set"
    assert text.cell(np.float32(0.5)[...]) == "0.5"
    assert text.moment(None) == "-"
