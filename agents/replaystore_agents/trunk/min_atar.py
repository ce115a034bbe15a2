"""The games of MinAtar (Young and Tian 2019) as Gymnasium environments; the package of that name is needed to make one."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

GAMES = {"Asterix": "asterix", "Breakout": "breakout", "Freeway": "freeway", "Seaquest": "seaquest", "SpaceInvaders": "space_invaders"}
"""Names in ids, and the package's."""


class MinAtar(gymnasium.Env[Any, Any]):
    """One game: images as bool ``(channels, 10, 10)``, the game's own actions, rewards as they come.

    The package's own Gymnasium environments put channels last and, seeded again, still hold the last action of the episode before for
    its sticky actions; here the same seed plays the same game.
    """

    metadata = {"render_modes": []}  # noqa: RUF012 - Gymnasium's own convention

    def __init__(self, game: str, minimal: bool = True, sticky: float = 0.1, ramping: bool = True, render_mode: str | None = None) -> None:
        """`minimal` leaves out actions that do nothing in this game; `sticky` is the chance that the last action is repeated (Machado et
        al. 2018); `ramping` makes the game harder with time. Both defaults are the paper's.
        """
        from minatar import Environment

        self.render_mode = render_mode
        self._game = Environment(game, sticky_action_prob=sticky, difficulty_ramping=ramping)
        self._actions = [int(a) for a in self._game.minimal_action_set()] if minimal else list(range(self._game.num_actions()))
        height, width, channels = self._game.state_shape()
        self.observation_space = spaces.Box(0, 1, (channels, height, width), bool)
        self.action_space = spaces.Discrete(len(self._actions))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[npt.NDArray[np.bool_], dict[str, Any]]:
        """A new game."""
        super().reset(seed=seed)
        if seed is not None or self._np_random is None:
            self._game.seed(int(self.np_random.integers(1 << 32)))
        self._game.last_action = 0
        self._game.reset()
        return self._seen(), {}

    def step(self, action: Any) -> tuple[npt.NDArray[np.bool_], float, bool, bool, dict[str, Any]]:
        """One frame."""
        reward, over = self._game.act(self._actions[int(action)])
        return self._seen(), float(reward), bool(over), False, {}

    def _seen(self) -> npt.NDArray[np.bool_]:
        return np.ascontiguousarray(np.moveaxis(np.asarray(self._game.state(), bool), -1, 0))
