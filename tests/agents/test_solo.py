"""The solo loop: the same seed gives the same run, updates keep to the samples per insert, and tables are its own."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import replaystore as rs
from replaystore_agents import cli
from replaystore_agents.actor import PlayConfig
from replaystore_agents.algorithms.registry import ALGORITHMS, settings
from replaystore_agents.cli import planned_table
from replaystore_agents.online import OnlineConfig
from replaystore_agents.solo import solo, solo_table
from replaystore_agents.trunk.runs import RunFolder

SMALL: dict[str, Any] = {
    "batch_size": 32, "min_size": 200, "samples_per_insert": 8.0, "eval_every": 50, "eval_episodes": 3, "device": "cpu",
    "target_return": 0.0, "hidden": (16,),
}  # fmt: skip


def play(folder: Path, algorithm: str, env: str, steps: int, **given: Any) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    """Metrics of a run, without what the clock says, and all its steps."""
    entry = ALGORITHMS[algorithm]
    config, loop, playing = settings(entry, "", {**SMALL, **given}, OnlineConfig, PlayConfig)
    with rs.open(folder / "data") as store:
        table = solo_table(planned_table(store, "t", env, loop, config.batch_size))
        store.create_table("t", table)
        run = RunFolder.begin(folder / "run", {})
        result = solo(store, "t", env, entry.make(table, config, env), loop, playing, run, steps)
        stats = store.stats("t")
        rows = store.read_steps("t", stats.first_step, stats.next_step, columns=["observation", "action", "reward", "meta/step_in_episode"])
    assert result.inserted_steps >= steps
    clock = ("seconds", "updates_per_s")
    return [{name: value for name, value in line.items() if name not in clock} for line in run.metrics()], rows


@pytest.mark.parametrize(("algorithm", "env"), [("dqn", "CartPole-v1"), ("sac", "Pendulum-v1")])
def test_the_same_seed_gives_the_same_run_bit_by_bit(tmp_path: Path, algorithm: str, env: str) -> None:
    lives = [play(tmp_path / str(life), algorithm, env, 600) for life in range(2)]
    assert lives[0][0] == lives[1][0]
    assert len(lives[0][0]) >= 2
    for name, array in lives[0][1].items():
        np.testing.assert_array_equal(array, lives[1][1][name])
    other, _ = play(tmp_path / "other", algorithm, env, 600, seed=1)
    assert other != lives[0][0]


@pytest.mark.parametrize(("alpha", "samples_per_insert"), [(0.0, 4.0), (0.6, 0.5)])
def test_updates_keep_to_the_samples_per_insert(tmp_path: Path, alpha: float, samples_per_insert: float) -> None:
    metrics, _ = play(tmp_path, "dqn", "CartPole-v1", 1000, alpha=alpha, samples_per_insert=samples_per_insert, eval_every=1)
    for line in metrics:
        due = (line["inserted_steps"] - 200) * samples_per_insert / 32
        assert due - 4 * samples_per_insert / 32 - 1 <= line["update"] <= due  # up to what one step of four environments makes due
    assert metrics[-1]["update"] == int((metrics[-1]["inserted_steps"] - 200) * samples_per_insert / 32)
    assert [line["beta"] > 0 for line in metrics] == [alpha > 0] * len(metrics)


@pytest.mark.parametrize(("eval_every", "evaluated"), [(1000, [100]), (50, [50, 100]), (60, [60, 100])])
def test_the_weights_that_it_ends_with_are_evaluated_once(tmp_path: Path, eval_every: int, evaluated: list[int]) -> None:
    metrics, _ = play(tmp_path, "dqn", "CartPole-v1", 600, eval_every=eval_every)
    assert [line["update"] for line in metrics] == evaluated
    assert (tmp_path / "run" / "best.pt").exists()


def test_its_table_waits_for_nobody() -> None:
    limited = rs.TableConfig({"x": rs.Column(())}, rate_limiter=rs.SampleToInsertRatio(4.0, 100, 1000.0))
    assert solo_table(limited) == dataclasses.replace(limited, rate_limiter=rs.MinSize(1))


def test_the_command_leaves_a_run_and_a_store_and_refuses_a_table_that_is_there(tmp_path: Path) -> None:
    given = {**SMALL, "hidden": "16"}
    options = [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]
    command = ["solo", "--path", str(tmp_path / "data"), "--steps", "400", "--out", str(tmp_path / "run"), *options]
    done = CliRunner().invoke(cli.app, command)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout.splitlines()[-1])["inserted_steps"] == 400
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["command"], config["num_envs"], config["samples_per_insert"], config["steps"]) == ("solo", 4, 8.0, 400)
    again = CliRunner().invoke(cli.app, command)
    assert isinstance(again.exception, rs.AlreadyExists)
    assert "another name" in str(again.exception)
    assert (tmp_path / "run" / "result.json").exists()
