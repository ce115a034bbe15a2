"""Environments that keep the truth about themselves, and a writer that keeps what it was told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from replaystore.errors import InvalidArgument, NotReady

FLAT = spaces.Box(-1e6, 1e6, (3,), np.float32)
CLOCK = spaces.Tuple((spaces.Discrete(1000), spaces.Box(0, 255, (2, 2), np.uint8)))
NESTED = spaces.Dict({"where": spaces.Box(-1e6, 1e6, (2,), np.float32), "clock": CLOCK})
NESTED_ACTION = spaces.Dict({"move": spaces.Discrete(100), "force": spaces.Box(-1, 1, (2,), np.float32)})


@dataclass
class Episode:
    """One episode, as plain numbers."""

    first: Any
    seed: int | None
    steps: list[tuple[Any, float, bool, bool, Any]] = field(default_factory=list)
    """Action, reward, terminated, truncated, next observation."""
    extras: list[dict[str, Any]] = field(default_factory=list)


def plain(value: Any) -> Any:
    """A nested observation or action as tuples and dicts of numbers, so that == compares everything."""
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, tuple):
        return tuple(plain(part) for part in value)
    return np.asarray(value).tolist()


class CountingEnv(gymnasium.Env[Any, Any]):
    """Episode e lasts ``lengths[e % len(lengths)]`` steps and ends terminated if e is even, else truncated. Keeps the truth.

    With `reuse` it returns the same array each time: whoever keeps it must copy.
    """

    def __init__(self, number: int = 0, lengths: tuple[int, ...] = (3, 1, 2), space: spaces.Space[Any] = FLAT, reuse: bool = False) -> None:
        self.observation_space = space
        self.action_space = NESTED_ACTION if space is NESTED else spaces.Discrete(100)
        self.number, self.lengths, self.reuse = number, lengths, reuse
        self.truth: list[Episode] = []
        self.t = 0
        self.steps_taken = 0
        self._buffer = np.zeros(3, np.float32)

    def _observation(self) -> Any:
        episode = len(self.truth)
        if self.observation_space is NESTED:
            frame = np.full((2, 2), (episode * 16 + self.t) % 256, np.uint8)
            return {"where": np.array([self.number, episode], np.float32), "clock": (np.int64(self.t), frame)}
        self._buffer[:] = self.number, episode, self.t
        return self._buffer if self.reuse else self._buffer.copy()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.t = 0
        self.truth.append(Episode(None, seed))
        self.truth[-1].first = plain(self._observation())
        return self._observation(), {"speed": 0.0}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        episode = len(self.truth) - 1
        self.t += 1
        self.steps_taken += 1
        over = self.t >= self.lengths[episode % len(self.lengths)]
        terminated, truncated = over and episode % 2 == 0, over and episode % 2 == 1
        reward = float(100 * episode + self.t)
        self.truth[-1].steps.append((plain(action), reward, terminated, truncated, plain(self._observation())))
        return self._observation(), reward, terminated, truncated, {"speed": reward / 2}


def makers(number: int, **options: Any) -> list[Callable[[], CountingEnv]]:
    """For a vector environment: different lengths per sub-environment, one of which ends at its first step every time."""
    lengths = [(3, 1, 2), (1,), (4, 2), (2, 5, 1, 1)]
    return [lambda i=i: CountingEnv(i, lengths[i % 4], **options) for i in range(number)]  # type: ignore[misc]


def _row(tree: Any, index: int) -> Any:
    if isinstance(tree, dict):
        return {key: _row(part, index) for key, part in tree.items()}
    if isinstance(tree, tuple | list):
        return tuple(_row(part, index) for part in tree)
    return np.asarray(tree)[index]


class FakeWriter:
    """Keeps episodes per stream; enforces the writer's contract; refuses the calls whose numbers are in `refusals`."""

    def __init__(self, streams: int = 1, refusals: set[int] | None = None) -> None:
        self.episodes: list[list[Episode]] = [[] for _ in range(streams)]
        self.open = [False] * streams
        self.calls = 0
        self.refusals = refusals or set()

    def _enter(self) -> None:
        self.calls += 1
        if self.calls in self.refusals:
            raise NotReady("not now")

    def reset(self, observation: Any, stream: int = 0, seed: int | None = None) -> None:
        self._enter()
        self._begin(observation, stream, seed)

    def _begin(self, observation: Any, stream: int, seed: int | None) -> None:
        self.episodes[stream].append(Episode(plain(observation), seed))
        self.open[stream] = True

    def append(
        self, action: Any, reward: Any, terminated: bool, truncated: bool, next_observation: Any, stream: int = 0, **extras: Any
    ) -> None:
        self._enter()
        self._step(stream, action, reward, terminated, truncated, next_observation, extras)

    def _step(self, stream: int, action: Any, reward: Any, terminated: Any, truncated: Any, following: Any, extras: dict[str, Any]) -> None:
        if not self.open[stream]:
            raise InvalidArgument(f"stream {stream} has no open episode")
        step = (plain(action), float(reward), bool(terminated), bool(truncated), plain(following))
        self.episodes[stream][-1].steps.append(step)
        self.episodes[stream][-1].extras.append({name: plain(value) for name, value in extras.items()})
        self.open[stream] = not (terminated or truncated)

    def append_batch(
        self,
        actions: Any,
        rewards: Any,
        terminateds: Any,
        truncateds: Any,
        next_observations: Any,
        reset_mask: Any = None,
        **extras: Any,
    ) -> None:
        self._enter()
        n = len(self.open)
        assert len(rewards) == n, f"{len(rewards)} rewards for {n} streams"
        mask = np.zeros(n, bool) if reset_mask is None else np.asarray(reset_mask)
        if any(not self.open[i] and not mask[i] for i in range(n)):
            raise InvalidArgument("a stream has no open episode and is not masked")
        for i in range(n):
            following = _row(next_observations, i)
            if mask[i]:
                self._begin(following, i, None)
            else:
                row = {name: np.asarray(value)[i] for name, value in extras.items()}
                self._step(i, _row(actions, i), rewards[i], terminateds[i], truncateds[i], following, row)
