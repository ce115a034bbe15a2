"""What loops and actors stand on: stacks of frames, batches of two tables, and steps that are recorded."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.wrappers import FrameStackObservation

import replaystore as rs
from replaystore_agents.trunk.devices import WARM_UPS, Recorded, faster, pick_device, precision
from replaystore_agents.trunk.frames import FrameStacks
from replaystore_agents.trunk.mixing import MixedSampler, split


@pytest.mark.parametrize("frames", [1, 2, 4, 20])
def test_an_actors_stacks_are_those_of_the_wrapper(frames: int) -> None:
    plain = gymnasium.make_vec("CartPole-v1", 3, vectorization_mode="sync")
    stacked = gymnasium.make_vec("CartPole-v1", 3, vectorization_mode="sync", wrappers=[partial(FrameStackObservation, stack_size=frames)])
    stacks, rng = FrameStacks(frames), np.random.default_rng(0)
    seen, _ = plain.reset(seed=1)
    expected, _ = stacked.reset(seed=1)
    first, over, episodes = np.ones(3, bool), np.zeros(3, bool), 0
    for _ in range(80):
        stacks.push(seen, first)
        np.testing.assert_array_equal(stacks.newest(), expected if frames > 1 else expected[:, 0])
        actions = rng.integers(0, 2, 3)
        seen, _, terminated, truncated, _ = plain.step(actions)
        expected = stacked.step(actions)[0]
        first, over = over, terminated | truncated
        episodes += int(over.sum())
    assert episodes > 5
    plain.close()
    stacked.close()


def table(store: Any, name: str, value: float, rows: int) -> None:
    columns = {"observation": rs.Column((1,)), "action": rs.Column((), "int64")}
    store.create_table(name, rs.TableConfig(columns=columns, selector=rs.Prioritized()))
    with store.writer(name) as writer:
        writer.reset(np.array([value], np.float32))
        for _ in range(rows):
            writer.append(0, value, False, False, np.array([value], np.float32))


def test_every_batch_has_its_share_of_saved_steps(tmp_path: Path) -> None:
    with rs.open(tmp_path / "saved") as store:
        table(store, "old", 2.0, 30)
    with rs.open(tmp_path / "fresh") as fresh, rs.open(tmp_path / "saved", mode="r") as saved:
        table(fresh, "new", 1.0, 30)
        here, there = split(10, 0.3)
        samplers = fresh.sampler("new", here, beta=0.5), saved.sampler("old", there, selector=rs.Uniform(), seed=0)
        with MixedSampler(*samplers) as sampler:
            sampler.beta = 0.7
            assert sampler.beta == 0.7
            for _ in range(5):
                batch = next(sampler)
                tensors = batch.to_torch("cpu")
                assert len(batch) == len(tensors["reward"]) == 10
                assert tensors["observation"].flatten().tolist() == [1.0] * 7 + [2.0] * 3
                assert tensors["next_observation"].shape == (10, 1)
                assert len(batch.step_ids) == 7
                sampler.update_priorities(batch.step_ids, np.full(10, 0.25))
        priorities = fresh.read_steps("new", 0, 30, columns=["replay/priority"])["replay/priority"]
        assert len(set(priorities.tolist())) > 1
    with rs.open(tmp_path / "saved", mode="r") as saved:
        assert saved.stats("old").sampled_items == 0


@pytest.mark.parametrize(("size", "share", "expected"), [(256, 0.5, (128, 128)), (32, 0.1, (29, 3)), (8, 0.01, (7, 1)), (8, 0.99, (1, 7))])
def test_shares_are_whole_items(size: int, share: float, expected: tuple[int, int]) -> None:
    assert split(size, share) == expected


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0, float("nan")])
def test_shares_without_one_of_the_tables_are_refused(share: float) -> None:
    with pytest.raises(rs.InvalidArgument, match="share="):
        split(256, share)


class Tape:
    """Stands for a CUDA graph: what is recorded is not run, replaying runs it."""

    def __init__(self) -> None:
        self.work: Any = None
        self.places: dict[str, torch.Tensor] = {}

    def warm_up(self, work: Any) -> Any:
        return work()

    def record(self, work: Any) -> dict[str, torch.Tensor]:
        self.work = work
        self.places = {"sum": torch.zeros(())}
        return self.places

    def replay(self) -> None:
        self.places["sum"].copy_(self.work()["sum"])


def test_a_recorded_step_is_run_as_often_as_it_is_called() -> None:
    total = torch.zeros(())

    def step(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        total.add_(tensors["x"].sum())
        return {"sum": total.clone()}

    recorded, expected = Recorded(step, Tape()), 0.0
    for count in range(1, 3 * WARM_UPS):
        expected += 2 * count
        assert float(recorded({"x": torch.full((2,), float(count))})["sum"]) == expected
    assert float(recorded({"x": torch.ones(5)})["sum"]) == expected + 5  # another shape: the plain way


def test_without_cuda_the_options_change_nothing() -> None:
    device = torch.device("cpu")
    assert faster(len, device, compile=True, graphs=True) is len  # type: ignore[arg-type,comparison-overlap]
    with precision(device, amp=True):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
    assert pick_device("cpu") == device
