"""Ablations: what each kind of replay means, which runs are made, kept, made again, and what happens when one fails."""

import json
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium
import pytest
from typer.testing import CliRunner

import replaystore as rs
from replaystore_agents import ablation, cli
from replaystore_agents.ablation import Plan, ablate
from replaystore_agents.online import REPLAYS, OnlineConfig, settled, table_config
from replaystore_agents.reports.runs import Run, read_run

SMALL: dict[str, Any] = {
    "batch_size": 16, "min_size": 60, "samples_per_insert": 4.0, "eval_episodes": 1, "device": "cpu", "hidden": (8,),
}  # fmt: skip


@pytest.mark.parametrize(
    ("given", "kind", "selector"),
    [
        ({}, "per", rs.Prioritized(0.6)),
        ({"alpha": 0.0}, "uniform", rs.Uniform()),
        ({"replay": "uniform"}, "uniform", rs.Uniform()),
        ({"replay": "per", "alpha": 0.4}, "per", rs.Prioritized(0.4)),
        ({"replay": "rank", "alpha": 0.7}, "rank", rs.RankPrioritized(0.7)),
        ({"replay": "recency", "half_life_steps": 500.0}, "recency", rs.Recency(500.0)),
        ({"replay": "none"}, "none", rs.Uniform()),
    ],
)
def test_what_each_replay_means(given: dict[str, Any], kind: str, selector: Any) -> None:
    env = gymnasium.make("CartPole-v1")
    config = settled(OnlineConfig(**given), 64)
    table = table_config(env, OnlineConfig(**given), 64)
    env.close()
    assert (config.replay, table.selector) == (kind, selector)
    assert settled(config, 64) == config
    assert (config.alpha > 0) == (kind in ("per", "rank"))
    limiter = table.rate_limiter
    assert isinstance(limiter, rs.SampleToInsertRatio)
    newest = (limiter.samples_per_insert, limiter.min_size_to_sample, limiter.error_buffer, table.retention.max_steps)
    assert newest == ((1.0, 32, 64.0, 64) if kind == "none" else (32.0, 1000, 1024.0, 100_000))


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"replay": "lifo"}, "replay='lifo' must be auto, none, uniform, per, rank or recency"),
        ({"replay": "per", "alpha": 0.0}, "replay='per' with alpha=0 would be uniform: give alpha, 0.6 is usual, or replay='uniform'"),
    ],
)
def test_replays_that_mean_nothing(given: dict[str, Any], match: str) -> None:
    with pytest.raises(rs.InvalidArgument, match=match):
        settled(OnlineConfig(**given), 64)


@pytest.mark.parametrize("kind", REPLAYS)
def test_a_run_of_each_kind_is_a_solo_run_that_learns(kind: str, tmp_path: Path) -> None:
    plan = Plan("CartPole-v1", 200, given=SMALL)
    plan.check()
    done = CliRunner().invoke(cli.app, plan.command(kind, 3, tmp_path / "run"))
    assert done.exit_code == 0, (done.output, done.exception)
    run = read_run(tmp_path / "run")
    assert isinstance(run, Run)
    assert run.finished
    assert (run.config["replay"], run.seed, run.env) == (kind, 3, "CartPole-v1")
    assert len(run.x) >= 5
    with rs.open(tmp_path / "run/store", mode="r") as store:
        stats = store.stats("replay")
        assert stats.inserted_steps >= 200
        assert (stats.next_step - stats.first_step <= 16) == (kind == "none")
    updates = (run.result or {})["updates"]
    assert updates == int((stats.inserted_steps - (8 if kind == "none" else 60)) * (1 if kind == "none" else 4) / 16)


