"""Offline training: it learns (and can fail to), repeats itself, and goes on exactly where it stopped, with every algorithm."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import replaystore as rs
from replaystore_agents import offline
from replaystore_agents.algorithms.registry import ALGORITHMS, settings
from replaystore_agents.offline import OFFLINE_PRESETS, OfflineConfig, train_offline
from replaystore_agents.trunk.runs import RunFolder, load_checkpoint

TABLE = "clumsy"
SMALL: dict[str, Any] = {"max_updates": 60, "eval_every": 30, "batch_size": 32, "hidden": (16,)}
ALL = [(name, "") for name, entry in ALGORITHMS.items() if entry.discrete] + [("dqn", "rainbow")]


def train(
    store: Path, folder: Path, algorithm: str = "dqn", env: str | None = None, resume: Path | None = None, preset: str = "", **given: Any
) -> RunFolder:
    run = RunFolder(folder) if resume == folder / "last.pt" else RunFolder.begin(folder, {})
    base = OFFLINE_PRESETS.get(algorithm)
    config, loop = settings(ALGORITHMS[algorithm], preset, {"device": "cpu", **given}, OfflineConfig, base=base)
    with rs.open(store, mode="r") as api:
        learner = ALGORITHMS[algorithm].make(api.describe(TABLE).config, config)
        train_offline(api, TABLE, env, learner, loop, run, resume=load_checkpoint(resume) if resume else None)
    return run


def behaviour(store: Path) -> float:
    with rs.open(store, mode="r") as api:
        return float(api.episodes(TABLE)["return"].mean())


def kept(run: RunFolder) -> float:
    return float([line["return_kept"] for line in run.metrics() if "return_kept" in line][-1])


def test_it_beats_the_policy_that_made_the_data(clumsy_store: Path, tmp_path: Path) -> None:
    run = train(clumsy_store, tmp_path / "run", env="CartPole-v1", seed=1, max_updates=2_500, eval_every=500, eval_episodes=50)
    assert behaviour(clumsy_store) < 80
    assert kept(run) > 3 * behaviour(clumsy_store)


@pytest.mark.parametrize(("algorithm", "preset"), ALL)
def test_the_same_seed_gives_the_same_run_and_another_does_not(clumsy_store: Path, tmp_path: Path, algorithm: str, preset: str) -> None:
    figures = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        run = train(clumsy_store, tmp_path / name, algorithm, "CartPole-v1", preset=preset, seed=seed, eval_episodes=5, **SMALL)
        figures.append([{k: v for k, v in line.items() if k != "seconds"} for line in run.metrics()])
    assert figures[0] == figures[1]
    assert figures[0] != figures[2]


@pytest.mark.parametrize(("algorithm", "preset"), ALL)
def test_a_resumed_run_ends_with_the_same_weights(clumsy_store: Path, tmp_path: Path, algorithm: str, preset: str) -> None:
    small = {**SMALL, "eval_every": 10, "seed": 4}
    train(clumsy_store, tmp_path / "whole", algorithm, preset=preset, **{**small, "max_updates": 20})
    train(clumsy_store, tmp_path / "half", algorithm, preset=preset, **{**small, "max_updates": 10})
    torch.rand(7)  # noise drawn meanwhile by others
    rest = tmp_path / "half" / "last.pt"
    train(clumsy_store, tmp_path / "rest", algorithm, resume=rest, preset=preset, **{**small, "max_updates": 20})
    straight, resumed = (load_checkpoint(tmp_path / name / "last.pt") for name in ("whole", "rest"))
    assert resumed["updates"] == 20
    assert same(straight, resumed)


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    return bool(one == other)


def test_a_finished_run_that_is_resumed_says_what_it_knows(clumsy_store: Path, tmp_path: Path) -> None:
    small = {**SMALL, "env": "CartPole-v1", "eval_episodes": 2, "max_updates": 30}
    train(clumsy_store, tmp_path / "run", **small)
    run = train(clumsy_store, tmp_path / "run", **small, resume=tmp_path / "run" / "last.pt")
    result = json.loads((run.path / "result.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert (result["updates"], result["final_return"]) == (30, None)


def test_a_target_is_reached_by_two_evaluations_even_after_a_lucky_one(
    clumsy_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = {10: (500, 300), 20: (490, 480), 30: (500, 500)}
    monkeypatch.setattr(offline, "returns_of", lambda algorithm, *_, salt=0: np.full(3, float(said[algorithm.updates][salt])))
    run = train(clumsy_store, tmp_path / "run", env="CartPole-v1", **{**SMALL, "eval_every": 10}, target_return=475.0)
    assert [line.get("return_kept") for line in run.metrics()] == [300.0, 480.0]
    assert load_checkpoint(run.path / "best.pt")["updates"] == 20


def test_the_table_is_not_changed(clumsy_store: Path, tmp_path: Path) -> None:
    def picture() -> tuple[int, bytes]:
        with rs.open(clumsy_store, mode="r") as api:
            stats = api.stats(TABLE)
            rows = api.read_steps(TABLE, stats.first_step, stats.next_step, columns=["replay/priority", "replay/times_sampled"])
            return stats.sampled_items, b"".join(np.ascontiguousarray(rows[name]).tobytes() for name in sorted(rows))

    before = picture()
    train(clumsy_store, tmp_path / "run", max_updates=5)
    assert picture() == before


def test_an_empty_table_says_so(tmp_path: Path) -> None:
    with rs.open(tmp_path / "data") as api:
        action = rs.Column((), "int64", {"kind": "Discrete", "n": 2})
        api.create_table("t", rs.TableConfig(columns={"observation": rs.Column((4,)), "action": action}))
        config, loop = settings(ALGORITHMS["dqn"], "", {"device": "cpu"}, OfflineConfig)
        learner = ALGORITHMS["dqn"].make(api.describe("t").config, config)
        with pytest.raises(rs.InvalidArgument, match="no step to learn from"):
            train_offline(api, "t", None, learner, loop, RunFolder(tmp_path / "run"))
