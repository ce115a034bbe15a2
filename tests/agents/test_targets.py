"""The learning target: by hand, and from a table whose every n-step window can be worked out by hand."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import replaystore as rs
from replaystore_agents.algorithms.cql import conservative_penalty
from replaystore_agents.algorithms.dqn import double_dqn_target, dqn_target, project, project_densely
from replaystore_agents.algorithms.iql import expectile_loss

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


def test_plain_dqn_values_what_it_chooses() -> None:
    following = torch.tensor([[1.0, 2.0], [5.0, 3.0]])
    target = dqn_target(torch.tensor([1.0, 2.0]), torch.tensor([0.5, 0.0]), torch.tensor([[9.0, 0.0], [0.0, 9.0]]), following)
    assert target.tolist() == [1.0 + 0.5 * 2.0, 2.0]


def naive_projection(reward: float, discount: float, probabilities: list[float], support: list[float]) -> list[float]:
    """Bellemare et al. (2017), algorithm 1, one atom at a time."""
    width = (support[-1] - support[0]) / (len(support) - 1)
    found = [0.0] * len(support)
    for probability, atom in zip(probabilities, support, strict=True):
        place = min((min(max(reward + discount * atom, support[0]), support[-1]) - support[0]) / width, len(support) - 1)
        below, above = math.floor(place), math.ceil(place)
        if below == above:
            found[below] += probability
        else:
            found[below] += probability * (above - place)
            found[above] += probability * (place - below)
    return found


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(2, 13))
def test_projections_are_those_of_the_paper(seed: int, atoms: int) -> None:
    rng = np.random.default_rng(seed)
    low = rng.normal(0, 5)
    support = np.linspace(low, low + rng.uniform(0.1, 10), atoms)
    reward, discount = rng.normal(0, 4, 6), rng.choice([0.0, 0.5, 0.99, 1.0], 6)
    reward[0], discount[0] = 0.0, 1.0  # every atom falls on itself
    probabilities = rng.dirichlet(np.ones(atoms), 6)
    given_ = [torch.from_numpy(array) for array in (reward, discount, probabilities, support)]
    expected = [naive_projection(*item, support.tolist()) for item in zip(reward, discount, probabilities.tolist(), strict=True)]
    found = project(*given_)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-9)
    np.testing.assert_allclose(found.sum(1).numpy(), 1.0, atol=1e-9)
    moved = (given_[0].unsqueeze(1) + given_[1].unsqueeze(1) * given_[3]).clamp(support[0], support[-1])
    dense = project_densely((moved - support[0]) / (support[1] - support[0]), given_[2])
    torch.testing.assert_close(dense, found, atol=1e-9, rtol=0)


def test_the_conservative_penalty_is_the_papers() -> None:
    scores, action = torch.randn(5, 3, dtype=torch.float64), torch.tensor([0, 1, 2, 1, 0])
    by_hand = [math.log(sum(math.exp(v) for v in row)) - row[a] for row, a in zip(scores.tolist(), action.tolist(), strict=True)]
    assert float(conservative_penalty(scores, action)) == pytest.approx(sum(by_hand) / 5)


def test_an_expectile_lies_where_the_weighted_errors_balance() -> None:
    sample = torch.tensor([0.0, 1.0, 2.0, 10.0], dtype=torch.float64)
    assert expectile_loss(torch.tensor([2.0, -2.0]), 0.9).tolist() == pytest.approx([3.6, 0.4])
    place = torch.tensor(0.0, dtype=torch.float64, requires_grad=True)
    for _ in range(2000):
        (slope,) = torch.autograd.grad(expectile_loss(sample - place, 0.5).mean(), place)
        place = (place - 0.1 * slope).detach().requires_grad_()
    assert float(place.detach()) == pytest.approx(3.25)  # the mean
