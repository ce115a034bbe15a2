"""What BC, IQL and CQL are told apart by: in the data the worse action is the common one. And their exact continuation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import replaystore as rs
from replaystore_agents.algorithms.base import Spaces
from replaystore_agents.algorithms.registry import ALGORITHMS, settings
from replaystore_agents.offline import OfflineConfig

DISCRETE, CONTINUOUS = Spaces((2,), 3, 4), Spaces((2,), 0, action_shape=(1,), action_low=-2.0, action_high=6.0)


def data(spaces: Spaces, seed: int, size: int = 128) -> dict[str, torch.Tensor]:
    """One step of an episode each: a quarter takes the action that earns 1 (5; or 4.0), the others one that earns 0 (4; or 0.0)."""
    rng = np.random.default_rng(seed)
    good = rng.random(size) < 0.25
    action = np.where(good, 5, 4) if spaces.actions else np.where(good, 4.0, 0.0)[:, None].astype(np.float32)
    return {
        "observation": torch.from_numpy(rng.normal(size=(size, 2)).astype(np.float32)),
        "next_observation": torch.zeros(size, 2),
        "action": torch.from_numpy(action),
        "reward": torch.from_numpy(good.astype(np.float32)),
        "discount": torch.zeros(size),
        "weights": torch.ones(size),
    }


def learner(name: str, spaces: Spaces, **given: Any) -> Any:
    config, _ = settings(ALGORITHMS[name], "", {"device": "cpu", "hidden": (32, 32), **given}, OfflineConfig)
    return ALGORITHMS[name].kind_class(spaces, config)


@pytest.mark.parametrize(
    ("name", "given", "action"), [("bc", {}, 4), ("iql", {}, 5), ("cql", {"conservatism": 0.2}, 5), ("cql", {"conservatism": 5.0}, 4)]
)
def test_the_better_action_is_found_but_by_cloning_and_by_who_is_too_conservative(name: str, given: dict[str, Any], action: int) -> None:
    agent = learner(name, DISCRETE, learning_rate=3e-3, seed=0, **given)
    for update in range(250):
        agent.learn(data(DISCRETE, update), weighted=False)
    seen = np.random.default_rng(0).normal(size=(200, 2)).astype(np.float32)
    assert (agent.policy().act(seen, np.random.default_rng(0)) == action).mean() > 0.95


@pytest.mark.parametrize(("name", "low", "high"), [("bc", 0.7, 1.3), ("iql", 2.0, 4.1)])
def test_continuous_actions_are_imitated_on_average_or_by_what_they_earn(name: str, low: float, high: float) -> None:
    agent = learner(name, CONTINUOUS, learning_rate=3e-3, seed=0, **({"expectile": 0.5} if name == "iql" else {}))
    for update in range(300):
        agent.learn(data(CONTINUOUS, update), weighted=False)
    actions = agent.policy().act(np.zeros((1, 2), np.float32), np.random.default_rng(0))
    assert actions.shape == (1, 1)
    assert low < float(actions[0, 0]) < high


@pytest.mark.parametrize("spaces", [DISCRETE, CONTINUOUS], ids=["discrete", "continuous"])
@pytest.mark.parametrize("name", ["bc", "iql"])
def test_a_restored_learner_goes_on_bit_by_bit(name: str, spaces: Spaces, tmp_path: Path) -> None:
    straight = learner(name, spaces, seed=3)
    for update in range(10):
        straight.learn(data(spaces, update), weighted=True)
    torch.save(straight.state(), tmp_path / "half.pt")
    errors = [straight.learn(data(spaces, update), weighted=True)[0] for update in range(10, 20)]
    resumed = learner(name, spaces, seed=4)
    resumed.restore(torch.load(tmp_path / "half.pt", weights_only=True))
    again = [resumed.learn(data(spaces, update), weighted=True)[0] for update in range(10, 20)]
    assert all(torch.equal(a, b) for a, b in zip(errors, again, strict=True))
    for part, module in straight.parts().items():
        if isinstance(module, torch.nn.Module):
            other = resumed.parts()[part].state_dict()
            assert all(torch.equal(tensor, other[key]) for key, tensor in module.state_dict().items())


@pytest.mark.parametrize("name", ["bc", "iql", "cql"])
def test_items_of_no_weight_teach_nothing(name: str) -> None:
    agent, batch = learner(name, DISCRETE, **({"conservatism": 0.0} if name == "cql" else {})), data(DISCRETE, 0)
    batch["weights"] = torch.zeros(128)
    before = agent.policy().arrays()
    agent.learn(batch, weighted=True)
    assert all(np.array_equal(before[key], array) for key, array in agent.policy().arrays().items())


def test_images_and_vectors_are_read_alike() -> None:
    agent = learner("iql", Spaces((2, 12, 12), 3), hidden=(8,))
    batch = data(DISCRETE, 0, 4)
    images = torch.randint(0, 256, (2, 4, 2, 12, 12), dtype=torch.uint8)
    agent.learn({**batch, "observation": images[0], "next_observation": images[1], "action": batch["action"] - 4}, weighted=False)
    assert agent.policy().describe()["network"]["body"]["kind"] == "small"
    with pytest.raises(rs.InvalidArgument, match="continuous"):
        learner("cql", CONTINUOUS)
