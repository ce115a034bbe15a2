"""DDPG, TD3 and SAC: targets by hand, densities against torch's, exact continuation, and a small task that SAC solves."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import distributions as td

import replaystore as rs
from replaystore_agents.algorithms.base import Spaces
from replaystore_agents.algorithms.continuous import ActorCritic, Bounds, GaussianActor, describe_actor, squashed
from replaystore_agents.algorithms.ddpg import DDPG, DDPGConfig
from replaystore_agents.algorithms.policies import build_policy, description_in, publishable
from replaystore_agents.algorithms.sac import SAC, SACConfig, sac_target, temperature_loss
from replaystore_agents.algorithms.td3 import TD3, TD3Config, smoothed, td3_target

SPACES = Spaces((3,), 0, action_shape=(2,), action_low=-2.0, action_high=6.0)
SMALL: dict[str, Any] = {"device": "cpu", "hidden": (16, 16), "seed": 4}
KINDS: list[tuple[Any, Any]] = [(DDPG, DDPGConfig), (TD3, TD3Config), (SAC, SACConfig)]
every_kind = pytest.mark.parametrize(("kind", "config"), KINDS, ids=["ddpg", "td3", "sac"])


def data(seed: int, size: int = 24, shape: tuple[int, ...] = (3,)) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    normal = torch.randn(2, size, *shape, generator=generator)
    uniform = torch.rand(4, size, generator=generator)
    return {
        "observation": normal[0],
        "next_observation": normal[1],
        "action": torch.stack([8 * uniform[0] - 2, 8 * uniform[1] - 2], 1),
        "reward": uniform[2] - 0.5,
        "discount": torch.where(uniform[3] < 0.2, 0.0, 0.97),
        "weights": uniform[3],
    }


def weights_of(module: torch.nn.Module) -> torch.Tensor:
    return torch.nn.utils.parameters_to_vector(module.parameters()).detach().clone()


def test_densities_are_those_of_torch() -> None:
    generator = torch.Generator().manual_seed(0)
    mean, log_std, noise = torch.randn(3, 200, 4, generator=generator, dtype=torch.float64)
    action, density = squashed(mean, log_std, noise)
    reference = td.Independent(td.TransformedDistribution(td.Normal(mean, log_std.exp()), td.TanhTransform(cache_size=1)), 1)
    inside = (action.abs() < 0.999).all(1)  # further out torch finds its way back too roughly
    assert inside.sum() > 50
    assert torch.allclose(density[inside], reference.log_prob(action)[inside], atol=1e-6)


def test_densities_stay_exact_where_tanh_is_one() -> None:
    mean, log_std = torch.full((1, 1), 30.0), torch.zeros(1, 1)
    _, density = squashed(mean, log_std, torch.zeros(1, 1))
    assert density.item() == pytest.approx(-0.5 * math.log(2 * math.pi) - 2 * (math.log(2) - 30.0))  # log(1 − tanh²u) ≈ log 4 − 2u


def test_the_sac_target_is_that_of_a_plain_loop() -> None:
    generator = torch.Generator().manual_seed(1)
    reward, discount, density = torch.randn(3, 50, generator=generator, dtype=torch.float64)
    values = torch.randn(2, 50, generator=generator, dtype=torch.float64)
    got = sac_target(reward, discount, values, density, 0.3)
    for i in range(50):
        soft = min(float(values[0, i]), float(values[1, i])) - 0.3 * float(density[i])
        assert float(got[i]) == float(reward[i]) + float(discount[i]) * soft


def test_td3_smooths_and_takes_the_smaller_value() -> None:
    generator = torch.Generator().manual_seed(2)
    action = torch.rand(40, 2, generator=generator, dtype=torch.float64) * 2 - 1
    noise = torch.randn(40, 2, generator=generator, dtype=torch.float64) * 3
    got = smoothed(action, noise, 0.2, 0.5)
    for i in range(40):
        for j in range(2):
            cut = max(-0.5, min(0.5, 0.2 * float(noise[i, j])))
            assert float(got[i, j]) == max(-1.0, min(1.0, float(action[i, j]) + cut))
    values = torch.tensor([[1.0, -3.0], [2.0, -4.0]])
    assert td3_target(torch.tensor([0.5, 0.25]), torch.tensor([0.5, 0.0]), values).tolist() == [1.0, 0.25]


def test_too_little_entropy_raises_the_temperature() -> None:
    for density, sign in ((torch.tensor([3.0, 1.0]), 1.0), (torch.tensor([-9.0, -1.0]), -1.0)):  # entropies −2 and 5, wanted −1
        log_temperature = torch.zeros((), requires_grad=True)
        temperature_loss(log_temperature, density, target_entropy=-1.0).backward()
        assert log_temperature.grad is not None
        assert -log_temperature.grad.item() * sign > 0  # a step against the gradient
    agent = SAC(SPACES, SACConfig(**SMALL, target_entropy=50.0))  # more than two bounded dimensions can have
    for i in range(3):
        agent.learn(data(i), weighted=False)
    assert agent.temperature().item() > 1.0
    fixed = SAC(SPACES, SACConfig(**SMALL, tune_temperature=False, temperature=0.25))
    fixed.learn(data(0), weighted=False)
    assert fixed.temperature().item() == pytest.approx(0.25)
    with pytest.raises(rs.InvalidArgument, match="above 0"):
        SAC(SPACES, SACConfig(**SMALL, temperature=0.0))
    assert agent.target_entropy == 50.0
    assert fixed.target_entropy == -2.0


@every_kind
def test_a_restored_learner_goes_on_bit_by_bit(tmp_path: Path, kind: Any, config: Any) -> None:
    straight = kind(SPACES, config(**SMALL))
    for i in range(9):
        straight.learn(data(i), weighted=True)
    torch.save(straight.state(), tmp_path / "half.pt")
    errors = [straight.learn(data(i), weighted=True)[0] for i in range(9, 20)]
    resumed = kind(SPACES, config(**{**SMALL, "seed": 5}))
    resumed.restore(torch.load(tmp_path / "half.pt", weights_only=True))
    again = [resumed.learn(data(i), weighted=True)[0] for i in range(9, 20)]
    assert all(torch.equal(one, other) for one, other in zip(errors, again, strict=True))
    for name, part in straight.parts().items():
        if isinstance(part, torch.nn.Module):
            assert torch.equal(weights_of(part), weights_of(resumed.parts()[name])), name


@every_kind
def test_bootstrapping_stops_where_an_episode_terminates(tmp_path: Path, kind: Any, config: Any) -> None:
    columns = {"observation": rs.Column((3,), "float32"), "action": rs.Column((2,), "float32", {"kind": "Box", "low": -2.0, "high": 6.0})}
    rewards = [1.0, 2.0, 4.0]
    targets = {}
    for terminated in (True, False):
        with rs.open(tmp_path / str(terminated)) as store:
            store.create_table("t", rs.TableConfig(columns=columns))
            with store.writer("t") as writer:
                writer.reset(np.zeros(3, np.float32))
                for t, reward in enumerate(rewards):
                    last = t == 2
                    after = np.full(3, t + 1, np.float32)
                    writer.append(np.zeros(2, np.float32), reward, last and terminated, last and not terminated, after)
            agent = kind(SPACES, config(**SMALL, n_step=2, gamma=0.5, **({"temperature": 1e-9} if kind is SAC else {})))
            batch = store.sample("t", 60, seed=1, columns=agent.columns(), **agent.sampling()).to_torch()
        for critic in agent.target_critics.layers:
            torch.nn.init.zeros_(critic[-1].weight)
            torch.nn.init.constant_(critic[-1].bias, 10.0)
        got = agent.targets({name: batch[name] for name in ("next_observation", "reward", "discount")})
        targets[terminated] = dict(zip(batch["observation"][:, 0].tolist(), got.tolist(), strict=True))
    assert targets[True] == pytest.approx({0.0: 1 + 0.5 * 2 + 0.25 * 10, 1.0: 2 + 0.5 * 4, 2.0: 4})
    assert targets[False] == pytest.approx({0.0: 1 + 0.5 * 2 + 0.25 * 10, 1.0: 2 + 0.5 * 4 + 0.25 * 10, 2.0: 4 + 0.5 * 10})


@every_kind
def test_errors_are_distances_to_the_targets_before_the_step(kind: Any, config: Any) -> None:
    agent: ActorCritic = kind(SPACES, config(**SMALL))
    items = data(3)
    inward = (items["action"] - 2) / 4
    values = agent.critics(items["observation"], inward)
    random = torch.get_rng_state()
    with torch.no_grad():
        targets = agent.targets(items)
    torch.set_rng_state(random)
    errors, figures = agent.learn(items, weighted=False)
    assert torch.allclose(errors, (targets - values).abs().mean(0))
    assert figures()["td_error"] == pytest.approx(errors.mean().item())
    assert figures()["loss"] == pytest.approx((targets - values).square().sum(0).mean().item())


@every_kind
def test_weights_scale_what_an_item_teaches_the_critics(kind: Any, config: Any) -> None:
    items = data(2)
    items["weights"] = torch.zeros(24)
    agent = kind(SPACES, config(**SMALL))
    before = weights_of(agent.critics)
    agent.learn(items, weighted=True)
    assert torch.equal(before, weights_of(agent.critics))
    agent.learn(items, weighted=False)
    assert not torch.equal(before, weights_of(agent.critics))


@every_kind
def test_actors_climb_and_leave_critics_alone(kind: Any, config: Any) -> None:
    agent = kind(SPACES, config(**SMALL))
    items = {**data(5), "action": torch.zeros(24, 2)}
    before = weights_of(agent.critics)
    losses = []
    for _ in range(30):
        torch.manual_seed(0)
        losses.append(agent._learn_actor(items)["actor_loss"].item())
    assert torch.equal(before, weights_of(agent.critics))
    assert losses[-1] < losses[0]
    assert all(parameter.requires_grad for parameter in agent.critics.parameters())


def test_td3_waits_with_actor_and_targets() -> None:
    agent = TD3(SPACES, TD3Config(**SMALL, policy_delay=3))
    actor, critics = weights_of(agent.actor), weights_of(agent.target_critics)
    for i in range(2):
        agent.learn(data(i), weighted=False)
        assert torch.equal(actor, weights_of(agent.actor))
        assert torch.equal(critics, weights_of(agent.target_critics))
    agent.learn(data(2), weighted=False)
    assert not torch.equal(actor, weights_of(agent.actor))
    moved = critics + 0.005 * (weights_of(agent.critics) - critics)
    assert torch.allclose(moved, weights_of(agent.target_critics), atol=1e-6)
    assert torch.allclose(actor + 0.005 * (weights_of(agent.actor) - actor), weights_of(agent.target_actor), atol=1e-6)


def test_ddpg_cuts_targets_to_what_sparse_rewards_sum_to() -> None:
    items = {**data(1), "reward": torch.linspace(-200, 200, 24)}
    got = DDPG(SPACES, DDPGConfig(**SMALL, sparse=True, gamma=0.98)).targets(items)
    assert got.min().item() == pytest.approx(-50.0)
    assert got.max().item() == 0.0
    assert DDPG(SPACES, DDPGConfig(**SMALL, gamma=0.98)).targets(items).min().item() < -190


def test_bounds_lead_there_and_back() -> None:
    bounds = Bounds(-2.0, 6.0)
    assert bounds.outward(np.array([-1.0, 0.0, 1.0, 1.5])).tolist() == [-2.0, 2.0, 6.0, 6.0]
    assert bounds.inward(bounds.outward(torch.tensor([-0.25, 0.5]))).tolist() == [-0.25, 0.5]


@every_kind
def test_policies_build_themselves_from_what_is_published(kind: Any, config: Any) -> None:
    agent = kind(SPACES, config(**SMALL, max_grad_norm=1.0))
    agent.learn(data(0), weighted=False)
    arrays = publishable(agent.policy())
    description = description_in(arrays)
    assert description is not None
    policy = build_policy(description)
    policy.load(arrays)
    seen = np.random.default_rng(0).normal(size=(500, 3)).astype(np.float32)
    rng = np.random.default_rng(1)
    best = policy.act(seen, rng)
    assert (best.shape, best.dtype) == ((500, 2), np.float32)
    assert np.array_equal(best, agent.policy().act(seen, rng))
    assert np.array_equal(best, policy.act(seen, rng))
    noisy = policy.act(seen, rng, 1.0)
    assert ((noisy >= -2) & (noisy <= 6)).all()
    apart, less = np.abs(noisy - best).mean(), np.abs(policy.act(seen, rng, 0.1) - best).mean()
    assert 0 < less < apart / 3
    assert np.abs(policy.act(seen, rng, 100.0) - best).mean() > apart


def test_the_noise_of_a_deterministic_policy_has_its_scale() -> None:
    agent = DDPG(SPACES, DDPGConfig(**SMALL, noise=0.1))
    torch.nn.init.zeros_(agent.actor.last.weight)  # always the middle
    torch.nn.init.zeros_(agent.actor.last.bias)
    noise = agent.policy().act(np.zeros((20_000, 3), np.float32), np.random.default_rng(0), 0.5)
    assert noise.mean() == pytest.approx(2.0, abs=0.01)  # 10 standard errors, as the next one
    assert noise.std() == pytest.approx(0.5 * 0.1 * 4.0, rel=0.04)


def test_noise_that_wanders_is_an_ornstein_uhlenbeck_process() -> None:
    agent = DDPG(SPACES, DDPGConfig(**SMALL, noise=0.02, ou_theta=0.15))
    agent.actor.last.weight.data.zero_()
    agent.actor.last.bias.data.zero_()
    policy, seen, rng = agent.policy(), np.zeros((50, 3), np.float32), np.random.default_rng(0)
    noise = np.stack([(policy.act(seen, rng, 0.5) - 2.0) / (4.0 * 0.5) for _ in range(600)])[50:].reshape(550, -1)
    assert noise.std() == pytest.approx(0.02 / np.sqrt(1 - 0.85**2), rel=0.05)
    for lag in (1, 5):
        assert np.corrcoef(noise[:-lag].ravel(), noise[lag:].ravel())[0, 1] == pytest.approx(0.85**lag, abs=0.05)
    assert abs(np.corrcoef(noise[:, 0], noise[:, 1])[0, 1]) < 0.5  # each environment has its own
    assert policy.act(seen[:3], rng, 1.0).shape[0] == 3  # another number of environments begins anew
    assert "theta" not in DDPG(SPACES, DDPGConfig(**SMALL)).policy().describe()  # as checkpoints of before have it
    with pytest.raises(rs.InvalidArgument, match=r"ou_theta=1.5 must be from 0 to 1"):
        DDPG(SPACES, DDPGConfig(**SMALL, ou_theta=1.5))


@every_kind
def test_images_are_read_too(kind: Any, config: Any) -> None:
    spaces = Spaces((2, 10, 10), 0, frames=2, action_shape=(2,))
    agent = kind(spaces, config(**SMALL))
    items = data(1, shape=(2, 10, 10))
    errors, _ = agent.learn({**items, "observation": (items["observation"] > 0), "next_observation": items["observation"] > 0}, True)
    assert errors.shape == (24,)
    assert agent.policy().act(items["observation"].numpy(), np.random.default_rng(0)).shape == (24, 2)
    assert (agent.policy().frames, agent.view().frame_stack) == (2, 2)


@every_kind
def test_discrete_actions_are_refused(kind: Any, config: Any) -> None:
    with pytest.raises(rs.InvalidArgument, match="dqn"):
        kind(Spaces((3,), 2), config(**SMALL))


def test_a_checkpoint_of_another_algorithm_is_refused() -> None:
    state = TD3(SPACES, TD3Config(**SMALL)).state()
    with pytest.raises(rs.InvalidArgument, match="another network"):
        DDPG(SPACES, DDPGConfig(**SMALL)).restore(state)


def test_deviations_are_cut() -> None:
    actor = GaussianActor(describe_actor(SPACES, "gaussian", (8,)))
    torch.nn.init.constant_(actor.last.bias, 1e6)
    assert actor(torch.zeros(1, 3))[1].max().item() == 2.0
    torch.nn.init.constant_(actor.last.bias, -1e6)
    assert actor(torch.zeros(1, 3))[1].min().item() == -20.0


class Points:
    """Points on a line that earn −|x − 0.3| per step for 20 steps; an action moves by a fifth of it."""

    def __init__(self, count: int, rng: np.random.Generator) -> None:
        self.x = rng.uniform(-1, 1, (count, 1)).astype(np.float32)

    def step(self, actions: Any) -> Any:
        self.x = np.clip(self.x + np.float32(0.2) * actions, -1, 1)
        return -np.abs(self.x[:, 0] - 0.3)


def learn_points(folder: Path, rounds: int, seed: int = 0) -> tuple[list[float], torch.Tensor]:
    """Mean returns of 64 greedy episodes before and after, and the actor."""
    columns = {"observation": rs.Column((1,), "float32"), "action": rs.Column((1,), "float32", {"kind": "Box", "low": -1.0, "high": 2.0})}
    spaces = Spaces((1,), 0, action_shape=(1,), action_low=-1.0, action_high=2.0)
    agent = SAC(spaces, SACConfig(device="cpu", hidden=(32, 32), learning_rate=3e-3, tau=0.02, gamma=0.9, batch_size=64, seed=seed))
    policy, rng, none = agent.policy(), np.random.default_rng(7 + seed), np.zeros(8, bool)

    def evaluated() -> float:
        points = Points(64, np.random.default_rng(0))
        return float(np.mean([points.step(policy.act(points.x, rng)) for _ in range(20)]) * 20)

    returns = [evaluated()]
    with rs.open(folder) as store:
        store.create_table("line", rs.TableConfig(columns=columns, seed=1))
        with store.writer("line", streams=8, interval_s=1e6) as writer:  # blocks of the same rows every time
            for _ in range(rounds):
                points = Points(8, rng)
                for stream in range(8):
                    writer.reset(points.x[stream], stream=stream)
                for t in range(20):
                    actions = policy.act(points.x, rng, 1.0)
                    rewards = points.step(actions)
                    writer.append_batch(actions, rewards, none, none | (t == 19), points.x)
                writer.flush()
                for _ in range(40):
                    agent.learn(store.sample("line", 64, **agent.sampling()).to_torch(), weighted=False)
    return [*returns, evaluated()], weights_of(agent.actor)


def test_sac_learns_to_stand_still_where_it_earns_most(tmp_path: Path) -> None:
    (before, after), actor = learn_points(tmp_path / "one", 12)
    # The optimum is −0.35 on average: every point goes there by 0.2 or 0.4 per step. Where it begins, a point earns −11.
    assert before < -8
    assert after > -3
    assert actor.isfinite().all()


def test_the_same_seed_learns_the_same(tmp_path: Path) -> None:
    (one, actor), (other, again) = (learn_points(tmp_path / name, 3) for name in ("one", "other"))
    assert one == other
    assert torch.equal(actor, again)
