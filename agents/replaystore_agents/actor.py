"""An actor: plays a vector environment with the newest published policy and writes every step. Shares nothing with the learner but the
server: what the policy is, it is told with the weights. Knows the public client verbs; nothing of how policies are learned.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any

import gymnasium
import numpy as np
import torch

import replaystore as rs
from replaystore_agents.algorithms.policies import STOP, Policy, build_policy, description_in
from replaystore_agents.trunk.environments import fitted, make_vec
from replaystore_agents.trunk.frames import FrameStacks
from replaystore_agents.trunk.hyper import hyper
from replaystore_agents.trunk.schedules import apex_epsilon

BLOCK_STEPS = 8
"""Vector steps between flushes. A flush waits for the acknowledgement: an actor runs no further ahead of the rate limiter than this."""

RETRY_S = 1.0
"""How long one call waits for the rate limiter before the actor looks whether it should stop."""


@dataclass(frozen=True, slots=True)
class PlayConfig:
    """How environments are played."""

    num_envs: int = hyper(4, "Environments played side by side.")
    seed: int = hyper(0, "Of environments and exploration; the actor's number is mixed in.")
    epsilon_start: float = hyper(1.0, "Share of random actions at the first step (Mnih et al. 2015).")
    epsilon_end: float = hyper(0.05, "And after the last annealed step.")
    epsilon_steps: int = hyper(5_000, "Steps of this actor over which epsilon falls linearly.")
    apex_actors: int = hyper(0, "With N: a constant epsilon per actor out of N, as in Ape-X (Horgan et al. 2018); 0: the falling one.")
    random_steps: int = hyper(0, "Steps of this actor played with random actions first (Fujimoto et al. 2018: 25000; SAC: 10000).")
    life_loss: bool = hyper(False, "Atari: a lost life ends the episode for the learner (Mnih et al. 2015).")


@dataclass(frozen=True, slots=True)
class ActorConfig(PlayConfig):
    """How an actor of its own plays, and what it does about the server."""

    noise: float = hyper(1.0, "Continuous actions: the policy's own noise, times this (1: as the algorithm means it).")
    pull_every: int = hyper(16, "Vector steps between looks for newer weights.")
    max_steps: int = hyper(0, "Stops after so many steps; 0 plays until told to stop.")
    patience_s: float = hyper(120.0, "Gives up when the rate limiter lets nothing through for so long.")


@dataclass(frozen=True, slots=True)
class ActorResult:
    """What an actor did, and why it ended."""

    steps: int
    episodes: int
    policy_version: int
    ended: str
    """``"max_steps"``, ``"told to stop"`` (by the learner) or ``"interrupted"``."""


def act(
    api: Any,
    table: str,
    env: str,
    actor: int,
    config: ActorConfig,
    *,
    policy: str = "policy",
    stopping: Callable[[], bool] = lambda: False,
    report: Callable[[str], None] = lambda text: None,
) -> ActorResult:
    """Plays until `config.max_steps`, until the learner says stop, or until `stopping` is True.

    Args:
        api: a `replaystore_client.Client`, or an open store.
        table: its name; waits up to `config.patience_s` for it to be created.
        env: Gymnasium id.
        actor: this actor's number, kept with its steps.
        config: how to play.
        policy: name of the parameter set.
        stopping: asked at every vector step.
        report: called with a line of text when something worth telling happens.

    Raises:
        NotReady: the rate limiter let nothing through for `patience_s`.
        StorageError, DeadlineExceeded: the server is gone.
    """
    torch.set_num_threads(1)
    with closing(make_vec(env, config.num_envs, **({"life_loss": True} if config.life_loss else {}))) as envs:
        if not _wait_for_table(api, table, config.patience_s, stopping):
            return ActorResult(0, 0, -1, "interrupted")
        return _play(api, table, env, envs, actor, config, policy, stopping, report)


def _play(
    api: Any, table: str, env: str, envs: Any, actor: int, config: ActorConfig, policy: str, stopping: Callable[[], bool],
    report: Callable[[str], None],
) -> ActorResult:  # fmt: skip
    mind = _Fetched(api, policy, action_space(envs, env), config.num_envs, np.random.default_rng([config.seed, actor]))
    patience = partial(_patiently, patience_s=config.patience_s, stopping=lambda: mind.hears_stop() or stopping(), report=report)
    writer = api.writer(table, streams=config.num_envs, actor=actor, block_rows=BLOCK_STEPS * config.num_envs, timeout_s=RETRY_S)
    ended = "interrupted"
    try:
        player = Player(envs, mind, writer, actor, config, config.noise)
        for count in range(1 << 62):
            if count % config.pull_every == 0:
                mind.pull()
                writer.policy_version = mind.version
            if mind.told_to_stop or stopping():
                ended = "told to stop" if mind.told_to_stop else "interrupted"
                break
            if 0 < config.max_steps <= player.steps:
                ended = "max_steps"
                break
            player.step(patience)
            if (count + 1) % BLOCK_STEPS == 0:
                patience(partial(writer.flush, timeout_s=RETRY_S))
    finally:
        try:
            writer.close(timeout_s=RETRY_S)
        except rs.ReplayStoreError as error:
            report(f"the last few steps were not taken: {error}")
    return ActorResult(player.steps, player.episodes, mind.version, ended)


def action_space(envs: Any, env: str) -> gymnasium.spaces.Discrete[Any] | gymnasium.spaces.Box:
    """That of one of the environments. InvalidArgument when actors cannot play it."""
    if envs.metadata.get("autoreset_mode") is not gymnasium.vector.AutoresetMode.NEXT_STEP:
        raise rs.InvalidArgument(
            f"{env}: the actor plays vector environments with next-step autoreset; RecordExperience records every mode"
        )
    space = envs.single_action_space
    if not isinstance(space, gymnasium.spaces.Discrete | gymnasium.spaces.Box):
        raise rs.InvalidArgument(f"{env}: the actor needs a Discrete or Box action space, got {space}")
    return space


class Player:
    """Plays a vector environment, one step of all environments at a time, and hands what happened to a writer."""

    def __init__(self, envs: Any, mind: Mind, writer: Any, actor: int, config: PlayConfig, noise: float = 1.0) -> None:
        """Resets the environments, with a seed of the actor's own. `noise` is the scale of a continuous policy's own."""
        self._envs, self._mind, self._writer, self._actor, self._config, self._noise = envs, mind, writer, actor, config, noise
        self._discrete = isinstance(envs.single_action_space, gymnasium.spaces.Discrete)
        self._falling = rs.Linear(config.epsilon_start, config.epsilon_end, max(config.epsilon_steps, 0))
        self.steps = self.episodes = 0
        observations, _ = envs.reset(seed=int(np.random.SeedSequence([config.seed, actor]).generate_state(1)[0]))
        for stream in range(config.num_envs):
            writer.reset(_one(observations, stream), stream=stream)
        mind.see(observations, np.ones(config.num_envs, bool))
        self._over = np.zeros(config.num_envs, bool)

    def step(self, write: Callable[[Callable[[], Any]], None]) -> None:
        """One step of each environment; `write` is given what appends it."""
        mind, over = self._mind, self._over
        actions = mind.random() if self.steps < self._config.random_steps else mind.choose(self._exploration())
        observations, rewards, terminated, truncated, _ = self._envs.step(actions)
        # After an episode's end the environment ignores one action and resets: that row is a first observation, not a step.
        write(partial(self._writer.append_batch, actions, rewards, terminated, truncated, observations, reset_mask=over))
        mind.see(observations, over)
        self.steps += int((~over).sum())
        self._over = terminated | truncated
        self.episodes += int(self._over.sum())

    def _exploration(self) -> float:
        """The share of random actions, or how much of the policy's own noise."""
        config = self._config
        if not self._discrete:
            return self._noise
        return apex_epsilon(self._actor, config.apex_actors) if config.apex_actors else self._falling(self.steps)


