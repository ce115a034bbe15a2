"""The actor on an embedded store: what it writes, and when it stops."""

import threading
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

import replaystore as rs
from replaystore_agents.actor import ActorConfig, ActorResult, _Fetched, act
from replaystore_agents.algorithms.base import Spaces
from replaystore_agents.algorithms.dqn import DQN, DQNConfig
from replaystore_agents.algorithms.policies import STOP, publishable
from replaystore_agents.trunk.heads import build_network, describe_network
from replaystore_agents.trunk.networks import to_arrays

ENV = "CartPole-v1"


@pytest.fixture
def store(tmp_path: Path) -> Any:
    env = gymnasium.make(ENV)
    with rs.open(tmp_path / "data") as opened:
        opened.create_table("t", rs.TableConfig(columns=rs.columns_from_env(env)))
        env.close()
        yield opened


def test_it_writes_every_step_and_no_reset(store: Any) -> None:
    result = act(store, "t", ENV, 7, ActorConfig(num_envs=3, max_steps=200, epsilon_end=1.0))
    stats = store.stats("t")
    assert result.ended == "max_steps"
    assert 200 <= result.steps == stats.inserted_steps
    assert result.episodes > 3
    rows = store.read_steps("t", 0, stats.next_step)
    steps = rows["meta/kind"] == 0
    assert (rows["reward"][steps] == 1).all()  # the vector environment gives 0 when it resets
    assert set(rows["meta/actor"].tolist()) == {7}
    assert set(rows["meta/policy_version"].tolist()) == {-1}
    ends = store.episodes("t")
    assert (ends["return"] == ends["length"]).all()
    # each stored step leads where CartPole's own equations lead
    following = {int(p): i for i, p in enumerate(rows["meta/previous"]) if p >= 0}
    some = [i for i in np.flatnonzero(steps) if int(rows["step_id"][i]) in following][:50]
    env: Any = gymnasium.make(ENV).unwrapped
    env.reset(seed=0)
    for i in some:
        env.state = tuple(rows["observation"][i].astype(np.float64))
        env.steps_beyond_terminated = None
        after = env.step(int(rows["action"][i]))[0]
        assert rows["observation"][following[int(rows["step_id"][i])]] == pytest.approx(after, abs=1e-4)
    assert len(some) == 50
    env.close()


def test_steps_carry_the_version_of_the_weights_that_chose_them(store: Any) -> None:
    weights = publishable(DQN(Spaces((4,), 2), DQNConfig(device="cpu", hidden=(16,))).policy())
    for _ in range(3):
        version = store.publish_parameters("policy", weights)
    result = act(store, "t", ENV, 0, ActorConfig(num_envs=2, max_steps=300, pull_every=4))
    versions = store.read_steps("t", 0, store.stats("t").next_step, columns=["meta/policy_version"])["meta/policy_version"]
    assert result.policy_version == version == 3
    assert set(versions.tolist()) == {3}


def test_a_stop_ends_it_but_not_one_from_before_its_time(store: Any) -> None:
    weights = {**publishable(DQN(Spaces((4,), 2), DQNConfig(device="cpu")).policy()), STOP: np.ones(1, np.uint8)}
    store.publish_parameters("policy", weights)
    assert act(store, "t", ENV, 0, ActorConfig(num_envs=2, max_steps=100)).ended == "max_steps"
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(act(store, "t", ENV, 0, ActorConfig(num_envs=2))))
    thread.start()
    while store.stats("t").inserted_steps < 300:
        thread.join(0.01)
        assert thread.is_alive()
    store.publish_parameters("policy", weights)
    thread.join(120)
    assert results[0].ended == "told to stop"


def test_a_blocked_actor_says_why_and_gives_up_in_the_end(store: Any) -> None:
    limiter = rs.SampleToInsertRatio(samples_per_insert=1.0, min_size_to_sample=10, error_buffer=50)
    store.alter_table("t", rate_limiter=limiter)
    heard: list[str] = []
    with pytest.raises(rs.NotReady, match="holds inserts back"):
        act(store, "t", ENV, 0, ActorConfig(num_envs=2, patience_s=0.5), report=heard.append)
    assert any("learners must sample" in text for text in heard)


def test_an_interrupt_closes_the_open_episodes(store: Any) -> None:
    asked = iter([False] * 5 + [True] * 100)
    result = act(store, "t", ENV, 0, ActorConfig(num_envs=2), stopping=lambda: next(asked))
    assert result.ended == "interrupted"
    assert store.stats("t").open_episodes == 0
    assert store.stats("t").inserted_steps == result.steps == 10


def test_without_a_table_it_says_who_makes_it(tmp_path: Path) -> None:
    with rs.open(tmp_path / "other") as empty, pytest.raises(rs.NotFound, match="replaystore-agents train"):
        act(empty, "t", ENV, 0, ActorConfig(patience_s=0.1))


