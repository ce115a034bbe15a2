"""The results: every row's commands can be typed, a row is made from nothing and kept, and the page says what the runs say."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import threading
from concurrent import futures
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from replaystore_agents import cli
from replaystore_agents.actor import PlayConfig
from replaystore_agents.algorithms.registry import ALGORITHMS, settings
from replaystore_agents.offline import OfflineConfig
from replaystore_agents.online import OnlineConfig

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.learning import page, rows, run  # noqa: E402

TINY = "--target-return 0 --min-size 100 --batch-size 16 --samples-per-insert 4 --hidden 8 --eval-every 20 --eval-episodes 2"
ONLINE = rows.Variant("On line", f"{TINY} --steps 300", (0, 1))
OFFLINE = rows.Variant(
    "Off line", "--max-updates 40 --batch-size 16 --hidden 8 --eval-every 20 --eval-episodes 2", (0,), "a/On line", twice=True
)
MADE = (
    rows.Row("a", "CartPole-v1", "A", "much", "more (somebody)", (ONLINE,), target=5.0, goals="last", episodes=3),
    rows.Row("b", "CartPole-v1", "B", "as much", "nothing", (OFFLINE,), episodes=3),
)  # fmt: skip


@pytest.mark.parametrize("row", rows.ROWS, ids=lambda row: row.name)
def test_every_command_can_be_typed(row: rows.Row) -> None:
    for variant in row.variants:
        name, *options = run.command(Path("results"), row, variant, variant.seeds[0])
        commands = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]
        given = dict(commands[name].make_context(name, options).params)
        assert (given["env"], given["table"], given["seed"]) == (row.env, "steps", variant.seeds[0])
        entry, kinds = ALGORITHMS[given["algorithm"]], (OfflineConfig,) if variant.data else (OnlineConfig, PlayConfig)
        hyper = {field.name for other in ALGORITHMS.values() for kind in (other.config, *kinds) for field in dataclasses.fields(kind)}
        typed = {name: value for name, value in given.items() if name in hyper and value is not None}
        settings(entry, given["preset"], typed, *kinds)  # which refuses what is not for this algorithm


def in_this_process(command: list[str], **options: Any) -> Any:
    """As `subprocess.run`, without the seconds that a new process takes for its imports."""
    assert command[:3] == [sys.executable, "-m", "replaystore_agents"]
    done = CliRunner().invoke(cli.app, command[3:])
    return subprocess.CompletedProcess(command, done.exit_code)


def test_a_row_is_made_from_nothing_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", in_this_process)
    for module in (rows, run, page):
        monkeypatch.setattr(module, "ROWS", MADE)
    results = tmp_path / "results"
    assert run.pending(results, MADE[1:]) == [(MADE[0], ONLINE, 0), (MADE[1], OFFLINE, 0)]  # what it learns from comes first
    for wanted in run.pending(results, MADE):
        run.make(results, *wanted)
    assert run.pending(results, MADE) == []
    assert [folder.name for folder in sorted(results.glob("a/*/*/store"))] == ["store"]  # kept of the one that others learn from
    page.write(results, tmp_path / "docs", "Made here.")
    lines = page.collect(results)
    assert [(line["row"], line["seed"]) for line in lines] == [("a", "0"), ("a", "1"), ("b", "0")]
    assert lines[2]["same_as_again"] == "identical"
    assert all(float(line["best"]) > 5 and line["chance"] for line in lines)
    assert lines[0]["reached"] == "0"
    text = (tmp_path / "docs" / "RESULTS.md").read_text()
    assert text == page.render(lines, "Made here.")
    assert "the curves are identical" in text
    assert "(2 of 2)" in text
    assert {file.name for file in (tmp_path / "docs" / "results").iterdir()} == {"a.png", "b.png", "runs.csv", "machine.txt"}


def test_a_run_that_failed_says_why_and_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    broken = dataclasses.replace(ONLINE, options=f"{TINY} --steps 300 --body nonsense")
    with pytest.raises(RuntimeError, match="nonsense"):
        run.make(tmp_path, MADE[0], broken, 1)
    assert run.pending(tmp_path, [dataclasses.replace(MADE[0], variants=(broken,))]) == [
        (dataclasses.replace(MADE[0], variants=(broken,)), broken, s) for s in (0, 1)
    ]


def test_a_run_that_was_stopped_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked to stop, it ends in order and with code 0."""
    folder = rows.folder_of(tmp_path, MADE[0], ONLINE, 1)

    def stopped(*args: Any, **options: Any) -> Any:
        (folder / "config.json").write_text('{"steps": 300}')
        (folder / "metrics.jsonl").write_text('{"update": 20, "inserted_steps": 180, "return_mean": 9.0}\n')
        (folder / "result.json").write_text('{"inserted_steps": 200, "reached": false}')
        return subprocess.CompletedProcess(args, 0)

    monkeypatch.setattr(subprocess, "run", stopped)
    with pytest.raises(RuntimeError, match="is no whole run: stopped before its end: 200 of 300 steps"):
        run.make(tmp_path, MADE[0], ONLINE, 1)
    assert not (folder / "evaluation.json").exists()


def test_an_interrupt_begins_no_more_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, left = list[str](), threading.Event()

    class Pool(ThreadPoolExecutor):
        def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
            super().shutdown(wait=False, cancel_futures=cancel_futures)
            left.set()
            super().shutdown(wait)

    def one(command: list[str], **options: Any) -> Any:
        begun.append(command[4])
        assert left.wait(60)
        return subprocess.CompletedProcess(command, 0, "", "")

    def interrupted(waiting: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "run", one)
    monkeypatch.setattr(futures, "ThreadPoolExecutor", Pool)
    monkeypatch.setattr(futures, "as_completed", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run.make_all(tmp_path, [(MADE[0], ONLINE, seed) for seed in range(5)], 1, lambda text: None)
    assert begun in ([], ["a/On line/0"])


def test_the_page_is_that_of_the_runs() -> None:
    """`python -m benchmarks.learning` writes both."""
    docs = ROOT / "docs"
    lines = page.read_csv((docs / "results" / "runs.csv").read_text())
    assert (docs / "RESULTS.md").read_text() == page.render(lines, (docs / "results" / "machine.txt").read_text().strip())
    for row in {line["row"] for line in lines}:
        assert (docs / "results" / f"{row}.png").exists()
