"""The views in the plainest Python there is: lists of rows in, the fields of one item out.

Slow and obvious on purpose. It knows nothing of blocks, links, chunks or batches; the real thing must give the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Step:
    observation: Any
    action: Any
    reward: float
    terminated: bool
    truncated: bool


@dataclass
class Episode:
    """What an actor did between a reset and an end, or until now."""

    steps: list[Step] = field(default_factory=list)
    following: Any = None
    """The observation after the last step."""
    ended: bool = False
    """Whether the closing row, which holds `following`, was written."""
    interrupted: bool = False
    """Ended by a reset in the middle or the writer's close: truncated, but its last step does not say so."""
    deleted: set[int] = field(default_factory=set)
    """Rows that a user deleted."""

    @property
    def rows(self) -> int:
        """Rows that a table holds of it."""
        return len(self.steps) + self.ended

    def observation(self, t: int) -> Any:
        """Of row t; the closing row is the last one."""
        return self.following if t == len(self.steps) else self.steps[t].observation

    def last(self, t: int) -> int:
        """The last row that can be reached from row t."""
        return min([row - 1 for row in self.deleted if row > t], default=self.rows - 1)

    def is_anchor(self, t: int) -> bool:
        """Whether step t can be sampled: the row after it is there."""
        return t < len(self.steps) and t not in self.deleted and self.last(t) > t


def steps_from(episode: Episode, t: int, limit: int) -> int:
    """How many steps an item that begins at t takes: until the episode ends, or is as far as it has come, `limit` at most."""
    taken = 0
    while True:
        step = episode.steps[t + taken]
        taken += 1
        following = t + taken  # the row after the last step taken: always there
        newest = following == episode.last(t)  # nobody knows yet, or any more, what that step led to
        if taken == limit or step.terminated or following == len(episode.steps) or newest:
            return taken


def transition(
    episode: Episode,
    t: int,
    *,
    n_step: int,
    gamma: float,
    frame_stack: int = 1,
    padding: str = "edge",
    zero: Callable[[Any], Any] = lambda frame: 0 * frame,
    kept: Callable[[int], bool] = lambda t: True,
) -> dict[str, Any]:
    """The item that anchor t of `episode` expands to.

    Args:
        episode: where it is from.
        t: number of the step in it.
        n_step, gamma, frame_stack, padding: of the view.
        zero: the frame that zero padding shows in place of one.
        kept: whether row t of the episode is still in the table.
    """
    taken = steps_from(episode, t, n_step)
    step, following = episode.steps[t + taken - 1], t + taken
    reward = sum(gamma**i * episode.steps[t + i].reward for i in range(taken))
    closing = following == len(episode.steps)
    return {
        "observation": stack(episode, t, frame_stack, padding, zero, kept),
        "action": episode.steps[t].action,
        "reward": reward,
        "next_observation": stack(episode, following, frame_stack, padding, zero, kept),
        "terminated": step.terminated,
        "truncated": step.truncated or (closing and episode.interrupted),
        "discount": 0.0 if step.terminated else gamma**taken,
        "steps_taken": taken,
    }


def stack(episode: Episode, t: int, frame_stack: int, padding: str, zero: Callable[[Any], Any], kept: Callable[[int], bool]) -> Any:
    """The frames up to row t, oldest first; with a stack of 1 just that frame."""
    if frame_stack == 1:
        return episode.observation(t)
    frames: list[Any] = []
    there = True
    for back in range(frame_stack):
        there = there and t - back >= 0 and kept(t - back)
        if there:
            frames.insert(0, episode.observation(t - back))
        else:
            frames.insert(0, zero(frames[0]) if padding == "zero" else frames[0])
    return frames


def sequence(
    episode: Episode,
    t: int,
    *,
    length: int,
    frame_stack: int = 1,
    padding: str = "edge",
    zero: Callable[[Any], Any] = lambda frame: 0 * frame,
    kept: Callable[[int], bool] = lambda t: True,
) -> dict[str, list[Any]]:
    """The steps that anchor t of `episode` expands to, `length` at most: a list with one entry per real step for each field."""
    taken = steps_from(episode, t, length)
    places = range(t, t + taken)
    closing = t + taken == len(episode.steps)
    truncated = [episode.steps[i].truncated for i in places]
    truncated[-1] = truncated[-1] or (closing and episode.interrupted)
    return {
        "observation": [stack(episode, i, frame_stack, padding, zero, kept) for i in places],
        "next_observation": [stack(episode, i + 1, frame_stack, padding, zero, kept) for i in places],
        "action": [episode.steps[i].action for i in places],
        "reward": [episode.steps[i].reward for i in places],
        "terminated": [episode.steps[i].terminated for i in places],
        "truncated": truncated,
    }


def goals(episode: Episode, t: int, strategy: str, kept: Callable[[int], bool] = lambda t: True) -> list[int]:
    """Rows of `episode` whose achieved goal may become the goal of step t."""
    rows = list(range(t + 1, episode.last(t) + 1))
    if strategy == "final":
        return rows[-1:]
    if strategy == "episode":
        earlier = 0
        while earlier < t and kept(t - earlier - 1):
            earlier += 1
        return [*range(t - earlier, t + 1), *rows]
    return rows