def test_continuous_actions_are_played_at_random_until_there_is_a_policy(store: Any) -> None:
    env = gymnasium.make("Pendulum-v1")
    store.create_table("swings", rs.TableConfig(columns=rs.columns_from_env(env)))
    env.close()
    result = act(store, "swings", "Pendulum-v1", 0, ActorConfig(num_envs=2, max_steps=60))
    actions = store.read_steps("swings", 0, result.steps, columns=["action"])["action"]
    assert actions.dtype == np.float32
    assert actions.min() < -1 < 1 < actions.max()
    assert np.abs(actions).max() <= 2


def test_weights_that_do_not_say_what_they_are_of_are_refused(store: Any) -> None:
    store.publish_parameters("policy", to_arrays(build_network(describe_network((4,), 2))))
    with pytest.raises(rs.InvalidArgument, match="do not describe their policy"):
        act(store, "t", ENV, 0, ActorConfig(num_envs=2, max_steps=300, pull_every=1))


def test_another_policy_takes_the_place_of_the_first(store: Any) -> None:
    mind = _Fetched(store, "policy", gymnasium.spaces.Discrete(2), 3, np.random.default_rng(0))
    mind.see(np.zeros((3, 4), np.float32), np.ones(3, bool))
    for version, (spaces, hidden) in enumerate([(Spaces((4,), 2), (8,)), (Spaces((4,), 2), (16,)), (Spaces((2, 4), 2, frames=2), (8,))], 1):
        store.publish_parameters("policy", publishable(DQN(spaces, DQNConfig(device="cpu", hidden=hidden)).policy()))
        mind.pull()
        assert mind.choose(0.0).shape == (3,)
        assert mind.version == version


def test_a_table_of_another_environment_is_refused_and_nothing_stays_open(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    writers: list[Any] = []
    monkeypatch.setattr(store, "writer", lambda *args, make=store.writer, **options: writers.append(make(*args, **options)) or writers[-1])
    with pytest.raises(rs.InvalidArgument, match="observation"):
        act(store, "t", "Acrobot-v1", 0, ActorConfig(num_envs=2))
    with pytest.raises(rs.InvalidArgument, match="closed"):
        writers[0].reset(np.zeros(4, np.float32))


def test_an_unknown_environment_is_named_before_a_table_is_waited_for(store: Any) -> None:
    with pytest.raises(rs.InvalidArgument, match="CartPoles"):
        act(store, "none", "CartPoles-v1", 0, ActorConfig(patience_s=600))


def test_an_interrupt_ends_the_wait_for_a_table(store: Any) -> None:
    assert act(store, "none", ENV, 0, ActorConfig(patience_s=600), stopping=lambda: True) == ActorResult(0, 0, -1, "interrupted")


def test_an_append_that_the_limiter_holds_back_is_made_again(store: Any) -> None:
    class Held:
        """A writer of which every third append is refused once."""

        def __init__(self, writer: Any) -> None:
            self.writer, self.calls = writer, 0

        def __getattr__(self, name: str) -> Any:
            return getattr(self.writer, name)

        def append_batch(self, *args: Any, **options: Any) -> Any:
            self.calls += 1
            if self.calls % 3 == 0:
                raise rs.NotReady("the limiter holds inserts back")
            return self.writer.append_batch(*args, **options)

    class Api:
        def __getattr__(self, name: str) -> Any:
            return getattr(store, name)

        def writer(self, *args: Any, **options: Any) -> Any:
            return Held(store.writer(*args, **options))

    said: list[str] = []
    result = act(Api(), "t", ENV, 0, ActorConfig(num_envs=2, max_steps=60), report=said.append)
    assert result.steps == store.stats("t").inserted_steps >= 60
    assert len(said) >= 10


def test_a_policy_of_stacked_frames_gets_them_from_the_actor(store: Any) -> None:
    agent = DQN(Spaces((3, 4), 2, frames=3), DQNConfig(device="cpu", hidden=(8,), noisy=True))
    store.publish_parameters("policy", publishable(agent.policy()))
    result = act(store, "t", ENV, 0, ActorConfig(num_envs=2, max_steps=80, pull_every=4))
    assert result.policy_version == 1
    rows = store.read_steps("t", 0, 1 << 40, columns=["observation", "meta/policy_version"])
    assert rows["observation"].shape[1:] == (4,)
    assert set(rows["meta/policy_version"].tolist()) <= {-1, 1}


def test_random_steps_come_first(store: Any) -> None:
    agent = DQN(Spaces((4,), 2), DQNConfig(device="cpu", hidden=(8,)))
    store.publish_parameters("policy", publishable(agent.policy()))
    config: dict[str, Any] = {"num_envs": 4, "epsilon_start": 0.0, "epsilon_end": 0.0, "pull_every": 1}
    act(store, "t", ENV, 0, ActorConfig(**config, random_steps=400, max_steps=400))
    rows = store.read_steps("t", 0, 1 << 40, columns=["action", "meta/kind"])
    share = float(rows["action"][rows["meta/kind"] == 0].mean())
    assert abs(share - 0.5) < 6 * 0.5 / 400**0.5
