"""A table in a device's memory gives the very items that the store gives."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch

import replaystore as rs
from replaystore.store import Store
from replaystore_agents.algorithms.base import Spaces, spaces_of
from replaystore_agents.algorithms.dqn import DQN, DQNConfig
from replaystore_agents.offline import OfflineConfig, train_offline
from replaystore_agents.trunk import preloaded
from replaystore_agents.trunk.preloaded import Preloaded
from replaystore_agents.trunk.runs import RunFolder, load_checkpoint
from tests.views.worlds import FRAME, STREAMS, Move, World

COLUMNS = ("observation", "action", "reward", "terminated", "truncated")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with rs.open(tmp_path / "data") as opened:
        yield opened


VIEWS = [
    rs.Transition(n_step, gamma, frame_stack, stack_columns, padding)
    for n_step, gamma in ((1, 0.9), (2, 1.0), (5, 0.5), (3, 0.0))
    for frame_stack, stack_columns, padding in (
        (1, ("observation",), "edge"),
        (2, (FRAME, "action"), "zero"),
        (4, ("observation",), "edge"),
        (4, (FRAME,), "zero"),
    )
]
KINDS = ["step"] * 10 + ["terminated", "truncated", "both", "reset", "flush", "delete"]


@pytest.mark.parametrize(("max_steps", "seed"), [(None, 1), (None, 2), (40, 3)])
def test_the_same_items_as_the_store(store: Store, max_steps: int | None, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(seed)
    world = World(store, "t", max_steps)
    for kind in rng.choice(KINDS, 150):
        world.play(Move(int(rng.integers(STREAMS)), str(kind)))
    world.writer.flush()
    rows = store.read_steps("t", 0, 10_000, ["replay/successor"])
    anchors = rows["step_id"][rows["replay/successor"] > 0]
    assert len(anchors) > 15
    for view in VIEWS:
        monkeypatch.setattr(preloaded, "_BLOCK_BYTES", int(rng.integers(1, 2000)))
        there = Preloaded(store, "t", view, "cpu", COLUMNS)
        np.testing.assert_array_equal(there.step_ids.numpy(), anchors)
        expected, found = store.sample_at("t", anchors, view=view).to_torch(), there.sample_at(anchors)
        for name in found.keys():  # noqa: SIM118 - no mapping
            assert found[name].dtype == expected[name].dtype, name
            if name == "reward":
                torch.testing.assert_close(found[name], expected[name])
            else:
                assert torch.equal(found[name], expected[name]), name
        assert {f"next_{FRAME}", FRAME, "action", "reward", "terminated", "truncated", "discount"} <= set(found.keys())


def test_a_table_without_a_step_to_learn_from(store: Store) -> None:
    store.create_table("t", rs.TableConfig({"observation": rs.Column((3,))}))
    with pytest.raises(rs.InvalidArgument, match="no step to learn from"):
        Preloaded(store, "t", rs.Transition(), "cpu", ["observation"])


def test_draws_are_uniform_and_follow_the_seed(clumsy_store: Path) -> None:
    """Chi-square over 2^20 draws; false positives 1e-6."""
    with rs.open(clumsy_store, mode="r") as api:
        there = Preloaded(api, "clumsy", rs.Transition(), "cpu")
        drawn = torch.cat([there.sample(1 << 16, seed=seed)["step_ids"] for seed in range(16)]).numpy()
        counts = np.bincount(np.searchsorted(there.step_ids.numpy(), drawn), minlength=len(there))
        assert scipy.stats.chisquare(counts).pvalue > 1e-6
        assert torch.equal(there.sample(8, seed=3)["step_ids"], there.sample(8, seed=3)["step_ids"])
        assert not torch.equal(there.sample(8, seed=3)["step_ids"], there.sample(8, seed=4)["step_ids"])
        assert len(there) == api.stats("clumsy").anchors


def test_what_does_not_fit_is_refused_with_the_figures(clumsy_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preloaded, "_free_bytes", lambda device: 100_000)
    with rs.open(clumsy_store, mode="r") as api, pytest.raises(rs.InvalidArgument, match=r"does not fit.*0\.00 GB free"):
        Preloaded(api, "clumsy", rs.Transition(), "cpu")


def test_what_it_cannot_make_is_refused(clumsy_store: Path) -> None:
    with rs.open(clumsy_store, mode="r") as api:
        with pytest.raises(rs.InvalidArgument, match="one n_step"):
            Preloaded(api, "clumsy", rs.Transition(n_step=(1, 3)), "cpu")
        with pytest.raises(rs.InvalidArgument, match="no column 'pixels'"):
            Preloaded(api, "clumsy", rs.Transition(), "cpu", ["pixels"])
        there = Preloaded(api, "clumsy", rs.Transition(), "cpu")
        with pytest.raises(rs.NotFound, match="999999"):
            there.sample_at([999_999])


def test_a_table_that_drops_steps_meanwhile_is_refused(clumsy_store: Path) -> None:
    with rs.open(clumsy_store, mode="r") as api:

        class Evicting:
            stats, describe = api.stats, api.describe

            def read_steps(self, table: str, start: int, stop: int, columns: Any) -> dict[str, Any]:
                return {name: array[1:] for name, array in api.read_steps(table, start, stop, columns=columns).items()}

        with pytest.raises(rs.InvalidArgument, match="dropped steps below"):
            Preloaded(Evicting(), "clumsy", rs.Transition(), "cpu")


def test_offline_training_repeats_itself_and_resumes_exactly(clumsy_store: Path, tmp_path: Path) -> None:
    def train(name: str, updates: int, resume: Path | None = None) -> dict[str, torch.Tensor]:
        run = RunFolder.begin(tmp_path / name, {})
        config = DQNConfig(seed=2, eval_every=20, device="cpu")
        state = load_checkpoint(resume) if resume else None
        with rs.open(clumsy_store, mode="r") as api:
            agent = DQN(spaces_of(api.describe("clumsy").config), config)
            train_offline(api, "clumsy", None, agent, OfflineConfig(max_updates=updates), run, resume=state, preload=True)
        weights: dict[str, torch.Tensor] = load_checkpoint(tmp_path / name / "last.pt")["online"]
        return weights

    one, other = train("one", 40), train("other", 40)
    train("half", 20)
    resumed = train("rest", 40, tmp_path / "half" / "last.pt")
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name])
        assert torch.equal(tensor, resumed[name])


def test_stacks_of_images_go_through_convolutions(store: Store, tmp_path: Path) -> None:
    actions = {"kind": "Discrete", "n": 3}
    columns = {"observation": rs.Column((40, 36), "uint8"), "action": rs.Column((), "int64", space=actions)}
    store.create_table("frames", rs.TableConfig(columns))
    rng = np.random.default_rng(0)
    with store.writer("frames") as writer:
        writer.reset(rng.integers(0, 256, (40, 36), np.uint8))
        for _ in range(30):
            writer.append(int(rng.integers(3)), 1.0, False, False, rng.integers(0, 256, (40, 36), np.uint8))
    config = DQNConfig(eval_every=1, batch_size=4, frame_stack=4, n_step=1, device="cpu")
    for preload in (True, False):
        run = RunFolder.begin(tmp_path / str(preload), {})
        agent = DQN(spaces_of(store.describe("frames").config, 4), config)
        train_offline(store, "frames", None, agent, OfflineConfig(max_updates=2), run, preload=preload)
        state = load_checkpoint(tmp_path / str(preload) / "last.pt")
        assert Spaces.from_json(state["spaces"]) == Spaces((4, 40, 36), 3, 0, 4)
        assert any(name.startswith("body.reader.layers.0") for name in state["online"])


def test_stacked_observations_are_evaluated_as_stacks(clumsy_store: Path, tmp_path: Path) -> None:
    run = RunFolder.begin(tmp_path / "run", {})
    config = DQNConfig(eval_every=2, eval_episodes=2, frame_stack=2, device="cpu")
    with rs.open(clumsy_store, mode="r") as api:
        agent = DQN(spaces_of(api.describe("clumsy").config, 2), config)
        result = train_offline(api, "clumsy", "CartPole-v1", agent, OfflineConfig(max_updates=2), run, preload=True)
    assert result.final_return is not None
    assert result.final_return >= 1
