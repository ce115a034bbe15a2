"""Figures go to TensorBoard and W&B too; metrics.jsonl has them whatever happens there."""

import json
import sys
import types
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest

import replaystore as rs
from replaystore_agents.trunk.runs import RunFolder
from replaystore_agents.trunk.tracking import TRACKERS, check_trackers, numbers

LINES = [
    {"update": 10, "inserted_steps": 40, "return_mean": 9.5, "note": "words stay behind"},
    {"update": 20, "inserted_steps": 80, "return_mean": 12.5, "loss": float("nan")},
]


def logged(folder: Path, names: str) -> RunFolder:
    run = RunFolder.begin(folder, {"seed": 3, "env": "CartPole-v1"}).track(names, {"seed": 3, "env": "CartPole-v1"})
    for line in LINES:
        run.log(**line)
    run.finish({"best_return": 12.5, "reached": True})
    return run


def test_event_files_hold_every_figure_over_environment_steps(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = logged(tmp_path / "run", "tensorboard")
    events: Any = EventAccumulator(str(run.path / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("return_mean")] == [(40, 9.5), (80, 12.5)]
    assert set(events.Tags()["scalars"]) == {"update", "inserted_steps", "return_mean", "result/best_return", "result/reached"}
    assert b"CartPole-v1" in events.Tensors("config/text_summary")[0].tensor_proto.string_val[0]
    assert len(run.metrics()) == 2


class FakeRun:
    def __init__(self, **options: Any) -> None:
        self.options, self.lines, self.summary, self.over = options, [], {}, False

    def log(self, figures: dict[str, float], step: int) -> None:
        self.lines.append((step, figures))

    def finish(self) -> None:
        self.over = True


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    runs: list[Any] = []
    module: Any = types.ModuleType("wandb")
    module.__spec__ = ModuleSpec("wandb", None)

    def init(**options: Any) -> FakeRun:
        runs.append(FakeRun(**options))
        return runs[-1]  # type: ignore[no-any-return]

    module.init = init
    monkeypatch.setitem(sys.modules, "wandb", module)
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    return runs


def test_wandb_hears_the_same(tmp_path: Path, wandb: list[Any]) -> None:
    logged(tmp_path / "seed-3", "wandb")
    (run,) = wandb
    assert (run.options["project"], run.options["name"], run.options["config"]["seed"]) == ("replaystore", "seed-3", 3)
    assert [step for step, _ in run.lines] == [40, 80]
    assert run.lines[1][1] == {"update": 20.0, "inserted_steps": 80.0, "return_mean": 12.5}
    assert run.summary == {"best_return": 12.5, "reached": 1.0}
    assert run.over


def test_a_run_that_is_given_up_is_closed(tmp_path: Path, wandb: list[Any]) -> None:
    with RunFolder(tmp_path).track("wandb", {}) as run:
        run.log(update=1)
    assert wandb[0].over


def test_a_tracker_that_fails_is_let_go(
    tmp_path: Path, wandb: list[Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(self: Any, figures: Any, step: int) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(FakeRun, "log", full)
    run = logged(tmp_path, "wandb")
    assert len(run.metrics()) == 2
    assert json.loads((tmp_path / "result.json").read_text())["reached"] is True
    error = capsys.readouterr().err
    assert error == f"wandb gets no more figures: OSError: no space left; {tmp_path}/metrics.jsonl has them all\n"


def test_a_tracker_that_does_not_start_says_why(tmp_path: Path, wandb: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(**options: Any) -> Any:
        raise RuntimeError("no API key")

    monkeypatch.setattr(sys.modules["wandb"], "init", refused)
    first = Figures()
    monkeypatch.setitem(TRACKERS, "tensorboard", (lambda folder, config: first, ""))
    RunFolder.begin(tmp_path, {"seed": 1}).log(update=1)
    with pytest.raises(rs.InvalidArgument, match="--log wandb does not start: RuntimeError: no API key"):
        RunFolder.begin(tmp_path, {"seed": 2}, "tensorboard,wandb")
    assert first.over
    assert json.loads((tmp_path / "config.json").read_text()) == {"seed": 1}  # the run of before is as it was
    assert RunFolder(tmp_path).metrics() == [{"update": 1}]


class Figures:
    """A tracker that forgets them."""

    over = False

    def log(self, figures: Any, step: int) -> None:
        pass

    def close(self, result: Any) -> None:
        self.over = True


def test_a_run_that_begins_anew_forgets_the_events_of_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(folder: Path, config: Any) -> Figures:
        (folder / "tensorboard").mkdir(exist_ok=True)
        (folder / f"tensorboard/events.out.tfevents.{config['seed']}").write_text("")
        return Figures()

    monkeypatch.setitem(TRACKERS, "tensorboard", (write, ""))
    for seed in range(2):
        RunFolder.begin(tmp_path, {"seed": seed}, "tensorboard").finish({})
    RunFolder(tmp_path).track("tensorboard", {"seed": 2}).close()  # goes on with it
    assert sorted(file.suffix for file in (tmp_path / "tensorboard").iterdir()) == [".1", ".2"]


def test_names_are_checked_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_trackers("") == check_trackers(" , ") == []
    with pytest.raises(rs.InvalidArgument, match="--log 'mlflow' is not known; known: tensorboard, wandb"):
        check_trackers("mlflow")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(rs.InvalidArgument, match=r"needs the package wandb, which is not installed here: pip install wandb"):
        check_trackers("wandb")
    with pytest.raises(rs.InvalidArgument, match=r'pip install "replaystore\[tracking\]"'):
        check_trackers("tensorboard")


def test_only_finite_numbers_are_figures() -> None:
    assert numbers({"a": 1, "b": True, "c": float("inf"), "d": None, "e": "x", "f": [1]}) == {"a": 1.0, "b": 1.0}
