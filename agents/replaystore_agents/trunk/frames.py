"""Stacks of frames for who acts: the table keeps single frames, the learner's view stacks them, and the actor stacks them here alike."""

from __future__ import annotations

from typing import Any

import numpy as np


class FrameStacks:
    """The newest frames of every environment of a vector, oldest first; the first frame of an episode is repeated, as in the views."""

    def __init__(self, frames: int = 1, limit: int = 16) -> None:
        """`frames` may be set later: `limit` are remembered from the start, more from then on."""
        self.frames, self._limit = frames, limit
        self._last: Any = None
        self._past: list[Any] = []
        self._age = np.zeros(0, np.int64)

    def push(self, observations: Any, first: Any) -> None:
        """Observations of all environments ``(environments, *shape)``, and which of them begin an episode."""
        self._last = observations
        if isinstance(observations, dict | tuple):
            return
        if not self._past:
            self._age = np.zeros(len(observations), np.int64)
        self._past = [*self._past, np.array(observations)][-max(self._limit, self.frames) :]
        self._age = np.where(first, 0, self._age + 1)

    def newest(self) -> Any:
        """``(environments, frames, *shape)``, or what was pushed when one frame is enough."""
        if self.frames == 1:
            return self._last
        newest = len(self._past) - 1
        stacks = np.empty((len(self._last), self.frames, *self._last.shape[1:]), self._last.dtype)
        for place in range(self.frames):
            back = np.minimum(np.minimum(self.frames - 1 - place, self._age), newest)
            for distance in np.unique(back):
                there = back == distance
                stacks[there, place] = self._past[newest - int(distance)][there]
        return stacks