def test_prioritized_kinds_have_an_exponent_whatever_the_preset_says() -> None:
    plan = Plan("CartPole-v1", 20_000, preset="double", given={"eval_every": 50})
    assert [plan.hyper_parameters(kind).get("alpha") for kind in REPLAYS] == [None, None, 0.6, 0.7, None]
    assert Plan("CartPole-v1", 20_000).hyper_parameters("rank").get("alpha") is None  # 0.6 of the loop, as for per
    assert plan.hyper_parameters("uniform")["eval_every"] == 50
    assert plan.hyper_parameters("none")["eval_every"] == 2  # 400 steps, 256 for each update
    assert Plan("CartPole-v1", 20_000).hyper_parameters("per")["eval_every"] == 125  # 20 evaluations


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"kinds": ("per", "lifo")}, "replay 'lifo' is not known; known: none, uniform, per, rank, recency"),
        ({"kinds": ("per", "per")}, "replay='per,per' must be different kinds"),
        ({"kinds": ()}, "must be different kinds"),
        ({"given": {"seed": 3}}, "seed=3 is for single runs"),
        ({"given": {"tau_up": 3}}, "dqn has no --tau-up"),
        ({"preset": "rainbows"}, "preset 'rainbows' is not known"),
        ({"kinds": ("per",), "given": {"samples_per_insert": 0.0, "eval_every": 5}}, "samples_per_insert=0 must be above 0"),
    ],
)
def test_plans_that_cannot_be_made_leave_nothing(changed: dict[str, Any], match: str, tmp_path: Path) -> None:
    with pytest.raises(rs.InvalidArgument, match=match):
        ablate(Plan(**{"env": "CartPole-v1", "steps": 100, **changed}), tmp_path / "out")
    assert not (tmp_path / "out").exists()


