"""The online loop on an embedded store that is filled already, and Rainbow in a maze: small, seeded, and able to fail."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import replaystore as rs
from replaystore_agents.algorithms.policies import STOP, description_in
from replaystore_agents.algorithms.registry import ALGORITHMS, settings
from replaystore_agents.offline import OfflineConfig, train_offline
from replaystore_agents.online import OnlineConfig, Saved, table_config, train
from replaystore_agents.trunk.environments import make, make_vec
from replaystore_agents.trunk.runs import RunFolder, load_checkpoint

MAZE = "replaystore/Maze-v0"


def play(store: Any, table: str, env: str, vector_steps: int, seed: int = 0, **options: Any) -> None:
    """Random actions, written to a table that is made."""
    envs = make_vec(env, 8, **options)
    config = OnlineConfig(alpha=0.6, min_size=1)
    store.create_table(table, table_config(envs, config))
    store.alter_table(table, rate_limiter=rs.MinSize(1))
    rng, over = np.random.default_rng(seed), np.zeros(8, bool)
    with store.writer(table, streams=8) as writer:
        seen, _ = envs.reset(seed=seed)
        for stream in range(8):
            writer.reset(seen[stream], stream=stream)
        for _ in range(vector_steps):
            actions = rng.integers(0, int(envs.single_action_space.n), 8)  # type: ignore[attr-defined]
            seen, rewards, terminated, truncated, _ = envs.step(actions)
            writer.append_batch(actions, rewards, terminated, truncated, seen, reset_mask=over)
            over = terminated | truncated
    envs.close()


def test_rainbow_finds_the_shortest_way_from_everywhere(tmp_path: Path) -> None:
    """From random steps alone: the mean return of 20 random starts is the mean of the optima."""
    options: dict[str, Any] = {"size": 7, "random_start": True}
    with rs.open(tmp_path / "data") as store:
        play(store, "maze", MAZE, 500, **options)
        given = {
            "device": "cpu", "seed": 1, "batch_size": 64, "hidden": (64,), "learning_rate": 2e-3, "v_min": -20.0, "v_max": 0.0, "atoms": 21,
            "target_every": 50, "max_updates": 500, "n_step": 1,
        }  # fmt: skip
        config, loop = settings(ALGORITHMS["dqn"], "rainbow", given, OfflineConfig)
        learner = ALGORITHMS["dqn"].make(store.describe("maze").config, config)
        assert learner.policy().describe()["network"]["body"]["kind"] == "embedding"
        train_offline(store, "maze", None, learner, loop, RunFolder(tmp_path / "run"))
    policy, rng = learner.policy(), np.random.default_rng(0)
    env = make(MAZE, **options)
    for seed in range(20):
        seen, info = env.reset(seed=seed)
        earned, over = 0.0, False
        while not over and earned > -50:
            seen, reward, terminated, truncated, _ = env.step(policy.act(np.array([seen]), rng)[0])
            earned, over = earned + float(reward), terminated or truncated
        assert earned == info["optimum"], seed
    env.close()


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("online")
    with rs.open(path / "saved") as store:
        play(store, "old", "CartPole-v1", 30, seed=1)
    return path


SMALL = {"device": "cpu", "max_updates": 20, "eval_every": 10, "eval_episodes": 3, "batch_size": 16, "hidden": (8,), "publish_every": 5}


def run_online(path: Path, stores: Path, given: dict[str, Any], mix: bool = False, resume: dict[str, Any] | None = None) -> Any:
    run = RunFolder.begin(path / "run", {})
    config, loop = settings(ALGORITHMS["dqn"], "", {**SMALL, "target_return": 0.0, **given}, OnlineConfig)
    with rs.open(path / "data") as store, rs.open(stores / "saved", mode="r") as old:
        if "new" not in store.tables():
            play(store, "new", "CartPole-v1", 30)
        learner = ALGORITHMS["dqn"].make(store.describe("new").config, config)
        saved = Saved(old, "old", 0.25) if mix else None
        result = train(store, "new", "CartPole-v1", learner, loop, run, saved=saved, resume=resume)
        published = store.fetch_parameters("policy", newer_than=0)
        assert published is not None
        arrays, version = published
        assert STOP in arrays
        assert description_in(arrays) == learner.policy().describe()
        priorities = store.read_steps("new", 0, 1 << 40, columns=["replay/priority"])["replay/priority"]
        sampled = store.stats("new").sampled_items
    return result, run, version, len(set(priorities.tolist())), sampled


def test_it_learns_publishes_and_leaves_what_it_should(tmp_path: Path, stores: Path) -> None:
    result, run, version, different, sampled = run_online(tmp_path, stores, {})
    assert (result.updates, result.reached) == (20, False)
    assert version == 1 + 20 // 5 + 1
    assert different > 20  # the errors came back as priorities
    assert sampled >= 20 * 16
    assert [line["update"] for line in run.metrics()] == [10, 20]
    assert json.loads((run.path / "result.json").read_text())["updates"] == 20
    with np.load(run.path / "replayed.npz") as replayed:
        assert replayed["ages"].shape == (2, 16)
    state = load_checkpoint(run.path / "last.pt")
    again = run_online(tmp_path, stores, {"max_updates": 25}, resume=state)[0]
    assert again.updates == 25


def test_a_resumed_training_keeps_the_better_weights_of_before(tmp_path: Path, stores: Path) -> None:
    _, run, *_ = run_online(tmp_path, stores, {})
    state = load_checkpoint(run.path / "last.pt")
    assert state["score"] == load_checkpoint(run.path / "best.pt")["return_mean"]
    result, run, *_ = run_online(tmp_path, stores, {"max_updates": 30}, resume={**state, "score": 501.0})
    assert result.best_return == 501.0
    assert not (run.path / "best.pt").exists()  # the helper begins the folder anew: nothing better came


def test_saved_steps_are_mixed_into_every_batch(tmp_path: Path, stores: Path) -> None:
    result, run, _, different, sampled = run_online(tmp_path, stores, {}, mix=True)
    assert result.updates == 20
    assert different > 20
    assert 20 * 12 <= sampled < 20 * 16 + 4 * 12  # three quarters of each batch, and what was asked for ahead
    with np.load(run.path / "replayed.npz") as replayed:
        assert replayed["ages"].shape == (2, 12)


def test_a_uniform_table_gets_no_priorities(tmp_path: Path) -> None:
    with rs.open(tmp_path / "data") as store:
        env = make("CartPole-v1")
        assert table_config(env, OnlineConfig(alpha=0.0)).selector == rs.Uniform()
        env.close()
        play(store, "t", "CartPole-v1", 20)
        config, loop = settings(ALGORITHMS["dqn"], "dqn", {**SMALL, "target_return": 0.0}, OnlineConfig)
        store.create_table("u", rs.TableConfig(columns=store.describe("t").config.columns))
        with store.writer("u") as writer:
            writer.reset(np.zeros(4, np.float32))
            for _ in range(20):
                writer.append(0, 1.0, False, False, np.zeros(4, np.float32))
        learner = ALGORITHMS["dqn"].make(store.describe("u").config, config)
        result = train(store, "u", "CartPole-v1", learner, loop, RunFolder(tmp_path / "run"))
    assert result.updates == 20
    assert torch.isfinite(next(learner.online.parameters())).all()  # type: ignore[attr-defined]
