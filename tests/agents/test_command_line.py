"""The command line: one source of truth for hyper-parameters, exit codes, evaluation of checkpoints."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import replaystore as rs
from replaystore_agents import cli
from replaystore_agents.actor import ActorConfig
from replaystore_agents.algorithms.base import Spaces
from replaystore_agents.algorithms.dqn import DQN, DQNConfig
from replaystore_agents.offline import OfflineConfig
from replaystore_agents.online import OnlineConfig
from replaystore_agents.trunk.runs import RunFolder


def invoke(*arguments: str) -> Any:
    return CliRunner().invoke(cli.app, list(arguments), env={"COLUMNS": "200", "TERM": "dumb", "NO_COLOR": "1"})


@pytest.mark.parametrize(("command", "kind"), [("act", ActorConfig), ("train", OnlineConfig), ("offline", OfflineConfig)])
def test_every_hyper_parameter_is_an_option_with_its_explanation(command: str, kind: Any) -> None:
    text = " ".join(invoke(command, "--help").output.replace("│", " ").split())
    for field in dataclasses.fields(kind):
        assert f"--{field.name.replace('_', '-')} " in text
        assert field.metadata["doc"].split(". ")[0][:40] in text


def test_options_reach_the_configuration(clumsy_store: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    options = ("--env", "", "--hidden", "8,4", "--max-updates", "3", "--learning-rate", "0.5", "--device", "cpu")
    done = invoke("offline", "--path", str(clumsy_store), "--table", "clumsy", "--out", str(out), *options)
    assert done.exit_code == 0, done.output
    config = json.loads((out / "config.json").read_text())
    assert config["hidden"] == [8, 4]
    assert config["learning_rate"] == 0.5
    assert json.loads((out / "result.json").read_text())["updates"] == 3


def test_offline_fails_when_the_target_is_not_reached(clumsy_store: Path, tmp_path: Path) -> None:
    options = ("--max-updates", "2", "--eval-episodes", "3", "--target-return", "499", "--out", str(tmp_path / "run"))
    assert invoke("offline", "--path", str(clumsy_store), "--table", "clumsy", *options).exit_code == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("offline",),
        ("offline", "--path", "a", "--server", "b"),
        ("offline", "--path", "a", "--hidden", "8,x"),
        ("train", "--resume", "--out", "nowhere"),
        ("train", "--gamma", "much"),
        ("nothing",),
    ],
)
def test_wrong_usage_is_2(arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert invoke(*arguments).exit_code == 2
    assert list(tmp_path.iterdir()) == []


def test_errors_are_one_line_and_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["replaystore-agents", "offline", "--path", str(tmp_path / "none"), "--out", str(tmp_path / "run")])
    with pytest.raises(SystemExit) as ended:
        cli.run()
    assert ended.value.code == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1


def test_a_checkpoint_can_be_evaluated(tmp_path: Path) -> None:
    agent = DQN(Spaces((4,), 2), DQNConfig(device="cpu", hidden=(8,)))
    file = RunFolder(tmp_path).save("best", agent.state())
    done = invoke("evaluate", "--checkpoint", str(file), "--episodes", "7", "--seed", "3")
    figures = json.loads(done.output)
    assert figures["episodes"] == 7
    assert 8 <= figures["min"] <= figures["mean"] <= figures["max"] <= 500


def test_the_learner_uses_a_table_that_is_there(tmp_path: Path) -> None:
    with rs.open(tmp_path / "data") as store:
        cli.ensure_table(store, "t", "CartPole-v1", OnlineConfig(alpha=0.3))
        cli.ensure_table(store, "t", "CartPole-v1", OnlineConfig(alpha=0.9))
        assert store.describe("t").config.selector == rs.Prioritized(alpha=0.3)
