"""The command line: one source of truth for hyper-parameters, exit codes, evaluation of checkpoints."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import replaystore as rs
from replaystore.server.thread import ServerThread
from replaystore_agents import cli
from replaystore_agents.actor import ActorConfig
from replaystore_agents.algorithms.base import Spaces
from replaystore_agents.algorithms.dqn import DQN, DQNConfig
from replaystore_agents.algorithms.registry import ALGORITHMS
from replaystore_agents.offline import OfflineConfig
from replaystore_agents.online import OnlineConfig
from replaystore_agents.trunk.runs import RunFolder
from replaystore_client import Client


def invoke(*arguments: str) -> Any:
    return CliRunner().invoke(cli.app, list(arguments), env={"COLUMNS": "200", "TERM": "dumb", "NO_COLOR": "1"})


@pytest.mark.parametrize(
    ("command", "kind"), [("act", ActorConfig), ("train", OnlineConfig), ("train", DQNConfig), ("offline", OfflineConfig)]
)
def test_every_hyper_parameter_is_an_option_with_its_explanation(command: str, kind: Any) -> None:
    text = " ".join(invoke(command, "--help").output.replace("│", " ").split())
    for field in dataclasses.fields(kind):
        assert f"--{field.name.replace('_', '-')} " in text
        assert field.metadata["doc"].split(". ")[0][:40] in text


def test_defaults_of_several_algorithms_are_shown_with_their_names() -> None:
    text = " ".join(invoke("offline", "--help").output.replace("│", " ").split())
    assert "[default: (0.7)]" in text  # IQL's expectile
    assert re.search(r"0\.004 \(dqn\), .*0\.0003 \([a-z0-9, ]*iql\)", text)


def test_options_reach_the_configuration(clumsy_store: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    options = ("--env", "", "--hidden", "8,4", "--max-updates", "3", "--learning-rate", "0.5", "--device", "cpu")
    done = invoke("offline", "--path", str(clumsy_store), "--table", "clumsy", "--out", str(out), *options)
    assert done.exit_code == 0, done.output
    config = json.loads((out / "config.json").read_text())
    assert config["hidden"] == [8, 4]
    assert config["learning_rate"] == 0.5
    assert json.loads((out / "result.json").read_text())["updates"] == 3


def test_figures_go_to_trackers_that_are_asked_for(clumsy_store: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    out = tmp_path / "run"
    options = ("--path", str(clumsy_store), "--table", "clumsy", "--out", str(out), "--max-updates", "2", "--env", "", "--device", "cpu")
    assert invoke("offline", *options, "--log", "tensorboard").exit_code == 0
    (events,) = (out / "tensorboard").iterdir()
    assert b"td_error" in events.read_bytes()
    assert "log" not in json.loads((out / "config.json").read_text())
    for command in ("train", "solo", "offline"):
        path = () if command == "train" else ("--path", str(clumsy_store))
        failed = invoke(command, *path, "--out", str(tmp_path / "other"), "--log", "mlflow")
        assert "--log 'mlflow' is not known; known: tensorboard, wandb" in str(failed.exception)
    assert not (tmp_path / "other").exists()


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


def test_every_algorithm_and_preset_is_in_the_page() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs/AGENTS.md").read_text()
    for name, entry in ALGORITHMS.items():
        assert f"`{name}`" in page
        if name == "dqn":
            assert all(f"`{preset}`" in page for preset in entry.presets)


@pytest.mark.parametrize(
    ("arguments", "code", "match"),
    [
        (("offline", "--path", "a", "--algorithm", "dqm"), 2, "none of dqn"),
        (("train", "--algorithm", "bc"), 2, "none of dqn"),
        (("train", "--mix", "data"), 2, "PATH:TABLE"),
        (("offline", "--path", "a", "--algorithm", "bc", "--atoms", "51"), 1, "bc has no --atoms"),
        (("offline", "--path", "a", "--preset", "rainbows"), 1, "'rainbows' is not known"),
    ],
)
def test_what_does_not_go_together_is_named(arguments: tuple[str, ...], code: int, match: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    done = invoke(*arguments)
    assert done.exit_code == code
    assert match in done.output + str(done.exception)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("algorithm", "preset"), [("dqn", "rainbow"), ("iql", "")])
def test_a_preset_and_a_resumed_run(clumsy_store: Path, tmp_path: Path, algorithm: str, preset: str) -> None:
    out = (
        "--path",
        str(clumsy_store),
        "--table",
        "clumsy",
        "--out",
        str(tmp_path / "run"),
        "--env",
        "",
        "--hidden",
        "8",
        "--device",
        "cpu",
    )
    what = ("--algorithm", algorithm, "--preset", preset)
    assert invoke("offline", *out, *what, "--max-updates", "2").exit_code == 0
    resumed = invoke("offline", *out, *what, "--max-updates", "4", "--resume")
    assert resumed.exit_code == 0
    assert "resumed with other options: max_updates 2 is now 4\n" in resumed.output
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["algorithm"], config["preset"], config["max_updates"]) == (algorithm, preset, 2)
    assert json.loads((tmp_path / "run" / "result.json").read_text())["updates"] == 4
    other = invoke("offline", *out, "--algorithm", "bc", "--max-updates", "6", "--resume")
    assert "another network" in str(other.exception)


def test_a_start_that_fails_leaves_no_table_and_the_run_of_before(clumsy_store: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    before = RunFolder(out).save("best", {"score": 1})
    mix = ("--mix", f"{clumsy_store}:clumsy", "--env", "Acrobot-v1")
    with rs.open(tmp_path / "data") as store, ServerThread(store, "127.0.0.1:0", None, None) as server, Client(server.address) as client:
        where = ("train", "--server", server.address, "--out", str(out), "--device", "cpu")
        for arguments, match in (
            (("--table", "t", "--algorithm", "sac"), "sac needs continuous actions"),
            (("--table", "t", "--env", "CartPoles-v1"), "CartPoles"),
            (("--table", "t", *mix), "column 'observation' is another"),
            (("--table", "t", "--mix", f"{clumsy_store}:clumsier"), "clumsier"),
            (("--table", "t", "--mix", f"{clumsy_store}:clumsy", "--share", "1.5"), "share=1.5"),
        ):
            failed = invoke(*where, *arguments)
            assert (failed.exit_code, match in str(failed.exception)) == (1, True), (arguments, failed.exception)
            assert client.tables() == []
        cli.ensure_table(client, "t", "CartPole-v1", OnlineConfig())
        failed = invoke(*where, "--table", "t", "--algorithm", "sac", "--env", "Pendulum-v1")
        assert "table 't' is not of Pendulum-v1" in str(failed.exception)
    offline = invoke("offline", "--path", str(clumsy_store), "--table", "clumsy", "--env", "FrozenLake-v1", "--out", str(out))
    assert "observations (4,) and 2 Discrete actions, the environment 16 Discrete observations and 4" in str(offline.exception)
    assert list(out.iterdir()) == [before]


def test_what_cannot_be_evaluated_says_so(tmp_path: Path) -> None:
    file = RunFolder(tmp_path).save("best", DQN(Spaces((4,), 2), DQNConfig(device="cpu", hidden=(8,))).state())
    (tmp_path / "notes.pt").write_text("no checkpoint")
    for arguments, match in (
        ((str(file), "--env", "Pendulum-v1"), "is not of Pendulum-v1"),
        ((str(tmp_path / "none.pt"),), "there is no file"),
        ((str(tmp_path / "notes.pt"),), "is no checkpoint"),
        ((str(file), "--device", "gpu"), "auto, cuda, mps or cpu"),
    ):
        assert match in str(invoke("evaluate", "--checkpoint", *arguments).exception)
