"""Mazes of any size, made from a number, whose shortest ways are known: what an agent reaches can be compared with the optimum."""

from __future__ import annotations

from collections import deque
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

import replaystore as rs

MOVES = np.array([(-1, 0), (0, 1), (1, 0), (0, -1)])
"""Rows and columns that an action moves: up, right, down, left."""


class Maze(gymnasium.Env[Any, Any]):
    """A square grid with walls: every step costs 1, the goal ends the episode. The best return from a cell is minus its distance.

    Observations are Discrete, ``row * size + column``; actions are 0 up, 1 right, 2 down, 3 left, and a wall is bumped into. The info of
    `reset` has the best return from there as ``"optimum"``. There is no time limit: registered ids have one.
    """

    metadata = {"render_modes": ["ansi"]}  # noqa: RUF012 - Gymnasium's own convention

    def __init__(
        self,
        size: int = 9,
        layout: int = 0,
        loops: float = 0.1,
        random_start: bool = False,
        slip: float = 0.0,
        render_mode: str | None = None,
    ) -> None:
        """`size` is odd and counts outer walls; `layout` makes the walls, of which a share of `loops` is then opened again;
        `slip` is the chance that a random action is taken instead. Without `random_start`, episodes begin at the top left cell; the goal
        is the cell that is farthest from there.
        """
        if size < 5 or size % 2 == 0:
            raise rs.InvalidArgument(f"size={size} must be an odd number from 5: cells and walls take turns")
        if not 0.0 <= loops <= 1.0 or not 0.0 <= slip <= 1.0:
            raise rs.InvalidArgument(f"loops={loops} and slip={slip} must be between 0 and 1")
        self.size, self.slip, self.random_start, self.render_mode = size, slip, random_start, render_mode
        self.free = carve(size, loops, np.random.default_rng([layout, size]))
        """Where one can be: bool ``(size, size)``."""
        from_start = distances(self.free, (1, 1))
        self.goal: tuple[int, int] = divmod(int(from_start.argmax()), size)
        self.distances = distances(self.free, self.goal)
        """Steps to the goal from each cell: int64 ``(size, size)``, -1 in walls."""
        self.observation_space = spaces.Discrete(size * size)
        self.action_space = spaces.Discrete(len(MOVES))
        self._starts = np.argwhere(self.distances > 0)
        self._place = (1, 1)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.int64, dict[str, Any]]:
        """To the top left, or anywhere but the goal."""
        super().reset(seed=seed)
        row, column = self._starts[self.np_random.integers(len(self._starts))] if self.random_start else (1, 1)
        self._place = (int(row), int(column))
        return self._seen(), {"optimum": -float(self.distances[self._place])}

    def step(self, action: Any) -> tuple[np.int64, float, bool, bool, dict[str, Any]]:
        """One cell further, or a bump."""
        if self.slip and self.np_random.random() < self.slip:
            action = self.np_random.integers(len(MOVES))
        row, column = self._place[0] + int(MOVES[action, 0]), self._place[1] + int(MOVES[action, 1])
        if self.free[row, column]:
            self._place = (row, column)
        return self._seen(), -1.0, self._place == self.goal, False, {}

    def render(self) -> str:
        """The grid as text: # wall, A agent, G goal."""
        signs = np.where(self.free, " ", "#")
        signs[self.goal] = "G"
        signs[self._place] = "A"
        return "\n".join("".join(row) for row in signs)

    def _seen(self) -> np.int64:
        return np.int64(self._place[0] * self.size + self._place[1])


def carve(size: int, loops: float, rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    """Free cells ``(size, size)``: a random depth-first tree over the odd ones, and then a share of the walls between them opened."""
    free = np.zeros((size, size), bool)
    free[1, 1] = True
    way = [(1, 1)]
    while way:
        row, column = way[-1]
        for move in rng.permutation(len(MOVES)):
            down, right = MOVES[move]
            far = (row + 2 * down, column + 2 * right)
            if 0 < far[0] < size and 0 < far[1] < size and not free[far]:
                free[row + down, column + right] = free[far] = True
                way.append(far)
                break
        else:
            way.pop()
    inner = np.zeros_like(free)
    inner[1:-1, 1:-1] = True
    rows, columns = np.indices(free.shape)
    between = inner & ~free & ((rows + columns) % 2 == 1)
    free |= between & (rng.random(free.shape) < loops)
    return free


def distances(free: npt.NDArray[np.bool_], goal: tuple[int, int]) -> npt.NDArray[np.int64]:
    """Steps to `goal` from each free cell, breadth first: ``(size, size)``, −1 where there is no way."""
    steps = np.full(free.shape, -1, np.int64)
    steps[goal] = 0
    reached = deque([goal])
    while reached:
        here = reached.popleft()
        for down, right in MOVES:
            there = (here[0] + int(down), here[1] + int(right))
            if free[there] and steps[there] < 0:
                steps[there] = steps[here] + 1
                reached.append(there)
    return steps
