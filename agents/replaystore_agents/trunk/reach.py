"""A goal task that needs nothing installed: a point in a square that is to come close to another one."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

Floats = npt.NDArray[np.float32]

STEP = 0.15
"""How far an action of 1 moves the point, per axis."""


class PointReach(gymnasium.Env[Any, Any]):
    """A point that moves in the square [−1, 1]²; the reward is 0 within `tolerance` of the goal and −1 elsewhere.

    Observations are dictionaries as of Gymnasium-Robotics: ``observation`` (position and last move, float32 ``(4,)``), ``achieved_goal``
    and ``desired_goal`` float32 ``(2,)``. Actions are in [−1, 1]². It never terminates: registered ids have a time limit.
    """

    metadata = {"render_modes": []}  # noqa: RUF012 - Gymnasium's own convention

    def __init__(self, tolerance: float = 0.1, render_mode: str | None = None) -> None:
        self.tolerance, self.render_mode = tolerance, render_mode
        square = spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.observation_space = spaces.Dict(
            {"observation": spaces.Box(-1.0, 1.0, (4,), np.float32), "achieved_goal": square, "desired_goal": square}
        )
        self.action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
        self._place = self._move = self._goal = np.zeros(2, np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict[str, Floats], dict[str, Any]]:
        """A random place and a random goal."""
        super().reset(seed=seed)
        self._place, self._goal = self.np_random.uniform(-1.0, 1.0, (2, 2)).astype(np.float32)
        self._move = np.zeros(2, np.float32)
        return self._seen(), {"is_success": self._reached()}

    def step(self, action: Any) -> tuple[dict[str, Floats], float, bool, bool, dict[str, Any]]:
        """Moves by `STEP` times the action, and no further than the square's edge."""
        before = self._place
        wanted = before + np.float32(STEP) * np.clip(np.asarray(action, np.float32), -1.0, 1.0)
        self._place = np.clip(wanted, -1.0, 1.0).astype(np.float32)
        self._move = self._place - before
        reached = self._reached()
        return self._seen(), 0.0 if reached else -1.0, False, False, {"is_success": reached}

    def compute_reward(self, achieved_goal: Any, desired_goal: Any, info: Any = None) -> npt.NDArray[np.float32]:
        """Rewards ``(...)`` of goals ``(..., 2)``."""
        apart = np.asarray(achieved_goal) - np.asarray(desired_goal)
        far = np.sqrt(np.square(apart).sum(axis=-1)) > self.tolerance
        return np.where(far, -1.0, 0.0).astype(np.float32)

    def _reached(self) -> bool:
        return float(self.compute_reward(self._place, self._goal)) == 0.0

    def _seen(self) -> dict[str, Floats]:
        return {
            "observation": np.concatenate([self._place, self._move]),
            "achieved_goal": self._place.copy(),
            "desired_goal": self._goal.copy(),
        }
