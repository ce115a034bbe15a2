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
class ActorConfig:
    """How an actor plays."""

    num_envs: int = hyper(4, "Environments played side by side.")
    seed: int = hyper(0, "Of environments and exploration; the actor's number is mixed in.")
    epsilon_start: float = hyper(1.0, "Share of random actions at the first step (Mnih et al. 2015).")
    epsilon_end: float = hyper(0.05, "And after the last annealed step.")
    epsilon_steps: int = hyper(5_000, "Steps of this actor over which epsilon falls linearly.")
    apex_actors: int = hyper(0, "With N: a constant epsilon per actor out of N, as in Ape-X (Horgan et al. 2018); 0: the falling one.")
    noise: float = hyper(1.0, "Continuous actions: the policy's own noise, times this (1: as the algorithm means it).")
    random_steps: int = hyper(0, "Steps of this actor played with random actions first (Fujimoto et al. 2018: 25000; SAC: 10000).")
    life_loss: bool = hyper(False, "Atari: a lost life ends the episode for the learner (Mnih et al. 2015).")
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
    if envs.metadata.get("autoreset_mode") is not gymnasium.vector.AutoresetMode.NEXT_STEP:
        raise rs.InvalidArgument(
            f"{env}: the actor plays vector environments with next-step autoreset; RecordExperience records every mode"
        )
    space = envs.single_action_space
    if not isinstance(space, gymnasium.spaces.Discrete | gymnasium.spaces.Box):
        raise rs.InvalidArgument(f"{env}: the actor needs a Discrete or Box action space, got {space}")
    mind = _Mind(api, policy, space, config.num_envs, np.random.default_rng([config.seed, actor]))
    writer = api.writer(table, streams=config.num_envs, actor=actor, block_rows=BLOCK_STEPS * config.num_envs, timeout_s=RETRY_S)
    falling = rs.Linear(config.epsilon_start, config.epsilon_end, max(config.epsilon_steps, 0))
    steps = episodes = 0
    ended = "interrupted"
    try:
        observations, _ = envs.reset(seed=int(np.random.SeedSequence([config.seed, actor]).generate_state(1)[0]))
        for stream in range(config.num_envs):
            writer.reset(_one(observations, stream), stream=stream)
        over = np.ones(config.num_envs, bool)
        mind.see(observations, over)
        over[:] = False
        for count in range(1 << 62):
            if count % config.pull_every == 0:
                mind.pull()
                writer.policy_version = mind.version
            if mind.told_to_stop or stopping():
                ended = "told to stop" if mind.told_to_stop else "interrupted"
                break
            if 0 < config.max_steps <= steps:
                ended = "max_steps"
                break
            if not isinstance(space, gymnasium.spaces.Discrete):
                explore = config.noise
            else:
                explore = apex_epsilon(actor, config.apex_actors) if config.apex_actors else falling(steps)
            actions = mind.random() if steps < config.random_steps else mind.choose(explore)
            observations, rewards, terminated, truncated, _ = envs.step(actions)
            # After an episode's end the environment ignores one action and resets: that row is a first observation, not a step.
            append = partial(writer.append_batch, actions, rewards, terminated, truncated, observations, reset_mask=over)
            _patiently(append, config.patience_s, lambda: mind.hears_stop() or stopping(), report)
            mind.see(observations, over)
            steps += int((~over).sum())
            over = terminated | truncated
            episodes += int(over.sum())
            if (count + 1) % BLOCK_STEPS == 0:
                flush = partial(writer.flush, timeout_s=RETRY_S)
                _patiently(flush, config.patience_s, lambda: mind.hears_stop() or stopping(), report)
    finally:
        try:
            writer.close(timeout_s=RETRY_S)
        except rs.ReplayStoreError as error:
            report(f"the last few steps were not taken: {error}")
    return ActorResult(steps, episodes, mind.version, ended)


class _Mind:
    """The policy as the actor has it: newest weights, their version, what it has seen, and exploration."""

    def __init__(self, api: Any, name: str, space: gymnasium.spaces.Discrete[Any] | gymnasium.spaces.Box, envs: int, rng: Any) -> None:
        self._api, self._name, self._space, self._envs, self._rng = api, name, space, envs, rng
        self._policy: Policy | None = None
        self._stacks = FrameStacks()
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
            self._policy = build_policy(description)
            self._stacks.frames = self._policy.frames
        self._policy.load(arrays)
        self.version = self._seen

    def hears_stop(self) -> bool:
        """Looks for news, for an actor that is kept waiting."""
        self.pull()
        return self.told_to_stop

    def see(self, observations: Any, first: Any) -> None:
        """Observations of all environments, and which of them begin an episode ``(environments,)``."""
        self._stacks.push(observations, first)

    def choose(self, explore: float) -> Any:
        """Actions ``(environments, ...)`` for what was last seen; random ones until there are weights."""
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
        except (rs.NotReady, rs.DeadlineExceeded) as blocked:
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
