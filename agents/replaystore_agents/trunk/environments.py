"""Environments by their Gymnasium ids, with the preprocessing that is usual for them, and with words about what has to be installed.

Tables keep single frames: actors make environments without `frames` (or keep the last one), and views stack when sampling. Rewards
are as the environment gives them: who wants them clipped does so when learning.
"""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import gymnasium
import numpy as np
from gymnasium import wrappers

import replaystore as rs
from replaystore_agents.trunk.min_atar import GAMES

Env = gymnasium.Env[Any, Any]


@dataclass(frozen=True, slots=True)
class Family:
    """Environments that are made alike."""

    ids: tuple[str, ...]
    """What their ids begin with."""
    what: str
    needs: tuple[str, ...] = ()
    """Modules that have to be there; importing them makes the ids known."""
    install: str = ""
    """The command that brings them."""
    options: dict[str, Any] = field(default_factory=dict)
    """What `gymnasium.make` is given besides."""
    max_steps: int | None = None
    """A time limit for environments without one of their own, which a policy that has not learned yet could play for ever."""
    preprocess: Callable[[Env, bool], Env] | None = None
    """Called with the environment and whether a lost life ends the episode."""


class OneLife(gymnasium.Wrapper[Any, Any, Any, Any]):
    """A lost life terminates the episode, and the next one goes on in the same game while there are lives (Mnih et al. 2015).

    Gymnasium's own preprocessing begins a new game instead: what comes after the first life would never be seen.
    """

    def __init__(self, env: Env) -> None:
        super().__init__(env)
        self._lives, self._goes_on = 0, False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """One idle step after a lost life, else a new game; always that when a seed is given."""
        if self._goes_on and seed is None:
            observation, _, terminated, truncated, info = self.env.step(0)
            self._goes_on = not (terminated or truncated)
        if not self._goes_on or seed is not None:
            observation, info = self.env.reset(seed=seed, options=options)
        self._lives, self._goes_on = self._left(), False
        return observation, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """See `gymnasium.Env`. Without a life left, the game says itself when it is over."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        left = self._left()
        self._goes_on = not (terminated or truncated) and 0 < left < self._lives
        self._lives = left
        return observation, reward, terminated or self._goes_on, truncated, info

    def _left(self) -> int:
        return int(self.unwrapped.ale.lives())  # type: ignore[attr-defined]


def _atari(env: Env, life_loss: bool) -> Env:
    """84 x 84 grey bytes, 4 frames per step, the larger of the last two, at first up to 30 idle frames (Mnih et al. 2015, Methods)."""
    env = wrappers.AtariPreprocessing(env, noop_max=30, frame_skip=4, screen_size=84)
    return OneLife(env) if life_loss else env


def _float32(env: Env, life_loss: bool) -> Env:
    """Half the bytes: no learner computes with more."""
    space = gymnasium.spaces.Box(-np.inf, np.inf, env.observation_space.shape, np.float32)
    return wrappers.TransformObservation(env, lambda observation: observation.astype(np.float32), space)


FAMILIES = (
    Family(("CartPole-", "Acrobot-", "MountainCar-"), "classic control, float32 vectors, Discrete actions"),
    Family(("Pendulum-", "MountainCarContinuous-"), "classic control, float32 vectors, continuous actions"),
    Family(("FrozenLake",), "a small maze with slippery ice, Discrete observations"),
    Family(("CliffWalking",), "a small maze beside a cliff, Discrete observations", max_steps=200),
    Family(("replaystore/Maze",), "mazes with a known optimum, Discrete observations (trunk/mazes.py)"),
    Family(("replaystore/BitFlip-", "replaystore/PointReach-"), "goal tasks, dictionaries (bit_flip.py, trunk/reach.py)"),
    Family(("LunarLander", "BipedalWalker"), "Box2D, float32 vectors", ("Box2D",), 'pip install "gymnasium[box2d]"'),
    Family(("MinAtar/",), "five small games, bool images (channels, 10, 10)", ("minatar",), "pip install MinAtar"),
    Family(
        ("ALE/",),
        "Atari, uint8 images (84, 84)",
        ("ale_py", "cv2"),
        "pip install ale-py opencv-python-headless",
        options={"frameskip": 1},
        preprocess=_atari,
    ),
    Family(
        (
            "HalfCheetah-",
            "Hopper-",
            "Walker2d-",
            "Ant-",
            "Humanoid",
            "Swimmer-",
            "Reacher-",
            "Pusher-",
            "InvertedPendulum-",
            "InvertedDouble",
        ),
        "MuJoCo, float32 vectors, continuous actions",
        ("mujoco", "imageio"),
        'pip install "gymnasium[mujoco]"',
        preprocess=_float32,
    ),
    Family(
        ("Fetch", "PointMaze_", "AntMaze_", "HandReach", "HandManipulate", "AdroitHand", "FrankaKitchen"),
        "Gymnasium-Robotics, goal dictionaries, continuous actions",
        ("gymnasium_robotics", "mujoco"),
        'pip install gymnasium-robotics "mujoco<3.5"',
    ),
)
"""What is known; other ids are made as Gymnasium makes them. A family stands for the ids that begin with one of its names, the longest
such name counts."""

OWN: dict[str, tuple[str, int | None, dict[str, Any]]] = {
    "replaystore/Maze-v0": ("replaystore_agents.trunk.mazes:Maze", 200, {"size": 9}),
    "replaystore/MazeLarge-v0": ("replaystore_agents.trunk.mazes:Maze", 1_000, {"size": 21}),
    "replaystore/BitFlip-v0": ("replaystore_agents.bit_flip:BitFlip", None, {"n": 15}),
    "replaystore/PointReach-v0": ("replaystore_agents.trunk.reach:PointReach", 50, {}),
    **{f"MinAtar/{name}-v1": ("replaystore_agents.trunk.min_atar:MinAtar", 5_000, {"game": game}) for name, game in GAMES.items()},
}
"""Ids that are registered here: class, time limit, arguments. MinAtar's mean what they mean in its package (v1: only actions that do
something in the game), with channels first, and with a time limit."""


def _register() -> None:
    for name, (entry, limit, arguments) in OWN.items():
        gymnasium.registry.pop(name, None)  # MinAtar's own, if it was asked to register itself
        gymnasium.register(name, entry, max_episode_steps=limit, kwargs=arguments)


_register()


def family_of(env_id: str) -> Family:
    """How an id is made; an empty family where nothing is known of it."""
    name = env_id.rpartition(":")[2]
    matches = [(len(start), family) for family in FAMILIES for start in family.ids if name.startswith(start)]
    return max(matches, key=lambda match: match[0])[1] if matches else Family((), "as Gymnasium makes it")


def check_installed(env_id: str) -> None:
    """Raises InvalidArgument where something is missing that the environment needs; says the command that brings it."""
    family = family_of(env_id)
    missing = [module for module in family.needs if importlib.util.find_spec(module) is None]
    if missing:
        raise rs.InvalidArgument(f"{env_id} needs {', '.join(missing)}, which is not installed here: {family.install}")


def make(env_id: str, *, frames: int = 1, max_steps: int | None = None, life_loss: bool = False, **options: Any) -> Env:
    """One environment, seeded by its ``reset(seed=…)``.

    Args:
        env_id: a Gymnasium id, for example ``"ALE/Pong-v5"``.
        frames: how many an observation holds, oldest first; the first of an episode is repeated. 1: no stack.
        max_steps: a time limit other than the usual one; the step that reaches it is truncated.
        life_loss: Atari: a lost life terminates the episode, usual for actors and not for evaluation.
        options: for the environment itself, as in `gymnasium.make`.

    Raises:
        InvalidArgument: there is no such id, or something is not installed.
    """
    family = _prepare(env_id)
    limit = max_steps if max_steps is not None else family.max_steps
    inside = limit if family.preprocess is None else None if limit is None else -1  # -1: none, it counts what comes out of preprocessing
    with _known(env_id):
        env = gymnasium.make(env_id, max_episode_steps=inside, **{**family.options, **options})
    if family.preprocess is not None:
        env = family.preprocess(env, life_loss)
        env = env if limit is None else wrappers.TimeLimit(env, limit)
    return wrappers.FrameStackObservation(env, frames) if frames > 1 else env


def make_vec(
    env_id: str,
    num_envs: int,
    *,
    frames: int = 1,
    max_steps: int | None = None,
    life_loss: bool = False,
    processes: bool = False,
    **options: Any,
) -> gymnasium.vector.VectorEnv[Any, Any, Any]:
    """Many of them side by side, with next-step autoreset; see `make`.

    Args:
        env_id, frames, max_steps, life_loss, options: see `make`.
        num_envs: how many.
        processes: each in a process of its own, which pays for slow environments only.

    Raises:
        InvalidArgument: see `make`.
    """
    family = _prepare(env_id)
    plain = frames == 1 and max_steps is None and family.max_steps is None and family.preprocess is None
    if plain and not processes:
        with _known(env_id):
            return gymnasium.make_vec(env_id, num_envs, **{**family.options, **options})  # as one array where the environment can
    one = partial(make, env_id, frames=frames, max_steps=max_steps, life_loss=life_loss, **options)
    if processes:
        return gymnasium.vector.AsyncVectorEnv([one] * num_envs, context="spawn")  # a forked gRPC client would hang
    return gymnasium.vector.SyncVectorEnv([one] * num_envs)


def fitted(actions: Any, space: gymnasium.Space[Any]) -> Any:
    """Actions ``(environments, ...)`` as the space takes them: within the bounds of each component, and of its dtype."""
    return np.clip(actions, space.low, space.high).astype(space.dtype) if isinstance(space, gymnasium.spaces.Box) else actions


def _prepare(env_id: str) -> Family:
    check_installed(env_id)
    family = family_of(env_id)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SWIG's modules warn while they are imported, and crash where warnings are errors
        for module in family.needs:
            importlib.import_module(module)
    return family


@contextmanager
def _known(env_id: str) -> Iterator[None]:
    """Says what ids there are, where Gymnasium knows none like this."""
    try:
        yield
    except (gymnasium.error.NameNotFound, gymnasium.error.NamespaceNotFound, gymnasium.error.VersionNotFound) as error:
        ours = ", ".join(name for family in FAMILIES for name in family.ids)
        raise rs.InvalidArgument(f"{env_id}: {error} Ids that are prepared here begin with {ours}") from error
