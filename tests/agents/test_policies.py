"""Policies: built from what is published, greedy or exploring."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import replaystore as rs
from replaystore_agents.algorithms.base import Spaces
from replaystore_agents.algorithms.policies import build_policy, description_in, publishable
from replaystore_agents.algorithms.registry import ALGORITHMS, settings
from replaystore_agents.online import OnlineConfig

DISCRETE, CONTINUOUS = Spaces((4,), 3, 5), Spaces((4,), 0, action_shape=(2,), action_low=-2.0, action_high=3.0)
KINDS = [(name, preset) for name in ALGORITHMS for preset in ("", *ALGORITHMS[name].presets) if not preset.startswith(("atari", "minatar"))]


def policy_of(name: str, preset: str, spaces: Spaces) -> Any:
    config, _ = settings(ALGORITHMS[name], preset, {"device": "cpu"}, OnlineConfig)
    return ALGORITHMS[name].kind_class(spaces, config).policy()


@pytest.mark.parametrize(("name", "preset"), KINDS)
@pytest.mark.parametrize("spaces", [DISCRETE, CONTINUOUS], ids=["discrete", "continuous"])
def test_an_actor_rebuilds_it_from_what_is_published(name: str, preset: str, spaces: Spaces) -> None:
    entry = ALGORITHMS[name]
    if not (entry.discrete if spaces.actions else entry.continuous):
        with pytest.raises(rs.InvalidArgument, match="actions"):
            policy_of(name, preset, spaces)
        return
    one = policy_of(name, preset, spaces)
    arrays = publishable(one)
    description = description_in(arrays)
    assert description is not None
    other = build_policy(description)
    other.load(arrays)
    seen = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    for explore in (0.0, 0.5):
        actions = one.act(seen, np.random.default_rng(3), explore)
        assert np.array_equal(actions, other.act(seen, np.random.default_rng(3), explore))
        assert actions.shape == (6, *spaces.action_shape)
        assert actions.min() >= (5 if spaces.actions else -2)
        assert actions.max() <= (7 if spaces.actions else 3)
    assert np.array_equal(one.act(seen, np.random.default_rng(8)), one.act(seen, np.random.default_rng(9)))


def test_epsilon_is_the_share_of_random_actions() -> None:
    """2^16 actions, of which 0.3 are drawn among 3: those unlike the best are 0.2, within 6 deviations (false positives 2e-9)."""
    policy = policy_of("dqn", "", DISCRETE)
    seen = np.zeros((1 << 16, 4), np.float32)
    best = policy.act(seen, np.random.default_rng(0))
    assert len(set(best.tolist())) == 1
    share = float((policy.act(seen, np.random.default_rng(1), 0.3) != best).mean())
    assert abs(share - 0.2) < 6 * (0.2 * 0.8 / len(seen)) ** 0.5


def test_noisy_networks_explore_by_their_noise() -> None:
    policy = policy_of("dqn", "noisy", DISCRETE)
    seen, rng = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32), np.random.default_rng(1)
    drawn = {tuple(policy.act(seen, rng, 0.1).tolist()) for _ in range(8)}
    assert len(drawn) > 1
    assert np.array_equal(policy.act(seen, rng), policy.act(seen, rng))


def test_what_is_no_policy_says_so() -> None:
    assert description_in({"weight": np.zeros(3)}) is None
    with pytest.raises(rs.InvalidArgument, match="'table' is not known"):
        build_policy({"kind": "table"})


def test_presets_are_joined_and_what_is_given_wins() -> None:
    config, loop = settings(ALGORITHMS["dqn"], "rainbow, minatar", {"atoms": 21, "min_size": 7}, OnlineConfig)
    assert (config.dueling, config.noisy, config.atoms, config.n_step, config.batch_size) == (True, True, 21, 3, 32)
    assert (loop.alpha, loop.min_size) == (0.5, 7)
    with pytest.raises(rs.InvalidArgument, match="'rainbows' is not known"):
        settings(ALGORITHMS["dqn"], "rainbows", {}, OnlineConfig)
    with pytest.raises(rs.InvalidArgument, match="has no --expectile"):
        settings(ALGORITHMS["dqn"], "", {"expectile": 0.5}, OnlineConfig)
