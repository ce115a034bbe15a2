"""The learner object: gradient, target networks, exact continuation."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch

import replaystore as rs
from replaystore_agents.algorithms.base import Spaces, spaces_of
from replaystore_agents.algorithms.dqn import DQN, DQNConfig
from replaystore_agents.trunk.heads import NoisyLinear, build_network, describe_network
from replaystore_agents.trunk.networks import from_arrays, to_arrays

SPACES = Spaces((4,), 2)


def batch(seed: int, size: int = 32, first_action: int = 0) -> rs.Batch:
    rng = np.random.default_rng(seed)
    return rs.Batch(
        {
            "data/observation": rng.normal(size=(size, 4)).astype(np.float32),
            "next/observation": rng.normal(size=(size, 4)).astype(np.float32),
            "data/action": rng.integers(first_action, first_action + 2, size),
            "data/reward": rng.normal(size=size).astype(np.float32),
            "info/discount": np.full(size, 0.97, np.float32),
            "info/weights": rng.random(size).astype(np.float32),
            "info/step_ids": np.arange(size),
        }
    )


def equal(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("changes", [{}, {"target_every": 7}])
def test_a_restored_learner_goes_on_bit_by_bit(tmp_path: Any, changes: dict[str, Any]) -> None:
    config = DQNConfig(seed=5, device="cpu", **changes)
    straight = DQN(SPACES, config)
    for i in range(10):
        straight.update(batch(i))
    torch.save(straight.state(), tmp_path / "half.pt")
    noise = torch.rand(3)  # drawn after the checkpoint: the continuation must draw the same
    errors = [straight.update(batch(i))[0] for i in range(10, 20)]

    resumed = DQN(SPACES, DQNConfig(seed=6, device="cpu", **changes))
    resumed.restore(torch.load(tmp_path / "half.pt", weights_only=True))
    assert torch.equal(torch.rand(3), noise)
    again = [resumed.update(batch(i))[0] for i in range(10, 20)]
    assert np.array_equal(errors, again)
    assert equal(straight.online.state_dict(), resumed.online.state_dict())
    assert equal(straight.target.state_dict(), resumed.target.state_dict())


def test_what_is_typed_wins_over_the_rates_in_a_checkpoint() -> None:
    state = DQN(SPACES, DQNConfig(device="cpu", learning_rate=0.5)).state()
    agent = DQN(SPACES, DQNConfig(device="cpu", learning_rate=0.25))
    agent.restore(state)
    assert agent.optimizer.param_groups[0]["lr"] == 0.25


@pytest.mark.parametrize("double", [True, False])
def test_noisy_networks_choose_and_value_with_noise_of_their_own(double: bool) -> None:
    agent = DQN(SPACES, DQNConfig(device="cpu", noisy=True, double=double))
    drawn: list[torch.Tensor] = []
    for network in (agent.online, agent.target):
        layer = next(module for module in network.modules() if isinstance(module, NoisyLinear))
        layer.register_forward_hook(lambda module, *_: drawn.append(module.noise_in.clone()))
    agent.update(batch(0))
    assert len(drawn) == 2 + double
    assert all(not torch.equal(one, other) for one, other in itertools.combinations(drawn, 2))


def test_a_checkpoint_of_another_network_is_refused() -> None:
    state = DQN(SPACES, DQNConfig(device="cpu")).state()
    with pytest.raises(rs.InvalidArgument, match="another network"):
        DQN(SPACES, DQNConfig(device="cpu", hidden=(64,))).restore(state)


def test_errors_are_distances_to_the_target_before_the_step() -> None:
    agent, data = DQN(SPACES, DQNConfig(device="cpu")), batch(1)
    with torch.no_grad():
        values = agent.online(torch.from_numpy(data.observation)).numpy()[np.arange(32), data.action]
        following = agent.online(torch.from_numpy(data.next_observation)).numpy().max(1)  # both networks are equal before the first step
    errors, figures = agent.update(data)
    assert errors == pytest.approx(np.abs(data.reward + data.discount * following - values), abs=1e-5)
    assert figures()["td_error"] == pytest.approx(errors.mean())


def test_weights_scale_what_an_item_teaches() -> None:
    data = batch(2)
    data["weights"][:] = 0
    agent = DQN(SPACES, DQNConfig(device="cpu"))
    before = to_arrays(agent.online)
    agent.update(data)
    assert all(np.array_equal(before[name], array) for name, array in to_arrays(agent.online).items())
    agent.update(data, weighted=False)
    assert any(not np.array_equal(before[name], array) for name, array in to_arrays(agent.online).items())


def test_actions_may_begin_above_zero() -> None:
    plain, shifted = DQN(SPACES, DQNConfig(device="cpu")), DQN(Spaces((4,), 2, 5), DQNConfig(device="cpu"))
    assert np.array_equal(plain.update(batch(3))[0], shifted.update(batch(3, first_action=5))[0])


def test_hard_targets_are_copied_when_due() -> None:
    agent = DQN(SPACES, DQNConfig(device="cpu", target_every=3))
    start = {name: tensor.clone() for name, tensor in agent.target.state_dict().items()}
    for i in range(2):
        agent.update(batch(i))
    assert equal(agent.target.state_dict(), start)
    agent.update(batch(2))
    assert equal(agent.target.state_dict(), agent.online.state_dict())


def test_soft_targets_move_by_tau() -> None:
    agent = DQN(SPACES, DQNConfig(device="cpu", tau=0.25))
    start = {name: tensor.clone() for name, tensor in agent.target.state_dict().items()}
    agent.update(batch(0))
    for name, tensor in agent.target.state_dict().items():
        assert torch.allclose(tensor, start[name] + 0.25 * (agent.online.state_dict()[name] - start[name]), atol=1e-7)


def test_parameters_travel_as_arrays() -> None:
    one, other = build_network(describe_network((4,), 2, (8,))), build_network(describe_network((4,), 2, (8,)))
    from_arrays(other, {**to_arrays(one), "control.stop": np.zeros(1, np.float32)})
    assert equal(one.state_dict(), other.state_dict())


@pytest.mark.parametrize("space", [{"kind": "MultiDiscrete"}, {"kind": "Box", "low": -1.0, "high": 1.0}])
def test_a_table_that_dqn_cannot_use_is_refused(space: dict[str, Any]) -> None:
    table = rs.TableConfig(columns={"observation": rs.Column((3,)), "action": rs.Column((1,), "float32", space)})
    with pytest.raises(rs.InvalidArgument, match="Discrete"):
        DQN(spaces_of(table), DQNConfig(device="cpu"))