FAKE = """
import json, os, pathlib, sys, time
def run():
    given = dict(zip(sys.argv[2::2], sys.argv[3::2]))
    out = pathlib.Path(given["--out"])
    with open(os.environ["FAKE_LOG"], "a") as log:
        log.write(f"{out.parent.name} {out.name}\\n")
    (out / "store").mkdir(parents=True)
    config = {"replay": given["--replay"], "seed": int(given["--seed"]), "env": given["--env"], "steps": 10}
    (out / "config.json").write_text(json.dumps(config))
    with open(out / "metrics.jsonl", "w") as file:
        file.write(json.dumps({"update": 1, "inserted_steps": 10, "return_mean": 7.0}) + "\\n")
    if given["--replay"] == os.environ.get("FAKE_BREAKS"):
        print("the dog ate it")
        return 3
    if given["--replay"] == os.environ.get("FAKE_HANGS"):
        time.sleep(600)
    (out / "result.json").write_text(json.dumps({"inserted_steps": 10}))
"""


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs are made by a program that only pretends; gives what was made since the last call."""
    (tmp_path / "fakes").mkdir()
    (tmp_path / "fakes/fake_agents.py").write_text(FAKE)
    monkeypatch.setattr(ablation, "PROGRAM", ("fake_agents", "run"))
    monkeypatch.setattr(ablation, "POLL_S", 0.01)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'fakes'}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    log = tmp_path / "made"
    monkeypatch.setenv("FAKE_LOG", str(log))

    def since() -> list[str]:
        lines = sorted(log.read_text().splitlines()) if log.exists() else []
        log.unlink(missing_ok=True)
        return lines

    return since


def test_finished_runs_are_kept_and_the_others_made_again(tmp_path: Path, made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, out, said = Plan("CartPole-v1", 10, kinds=("none", "per"), seeds=range(2)), tmp_path / "out", list[str]()
    monkeypatch.setenv("FAKE_BREAKS", "per")
    done = ablate(plan, out, jobs=3, say=said.append)
    assert done is not None
    assert made() == ["none seed-0", "none seed-1", "per seed-0", "per seed-1"]
    assert [line.partition(":")[0] for line in sorted(done[1])] == ["per-seed-0 ended with code 3", "per-seed-1 ended with code 3"]
    assert "the dog ate it" in done[1][0]
    assert "not finished" in done[0].page.read_text()
    monkeypatch.delenv("FAKE_BREAKS")
    done = ablate(Plan("CartPole-v1", 10, kinds=("per", "none", "rank"), seeds=range(2)), out, jobs=3, target=5, say=said.append)
    assert done is not None
    assert made() == ["per seed-0", "per seed-1", "rank seed-0", "rank seed-1"]
    assert done[1] == []
    assert [row["group"] for row in done[0].rows[0]] == ["replay=none", "replay=per", "replay=rank"]
    assert all(row["finished"] == 2 for row in done[0].rows[0])
    assert "6 runs: 2 are finished, 4 to make, 3 at a time" in said
    assert not list(out.glob("*/*/store"))
    with pytest.raises(rs.InvalidArgument, match=r"has runs of another ablation \(steps 10 there, 20 here\): give another --out"):
        ablate(Plan("CartPole-v1", 20), out)


def evaluated(run: Path) -> bool:
    file = run / "metrics.jsonl"
    return file.exists() and file.read_text().endswith("\n")


def test_a_run_that_takes_too_long_is_stopped(tmp_path: Path, made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_HANGS", "per")
    plan, out = Plan("CartPole-v1", 10, kinds=("per",), seeds=(0,)), tmp_path / "out"
    clock = SimpleNamespace(monotonic=lambda: 86_500.0 * evaluated(out / "per/seed-0"), sleep=time.sleep)
    monkeypatch.setattr(ablation, "time", clock)
    done = ablate(plan, out, keep_stores=True)
    assert done is not None
    assert done[1] == [f"per-seed-0 took longer than 86400 s: it said nothing ({out / 'logs/per-seed-0.log'})"]
    assert (out / "per/seed-0/store").exists()


def test_an_interrupted_ablation_stops_its_runs(tmp_path: Path, made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_HANGS", "per")
    out = tmp_path / "out"
    plan = Plan("CartPole-v1", 10, kinds=("per",), seeds=(0,))
    assert ablate(plan, out, stopping=lambda: evaluated(out / "per/seed-0")) is None
    monkeypatch.delenv("FAKE_HANGS")
    assert ablate(plan, out) is not None
    assert made() == ["per seed-0", "per seed-0"]


def test_a_run_that_somebody_goes_on_with_is_left_alone(tmp_path: Path, made: Any) -> None:
    """Of an ablation beside this one, or of one that was killed."""
    plan, out = Plan("CartPole-v1", 10, kinds=("per",), seeds=(0,)), tmp_path / "out"
    assert ablate(plan, out) is not None
    run = out / "per/seed-0"
    (run / "result.json").unlink()
    with rs.open(run / "store"), pytest.raises(rs.Locked, match=r"seed-0/store is open for writing in process \d+: stop that one"):
        ablate(plan, out)
    assert (run / "metrics.jsonl").exists()
    (run / "store/zarr.json").write_text("torn")
    assert ablate(plan, out) is not None
    assert made() == ["per seed-0", "per seed-0"]


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("42")
    with pytest.raises(rs.InvalidArgument, match="is not empty and has no ablation in it"):
        ablate(Plan("CartPole-v1", 10), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_the_command(tmp_path: Path, made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["ablate", "--replay", "none,rank", "--seeds", "1", "--steps", "10", "--out", str(tmp_path / "out"), "--target", "7"]
    done = CliRunner().invoke(cli.app, arguments)
    assert done.exit_code == 0, (done.output, done.exception)
    assert "| replay=rank | 1 | 7.0 |" in done.stdout
    assert made() == ["none seed-0", "rank seed-0"]
    noted = json.loads((tmp_path / "out/ablation.json").read_text())
    assert noted == {"env": "CartPole-v1", "algorithm": "dqn", "preset": "", "steps": 10, "given": {}}
    monkeypatch.setenv("FAKE_BREAKS", "per")
    failed = CliRunner().invoke(cli.app, [*arguments[:1], "--replay", "rank,per", *arguments[3:]])
    assert failed.exit_code == 1
    assert "per-seed-0 ended with code 3: the dog ate it" in failed.stderr
