"""Networks: bodies by what they read, heads against their definitions, and that plain JSON builds them again."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import replaystore as rs
from replaystore_agents.trunk.heads import NoisyLinear, build_network, describe_network, dueling
from replaystore_agents.trunk.networks import Body, describe_body, from_arrays, to_arrays

BODIES: list[tuple[tuple[int, ...], dict[str, Any], str]] = [
    ((4,), {}, "mlp"),
    ((3, 4), {}, "mlp"),
    ((4, 84, 84), {}, "nature"),
    ((4, 3, 40, 36), {}, "nature"),
    ((6, 10, 10), {}, "small"),
    ((2, 16, 24), {"kind": "impala"}, "impala"),
    ((), {"observations": 16}, "embedding"),
    ((3,), {"observations": 16, "first_observation": 5}, "embedding"),
]


@pytest.mark.parametrize(("shape", "options", "kind"), BODIES)
def test_bodies_read_what_they_are_for(shape: tuple[int, ...], options: dict[str, Any], kind: str) -> None:
    description = describe_body(shape, (8,), **options)
    assert description["kind"] == kind
    low = options.get("first_observation", 0)
    seen = torch.randint(low, low + 16, (5, *shape))
    assert Body(description)(seen).shape == (5, 8)


def test_bytes_of_images_are_shares_and_other_numbers_stay() -> None:
    body = Body(describe_body((1, 6, 6), ()))
    ones = torch.ones(2, 1, 6, 6)
    assert torch.allclose(body(ones), body((255 * ones).to(torch.uint8)))
    assert torch.equal(body(ones), body(ones.bool()))


@pytest.mark.parametrize(
    ("shape", "options", "match"),
    [((4,), {"kind": "nature"}, "at least 36 x 36"), ((4,), {"kind": "big"}, "auto or one of"), ((4,), {"kind": "embedding"}, "Discrete")],
)
def test_bodies_say_what_they_do_not_read(shape: tuple[int, ...], options: dict[str, Any], match: str) -> None:
    with pytest.raises(rs.InvalidArgument, match=match):
        describe_body(shape, (), **options)


def test_dueling_scores_differ_from_the_value_by_advantages_of_mean_zero() -> None:
    value, advantage = torch.randn(7, 1, 3), torch.randn(7, 4, 3)
    scores = dueling(value, advantage)
    torch.testing.assert_close(scores.mean(1), value[:, 0])
    torch.testing.assert_close(scores[:, 2] - scores[:, 1], advantage[:, 2] - advantage[:, 1])


def test_scores_of_a_distribution_are_its_means() -> None:
    network = build_network(describe_network((3,), 2, (8,), atoms=5, v_min=-2.0, v_max=2.0))
    seen = torch.randn(6, 3)
    probabilities = network(seen).softmax(-1)
    assert probabilities.shape == (6, 2, 5)
    torch.testing.assert_close(network.scores(seen), (probabilities * torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0])).sum(-1))


def test_noise_is_that_of_the_paper() -> None:
    layer = NoisyLinear(6, 4, sigma=0.5)
    bound = 6**-0.5
    assert float(layer.weight.detach().abs().max()) <= bound
    assert torch.equal(layer.weight_sigma, torch.full((4, 6), 0.5 * bound))
    features, drawn = torch.randn(3, 6), []
    torch.manual_seed(0)
    for _ in range(4000):
        layer.draw_noise()
        drawn.append(torch.outer(layer.noise_out, layer.noise_in).flatten())
    noise = torch.stack(drawn)
    # E f(a)² = E|a| = √(2/π), so a product has variance 2/π and, by E|a|² = 1, fourth moment 1. Over 24 places a mean is further off than
    # 6 of its deviations in less than one of 10⁷ seeds; the mean of all variances is far more certain than 5 %.
    assert float(noise.mean(0).abs().max()) < 6 * (2 / np.pi / len(noise)) ** 0.5
    assert float(noise.square().mean()) == pytest.approx(2 / np.pi, rel=0.05)
    assert float((noise[:, 0] * noise[:, 7]).mean()) == pytest.approx(0.0, abs=0.05)
    weight = layer.weight + layer.weight_sigma * torch.outer(layer.noise_out, layer.noise_in)
    bias = layer.bias + layer.bias_sigma * layer.noise_out
    torch.testing.assert_close(layer(features), torch.nn.functional.linear(features, weight, bias))
    layer.eval()
    torch.testing.assert_close(layer(features), torch.nn.functional.linear(features, layer.weight, layer.bias))


def test_noise_from_a_generator_repeats_itself() -> None:
    one, other = (build_network(describe_network((3,), 2, (8,), noisy=True, dueling=True)) for _ in range(2))
    from_arrays(other, to_arrays(one))
    seen = torch.randn(5, 3)
    one.draw_noise(np.random.default_rng(1))
    other.draw_noise(np.random.default_rng(1))
    assert torch.equal(one(seen), other(seen))
    other.draw_noise(np.random.default_rng(2))
    assert not torch.equal(one(seen), other(seen))


@pytest.mark.parametrize("head", [{}, {"dueling": True}, {"noisy": True}, {"dueling": True, "noisy": True, "atoms": 11}])
def test_a_description_builds_the_same_network(head: dict[str, Any]) -> None:
    description = describe_network((4,), 3, (8, 6), **head)
    one, other = build_network(description), build_network(description)
    from_arrays(other, to_arrays(one))
    seen = torch.randn(5, 4)
    one.eval(), other.eval()
    assert one.scores(seen).shape == (5, 3)
    assert torch.equal(one.scores(seen), other.scores(seen))


def test_impossible_atoms_are_refused() -> None:
    with pytest.raises(rs.InvalidArgument, match="at least 2 atoms"):
        describe_network((4,), 3, atoms=1)
    with pytest.raises(rs.InvalidArgument, match="v_min below v_max"):
        describe_network((4,), 3, atoms=51, v_min=1.0, v_max=1.0)
