"""top and doctor as they are typed: on a server, on its folder, on one at rest, without a terminal."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer.testing

import replaystore as rs
from replaystore.cli import top
from replaystore.cli.app import app
from replaystore.diagnosis import examination
from replaystore.diagnosis.facts import Finding
from replaystore.diagnosis.watching import Reading, TableReading
from replaystore.server.options import ServerOptions
from replaystore.server.thread import ServerThread, start_in_thread
from tests.cli.conftest import command, fill, read_line


def run(*arguments: str) -> typer.testing.Result:
    """In this process, which is quicker."""
    return typer.testing.CliRunner().invoke(app, list(arguments), catch_exceptions=False)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    path = tmp_path_factory.mktemp("top") / "data"
    fill(path)
    with rs.open(path) as opened:
        yield opened


@pytest.fixture(scope="module")
def server(store: Any) -> Iterator[ServerThread]:
    with start_in_thread(store, options=ServerOptions(max_streams=100)) as running:
        yield running


# -- top


def test_top_of_a_server(server: ServerThread) -> None:
    shown = run("top", server.address, "--once", "--interval", "0.05")
    assert shown.exit_code == 0
    lines = shown.output.splitlines()
    assert lines[0].startswith(f"{server.address}   replaystore {rs.__version__}, up ")
    for words in ("memory ", "streams 0 write, 0 sample", "in flight 0 B", "disk ", " free of "):
        assert words in lines[1]
    assert lines[3].split("  ")[0] == "table"
    (maze,) = [line.split() for line in lines if line.startswith("maze")]
    # steps, in/s, out/s, MB/s in, MB/s out, waiting, lag, replays, priorities, highest
    assert maze == ["maze", "16", "0", "0", "0", "0", "0", "0", "0", "12", "1"]


def test_top_as_json(server: ServerThread, store: Any) -> None:
    shown = json.loads(run("top", server.address, "--once", "--json", "--interval", "0.05").output)
    assert (shown["where"], shown["source"], shown["server"]["version"]) == (server.address, "server", rs.__version__)
    assert shown["server"]["max_streams"] == 100
    assert "tables" not in shown["server"]
    assert shown["seconds"] >= 0.05
    empty, maze = shown["tables"]
    assert (maze["name"], maze["steps"], maze["inserted_per_s"], maze["replays_per_step"]) == ("maze", 16, 0, 0)
    assert (empty["replays_per_step"], empty["blocked_sample"] is None, empty["waiting_samples"]) == (None, False, 0)
    folder = json.loads(run("top", str(store.path), "--once", "--json", "--interval", "0.05").output)
    assert (folder["source"], folder["server"], folder["tables"][1]["inserted_steps"]) == ("folder", None, 12)


def test_top_of_a_folder(store: Any) -> None:
    shown = run("top", str(store.path), "--once", "--interval", "0.05").output
    assert shown.splitlines()[0].startswith(f"{store.path}   read from its small files")
    (maze,) = [line.split() for line in shown.splitlines() if line.startswith("maze")]
    assert maze == ["maze", "16", "0", "0", "-", "-", "-", "0", "0", "-", "-"]


def test_top_of_a_store_without_tables(tmp_path: Path) -> None:
    rs.open(tmp_path / "new").close()
    assert "no tables yet" in run("top", str(tmp_path / "new"), "--once", "--interval", "0.05").output


def test_top_says_who_waits_and_why() -> None:
    stuck = TableReading("t", 10, 10, 0, 3, 9, 0, 0, 2.5, 2, 1, "table 't': MinSize holds back", "other", failure="table 't': the disk")
    view = top._view("h:1", None, Reading(1.0, 1.0, (stuck,)), as_json=False)
    from rich.console import Console

    console = Console(width=300)
    with console.capture() as captured:
        console.print(view)
    shown = captured.get()
    assert "2 in, 1 out" in shown
    assert "2.50 s" in shown
    assert "inserts are refused" in shown
    assert "t: inserting waits: MinSize holds back" in shown
    assert "t: sampling waits: other" in shown


def test_top_goes_on_until_it_is_stopped_also_while_nobody_answers(tmp_path: Path) -> None:
    fill(tmp_path / "data")
    with rs.open(tmp_path / "data") as opened:
        server = start_in_thread(opened)
        line = command("top", server.address, "--json", "--interval", "0.05")
        # whoever runs tests in the background may have SIGINT ignored, and children would inherit that
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL) as process:
            try:
                assert json.loads(read_line(process))["seconds"] is None
                assert json.loads(read_line(process))["seconds"] > 0
                server.stop()
                while "error" not in (seen := json.loads(read_line(process))):
                    pass
                assert server.address in seen["error"]
                process.send_signal(signal.SIGINT)
                _, errors = process.communicate(timeout=120)
            finally:
                signal.signal(signal.SIGINT, before)
                process.kill()
                server.stop()
        assert (process.returncode, errors) == (0, "")


def test_top_where_nothing_is(tmp_path: Path) -> None:
    with pytest.raises(rs.NotFound, match="is no replaystore store"):
        run("top", str(tmp_path / "none"), "--once")
    assert run("top", str(tmp_path), "--interval", "0").exit_code == 2


# -- doctor


def test_doctor_of_a_server(server: ServerThread) -> None:
    done = run("doctor", server.address, "--watch", "0")
    assert " retention: table 'maze': has no bound: it keeps all of its 16 rows" in done.output
    assert "note     metrics: the server serves no metrics\n         -> serve with --metrics" in done.output
    assert " checks over 16 rows of 2 tables" in done.output.splitlines()[-1]
    severities = {one["severity"] for one in json.loads(run("doctor", server.address, "--watch", "0", "--json").output)["findings"]}
    assert done.exit_code == (1 if severities - {"note"} else 0)  # the disk under the tests may well be nearly full


@pytest.mark.parametrize(
    ("severities", "code", "last"),
    [((), 0, "fine; "), (("note",), 0, "fine, 1 note; "), (("note", "warning"), 1, "1 found, 1 note; "), (("error",), 1, "1 found; ")],
)
def test_what_counts_for_the_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, severities: tuple[str, ...], code: int, last: str
) -> None:
    rs.open(tmp_path / "new").close()
    made_up = [Finding(severity, "it is so", "do that", check="x") for severity in severities]
    monkeypatch.setattr(examination, "examine", lambda facts: made_up)
    done = run("doctor", str(tmp_path / "new"))
    assert (done.exit_code, done.output.splitlines()[-1].startswith(last)) == (code, True)


def test_doctor_finds_something(tmp_path: Path) -> None:
    with rs.open(tmp_path / "data") as store:
        config = rs.TableConfig({"observation": rs.Column((2,)), "action": rs.Column()}, retention=rs.Retention(max_steps=1000))
        store.create_table("t", config)
        with store.writer("t") as writer:
            writer.reset([np.nan, 0.0])
            writer.append(1.0, 1.0, True, False, [0.0, 0.0])
    secrets = tmp_path / "tokens"
    secrets.write_text("x\n")
    secrets.chmod(0o644)
    where = str(tmp_path / "data")
    done = run("doctor", where, "--json", "--token-file", str(secrets), "--tls-cert", str(tmp_path / "none.pem"))
    assert done.exit_code == 1
    report = json.loads(done.output)
    found = [(one["severity"], one["check"], one["table"]) for one in report["findings"]]
    assert {("error", "token_file", ""), ("error", "certificates", ""), ("warning", "columns", "t")} <= set(found)
    assert (report["where"], report["served"]) == (where, False)
    text = run("doctor", where).output
    assert "warning  columns: table 't': NaN or infinity among the newest 1 steps: observation" in text
    assert " found" in text.splitlines()[-1]


def test_doctor_of_a_server_that_is_not_there() -> None:
    done = run("doctor", "127.0.0.1:1", "--watch", "0")
    assert done.exit_code == 1
    (line,) = [line for line in done.output.splitlines() if line.startswith("error    answers: ")]
    assert "127.0.0.1:1" in line  # refused; or no answer in time, where the last attempt began late


def test_doctor_where_nothing_is(tmp_path: Path) -> None:
    with pytest.raises(rs.NotFound, match="is no replaystore store"):
        run("doctor", str(tmp_path / "none"))
    assert run("doctor").exit_code == 2
    assert run("doctor", str(tmp_path), "--watch", "-1").exit_code == 2
