"""The learning target: by hand, and from a table whose every n-step window can be worked out by hand."""

from pathlib import Path

import numpy as np
import pytest
import torch

import replaystore as rs
from replaystore_agents.algorithms.dqn import double_dqn_target

GAMMA = 0.5


def test_online_network_chooses_and_target_network_values() -> None:
    next_online = torch.tensor([[1.0, 2.0], [5.0, 3.0], [0.0, 1.0]])
    next_target = torch.tensor([[10.0, 20.0], [30.0, 40.0], [50.0, 60.0]])
    target = double_dqn_target(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.5, 0.25, 0.0]), next_online, next_target)
    assert target.tolist() == [1.0 + 0.5 * 20.0, 2.0 + 0.25 * 30.0, 3.0]


@pytest.mark.parametrize("terminated", [True, False])
def test_n_step_targets_from_a_table(tmp_path: Path, terminated: bool) -> None:
    # Four steps with rewards 1, 2, 4, 8; then the end. Q(s) of both networks is the observation's number, for both actions.
    rewards = [1.0, 2.0, 4.0, 8.0]
    columns = {"observation": rs.Column((1,), "float32"), "action": rs.Column((), "int64", {"kind": "Discrete", "n": 2})}
    with rs.open(tmp_path / "data") as store:
        store.create_table("t", rs.TableConfig(columns=columns))
        with store.writer("t") as writer:
            writer.reset(np.array([100.0], np.float32))
            for t, reward in enumerate(rewards):
                last = t == len(rewards) - 1
                writer.append(t % 2, reward, last and terminated, last and not terminated, np.array([101.0 + t], np.float32))
        batch = store.sample("t", 200, view=rs.Transition(n_step=3, gamma=GAMMA), seed=1)
    values = torch.from_numpy(np.repeat(batch.next_observation, 2, axis=1))
    targets = double_dqn_target(torch.from_numpy(batch.reward.copy()), torch.from_numpy(batch.discount.copy()), values, values)
    end = 0.0 if terminated else 104.0
    by_hand = {
        100.0: 1 + GAMMA * 2 + GAMMA**2 * 4 + GAMMA**3 * 103,
        101.0: 2 + GAMMA * 4 + GAMMA**2 * 8 + GAMMA**3 * end,
        102.0: 4 + GAMMA * 8 + GAMMA**2 * end,
        103.0: 8 + GAMMA * end,
    }
    seen = dict(zip(batch.observation[:, 0].tolist(), targets.tolist(), strict=True))
    assert seen == pytest.approx(by_hand)