class Mind:
    """A policy, what it has seen, and exploration."""

    def __init__(self, space: gymnasium.spaces.Discrete[Any] | gymnasium.spaces.Box, envs: int, rng: np.random.Generator) -> None:
        self._space, self._envs, self._rng = space, envs, rng
        self._policy: Policy | None = None
        self._stacks = FrameStacks()

    def take(self, policy: Policy) -> None:
        """From now on this one chooses."""
        self._policy = policy
        self._stacks.frames = policy.frames

    def see(self, observations: Any, first: Any) -> None:
        """Observations of all environments, and which of them begin an episode ``(environments,)``."""
        self._stacks.push(observations, first)

    def choose(self, explore: float) -> Any:
        """Actions ``(environments, ...)`` for what was last seen; random ones until there is a policy."""
        if self._policy is None:
            return self.random()
        return fitted(self._policy.act(self._stacks.newest(), self._rng, explore), self._space)

    def random(self) -> Any:
        """Uniform actions ``(environments, ...)``."""
        if isinstance(self._space, gymnasium.spaces.Discrete):
            first = int(self._space.start)
            return self._rng.integers(first, first + int(self._space.n), self._envs)
        low, high = np.broadcast_arrays(self._space.low, self._space.high)
        return self._rng.uniform(low, high, (self._envs, *self._space.shape)).astype(self._space.dtype)


