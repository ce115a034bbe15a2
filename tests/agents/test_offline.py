"""Offline training: it learns (and can fail to), repeats itself, and goes on exactly where it stopped."""

from pathlib import Path

import numpy as np
import pytest
import torch

import replaystore as rs
from replaystore_agents.offline import OfflineConfig, train_offline
from replaystore_agents.trunk.runs import RunFolder, load_checkpoint

TABLE = "clumsy"


def train(store: Path, folder: Path, config: OfflineConfig, env: str | None = None, resume: Path | None = None) -> RunFolder:
    run = RunFolder.begin(folder, {})
    with rs.open(store, mode="r") as api:
        train_offline(api, TABLE, env, config, run, resume=load_checkpoint(resume) if resume else None)
    return run


def test_it_beats_the_policy_that_made_the_data(clumsy_store: Path, tmp_path: Path) -> None:
    config = OfflineConfig(seed=1, max_updates=2_500, eval_every=500, eval_episodes=50, device="cpu")
    run = train(clumsy_store, tmp_path / "run", config, env="CartPole-v1")
    with rs.open(clumsy_store, mode="r") as api:
        behaviour = float(api.episodes(TABLE)["return"].mean())
    kept = [line["return_kept"] for line in run.metrics() if "return_kept" in line][-1]
    assert behaviour < 80
    assert kept > 3 * behaviour


def test_the_same_seed_gives_the_same_run_and_another_does_not(clumsy_store: Path, tmp_path: Path) -> None:
    config = OfflineConfig(seed=1, max_updates=60, eval_every=30, eval_episodes=5, device="cpu")
    figures = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        run = train(clumsy_store, tmp_path / name, OfflineConfig(**{**_fields(config), "seed": seed}), env="CartPole-v1")
        figures.append([{k: v for k, v in line.items() if k != "seconds"} for line in run.metrics()])
    assert figures[0] == figures[1]
    assert figures[0] != figures[2]


def test_a_resumed_run_ends_with_the_same_weights(clumsy_store: Path, tmp_path: Path) -> None:
    whole = OfflineConfig(seed=4, max_updates=60, eval_every=30, device="cpu")
    half = OfflineConfig(seed=4, max_updates=30, eval_every=30, device="cpu")
    train(clumsy_store, tmp_path / "whole", whole)
    train(clumsy_store, tmp_path / "half", half)
    train(clumsy_store, tmp_path / "rest", whole, resume=tmp_path / "half" / "last.pt")
    straight, resumed = (load_checkpoint(tmp_path / name / "last.pt") for name in ("whole", "rest"))
    assert resumed["updates"] == 60
    for name, tensor in straight["online"].items():
        assert torch.equal(tensor, resumed["online"][name])


def test_the_table_is_not_changed(clumsy_store: Path, tmp_path: Path) -> None:
    def picture() -> tuple[int, bytes]:
        with rs.open(clumsy_store, mode="r") as api:
            stats = api.stats(TABLE)
            rows = api.read_steps(TABLE, stats.first_step, stats.next_step, columns=["replay/priority", "replay/times_sampled"])
            return stats.sampled_items, b"".join(np.ascontiguousarray(rows[name]).tobytes() for name in sorted(rows))

    before = picture()
    train(clumsy_store, tmp_path / "run", OfflineConfig(max_updates=5, device="cpu"))
    assert picture() == before


def test_an_empty_table_says_so(tmp_path: Path) -> None:
    with rs.open(tmp_path / "data") as api:
        api.create_table("t", rs.TableConfig(columns={"observation": rs.Column((4,)), "action": rs.Column((), "int64")}))
        with pytest.raises(rs.InvalidArgument, match="no step to learn from"):
            train_offline(api, "t", None, OfflineConfig(device="cpu"), RunFolder(tmp_path / "run"))


def _fields(config: OfflineConfig) -> dict[str, object]:
    return {name: getattr(config, name) for name in config.__dataclass_fields__}