class _Fetched(Mind):
    """A mind with the newest published weights, and their version."""

    def __init__(self, api: Any, name: str, *own: Any) -> None:
        super().__init__(*own)
        self._api, self._name = api, name
        self.version = -1
        self.told_to_stop = False
        found = api.fetch_parameters(name, newer_than=0)
        if found is not None and STOP in found[0]:
            self._seen = found[1]  # an earlier run's farewell is not meant for this actor
        else:
            self._seen = 0

    def pull(self) -> None:
        """Takes newer weights if there are any.

        Raises:
            InvalidArgument: they do not say what policy they are of.
        """
        found = self._api.fetch_parameters(self._name, newer_than=self._seen)
        if found is None:
            return
        arrays, self._seen = found
        if STOP in arrays:
            self.told_to_stop = True
            return
        description = description_in(arrays)
        if description is None:
            raise rs.InvalidArgument(f"the parameters {self._name!r} do not describe their policy: publish `publishable(policy)`")
        if self._policy is None or self._policy.describe() != description:  # another: of a learner that was started with other options
            self.take(build_policy(description))
        assert self._policy is not None
        self._policy.load(arrays)
        self.version = self._seen

    def hears_stop(self) -> bool:
        """Looks for news, for an actor that is kept waiting."""
        self.pull()
        return self.told_to_stop


def _one(observations: Any, stream: int) -> Any:
    if isinstance(observations, dict):
        return {name: part[stream] for name, part in observations.items()}
    return observations[stream]


def _patiently(send: Callable[[], Any], patience_s: float, stopping: Callable[[], bool], report: Callable[[str], None]) -> None:
    """Waits until the table has taken the steps; the rate limiter may hold them back for as long as the learner needs."""
    deadline = time.monotonic() + patience_s
    while True:
        try:
            send()
            return
        except (rs.NotReady, rs.DeadlineExceeded, rs.Overloaded) as blocked:
            if stopping():
                return
            report(f"waiting: {blocked}")
            if time.monotonic() > deadline:
                raise


def _wait_for_table(api: Any, table: str, patience_s: float, stopping: Callable[[], bool]) -> bool:
    """Whether it is there; False when stopping."""
    deadline = time.monotonic() + patience_s
    while table not in api.tables():
        if stopping():
            return False
        if time.monotonic() > deadline:
            raise rs.NotFound(f"table {table!r} did not appear within {patience_s} s: start `replaystore-agents train`, which creates it")
        time.sleep(0.2)
    return True
